"""Questions a restored copy: is every byte and every key there, and does a real server load it?

Without a server the RDB is read in full (CRC64, every key, counts, content hash). With one that
fits, it is loaded in isolation and counted by it. What could not be asked is said, never left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from safetake.errors import DamagedError, SafetakeError
from safetake.model import Check
from safetake.sources.redis import aof
from safetake.sources.redis.canonical import Tally
from safetake.sources.redis.rdb import RdbFile
from safetake.sources.redis.rdbformat import crc64
from safetake.sources.redis.scratch import (
    LEAST_DATABASES,
    Binary,
    ScratchError,
    ScratchServer,
    fitting,
    link_or_copy,
)
from safetake.sources.redis.server import parse_version


def questions(staged: Path, entry: Mapping[str, Any]) -> list[Check]:
    """Question the copy in `staged` against its manifest entry; see `safetake.model.Opener`."""
    facts: Mapping[str, Any] = entry["facts"]
    dump = staged / "dump.rdb"
    if not dump.is_file():
        return [Check("dump.rdb is there", False, True, False)]
    checks = _read(dump, facts)
    if facts.get("form") == "aof":
        checks += _append_only(staged, facts)
    if all(check.ok for check in checks):
        checks += _load(staged, facts)
    return checks


def _read(dump: Path, facts: Mapping[str, Any]) -> list[Check]:
    tally = Tally()
    name = "every key can be parsed"
    if facts.get("keys") is None:
        asked = Check(f"{name} (not asked: they were not counted)", True, found="not asked")
        return [asked, *_whole_file(dump, facts)]
    try:
        with RdbFile(dump) as file:
            for record in file.records():
                tally.add(file, record)
            crc = file.check_crc()
            stored = file.read(file.end - 8, file.end)[::-1].hex()
            size = dump.stat().st_size
            functions = sum(extra.kind == "function" for extra in file.extras)
            end = file.end
    except DamagedError as error:
        return [Check(name, False, facts.get("keys"), None, str(error))]
    found = tally.facts()
    checks = [
        Check(
            "CRC64 of dump.rdb is right", crc and stored == facts["crc64"], facts["crc64"], stored
        ),
        Check("dump.rdb has its length", size == end == facts["bytes"], facts["bytes"], size),
        Check(name, tally.total == facts["keys"], facts["keys"], tally.total),
    ]
    pairs = (
        ("keys and expiring keys per database", "databases"),
        ("keys per type", "types"),
        ("hash over all keys, values and expiries", "sample"),
    )
    for title, key in pairs:
        if key == "sample" and facts[key] is None:
            checks.append(Check(f"{title} (not asked: too many keys)", True, found="not asked"))
            continue
        checks.append(Check(title, found[key] == facts[key], facts[key], found[key]))
    checks.append(
        Check("functions", functions == facts["functions"], facts["functions"], functions)
    )
    return checks


def _whole_file(dump: Path, facts: Mapping[str, Any]) -> list[Check]:
    """A file with unknown contents: its length, and its last eight bytes over all before them."""
    crc, left = 0, dump.stat().st_size - 8
    with dump.open("rb") as raw:
        while left > 0 and (piece := raw.read(min(left, 1 << 20))):
            crc = crc64(piece, crc)
            left -= len(piece)
        stored = raw.read(8)[::-1].hex()
    right = stored == facts["crc64"] and int(stored, 16) in (0, crc)
    size = dump.stat().st_size
    return [
        Check("CRC64 of dump.rdb is right", right, facts["crc64"], stored),
        Check("dump.rdb has its length", size == facts["bytes"], facts["bytes"], size),
    ]


def _append_only(staged: Path, facts: Mapping[str, Any]) -> list[Check]:
    """The pieces of the append-only form belong together; a server reads them below."""
    dump_size = (staged / "dump.rdb").stat().st_size
    if not facts["multipart"]:
        path = staged / aof.SINGLE
        found = path.stat().st_size if path.is_file() else 0
        expected = dump_size + facts["tail_bytes"]
        return [Check("append-only file has its length", found == expected, expected, found)]
    folder = staged / aof.DIRECTORY
    wanted = {
        aof.BASE: facts["bytes"],
        aof.INCREMENT: facts["tail_bytes"],
        aof.MANIFEST: len(aof.MANIFEST_TEXT),
    }
    sizes = {p.name: p.stat().st_size for p in folder.iterdir()} if folder.is_dir() else {}
    return [Check("append-only files have their lengths", sizes == wanted, wanted, sizes)]


def _load(staged: Path, facts: Mapping[str, Any]) -> list[Check]:
    name = "a server loads it and counts the same keys"
    append_only = facts.get("form") == "aof"
    expected = facts["databases"]
    if append_only or expected is None:
        expected = facts["keyspace"]
    binaries = fitting(facts["family"], parse_version(facts["version"]))
    if not binaries or expected is None:
        reason = "no fitting server here" if not binaries else "the keys were not counted"
        return [Check(f"{name} (not asked: {reason})", True, expected, "not asked")]
    binary = binaries[0]
    folder = Path(mkdtemp(prefix="redis-proof-", dir=staged.parent))
    try:
        found = _counts(binary, staged, folder, expected, append_only=append_only)
        return [Check(name, found == expected, expected, found, binary.name)]
    except (ScratchError, SafetakeError) as error:
        if facts.get("module_sections") or "module" in (facts["types"] or {}):
            return [Check(f"{name} (not asked: it needs modules)", True, expected, "not asked")]
        return [Check(name, False, expected, None, str(error))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _counts(
    binary: Binary,
    staged: Path,
    folder: Path,
    expected: Mapping[str, Any],
    *,
    append_only: bool,
) -> dict[str, dict[str, int]]:
    """Load a copy (a hard link where possible: nothing is written) and ask for the counts."""
    if not append_only:
        link_or_copy(staged / "dump.rdb", folder / "dump.rdb")
    elif (staged / aof.DIRECTORY).is_dir():
        shutil.copytree(staged / aof.DIRECTORY, folder / aof.DIRECTORY)
    else:
        shutil.copyfile(staged / aof.SINGLE, folder / aof.SINGLE)
    databases = max([LEAST_DATABASES, *map(int, expected)]) + 1
    with ScratchServer(binary, folder, appendonly=append_only, databases=databases) as server:
        return server.keyspace()
