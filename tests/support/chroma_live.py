"""Live Chroma stores for tests: writers, servers, snapshots, and copies opened for proof."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetake.columns import PARTS_SUFFIX, join
from safetake.config import ChromaConfig
from safetake.errors import BarrierTimeoutError
from safetake.model import CaptureContext, Captured, Cut, Parent
from safetake.sources.chroma.source import ChromaSource

from .memory_writer import MemoryRepository, entry_of, materialise
from .ports import free_port

LOAD = Path(__file__).with_name("chroma_load.py")


@dataclass(frozen=True, slots=True)
class Load:
    """One collection and who writes to it."""

    name: str
    threshold: int = 100
    space: str = "l2"
    dim: int = 16
    batch: int = 4
    preload: int = 0


@dataclass(slots=True)
class Taken:
    """A snapshot in memory and what was known around its hold."""

    repository: MemoryRepository
    captured: Captured
    cut: Cut
    released_ns: int
    added: int

    @property
    def hold_ms(self) -> float:
        return (self.released_ns - self.cut.held_ns) / 1e6

    def parent(self) -> Parent:
        return Parent(entry_of(self.captured), self.captured.node, self.repository)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A real Chroma server on `folder`; gives host:port."""
    port = free_port()
    command = [sys.executable, "-c", "from chromadb.cli.cli import app; app()", "run"]
    with (folder.parent / f"server-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--path", folder, "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            cwd=folder.parent,
            start_new_session=True,
        )
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise AssertionError((folder.parent / f"server-{port}.log").read_text())
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat").close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def writers(target: str, loads: Sequence[Load], seconds: float, place: Path) -> Iterator[None]:
    """A process per load that writes until the block ends; waits until all have begun."""
    processes = []
    try:
        for load in loads:
            journal = place / f"{load.name}.journal"
            words = [
                "write",
                target,
                seconds,
                journal,
                load.name,
                load.threshold,
                load.space,
                load.dim,
                load.batch,
                load.preload,
            ]
            log = (place / f"{load.name}.log").open("wb")
            processes.append(
                subprocess.Popen([sys.executable, LOAD, *map(str, words)], stdout=log, stderr=log)
            )
            log.close()
        for load, process in zip(loads, processes, strict=True):
            while len(acknowledged(place, load.name)) < 3:
                if process.poll() is not None:
                    raise AssertionError((place / f"{load.name}.log").read_text())
                time.sleep(0.05)
        yield
        for load, process in zip(loads, processes, strict=True):
            if process.poll() not in (None, 0):
                raise AssertionError((place / f"{load.name}.log").read_text())
    finally:
        for process in processes:
            process.kill()
            process.wait()


def acknowledged(place: Path, name: str) -> list[tuple[int, float]]:
    """(operation, when it was acknowledged on the monotonic clock) of a writer so far."""
    path = place / f"{name}.journal"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [(entry["done"], entry["at"]) for entry in map(json.loads, lines)]


def longest_stall(place: Path, name: str) -> float:
    """Seconds between two acknowledgements, the longest."""
    times = [at for _, at in acknowledged(place, name)]
    return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def take(
    folder: Path,
    scratch: Path,
    *,
    repository: MemoryRepository | None = None,
    parent: Parent | None = None,
    timeout: float = 2.0,
) -> Taken:
    """One capture as a backup does it: prepare, hold (again on a timeout), capture."""
    repository = repository or MemoryRepository()
    scratch.mkdir(exist_ok=True)
    before = repository.stored_bytes
    context = CaptureContext(repository, parent, scratch, reader=repository)
    source = ChromaSource("vectors", ChromaConfig(type="chroma", path=folder))
    session = source.session(context)
    try:
        session.prepare()
        for attempt in range(5):
            try:
                cut = session.hold(timeout)
                break
            except BarrierTimeoutError:
                if attempt == 4:
                    raise
        session.release()
        released = time.monotonic_ns()
        captured = session.capture()
    finally:
        session.close()
    return Taken(repository, captured, cut, released, repository.stored_bytes - before)


def bring_back(taken: Taken, folder: Path) -> Path:
    """The snapshot as a folder of files, columns joined."""
    materialise(taken.repository, taken.captured.node, folder)
    for parts in sorted(folder.rglob("*" + PARTS_SUFFIX)):
        join(parts, parts.with_suffix(""))
        shutil.rmtree(parts)
    return folder


def questioned(folder: Path, cpu_seconds: float = 100) -> dict[str, Any]:
    """What a fresh process sees in a copy; {'': why} when it cannot even open it.

    It hangs when it uses up its time of the processor, or none for a minute: the clock on the wall
    says nothing on a busy machine.
    """
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        subprocess.Popen(
            [sys.executable, LOAD, "check", folder], stdout=out, stderr=err
        ) as process,
    ):
        used, since = 0.0, time.monotonic()
        while process.poll() is None:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            now = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            if now > used:
                used, since = now, time.monotonic()
            if used > cpu_seconds or time.monotonic() - since > 60:
                process.kill()
                return {"": f"hangs after {used:.0f} s of processor time"}
            time.sleep(0.1)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            text = err.read().decode(errors="replace").strip()
            return {"": f"exit {process.returncode}: {text[-300:]}"}
        answer: dict[str, Any] = json.loads(out.read().splitlines()[-1])
        return answer


def wrong(
    answer: dict[str, Any], place: Path, loads: Sequence[Load], taken: Taken | None
) -> list[str]:
    """What is wrong with a copy: no exact prefix, or one that lacks what was acknowledged."""
    problems = []
    for load in loads:
        got = answer.get(load.name, answer.get("", "the collection is missing"))
        if not isinstance(got, int):
            problems.append(f"{load.name}: {got}")
            continue
        if taken is None:
            continue
        done = acknowledged(place, load.name)
        held, let_go = taken.cut.held_ns / 1e9, taken.released_ns / 1e9
        least = max((number for number, at in done if at <= held), default=0)
        most = max((number for number, at in done if at <= let_go), default=0) + 1
        if not least <= got <= most:
            problems.append(f"{load.name}: {got} operations, acknowledged {least} to {most}")
    return problems


def tar_copy(folder: Path, target: Path, megabytes_per_second: int = 25) -> Path:
    """The control: what `tar` makes of a live folder, at the speed of a disk or a network.

    A test store of some MB is read in a blink, which says nothing about one of some GB.
    """
    target.mkdir()
    packing = subprocess.Popen(
        ["tar", "-cf", "-", "-C", folder, "."], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with target.with_suffix(".tar").open("wb") as packed:
        assert packing.stdout is not None
        step = 64 << 10
        while data := packing.stdout.read(step):
            packed.write(data)
            time.sleep(len(data) / (megabytes_per_second << 20))
    packing.wait()
    subprocess.run(
        ["tar", "-xf", target.with_suffix(".tar"), "-C", target], capture_output=True, check=True
    )
    target.with_suffix(".tar").unlink()
    return target
