"""The order of every durable write, as the kernel saw it: strace reads a real backup.

file: fsync, rename, fsync of the folder; run: packs, then index, then snapshot, each durable before
the next is visible. What a power cut leaves is then whole, whenever it comes.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.repositories import new_repository

_CALL = re.compile(
    r"^\d+ +(?P<name>fsync|fdatasync|rename|renameat|renameat2|unlink|unlinkat)"
    r"\((?P<arguments>.*)\) += (?P<result>-?\d+)"
)
_UNFINISHED = re.compile(r"^(?P<pid>\d+) +(?P<text>.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<text>.*)$")

PROGRAM = """
import sys, os
from pathlib import Path
from tests.support.repositories import files_source, open_repository, snapshot
snapshot(open_repository(Path(sys.argv[1])), files_source("scripts", Path(sys.argv[2])))
"""


@dataclass
class Event:
    """One system call that worked: `sync` of a path, or `rename` from a path to another."""

    kind: str
    path: str
    target: str = ""


def traced(repository: Path, source: Path, log: Path) -> list[Event]:
    """Run a backup under strace; its syncs and renames in the order in which they ended."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.fail("strace is missing: apt-get install strace")
    command: list[str | Path] = [strace, "-f", "-y", "-s", "4096", "-o", log]
    command += ["-e", "trace=fsync,fdatasync,rename,renameat,renameat2"]
    command += [sys.executable, "-c", PROGRAM, repository, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip(f"this container may not trace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return list(_events(log.read_text()))


def _events(text: str) -> list[Event]:
    waiting: dict[str, str] = {}
    events = []
    for line in text.splitlines():
        if begun := _UNFINISHED.match(line):
            waiting[begun["pid"]] = begun["text"]
            continue
        if ended := _RESUMED.match(line):
            line = f"{ended['pid']} {waiting.pop(ended['pid'])}{ended['text']}"
        call = _CALL.match(line)
        if call is None or call["result"] != "0":
            continue
        if call["name"] in ("fsync", "fdatasync"):
            path = re.search(r"<(.*)>", call["arguments"])
            assert path is not None, line
            events.append(Event("sync", path[1]))
        else:
            one, two = re.findall(r'"([^"]*)"', call["arguments"])
            events.append(Event("rename", one, two))
    return events


def test_a_backup_is_durable_step_by_step(tmp_path: Path) -> None:

    repository, source = tmp_path / "repository", tmp_path / "scripts"
    new_repository(repository)
    source.mkdir()
    for number in range(40):
        (source / f"{number}.bin").write_bytes(bytes([number]) + b"x" * number * 1000)
    (source / "big.bin").write_bytes(random.Random(3).randbytes(40 << 20))
    events = traced(repository, source, tmp_path / "log")
    renames = [
        (at, event)
        for at, event in enumerate(events)
        if event.kind == "rename" and repository in Path(event.target).parents  # no bytecode
    ]
    visible: dict[str, list[int]] = {}
    durable: dict[str, list[int]] = {}
    for at, event in renames:
        target = Path(event.target)
        assert Event("sync", event.path) in events[:at], f"{target} was renamed before its fsync"
        folder = Event("sync", str(target.parent))
        assert folder in events[at:], f"the folder of {target} was not synced after the rename"
        kind = target.relative_to(repository).parts[0]
        visible.setdefault(kind, []).append(at)
        durable.setdefault(kind, []).append(at + events[at:].index(folder))
    assert {"locks", "data", "index", "snapshots"} <= set(visible)
    assert len(visible["data"]) >= 3
    assert len(visible["snapshots"]) == 1
    assert min(durable["locks"]) < min(visible["data"])
    assert max(durable["data"]) < min(visible["index"])
    assert max(durable["index"]) < min(visible["snapshots"])
