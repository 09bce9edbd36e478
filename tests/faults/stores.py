"""Small real stores for campaigns of restores: first content, a change of all of it, its state.

A store is made below a folder that is copied for each trial, always to the same place. What does
not lie there (a server's memory) is put back by `reset`.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import redis

from tests.support.ports import free_port
from tests.support.redis_server import BINARIES
from tests.support.states import chroma_state, files_state, redis_state, sqlite_state

RECENT = ("redis-8.2", "redis-7.0", "valkey-9")
"""Servers that tell when a key expires (PEXPIRETIME)."""


class Store(Protocol):
    """One source."""

    name: str

    def config(self) -> str:
        """Its lines below `[sources.NAME]`."""

    def make(self, home: Path) -> None:
        """The content that the snapshot will hold."""

    def change(self, home: Path) -> None:
        """Something lost, something changed, something new. Keeps nothing open."""

    def reset(self, home: Path) -> None:
        """After `home` was put back: the rest."""

    def state(self, home: Path) -> Any:
        """Everything that it holds."""

    def usable(self, home: Path) -> None:
        """Applications can write to it."""


class Sqlite:
    """A database in WAL mode whose newest commits are still in the log."""

    def __init__(self, name: str = "projects", journal: str = "wal") -> None:
        self.name = name
        self.journal = journal

    def config(self) -> str:
        return f'type = "sqlite"\npath = "{self.name}.db"\n'

    def path(self, home: Path) -> Path:
        return home / f"{self.name}.db"

    def make(self, home: Path) -> None:
        connection = sqlite3.connect(self.path(home))
        connection.executescript(
            f"""
            PRAGMA journal_mode = {self.journal};
            PRAGMA user_version = 7;
            CREATE TABLE projects (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT UNIQUE);
            CREATE TABLE episodes (
                id INTEGER PRIMARY KEY,
                project INTEGER REFERENCES projects,
                script TEXT, cover BLOB, length REAL
            );
            CREATE TABLE tags (name TEXT, episode INTEGER, PRIMARY KEY (name, episode))
                WITHOUT ROWID;
            CREATE INDEX by_project ON episodes (project);
            CREATE VIRTUAL TABLE words USING fts5 (script);
            CREATE VIEW titles AS SELECT title FROM projects;
            CREATE TRIGGER indexed AFTER INSERT ON episodes
                BEGIN INSERT INTO words (rowid, script) VALUES (new.id, new.script); END;
            """
        )
        for number in range(1, 4):
            connection.execute("INSERT INTO projects (title) VALUES (?)", (f"작품 {number}",))
        for number in range(1, 41):
            connection.execute(
                "INSERT INTO episodes VALUES (?, ?, ?, ?, ?)",
                (number, number % 3 + 1, f"장면 {number} " * 30, bytes([number]) * 90, number / 7),
            )
            connection.execute("INSERT INTO tags VALUES ('new', ?)", (number,))
        connection.commit()
        connection.close()

    def change(self, home: Path) -> None:
        # killed, so that nobody folds the log into the file
        changes = (
            "PRAGMA user_version = 8; DELETE FROM episodes WHERE id % 5 = 0;"
            "UPDATE episodes SET script = 'changed ' || script WHERE id % 5 = 1;"
            "INSERT INTO projects (title) VALUES ('since then');"
            "CREATE TABLE later (note TEXT); INSERT INTO later VALUES ('x');"
            "DELETE FROM tags WHERE episode < 9; DROP VIEW titles;"
        )
        program = (
            "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
            "c.executescript(sys.argv[2]); c.commit(); os.kill(os.getpid(), 9)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, self.path(home), changes], check=False
        )
        assert done.returncode == -signal.SIGKILL

    def reset(self, home: Path) -> None:
        """All of it lies in `home`."""

    def state(self, home: Path) -> Any:
        return sqlite_state(self.path(home))

    def usable(self, home: Path) -> None:
        connection = sqlite3.connect(self.path(home), timeout=5, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        connection.close()


class BesideSqlite(Sqlite):
    """A database whose application has its path in a file of settings."""

    def settings(self, home: Path) -> Path:
        return home / "app.env"

    def current(self, home: Path) -> Path:
        """The file that the application uses."""
        if not self.settings(home).exists():
            return self.path(home)
        return Path(self.settings(home).read_text().split("sqlite:///")[1].split("\n")[0])

    def make(self, home: Path) -> None:
        super().make(home)
        path = self.path(home)
        self.settings(home).write_text(f"# who\nDATABASE_URL=sqlite:///{path}\nOTHER=1\n")

    def state(self, home: Path) -> Any:
        """What the application sees; no file that nobody uses lies beside it."""
        current = self.current(home)
        state = sqlite_state(current)
        known = (current.name, self.path(home).name)
        names = {path.name.removesuffix("-wal").removesuffix("-shm") for path in home.glob("*.db*")}
        state["beside"] = sorted(names - set(known))
        state["settings"] = self.settings(home).read_text().replace(str(current), "PATH")
        return state


class DamagedSqlite(Sqlite):
    """A database that was overwritten: only its bytes can be saved."""

    def change(self, home: Path) -> None:
        super().change(home)
        with self.path(home).open("r+b") as file:
            file.write(b"no database any more")

    def state(self, home: Path) -> Any:
        found = sorted(home.glob(f"{self.name}.db*"))
        raw = {path.name: (path.stat().st_mode, path.read_bytes()) for path in found}
        if raw[f"{self.name}.db"][1].startswith(b"SQLite format 3"):
            return super().state(home)
        return {name: what for name, what in raw.items() if not name.endswith("-shm")}

    def usable(self, home: Path) -> None:
        """Nobody can use it as it is."""


class AbsentSqlite(Sqlite):
    """A database that was removed."""

    def change(self, home: Path) -> None:
        for path in home.glob(f"{self.name}.db*"):
            path.unlink()

    def state(self, home: Path) -> Any:
        if not any(home.glob(f"{self.name}.db*")):
            return "nothing"
        return super().state(home)

    def usable(self, home: Path) -> None:
        """There may be nothing to use."""


class Files:
    """Folders, modes, times, a symbolic link, two names of one file."""

    def __init__(self, name: str = "scripts") -> None:
        self.name = name

    def config(self) -> str:
        return f'type = "files"\npath = "{self.name}"\n'

    def make(self, home: Path) -> None:
        root = home / self.name
        (root / "seasons" / "one").mkdir(parents=True)
        (root / "gone").mkdir()
        for number in range(4):
            (root / "seasons" / "one" / f"{number}.md").write_text(f"장면 {number}\n" * 9)
        (root / "seasons" / "one" / "0.md").chmod(0o600)
        (root / "gone" / "away.md").write_text("comes back")
        (root / "becomes").write_text("a folder later")
        (root / "latest").symlink_to("seasons/one/3.md")
        os.link(root / "seasons" / "one" / "1.md", root / "same.md")
        (root / "empty").mkdir(0o710)
        _old_times(root, 1_700_000_000)

    def change(self, home: Path) -> None:
        root = home / self.name
        (root / "seasons" / "one" / "0.md").chmod(0o644)
        (root / "seasons" / "one" / "2.md").write_text("changed")
        (root / "gone" / "away.md").unlink()
        (root / "gone").rmdir()
        (root / "becomes").unlink()
        (root / "becomes").mkdir()
        (root / "becomes" / "new.md").write_text("new")
        (root / "latest").unlink()
        (root / "latest").symlink_to("seasons/one/2.md")
        (root / "same.md").unlink()
        (root / "later").mkdir()
        (root / "later" / "note.md").write_text("written since")
        _old_times(root, 1_710_000_000)

    def reset(self, home: Path) -> None:
        """All of it lies in `home`."""

    def state(self, home: Path) -> Any:
        return files_state(home / self.name)

    def usable(self, home: Path) -> None:
        """Nothing locks a folder."""


def _old_times(root: Path, first: int) -> None:
    """A time of its own for each entry: whoever rewrites one is seen."""
    found = sorted(root.rglob("*"), key=lambda path: (-len(path.parts), path))
    for number, path in enumerate(found):
        os.utime(path, (first + number, first + number), follow_symlinks=False)


class Chroma:
    """A collection with an index on disk and newer records in the queue, one without an index."""

    def __init__(self, name: str = "vectors") -> None:
        self.name = name

    def config(self) -> str:
        return f'type = "chroma"\npath = "{self.name}"\n'

    def make(self, home: Path) -> None:
        shutil.copytree(_chroma()[0], home / self.name)

    def change(self, home: Path) -> None:
        shutil.rmtree(home / self.name)
        shutil.copytree(_chroma()[1], home / self.name)

    def reset(self, home: Path) -> None:
        """All of it lies in `home`."""

    def state(self, home: Path) -> Any:
        return chroma_state(home / self.name)

    def usable(self, home: Path) -> None:
        connection = sqlite3.connect(home / self.name / "chroma.sqlite3", timeout=5)
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        connection.close()


_CHROMA = """
import sys, numpy, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
def fill(name, first, last, threshold):
    meta = {"hnsw:sync_threshold": threshold, "hnsw:batch_size": threshold}
    c = client.get_or_create_collection(name, embedding_function=None, metadata=meta)
    ids = [f"{name}-{n}" for n in range(first, last)]
    v = numpy.random.default_rng(first).random((len(ids), 8), dtype=numpy.float32)
    for at in range(0, len(ids), 5):
        c.add(ids=ids[at:at+5], embeddings=v[at:at+5], documents=[f"doc {i}" for i in ids[at:at+5]])
    return c
if sys.argv[2] == "make":
    fill("scripts", 0, 23, 10)
    fill("small", 0, 3, 1000)
else:
    c = fill("scripts", 100, 117, 10)
    c.delete(ids=["scripts-1", "scripts-2"])
    c.update(ids=["scripts-3"], metadatas=[{"changed": True}], embeddings=[[0.5] * 8])
    client.delete_collection("small")
    fill("later", 0, 12, 10)
"""


@functools.cache
def _chroma() -> tuple[Path, Path]:
    """Both contents, made once: chromadb takes seconds to start."""
    base = Path(tempfile.mkdtemp(prefix="safetake-test-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    for before, after in ((None, "make"), ("make", "change")):
        if before:
            shutil.copytree(base / before, base / after)
        subprocess.run([sys.executable, "-c", _CHROMA, base / after, after], check=True)
    return base / "make", base / "change"


class Redis:
    """A server with every type, two databases and expiries, that writes nothing down."""

    def __init__(self, name: str = "queue", options: Sequence[str] = ("--save", "")) -> None:
        self.name = name
        self.port = free_port()
        version = next(version for version in RECENT if BINARIES[version])
        self._binary = str(BINARIES[version])
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._dump: list[tuple[int, bytes, bytes, int]] = []
        self._functions = b""

    def config(self) -> str:
        return f'type = "redis"\nurl = "redis://127.0.0.1:{self.port}"\n'

    def client(self, db: int = 0) -> redis.Redis:
        return redis.Redis(port=self.port, db=db, socket_timeout=20)

    def place(self, home: Path) -> None:
        """Where the server's folder is."""
        self._folder = home / self.name

    def start(self) -> None:
        """Until it answers."""
        self.stop()
        self._folder.mkdir(exist_ok=True)
        words = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        words += ["--dir", str(self._folder), "--repl-diskless-sync-delay", "0", *self._options]
        self._process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        while True:
            try:
                with self.client() as client:
                    if client.info("persistence")["loading"] == 0:
                        return
            except (redis.ConnectionError, redis.BusyLoadingError):
                assert self._process.poll() is None, "the server did not start"

    def stop(self) -> None:
        """As a service manager does: it saves and ends."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Without saving."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def make(self, home: Path) -> None:
        far = 4_000_000_000_000
        with self.client() as c, self.client(3) as other:
            c.mset({f"job:{n}": f"작업 {n}" * 9 for n in range(12)})
            c.set("session", "s", pxat=far + 1)
            c.rpush("list", *range(40))
            c.sadd("set", "a", "b", "c")
            c.hset("hash", mapping={f"f{n}": n for n in range(9)})
            c.zadd("zset", {"a": 1.5, "b": -2})
            c.xadd("stream", {"a": "1"}, id="5-1")
            c.xgroup_create("stream", "group", id="5-1")
            other.set("elsewhere", b"\x00\xff" * 60, pxat=far + 2)
            library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
            c.execute_command("FUNCTION", "LOAD", library)

    def change(self, home: Path) -> None:
        with self.client() as c, self.client(3) as other, self.client(5) as third:
            c.delete("job:1", "job:2", "set")
            c.set("job:3", "changed")
            c.set("session", "t", pxat=4_000_000_000_009)
            c.lpop("list")
            c.mset({f"later:{n}": n for n in range(5)})
            c.execute_command("FUNCTION", "FLUSH")
            other.persist("elsewhere")
            third.set("third", "x")
        self._keep()

    def _keep(self) -> None:
        self._dump = []
        with self.client() as c:
            self._functions = c.execute_command("FUNCTION", "DUMP")
        for number in range(6):
            with self.client(number) as c:
                for key in c.scan_iter(count=1000):
                    expires = int(c.execute_command("PEXPIRETIME", key))
                    value = c.execute_command("DUMP", key, NEVER_DECODE=True)
                    self._dump.append((number, key, value, max(0, expires)))

    def reset(self, home: Path) -> None:
        with self.client() as c:
            c.client_unpause()
            c.flushall()
            c.execute_command("FUNCTION", "FLUSH")
            c.execute_command("FUNCTION", "RESTORE", self._functions)
            pipe = c.pipeline(transaction=False)
            for number, key, value, expires in self._dump:
                pipe.execute_command("SELECT", number)
                pipe.restore(key, expires, value, absttl=True)
            pipe.execute_command("SELECT", 0)
            pipe.execute()

    def state(self, home: Path) -> Any:
        with self.client() as client:
            return redis_state(client)

    def usable(self, home: Path) -> None:
        with self.client() as client:
            assert client.info("replication")["role"] == "master"
            assert client.info("clients")["blocked_clients"] == 0
            client.set("probe", 1)
            client.delete("probe")


class OfflineRedis(Redis):
    """A server that writes its data down, as `options` say, and does not run during a restore."""

    def config(self) -> str:
        return super().config() + f'data = "{self.name}"\n'

    def reset(self, home: Path) -> None:
        """The data lies in `home`; who starts the server loads it."""


class Reader:
    """An application that has files open all the time, as long as it runs, and dies at once."""

    def __init__(self, paths: Callable[[], list[Path]]) -> None:
        self._paths = paths
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it has read the stores."""
        self.stop()
        program = (
            "import sqlite3, sys\n"
            "open_ones = [sqlite3.connect(path) for path in sys.argv[1:]]\n"
            "for one in open_ones: one.execute('SELECT count(*) FROM sqlite_schema').fetchone()\n"
            "print('ready', flush=True); sys.stdin.read()\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", program, *self._paths()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        """Killed, so that logs stay behind."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None
