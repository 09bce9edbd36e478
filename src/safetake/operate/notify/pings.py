"""Dead man's switches: a job says that it starts, succeeded or failed; silence raises the alarm.

The protocol is that of Healthchecks: the URL at success, with `/start` or `/fail` added otherwise,
and a few words as the body. A ping that does not get through is tried once more, and then left: its
silence is just what the other side is there for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from safetake.errors import SafetakeError
from safetake.operate.notify.send import PING_S, send
from safetake.operate.notify.state import changing
from safetake.operate.notify.targets import PING, ping_url

if TYPE_CHECKING:
    from safetake.config import Config

START, FAIL, SUCCESS = "/start", "/fail", ""
_MOST = 10_000


def ping(config: Config, job: str, what: str, body: str, now_ns: int) -> str:
    """Tell the switch of a job, if it has one; returns why it could not be told, or nothing.

    Takes at most two times PING_S. Never raises.
    """
    url = ping_url(config, job)
    if url is None:
        return ""
    if url:
        work = {
            "kind": "ping",
            "url": _with(url, what),
            "body": body[:_MOST],
            "timeout": PING_S / 2,
        }
        (error,) = send(config, [work], PING_S)
        if error and not error.startswith("HTTP status 4"):
            (error,) = send(config, [work], PING_S)
    else:
        error = f"the environment variable {config.notify.ping_env[job]} is not set"
    try:
        with changing(config) as known:
            known.way(PING).tried(now_ns, f"{job}: {error}" if error else "")
    except SafetakeError:
        pass  # the ping itself is what counts
    return error


def _with(url: str, what: str) -> str:
    """The URL with something added to its path, before a query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + what))
