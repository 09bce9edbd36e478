"""Documents as YAML that every reader reads alike: 1.1 and 1.2, Go's, Python's and kubectl's.

A plain word stands bare; whatever any of them might take for something else (`y`, `1e3`, `0o7`,
`2026-01-01`) is quoted. Text of several lines is a literal block where that can hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def to_yaml(documents: Iterable[Mapping[str, Any]]) -> str:
    """The documents, each after `---`. Values are those of JSON."""
    return "".join("---\n" + one(document) for document in documents)


def one(document: Mapping[str, Any]) -> str:
    """One document, without `---`."""
    return "".join(_lines(document, "")) if document else "{}\n"


def _lines(value: Mapping[str, Any] | Sequence[Any], indent: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, Mapping):
        for key, each in value.items():
            found += _entry(f"{indent}{_scalar(str(key))}:", each, indent)
        return found
    for each in value:
        if isinstance(each, Mapping | list | tuple) and each:
            inner = _lines(each, indent + "  ")
            found += [f"{indent}- {inner[0].lstrip(' ')}", *inner[1:]]
        else:
            found += _entry(f"{indent}-", each, indent)
    return found


def _entry(head: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, Mapping | list | tuple):
        if value:
            return [head + "\n", *_lines(value, indent + "  ")]
        return [f"{head} {'{}' if isinstance(value, Mapping) else '[]'}\n"]
    if isinstance(value, str) and _block(value):
        body = value.rstrip("\n")
        tail = len(value) - len(body)
        mark = "|-" if tail == 0 else "|" if tail == 1 else "|+"
        lines = [*body.split("\n"), *[""] * max(0, tail - 1)]
        inner = indent + "  "
        return [f"{head} {mark}\n", *(f"{inner}{line}\n" if line else "\n" for line in lines)]
    return [f"{head} {_scalar(value)}\n"]


def _block(text: str) -> bool:
    """Whether a literal block gives the text back unchanged."""
    if "\n" not in text.rstrip("\n") or text[0] in " \n":
        return False
    return all(not line or (line.isprintable() and line.strip()) for line in text.split("\n"))


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_ESCAPES.get(c) or _escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02X}"
    return f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"
