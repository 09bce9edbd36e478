"""Live writers in other processes, and what every snapshot taken beside them must hold."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetake.config import SqliteConfig
from safetake.model import CaptureContext, Parent
from safetake.sources.sqlite import SqliteSource, questions
from tests.integration import sqlite_writer
from tests.support.memory_writer import MemoryRepository, entry_of, materialise


class Writer:
    """One writer process. `commits` are (number, begun ns, committed ns) as it was told of them."""

    def __init__(self, path: Path, mode: str, seed: int) -> None:
        self.commits: list[tuple[int, int, int]] = []
        self.longest_ms = 0.0
        self._seen = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, sqlite_writer.__file__, str(path), mode, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            number, begun, committed, took = line.split()
            with self._seen:
                self.commits.append((int(number), int(begun), int(committed)))
                self.longest_ms = max(self.longest_ms, float(took))
                self._seen.notify_all()

    @property
    def acknowledged(self) -> int:
        """The newest commit that we were told of."""
        return self.commits[-1][0] if self.commits else 0

    def bounds(self, held_ns: int) -> tuple[int, int]:
        """Fewest and most commits that a cut held from `held_ns` on may contain.

        A commit that had returned by then is in it. One whose BEGIN returned later is not: had it
        got the lock before the hold, it would have had to end before the hold could begin.
        """
        with self._seen:
            assert self._seen.wait_for(lambda: self.commits[-1][1] > held_ns, 60)
            fewest = max((n for n, _, committed in self.commits if committed < held_ns), default=0)
            most = min(n for n, begun, _ in self.commits if begun > held_ns) - 1
        return fewest, most

    def wait_for_more(self, count: int) -> None:
        """Until `count` further commits are acknowledged."""
        with self._seen:
            goal = self.acknowledged + count
            assert self._seen.wait_for(lambda: self.acknowledged >= goal, 60), "the writer is stuck"

    def kill(self) -> None:
        """As the machine's power would: SIGKILL, at any moment."""
        self.process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self) -> None:
        """End after the current transaction."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._end()

    def _end(self) -> None:
        self.process.wait(60)
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def running_writer(path: Path, mode: str, seed: int) -> Iterator[Writer]:
    """A writer that has started to write; stopped at the end."""
    writer = Writer(path, mode, seed)
    try:
        writer.wait_for_more(3)
        yield writer
    finally:
        if writer.process.poll() is None:
            writer.stop()


def faults_of(path: Path, fewest: int = 0, most: int | None = None) -> list[str]:
    """What is wrong with a copy of the writer's database, opened as an application would.

    `fewest` and `most` bound how many transactions it may hold.
    """
    try:
        connection = sqlite3.connect(path)
        try:
            return _faults(connection, fewest, most)
        finally:
            connection.close()
    except sqlite3.Error as error:
        return [f"does not open: {error}"]


def _faults(connection: sqlite3.Connection, fewest: int, most: int | None) -> list[str]:
    faults = []
    answer = connection.execute("PRAGMA integrity_check(3)").fetchall()
    if answer != [("ok",)]:
        faults.append(f"integrity: {answer}")
    total = connection.execute("SELECT sum(balance) FROM account").fetchone()[0]
    if total != sqlite_writer.TOTAL:
        faults.append(f"money: {total}")
    count, last = connection.execute(
        "SELECT count(*), coalesce(max(n), 0) FROM sequence"
    ).fetchone()
    if count != last:
        faults.append(f"sequence: {count} rows up to {last}")
    if last < fewest:
        faults.append(f"lost: {last} of {fewest} acknowledged")
    if most is not None and last > most:
        faults.append(f"phantom: {last}, never more than {most} before the cut")
    return faults


@dataclass
class Campaign:
    """What a run of snapshots showed."""

    snapshots: int = 0
    faults: int = 0
    control_faults: int = 0
    hold_ms: list[float] | None = None
    longest_stall_ms: float = 0.0


def run_campaign(folder: Path, mode: str, count: int, page_size: int, vacuum: int) -> Campaign:
    """`count` snapshots, each an increment of the one before, beside one writer.

    A plain copy of the files (cp of db, -wal and -journal) is taken next to each as the control.
    """
    path = folder / "projects.db"
    sqlite_writer.create(str(path), mode, page_size, vacuum)
    result = Campaign(hold_ms=[])
    parent: Parent | None = None
    source = SqliteSource("projects", SqliteConfig(type="sqlite", path=path))
    with running_writer(path, mode, count) as writer, MemoryRepository() as repository:
        for number in range(count):
            writer.wait_for_more(5)
            with tempfile.TemporaryDirectory(dir=folder) as name:
                work = Path(name)
                (work / "scratch").mkdir()
                (work / "control").mkdir()
                context = CaptureContext(repository, parent, work / "scratch", reader=repository)
                session = source.session(context)
                try:
                    session.prepare()
                    cut = session.hold(10.0)
                    session.release()
                    fewest, most = writer.bounds(cut.held_ns)
                    captured = session.capture()
                finally:
                    session.close()
                assert result.hold_ms is not None
                result.hold_ms.append((cut.fixed_ns - cut.held_ns) / 1e6)
                _copy_as_cp_does(path, work / "control")
                materialise(repository, captured.node, work / "out")
                entry = entry_of(captured)
                faults = [str(check) for check in questions(work / "out", entry) if not check.ok]
                faults += faults_of(work / "out" / "projects.db", fewest, most)
                assert not faults, f"snapshot {number}: {faults}"
                result.snapshots += 1
                result.control_faults += bool(faults_of(work / "control" / "projects.db", fewest))
                parent = Parent(entry, captured.node, repository)
        result.longest_stall_ms = writer.longest_ms
    return result


def _copy_as_cp_does(path: Path, target: Path) -> None:
    for name in (path.name, path.name + "-wal", path.name + "-journal"):
        try:
            shutil.copyfile(path.with_name(name), target / name)
        except FileNotFoundError:
            continue
