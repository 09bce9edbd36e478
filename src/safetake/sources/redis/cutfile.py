"""Makes what a capture received one file: folded where a server's program fits, sorted, counted.

Where none fits, the base and the tail of commands stay apart, in an append-only form that a server
starts from (`aof.py`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetake.errors import SourceError
from safetake.model import CaptureContext, Node
from safetake.sources.redis import aof
from safetake.sources.redis.canonical import canonicalise
from safetake.sources.redis.rdb import RdbFile, UnsupportedRdbError
from safetake.sources.redis.scratch import LEAST_DATABASES, ScratchError, fitting, fold
from safetake.sources.redis.server import Server
from safetake.sources.redis.store import folder_node, store_file, store_text
from safetake.sources.redis.stream import Tail


@dataclass(slots=True)
class Dump:
    """The file that stands for the cut, and what it holds."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)


def fold_tail(
    server: Server, base: Path, tail_path: Path, tail: Tail, scratch: Path, notes: list[str]
) -> Path | None:
    """base + tail as one RDB by a scratch server, or None (with a note) where none fits."""
    with RdbFile(base) as file:
        written = (file.magic, file.version)
    binaries = fitting(server.family, server.version)
    if not binaries:
        notes.append(
            f"no {server.family}-server like {server.version_text} here to fold the last"
            " commands: kept in append-only form (see README.txt beside dump.rdb)"
        )
    databases = max(tail.highest, LEAST_DATABASES, *map(int, server.keyspace)) + 1
    for binary in binaries:
        folder = scratch / "fold"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        multipart = aof.is_multipart(binary.family, binary.version)
        aof.lay_out(folder, base, tail_path, multipart=multipart)
        try:
            folded = fold(binary, folder, databases=databases)
        except (ScratchError, SourceError) as error:
            notes.append(f"the commands could not be folded: {error}")
            continue
        with RdbFile(folded) as file:
            if (file.magic, file.version) == written:
                return folded
        notes.append(f"{binary.name} writes another RDB version than the server: not folded")
    return None


def store_append_only(
    server: Server,
    dump: Dump,
    tail_path: Path,
    tail: Tail,
    scratch: Path,
    context: CaptureContext,
    mtime_ns: int,
) -> list[Node]:
    """Store the append-only form beside dump.rdb, and say so in its facts. Raises OSError."""
    folder = scratch / "aof"
    folder.mkdir(mode=0o700)
    multipart = aof.is_multipart(server.family, server.version)
    aof.lay_out(folder, dump.path, tail_path, multipart=multipart)
    writer, progress = context.writer, context.progress
    dump.facts.update(form="aof", multipart=multipart, tail_commands=tail.commands)
    dump.facts["tail_bytes"] = tail_path.stat().st_size
    nodes = [
        store_text("README.txt", aof.README, writer, mtime_ns),
        store_text("safetake.conf", aof.CONF, writer, mtime_ns),
    ]
    if not multipart:
        return [*nodes, store_file(folder / aof.SINGLE, aof.SINGLE, writer, progress, mtime_ns)]
    inside = [
        store_file(path, path.name, writer, progress, mtime_ns)
        for path in sorted((folder / aof.DIRECTORY).iterdir())
    ]
    return [*nodes, folder_node(aof.DIRECTORY, inside, writer, mtime_ns)]


def finish_dump(path: Path, scratch: Path, notes: list[str], *, duplicates: bool = False) -> Dump:
    """Sorted and counted; as it is, with a note, when it holds what we do not know.

    Raises DamagedError, OSError.
    """
    target = scratch / "dump.rdb"
    try:
        file, tally = canonicalise(path, target, scratch, duplicates=duplicates)
    except UnsupportedRdbError as error:
        notes.append(f"keys were not counted: {error}")
        return Dump(path, {"keys": None, "databases": None, "types": None, "sample": None})
    facts: dict[str, Any] = {"keys": tally.total, **tally.facts()}
    facts["functions"] = sum(extra.kind == "function" for extra in file.extras)
    facts["module_sections"] = sum(extra.kind == "module" for extra in file.extras)
    return Dump(target, facts)
