"""The disaster itself, on the drill's copies only; and what is written after the snapshot.

A recovery must bring back what was lost and leave alone what is newer than the snapshot: so before
the loss every store gets something newer, as an application would have written it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.drill import scratchredis
from safetake.drill.newer import NEWER, Old, add_rows, connect
from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.configscenario import LossConfig


@dataclass(frozen=True, slots=True)
class Taken:
    """What one loss took."""

    items: int
    """How many rows, records, keys or files, at least; 0: nothing."""
    paths: list[str] = field(default_factory=list)
    """The files."""


def add_newer(
    kind: str, place: Path, port: int, dropped: Iterable[str] = ()
) -> tuple[dict[str, Old], str]:
    """Write something newer to a store. (What is old in each SQLite table, what took nothing.)

    Not to the collections that will be `dropped`: nothing newer of them can be kept.
    """
    if kind == "sqlite":
        return add_rows(place)
    if kind == "chroma":
        added = _chromadb("add", place, NEWER, *dropped)
        return {}, ", ".join(f"{name} (it is empty)" for name, took in added if not took)
    if kind == "redis":
        _redis(port, "SET", NEWER, "x")
    else:
        (place / f"{NEWER}.txt").write_text("newer than the snapshot\n", encoding="utf-8")
    return {}, ""


def pattern(path: str) -> str:
    """What names this file and no other in `safetake restore --path`."""
    return "/" + re.sub(r"([\\*?\[])", r"\\\1", path)


def lose(loss: LossConfig, kind: str, place: Path, port: int, old: dict[str, Old]) -> Taken:
    """Do it. Raises SafetakeError.

    Redis as a whole is lost by whoever runs the server.
    """
    if loss.everything:
        _everything(kind, place)
        return Taken(1)
    if kind == "sqlite":
        return Taken(_lose_rows(place, loss, old))
    if loss.collection is not None:
        return Taken(len(_chromadb("drop", place, loss.collection)))
    if kind == "chroma":
        lost = _chromadb("lose", place, str(loss.share), NEWER)
        return Taken(sum(count for _, count in lost))
    if kind == "redis":
        return Taken(_lose_keys(port, loss))
    paths = _lose_files(place, loss)
    return Taken(len(paths), paths)


def _everything(kind: str, place: Path) -> None:
    """The volume is there, and empty."""
    root = place.parent if kind == "sqlite" else place
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _lose_rows(path: Path, loss: LossConfig, old: dict[str, Old]) -> int:
    import apsw

    from safetake.sources.sqlite.facts import quoted

    connection = connect(path)
    try:
        schema = connection.execute("PRAGMA schema_version").get
        with connection:
            if loss.sql is not None:
                for _ in connection.execute(loss.sql):
                    pass  # statements after one that returns rows run when those are read
            for table, there in old.items() if loss.sql is None else ():
                name, these = quoted(table), ", ".join(there.order)
                by = ", ".join(f"{one} DESC" for one in there.order)
                count = connection.execute(f"SELECT count(*) FROM {name}").get
                connection.execute(
                    f"DELETE FROM {name} WHERE ({these}) IN (SELECT {these} FROM {name} "
                    f"WHERE {there.where} ORDER BY {by} LIMIT ?)",
                    (*there.values, max(1, int(count * (loss.share or 0)))),
                )
        altered = connection.execute("PRAGMA schema_version").get != schema
        return int(connection.total_changes()) or int(altered)
    except apsw.Error as error:
        raise SafetakeError(f"the loss of {loss.source} can not be made: {error}") from error
    finally:
        connection.close()


def _redis(port: int, *words: str | bytes) -> Any:
    with scratchredis.connection(port) as connection:
        return connection.call(*words)


def _lose_keys(port: int, loss: LossConfig) -> int:
    lost = 0
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
                lost += int(connection.call("DEL", key))
    return lost


def _lose_files(root: Path, loss: LossConfig) -> list[str]:
    every = (
        str((Path(folder) / name).relative_to(root))
        for folder, _, names in os.walk(root)
        for name in names
    )
    there = [name for name in every if not name.startswith(NEWER)]
    there.sort(key=lambda name: (root / name).lstat().st_mtime_ns, reverse=True)
    if loss.files is not None:
        lost = [name for name in there if fnmatch(name, loss.files)]
    else:
        lost = there[: max(1, int(len(there) * (loss.share or 0)))]
    for name in lost:
        (root / name).unlink()
    return lost


def _chromadb(verb: str, place: Path, *arguments: str) -> list[list[Any]]:
    """What it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "safetake.drill.chroma", verb, str(place), *arguments],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise SafetakeError(f"chromadb: {' '.join(said)}", hint="pip install 'safetake[chroma]'")
    return [json.loads(line) for line in done.stdout.splitlines()]
