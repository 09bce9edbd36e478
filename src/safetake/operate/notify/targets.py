"""Whom to tell: URLs of Apprise and of dead man's switches, which are secrets.

Of a URL only its scheme is ever shown or stored, and to know it again, the beginning of its hash.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from safetake.config import Config

PING = "ping"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://")


@dataclass(frozen=True, slots=True)
class Target:
    """One URL. Its representation holds no secret."""

    way: str
    """The scheme, such as `slack`."""
    key: str
    url: str

    def __repr__(self) -> str:
        return f"Target({self.way}://…)"


def target(url: str) -> Target:
    """What is kept of a URL."""
    match = _SCHEME.match(url)
    way = match[1].lower() if match else "unknown"
    try:
        if way == "https" and urlsplit(url).hostname == "hooks.slack.com":
            way = "slack"  # as Slack shows it, and as Apprise takes it
    except ValueError:
        way = "unknown"
    return Target(way, hashlib.sha256(url.encode()).hexdigest()[:16], url)


def targets(config: Config) -> tuple[list[Target], list[str]]:
    """Every URL that is configured, each once, and why some could not be found."""
    notify = config.notify
    urls = list(notify.urls)
    problems = []
    if notify.urls_env is not None:
        text = os.environ.get(notify.urls_env, "")
        urls += text.split()
        if not text.strip():
            problems.append(f"the environment variable {notify.urls_env} is not set")
    if notify.urls_file is not None:
        try:
            lines = notify.urls_file.read_text(encoding="utf-8").splitlines()
            found = [line.strip() for line in lines if line.strip()[:1] not in ("", "#")]
            urls += found
            if not found:
                problems.append(f"{notify.urls_file} holds no URL")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            problems.append(f"{notify.urls_file} cannot be read: {why}")
    return [target(url) for url in dict.fromkeys(urls)], problems


def wanted(config: Config) -> bool:
    """Whether anybody is to be told anything."""
    notify = config.notify
    return bool(notify.urls or notify.urls_env or notify.urls_file)


def ping_url(config: Config, job: str) -> str | None:
    """The URL of a job at its dead man's switch; None: it has none. Empty: it is not set."""
    variable = config.notify.ping_env.get(job)
    return None if variable is None else os.environ.get(variable, "").strip()
