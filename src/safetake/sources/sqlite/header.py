"""The first 100 bytes of a database file, and what they say when the file is not a usable one.

Reads the header through a descriptor of `rawfile`, never through a connection, so that a missing,
empty, encrypted or foreign file gets its own plain error before SQLite is asked anything. It does
not judge the rest of the file. Layout: https://sqlite.org/fileformat2.html#the_database_header.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from safetake.errors import SourceError
from safetake.sources.sqlite import rawfile

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\x00"
_FIELDS = struct.Struct(">16sHBB4xII")
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")


@dataclass(frozen=True, slots=True)
class Header:
    """What the file's own header claims (in WAL mode newer values may be in the WAL)."""

    page_size: int
    wal: bool
    change_counter: int
    page_count: int


def read_header(path: Path) -> Header:
    """The header of the database at `path`. Raises SourceError for whatever is no database."""
    state = status(path)
    if state.st_size == 0:
        raise SourceError(
            f"{path} is empty (0 bytes): that is no database, although SQLite opens it",
            hint="check the path; if the application has just truncated it, restore a snapshot",
        )
    with rawfile.opened(path) as raw:
        head = rawfile.read(raw, 4096, 0)
    return parse_header(head, str(path), state.st_size)


def status(path: Path) -> os.stat_result:
    """`stat` of the database file. Raises SourceError when it is missing, hidden or no file."""
    try:
        state = path.stat()
    except FileNotFoundError:
        raise SourceError(
            f"{path} does not exist",
            hint="check `path` of the source, and that its volume is there",
        ) from None
    except OSError as error:
        raise SourceError(
            f"{path} cannot be reached: {error.strerror}",
            hint="give this user access to the file and to the folders above it",
        ) from error
    if stat.S_ISDIR(state.st_mode):
        raise SourceError(
            f"{path} is a directory, not a database file",
            hint="set `path` to the file; a folder with Chroma in it is a source of type chroma",
        )
    if not stat.S_ISREG(state.st_mode):
        raise SourceError(f"{path} is not a regular file", hint="set `path` to the database file")
    return state


def parse_header(head: bytes, where: str, size: int) -> Header:
    """Decode the start of a database file of `size` bytes; `where` is for messages.

    Raises SourceError when it is cut short, no database, encrypted, or claims an impossible page.
    """
    if head[: len(MAGIC)] != MAGIC:
        if _looks_encrypted(head, size):
            raise SourceError(
                f"{where} is no readable database: it looks encrypted (SQLCipher or the like)",
                hint="safetake has no key for it: protect the file with a source of type files"
                " while the application is stopped, or export a plain copy",
            )
        raise SourceError(
            f"{where} is not a SQLite database (it does not start with 'SQLite format 3')",
            hint="check `path` of the source; if this was the database, restore a snapshot",
        )
    if len(head) < HEADER_BYTES:
        raise SourceError(
            f"{where} is corrupt: {size} bytes, shorter than a database header",
            hint="restore a snapshot",
        )
    _, raw_page_size, write_version, read_version, counter, pages = _FIELDS.unpack_from(head)
    page_size = 65536 if raw_page_size == 1 else raw_page_size
    if page_size < 512 or page_size & (page_size - 1):
        raise SourceError(
            f"{where} is corrupt: its header claims pages of {page_size} bytes",
            hint="restore a snapshot",
        )
    if write_version not in (1, 2) or read_version not in (1, 2):
        raise SourceError(
            f"{where} is corrupt or newer than this SQLite: file format"
            f" {write_version}/{read_version}",
            hint="restore a snapshot, or update safetake",
        )
    return Header(page_size, read_version == 2, counter, pages)


def _looks_encrypted(head: bytes, size: int) -> bool:
    # A page of ciphertext uses nearly all byte values (251 of 256 expected in 1024 bytes) and
    # a database is whole pages; text and plain binaries do not reach 200, archives have magic.
    return (
        size % 512 == 0
        and len(head) >= 1024
        and not head.startswith(_COMPRESSED)
        and len(set(head[:4096])) >= 200
    )
