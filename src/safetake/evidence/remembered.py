"""Which documents a repository holds, without reading each of them for each new one.

The name of a file is the SHA-256 of its content, so what was once read of it stays true: the id of
its document, what that follows, and when it was. This machine keeps that in its cache, where there
is one, and reads the files that are new; those that hold no document are tried again each time.
Whoever looks whether the chain is whole (`store.Chain`) reads every file and never looks here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from safetake.repository import Repository
    from safetake.repository.cache import SealedFile

NAME = "evidence"
FEW = 32
"""So many new documents, read at each look, do not make it worth while to write the file anew."""
_MAGIC = b"safetake evidence cache 1\n"
_HEAD = struct.Struct("<32s32sQQH")


class Link(NamedTuple):
    """A document, as far as the chain and its order are concerned."""

    id: str
    previous: tuple[str, ...]
    ended_ns: int
    started_ns: int


def load(repository: Repository) -> dict[str, Link]:
    """By the name of a file what is remembered of it; nothing when that can not be read."""
    file = _file(repository)
    content = file.read() if file is not None else None
    if content is None:
        return {}
    try:
        return _decode(bytes(content))
    except (ValueError, struct.error):
        return {}


def keep(repository: Repository, links: dict[str, Link]) -> None:
    """Remember these, and nothing else. Never fails."""
    file = _file(repository)
    if file is not None:
        file.write(_MAGIC + b"".join(_encode(links.items())))


def _file(repository: Repository) -> SealedFile | None:
    return None if repository.cache is None else repository.cache.beside(NAME)


def _encode(links: Iterable[tuple[str, Link]]) -> Iterable[bytes]:
    for name, one in links:
        ids = bytes.fromhex(name), bytes.fromhex(one.id)
        yield _HEAD.pack(*ids, one.ended_ns, one.started_ns, len(one.previous))
        yield bytes.fromhex("".join(one.previous))


def _decode(content: bytes) -> dict[str, Link]:
    if not content.startswith(_MAGIC):
        raise ValueError("of another version")
    found: dict[str, Link] = {}
    at = len(_MAGIC)
    while at < len(content):
        name, id_, ended_ns, started_ns, count = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        end = at + 32 * count
        previous = tuple(content[i : i + 32].hex() for i in range(at, end, 32))
        found[name.hex()] = Link(id_.hex(), previous, ended_ns, started_ns)
        at = end
    return found
