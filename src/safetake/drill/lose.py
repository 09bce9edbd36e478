"""The disaster itself, on the drill's copies only; and what is written after the snapshot.

A recovery must bring back what was lost and leave alone what is newer than the snapshot: so before
the loss every store gets something newer, as an application would have written it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.drill import scratchredis
from safetake.drill.items import files as all_files
from safetake.drill.newer import NEWER, add_rows, connect
from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.configscenario import LossConfig


def add_newer(
    kind: str, place: Path, port: int, dropped: Iterable[str] = ()
) -> tuple[dict[str, int], str]:
    """Write something newer to a store. (Last old row of each SQLite table, what took nothing.)

    Not to the collections that will be `dropped`: nothing newer of them can be kept.
    """
    if kind == "sqlite":
        return add_rows(place)
    if kind == "chroma":
        _chromadb("add", place, NEWER, *dropped)
    elif kind == "redis":
        _redis(port, "SET", NEWER, "x")
    else:
        (place / f"{NEWER}.txt").write_text("newer than the snapshot\n", encoding="utf-8")
    return {}, ""


def lose(loss: LossConfig, kind: str, place: Path, port: int, old: dict[str, int]) -> list[str]:
    """Do it; returns the paths that vanished, for files. Raises SafetakeError.

    Redis as a whole is lost by whoever runs the server.
    """
    if loss.everything:
        _everything(kind, place)
        return []
    if kind == "sqlite":
        _lose_rows(place, loss, old)
    elif loss.collection is not None:
        _chromadb("drop", place, loss.collection)
    elif kind == "chroma":
        _chromadb("lose", place, str(loss.share), NEWER)
    elif kind == "redis":
        _lose_keys(port, loss)
    else:
        return _lose_files(place, loss)
    return []


def _everything(kind: str, place: Path) -> None:
    """The volume is there, and empty."""
    root = place.parent if kind == "sqlite" else place
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _lose_rows(path: Path, loss: LossConfig, old: dict[str, int]) -> None:
    import apsw

    from safetake.sources.sqlite.facts import quoted

    connection = connect(path)
    try:
        with connection:
            if loss.sql is not None:
                connection.execute(loss.sql)
                return
            for table, last in old.items():
                name = quoted(table)
                count = connection.execute(f"SELECT count(*) FROM {name}").get
                connection.execute(
                    f"DELETE FROM {name} WHERE rowid IN (SELECT rowid FROM {name} "
                    "WHERE rowid <= ? ORDER BY rowid DESC LIMIT ?)",
                    (last, max(1, int(count * (loss.share or 0)))),
                )
    except apsw.Error as error:
        raise SafetakeError(f"the loss of {loss.source} can not be made: {error}") from error
    finally:
        connection.close()


def _redis(port: int, *words: str | bytes) -> Any:
    with scratchredis.connection(port) as connection:
        return connection.call(*words)


def _lose_keys(port: int, loss: LossConfig) -> None:
    with scratchredis.connection(port) as connection:
        for line in bytes(connection.call("INFO", "keyspace")).decode().splitlines():
            if not line.startswith("db"):
                continue
            connection.call("SELECT", line.partition(":")[0][2:])
            cursor: Any = b"0"
            found: list[bytes] = []
            while True:
                words = ["MATCH", loss.keys] if loss.keys else []
                cursor, page = connection.call("SCAN", cursor, *words, "COUNT", 1000)
                found += [key for key in page if key != NEWER.encode()]
                if cursor == b"0":
                    break
            found = sorted(set(found))
            share = 1.0 if loss.share is None else loss.share
            for key in found[: max(1, int(len(found) * share))]:
                connection.call("DEL", key)


def _lose_files(root: Path, loss: LossConfig) -> list[str]:
    there = [
        item.name
        for item in all_files(root)
        if not (root / item.name).is_dir() and not item.name.startswith(NEWER)
    ]
    there.sort(key=lambda name: (root / name).lstat().st_mtime_ns, reverse=True)
    if loss.files is not None:
        lost = [name for name in there if fnmatch(name, loss.files)]
    else:
        lost = there[: max(1, int(len(there) * (loss.share or 0)))]
    for name in lost:
        (root / name).unlink()
    return lost


def _chromadb(verb: str, place: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "safetake.drill.chroma", verb, str(place), *arguments],
        capture_output=True,
        check=False,
        timeout=600,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise SafetakeError(f"chromadb: {' '.join(said)}", hint="pip install 'safetake[chroma]'")
