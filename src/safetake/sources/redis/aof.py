"""Lays out a base RDB and a tail of commands so that a server started on the folder holds the cut.

Redis 7 and Valkey read `appendonlydir` with a manifest; Redis 6 reads one file, an RDB followed by
commands. Either way the append-only form wins over `dump.rdb` when the server has `appendonly yes`,
and only then: that is what the README in the folder tells.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetake.sources.redis.scratch import link_or_copy
from safetake.sources.redis.server import Version

DIRECTORY = "appendonlydir"
BASE = "appendonly.aof.1.base.rdb"
INCREMENT = "appendonly.aof.1.incr.aof"
MANIFEST = "appendonly.aof.manifest"
SINGLE = "appendonly.aof"
MANIFEST_TEXT = f"file {BASE} seq 1 type b\nfile {INCREMENT} seq 1 type i\n".encode()

CONF = b"""# Start the server on this folder with these lines, or merge them into its own.
appendonly yes
appendfilename "appendonly.aof"
aof-use-rdb-preamble yes
"""

README = b"""This folder holds one moment of a Redis server in append-only form.

The moment is `dump.rdb` plus the commands that came after it, so a server that is started on
dump.rdb alone would miss those. Start it on this folder with

    redis-server safetake.conf --dir .

or set `appendonly yes` (and the default `appendfilename`) in its own configuration. It then holds
exactly the moment of the snapshot. Use the same version of the server, or a newer one.
"""


def is_multipart(family: str, version: Version) -> bool:
    """Whether the server keeps its append-only file in parts (Redis 7.0 and Valkey do)."""
    return family == "valkey" or version >= (7,)


def lay_out(folder: Path, base: Path, tail: Path, *, multipart: bool) -> None:
    """Put the append-only form of base + tail into `folder`. Raises OSError."""
    if multipart:
        directory = folder / DIRECTORY
        directory.mkdir(mode=0o700)
        link_or_copy(base, directory / BASE)
        link_or_copy(tail, directory / INCREMENT)
        (directory / MANIFEST).write_bytes(MANIFEST_TEXT)
        return
    with (folder / SINGLE).open("wb") as out:
        for part in (base, tail):
            with part.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
