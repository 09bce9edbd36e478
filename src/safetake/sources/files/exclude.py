"""Exclusion patterns, as in .gitignore without `!`.

A pattern without a slash (other than at its end) matches a name at any depth; one with a slash is
relative to the folder. `*` and `?` stop at slashes, a `**` between slashes does not, `[a-z]` and
`[!a-z]` are classes, `\\` quotes the next character, and a slash at the end means folders only.
What is below an excluded folder is excluded with it and never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from safetake.errors import ConfigError


class Exclusions:
    """Patterns, compiled once. Raises ConfigError for a pattern that cannot be used."""

    def __init__(self, patterns: Sequence[str]) -> None:
        anything, folders = [], []
        for pattern in patterns:
            expression = _translate(pattern)
            folders.append(expression)
            if not pattern.endswith("/"):
                anything.append(expression)
        self._file = _any_of(anything)
        self._folder = _any_of(folders)
        self.empty = not folders

    def match(self, path: str, *, folder: bool) -> bool:
        """Whether the entry at `path` (relative, with slashes) is left out."""
        expression = self._folder if folder else self._file
        return expression is not None and expression.fullmatch(path) is not None


def _any_of(expressions: list[str]) -> re.Pattern[str] | None:
    if not expressions:
        return None
    return re.compile("|".join(f"(?:{expression})" for expression in expressions), re.DOTALL)


def _translate(pattern: str) -> str:
    if pattern.startswith("!"):
        raise ConfigError(
            f"pattern {pattern!r} begins with '!', which is not supported",
            hint="leave it out; write '\\!' for a name that begins with it",
        )
    body = pattern.rstrip("/")
    if not body:
        raise ConfigError(
            f"pattern {pattern!r} names nothing", hint="leave it out, or write '*' for everything"
        )
    anchored = "/" in body
    parts = body.lstrip("/").split("/")
    expression = "" if anchored else "(?:.*/)?"
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            expression += ".+" if last else "(?:.*/)?"
        else:
            expression += component(part, pattern) + ("" if last else "/")
    return expression


def component(part: str, pattern: str) -> str:
    """One name of a pattern as a regular expression; `pattern` is for messages. ConfigError."""
    expression = ""
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            while part[at : at + 1] == "*":
                at += 1
            expression += "[^/]*"
        elif char == "?":
            expression += "[^/]"
        elif char == "[":
            end = part.find("]", at + 2 if part[at : at + 1] in ("!", "^") else at + 1)
            if end < 0:
                raise ConfigError(
                    f"pattern {pattern!r} has a '[' without its ']'",
                    hint="write '\\[' for the character itself",
                )
            expression += _class(part[at:end], pattern)
            at = end + 1
        elif char == "\\":
            if at == len(part):
                raise ConfigError(
                    f"pattern {pattern!r} ends in a backslash",
                    hint="write two backslashes for the character itself",
                )
            expression += re.escape(part[at])
            at += 1
        else:
            expression += re.escape(char)
    return expression


def _class(body: str, pattern: str) -> str:
    negated = body[:1] in ("!", "^")
    members = body[1:] if negated else body
    quoted = members.replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
    for doubled in ("&&", "||", "~~", "--"):  # set operations of a later `re`
        quoted = quoted.replace(doubled, "".join("\\" + char for char in doubled))
    if quoted.startswith("]"):
        quoted = "\\" + quoted
    expression = f"(?!/)[{'^' if negated else ''}{quoted}]"
    try:
        re.compile(expression)
    except re.error as error:
        raise ConfigError(
            f"pattern {pattern!r} has an impossible class: {error}",
            hint="write ranges from low to high",
        ) from error
    return expression
