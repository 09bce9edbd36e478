"""The part of the configuration that a restore needs, fit for paper: whole places, and no secret.

It is written anew from what was read, since comments and unknown corners of the file may hold what
nobody may read. A secret that stands where none belongs (a header, a URL, a command) is `***`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from safetake.errors import SafetakeError
from safetake.password import read_file, read_password
from safetake.services.process import redact
from safetake.tomltext import toml

if TYPE_CHECKING:
    from safetake.config import Config

HIDDEN = "***"
_SHORTEST = 4
"""A known secret that is shorter would blacken every other word."""
_OPTION = re.compile(r"(?i)--?(pass(word|wd)?|secret|token|api-?key|auth|authorization|pin)")
_OF_PROGRAM = {"redis-cli": "-a", "valkey-cli": "-a", "sshpass": "-p", "curl": "-u"}
_QUERY = re.compile(r"(?i)([?&](?:key|sig|signature|auth|pass|pwd)=)[^&\s]+")
_HEADER = re.compile(r"(?i)(authorization\s*:\s*|bearer\s+)\S.*")


def for_paper(config: Config, secrets: Iterable[str]) -> str:
    """TOML of the sections that a restore needs, to be put below `[repository]`."""
    dumped = config.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    kept = {name: dumped[name] for name in ("sources", "services") if dumped.get(name)}
    for service in kept.get("services", {}).values():
        if list(service.get("health", ())) == ["url"]:
            service["health"] = service["health"]["url"]
    rto = {name: one.rto for name, one in config.objectives.items() if one.rto is not None}
    kept["objectives"] = {name: {"rto": f"{seconds:g}s"} for name, seconds in rto.items()}
    text = toml(_cleaned(kept, list(secrets)))
    return re.sub(r"\n{2,}", "\n", text)  # paper is short


def hidden(text: str, secrets: Iterable[str] = ()) -> str:
    """One text without what looks like a secret, and without those that are known."""
    text = _HEADER.sub(rf"\1{HIDDEN}", _QUERY.sub(rf"\1{HIDDEN}", redact(text)))
    for secret in secrets:  # after the words that stand before others: it may be one of them
        text = text.replace(secret, HIDDEN)
    return text


def hidden_words(words: list[str], secrets: Iterable[str]) -> list[str]:
    """A command, likewise; and without what follows an option such as `--password`."""
    return [str(word) for word in _words([hidden(word, secrets) for word in words])]


def known_secrets(config: Config) -> list[str]:
    """Every secret that the configuration names and that can be read now, the longest first.

    Ask once: a command that prints a password may want a finger on a key.
    """
    found = []
    for place in (config.repository, *config.copies.values()):
        with contextlib.suppress(SafetakeError):
            found.append(read_password(place))
    for source in config.sources.values():
        if source.type == "redis":
            found.append(os.environ.get(source.password_env or "", ""))
            if source.password_file is not None:
                with contextlib.suppress(SafetakeError):
                    found.append(read_file(source.password_file))
        elif source.type == "chroma":
            found += [os.environ.get(name, "") for name in source.headers_env.values()]
    long = {one for one in found if len(one) >= _SHORTEST}
    return sorted(long, key=len, reverse=True)


def _cleaned(value: Any, secrets: list[str], key: str = "") -> Any:
    if isinstance(value, Mapping):
        if key == "headers":
            return dict.fromkeys(value, HIDDEN)
        return {name: _cleaned(one, secrets, name) for name, one in value.items()}
    if isinstance(value, list):
        return _words([_cleaned(one, secrets) for one in value])
    return hidden(value, secrets) if isinstance(value, str) else value


def _words(words: list[Any]) -> list[Any]:
    """A command without what follows an option such as `--password`."""
    found: list[Any] = []
    options: set[str] = set()
    for word in words:
        before = found[-1] if found else ""
        secret = isinstance(before, str) and (_OPTION.fullmatch(before) or before in options)
        found.append(HIDDEN if secret else word)
        if isinstance(word, str) and (name := PurePath(word).name) in _OF_PROGRAM:
            options.add(_OF_PROGRAM[name])
    return found
