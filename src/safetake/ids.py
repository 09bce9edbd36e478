"""Ids as text: how one id looks alike in a column, a field of metadata, a key and a path.

A reference between stores compares ids that different programs wrote with different types. They
are compared as text, exactly, after `as_text`: nothing is trimmed, folded in case or normalised as
Unicode, because what an application would not find is a broken reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from typing import Any, NamedTuple, Protocol

_PLACE = re.compile(r"\{id(\*?)\}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXACT = float(1 << 53)
"""Above it a float no longer says which whole number was meant."""


def as_text(value: Any) -> str | None:
    """An id as text; None for what is no value.

    7, 7.0 and "7" are all "7". Bytes are lower-case hexadecimal, a truth value "true" or "false".
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) <= _EXACT
        return str(int(value)) if whole else repr(value)
    if isinstance(value, bytes | bytearray):
        return value.hex()
    return str(value)


def unicode_only(ids: Iterable[str]) -> list[str]:
    """Those that are Unicode. Names of files and keys may hold bytes that are none (surrogates
    stand for them), and stores that know only Unicode cannot even be asked for those."""
    return [one for one in ids if one.isascii() or not _SURROGATE.search(one)]


class IdReader(Protocol):
    """The ids that stand on one side of a reference, in one store at one place.

    Nothing is opened before the first call; each call opens and closes what it needs. Raises
    SafetakeError when the store cannot be asked.
    """

    def ids(self) -> Iterator[str]:
        """Every id, some perhaps more than once. What is there all the time while it runs is given;
        what comes or goes meanwhile may be."""

    def among(self, wanted: Set[str]) -> set[str]:
        """Those of the wanted ids that are there now."""


class Template(NamedTuple):
    """A pattern around the place where the id stands."""

    before: str
    after: str
    wide: bool
    """`{id*}`: the id may hold separators (`/` in paths, `:` in keys)."""

    @classmethod
    def parse(cls, pattern: str) -> Template:
        """Split at `{id}` or `{id*}`. Raises ValueError unless it stands there once."""
        before, *rest = _PLACE.split(pattern)
        if len(rest) != 2:
            raise ValueError(f"{pattern[:60]!r} needs {{id}} (or {{id*}}) once")
        return cls(before, rest[1], bool(rest[0]))
