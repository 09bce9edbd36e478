"""A restore killed at each of its calls that change something, then ended both ways.

Run as `python -m tests.sources.sqlite.kills MODE JOURNAL FOLDER [STEP [EVERY]]`, in a process of
its own (`tests.support.ptrace` waits for any child). The restore is staged once; for every call n
of `switch` (`switch_back`, `commit`) the folder is set back, the step is killed at n, and in a new
process the restore is ended forward, and in another round backward. Prints the kills, and what was
wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from safetake.config import SqliteConfig
from safetake.sources.sqlite.restore import SqliteRestorer
from tests.sources.sqlite.restores import content, is_old, is_restored, prepared
from tests.support.memory_writer import MemoryRepository
from tests.support.ptrace import trace
from tests.support.restoring import well, work_of


class Ground:
    """One staged restore in a folder that can be set back."""

    def __init__(self, folder: Path, mode: str, journal: str) -> None:
        self.live = folder / "live"
        self.kept = folder / "kept"
        self.mode = mode
        self.live.mkdir()
        with MemoryRepository() as repository:
            steps = prepared(self.live, repository, journal)
            self.entry: dict[str, Any] = steps.entry
            well(steps.stage(mode))
        if journal == "wal" and mode == "offline":
            leave_log(self.live / "projects.db")
        shutil.copytree(self.live, self.kept, symlinks=True)

    def set_back(self) -> None:
        """As it was staged."""
        shutil.rmtree(self.live)
        shutil.copytree(self.kept, self.live, symlinks=True)

    def act(self, *steps: str) -> str:
        """Steps of the restorer, with nothing but the configuration and the notes; says nothing."""
        section = SqliteConfig(type="sqlite", path=self.live / "projects.db")
        restorer = SqliteRestorer("projects", section)
        work = work_of(self.live / ".safetake-restore-projects", "projects", self.entry, self.mode)
        for step in steps:
            if step == "confirm":
                well(restorer.confirm(work))
            elif step in ("commit", "undone"):
                restorer.finish(work, committed=step == "commit")
            else:
                getattr(restorer, step)(work)
        return ""

    def ended(self, how: str) -> str:
        """What is wrong with the state after the restore was ended; empty when nothing is."""
        path = self.live / "projects.db"
        beside = self.live / "projects.01234567.db"
        found = content(path)
        if self.mode == "beside":
            there = beside.exists() and is_restored(content(beside))
            right = is_old(found) and there == (how == "forward") == beside.exists()
        else:
            right = is_restored(found) if how == "forward" else is_old(found)
        left = [p.name for p in self.live.iterdir() if p.is_symlink()]
        return "" if right and not left else f"{sorted(found)} {left}"


def leave_log(path: Path) -> None:
    """The log of a killed application beside the main file, with nothing in it that counts."""
    import apsw

    connection = apsw.Connection(str(path))
    connection.wal_autocheckpoint(0)
    connection.execute("UPDATE projects SET title = 'x' WHERE id = 11").fetchall()
    kept = {p: p.read_bytes() for p in path.parent.glob("projects.db*") if p.is_file()}
    connection.close()
    for file, data in kept.items():
        file.write_bytes(data)


def in_child(body: Callable[[], str]) -> str:
    """What `body` says, from a forked process, so that this one keeps no lock and no cache."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            said = body()
        except BaseException as error:  # noqa: BLE001 - it is told, not raised
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said[:4000].encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


def end(ground: Ground, step: str, how: str) -> str:
    """End a killed restore; what is wrong then."""
    steps = {"forward": ("switch", "confirm", "commit"), "back": ("switch_back", "undone")}[how]
    return ground.act(*(("commit",) if step == "commit" else steps)) or ground.ended(how)


def main(mode: str, journal: str, folder: Path, step: str = "switch", every: int = 1) -> None:
    """Every call of `step`, each ended in every way that may follow it."""
    ground = Ground(folder, mode, journal)
    kills, wrong = 0, []
    ways = {"switch": ["forward", "back"], "switch_back": ["back"], "commit": ["forward"]}[step]
    first = () if step == "switch" else ("switch",)

    def body() -> int:
        ground.act(step)
        return 0

    number = 0
    while True:
        number += every
        killed = True
        for how in ways:
            ground.set_back()
            if first and (said := in_child(lambda: ground.act(*first))):
                wrong.append(f"before: {said}")
            observed = trace(body, kill_at=number)
            killed = killed and observed.killed
            kills += observed.killed
            said = in_child(partial(end, ground, step, how))
            if said:
                call = observed.calls[-1] if observed.calls else None
                wrong.append(f"{how} after {number} ({call}): {said}")
        if not killed:
            break
    print(json.dumps({"kills": kills, "wrong": wrong}))


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        Path(sys.argv[3]),
        sys.argv[4] if sys.argv[4:] else "switch",
        int(sys.argv[5]) if sys.argv[5:] else 1,
    )
