"""Proof of a restored Chroma folder: its bytes, its structure, and what Chroma itself sees in it.

First everything is checked without chromadb, because Chroma notices almost no damage by itself:
digests of every file, SQLite's own check, ids against vectors with the queue replayed, links,
remembered nearest neighbours. Then, where chromadb is installed, a fresh process opens the copy
(which changes it) and its counts, ids, documents, vectors and queries are compared. It does not
limit time beyond that process; the caller runs it where it can end it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from safetake.columns import LAYOUT_NAME, PARTS_SUFFIX, join, make_layout
from safetake.errors import DamagedError
from safetake.model import Check
from safetake.sources.chroma import catalogue, hnsw
from safetake.sources.chroma.database import NAME
from safetake.sources.chroma.neighbours import Sample, answers, distance, sample
from safetake.sources.chroma.partdigests import part_digests
from safetake.sources.chroma.pickles import Ids
from safetake.sources.chroma.replay import digest, ids_after_replay, metadata_ids
from safetake.sources.chroma.structure import read_ids, structure
from safetake.sources.sqlite.proof import content_of
from safetake.sources.sqlite.readonly import restrict

CHROMADB_SECONDS = 900.0
"""A damaged index can hang Chroma for ever; loading one of 1 GB takes seconds."""
_ASKED = 4
_TOLERANCE = 1e-4
_SHOWN = 10


def questions(staged: Path, entry: Mapping[str, Any]) -> list[Check]:
    """Question the folder `staged` against its manifest `entry` (`model.Opener`); changes it.

    Never raises for what it finds in the folder.
    """
    if entry.get("method") == "rest":
        from safetake.sources.chroma.export import questions as about_export

        return about_export(staged, entry)
    proof = _Proof(staged, entry["facts"])
    proof.run()
    return proof.checks


def questions_that_change_nothing(staged: Path, entry: Mapping[str, Any]) -> list[Check]:
    """The same without chromadb, which changes what it opens: for data that goes live.

    Never raises for what it finds in the folder, and leaves it as it is.
    """
    proof = _Proof(staged, entry["facts"], private=False)
    proof.run()
    return proof.checks


class _Proof:
    def __init__(self, staged: Path, facts: Mapping[str, Any], *, private: bool = True) -> None:
        self._staged = staged
        self._facts = facts
        self._private = private
        self.checks: list[Check] = []
        self._ids: dict[str, set[str]] = {}
        """collection to the ids that Chroma will have"""
        self._asked: dict[str, dict[str, str]] = {}
        """collection to ids to ask Chroma for, with their vectors as hex"""

    def run(self) -> None:
        before = len(self.checks)
        if self._private:
            self._say(self._joined(), "parts")
        self._say(self._database_bytes(), NAME)
        for segment, facts in self._facts["segments"].items():
            self._say(self._segment_bytes(segment, facts), f"{segment}: files")
        connection = None
        try:
            connection = self._connect()
            self._say(self._database(connection), NAME)
            for segment, facts in self._facts["segments"].items():
                self._say(self._segment(connection, segment, facts), segment)
            self._say(self._collections(connection), "collections")
        except apsw.Error as error:
            self.checks.append(Check(f"{NAME} opens", False, "a database", None, str(error)))
        finally:
            if connection is not None:
                connection.close(force=True)
        good = all(check.ok for check in self.checks[before:])
        self._say(self._chromadb(good), "chromadb")

    def _connect(self) -> apsw.Connection:
        path = self._staged / NAME
        if not self._private:
            return immutable(path)
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.execute("PRAGMA query_only = 1").fetchall()
        restrict(connection)
        return connection

    def _say(self, asked: Iterator[Check], name: str) -> None:
        """A question that cannot be asked is a failed check, never left out."""
        try:
            self.checks.extend(asked)
        except (apsw.Error, OSError, ValueError, KeyError, TypeError, DamagedError) as error:
            text = f"cannot ask: {type(error).__name__}: {error}"
            self.checks.append(Check(name, False, None, None, text))

    # bytes

    def _joined(self) -> Iterator[Check]:
        for parts in sorted(self._staged.rglob("*" + PARTS_SUFFIX)):
            if (parts / LAYOUT_NAME).is_file():
                join(parts, parts.with_suffix(""))
                shutil.rmtree(parts)
        yield from ()

    def _database_bytes(self) -> Iterator[Check]:
        known, path = self._facts["sqlite"], self._staged / NAME
        expected, size = known["page_size"] * known["page_count"], path.stat().st_size
        yield Check(f"{NAME}: size", size == expected, expected, size)
        found = content_of(path, known["chunk"])
        yield Check(f"{NAME}: content", found == known["content"], known["content"], found)

    def _segment_bytes(self, segment: str, facts: Mapping[str, Any]) -> Iterator[Check]:
        folder = self._staged / segment
        for name, known in facts["files"].items():
            path = folder / name
            if not path.is_file():
                yield Check(f"{segment}/{name}", False, f"{known['size']} bytes", "missing")
                continue
            size = path.stat().st_size
            found = part_digests(path, size, known)
            same = size == known["size"] and found == known["parts"]
            yield Check(f"{segment}/{name}", same, known["parts"], found, f"{size} bytes")

    # meaning

    def _database(self, connection: apsw.Connection) -> Iterator[Check]:
        rows = [
            row[0] for row in connection.execute(f"PRAGMA integrity_check({_SHOWN})").fetchall()
        ]
        yield Check(f"{NAME}: integrity_check", rows == ["ok"], ["ok"], rows)
        found = catalogue.describe(connection)
        for key, value in found.items():
            expected = self._facts[key]
            yield Check(f"{NAME}: {key}", value == expected, expected, value)

    def _segment(
        self, connection: apsw.Connection, segment: str, facts: Mapping[str, Any]
    ) -> Iterator[Check]:
        collection = facts["collection"]
        known = self._facts["collections"][collection]
        folder = self._staged / segment
        persisted = (folder / hnsw.PICKLE).exists()
        recorded = known["vector_max_seq_id"]
        if not persisted:
            yield Check(f"{segment}: persisted", not recorded, bool(recorded), persisted)
            ids: Ids | None = None
        else:
            ids, check = read_ids(folder)
            yield check
            if ids is None:
                return
            yield from structure(folder, ids, known["dimension"])
        position = recorded if recorded is not None else (ids.max_seq_id if ids else None)
        there = ids.label_of if ids else ()
        vectors = ids_after_replay(connection, collection, there, position or 0)
        metadata = ids_after_replay(
            connection,
            collection,
            metadata_ids(connection, known["metadata_segment"]),
            known["metadata_max_seq_id"] or 0,
        )
        self._ids[collection] = metadata
        detail = ""
        if vectors != metadata:
            few = sorted(vectors ^ metadata)[:_SHOWN]
            detail = f"{len(vectors ^ metadata)} ids have only one of both: {few}"
        same = vectors == metadata
        yield Check(f"{segment}: vectors and metadata", same, len(metadata), len(vectors), detail)
        if ids is not None and ids.label_of:
            yield from self._neighbours(folder, facts, known, ids)

    def _neighbours(
        self, folder: Path, facts: Mapping[str, Any], known: Mapping[str, Any], ids: Ids
    ) -> Iterator[Check]:
        header = hnsw.parse_header((folder / hnsw.HEADER).read_bytes()[: hnsw.HEADER_BYTES + 1])
        data = folder / hnsw.DATA
        size = data.stat().st_size
        layout = make_layout(size, header.record, header.widths) if header else None
        if header is None or layout is None:
            return
        with data.open("rb") as file:

            def read(number: int, first: int, count: int) -> bytes:
                column = layout.columns[number]
                file.seek(first * layout.record)
                rows = file.read(count * layout.record)
                starts = range(column.offset, len(rows), layout.record)
                return b"".join(rows[at : at + column.width] for at in starts)

            taken = sample(folder.name, layout, header.count, read)
        expected = facts["samples"]
        if expected is not None:
            found = answers(taken, known["space"])
            yield Check(
                f"{folder.name}: nearest neighbours", _close(expected, found), expected, found
            )
        self._choose(facts["collection"], known, taken, ids)

    def _choose(self, collection: str, known: Mapping[str, Any], taken: Sample, ids: Ids) -> None:
        """Records to ask Chroma for: those of the sample that no queued operation touches."""
        chosen = self._asked.setdefault(collection, {})
        step = max(1, len(taken.labels) // _ASKED)
        for index in range(0, len(taken.labels), step):
            one = ids.id_of.get(int(taken.labels[index]))
            if one is not None and one in self._ids[collection]:
                chosen[one] = taken.vectors[index].tobytes().hex()

    def _collections(self, connection: apsw.Connection) -> Iterator[Check]:
        expected = {c["vector_segment"] for c in self._facts["collections"].values()} - {None}
        found = {segment.id for segment in catalogue.segments(connection)}
        yield Check("segments", found == expected, sorted(expected), sorted(found))
        for collection, known in self._facts["collections"].items():
            if collection not in self._ids:  # never written: no folder, perhaps a queue
                self._ids[collection] = ids_after_replay(
                    connection,
                    collection,
                    metadata_ids(connection, known["metadata_segment"] or ""),
                    known["metadata_max_seq_id"] or 0,
                )
            for one in list(self._asked.get(collection, {})):
                touched = connection.execute(
                    "SELECT 1 FROM embeddings_queue WHERE id = ? AND topic LIKE ? AND seq_id > ?",
                    (one, f"%/{collection}", known["vector_max_seq_id"] or 0),
                ).fetchone()
                if touched:
                    del self._asked[collection][one]

    # what Chroma sees

    def _chromadb(self, good: bool) -> Iterator[Check]:
        if not self._private:
            yield Check("chromadb (not asked: it changes what it opens)", True, None, "not asked")
            return
        if find_spec("chromadb") is None:
            yield Check("chromadb (not asked: not installed)", True, None, "not asked")
            return
        if not good:
            yield Check("chromadb (not asked: damaged)", True, None, "not asked")
            return
        names = {entry["id"]: entry for entry in self._facts["databases"]}
        wanted: dict[str, Any] = {
            "databases": [
                {
                    "tenant": database["tenant"],
                    "name": database["name"],
                    "collections": [
                        known["name"]
                        for known in self._facts["collections"].values()
                        if known["database"] == key
                    ],
                }
                for key, database in names.items()
            ],
            "samples": {key: list(chosen) for key, chosen in self._asked.items()},
        }
        answer = self._ask(wanted)
        if isinstance(answer, str):
            yield Check("chromadb opens", False, "an open store", None, answer)
            return
        yield Check("chromadb opens", True, None, answer["version"])
        for collection, known in self._facts["collections"].items():
            found = answer["collections"].get(collection)
            if found is None:
                yield Check(f"{known['name']}: in chromadb", False, "a collection", None)
                continue
            expected = len(self._ids[collection])
            yield Check(
                f"{known['name']}: count", found["count"] == expected, expected, found["count"]
            )
            ids = digest(self._ids[collection])
            yield Check(f"{known['name']}: ids", found["ids"] == ids, ids, found["ids"])
            for one, vector in self._asked.get(collection, {}).items():
                yield self._record(known, one, vector, found["records"].get(one))

    def _ask(self, wanted: dict[str, Any]) -> dict[str, Any] | str:
        """The answers of `ask`, or why there are none. One open in 28 panicked: asks twice."""
        text = "no answer"
        for _ in range(2):
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "safetake.sources.chroma.ask", self._staged],
                    input=json.dumps(wanted),
                    capture_output=True,
                    text=True,
                    timeout=CHROMADB_SECONDS,
                    env=os.environ | {"ANONYMIZED_TELEMETRY": "False"},
                )
            except subprocess.TimeoutExpired:
                return f"it hangs: no answer within {CHROMADB_SECONDS:g} s"
            if done.returncode == 0:
                answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
                return answer
            text = f"exit {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:300]}"
        return text

    def _record(
        self, known: Mapping[str, Any], one: str, stored: str, found: dict[str, Any] | None
    ) -> Check:
        """One record as Chroma gives it: its vector bit by bit, and that it answers a query."""
        import numpy as np

        name = f"{known['name']}: record {one!r}"
        if found is None:
            return Check(name, False, "a record", None)
        wanted = np.frombuffer(bytes.fromhex(stored), np.float32)
        got = np.frombuffer(bytes.fromhex(found["vector"]), np.float32)
        if known["space"] == "cosine":  # stored normalised, given back with its length
            length = float(np.linalg.norm(got)) or 1.0
            same = bool(np.allclose(got / length, wanted, atol=1e-5))
            own = float(distance(wanted[None, :], wanted, "cosine")[0])
        else:
            same = got.tobytes() == wanted.tobytes()
            own = float(distance(wanted[None, :], wanted, known["space"])[0])
        # An approximate index may miss even the record itself (seen with 170,000 random vectors of
        # 1,536 dimensions and a thin graph): that is told, and is no damage.
        itself = one in found["nearest"] or (
            bool(found["distances"])
            and min(found["distances"]) <= own + _TOLERANCE * max(1.0, abs(own))
        )
        detail = "" if itself else "not among its own nearest: the index is approximate"
        answered = len(found["nearest"]) > 0
        expected = {"vector": True, "answered": True}
        return Check(
            name, same and answered, expected, {"vector": same, "answered": answered}, detail
        )


def immutable(path: Path) -> apsw.Connection:
    """A connection that reads a database nobody uses, and leaves no file beside it."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(f"file:{quote(os.fspath(path))}?immutable=1", flags=flags)
    restrict(connection)
    return connection


def _close(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> bool:
    """The same labels in the same order, with distances up to the rounding of another machine."""
    if [answer["label"] for answer in expected] != [answer["label"] for answer in found]:
        return False
    for one, other in zip(expected, found, strict=True):
        if len(one["neighbours"]) != len(other["neighbours"]):
            return False
        for (label, far), (again, away) in zip(one["neighbours"], other["neighbours"], strict=True):
            if abs(far - away) > 1e-9 * max(1.0, abs(far)) or label != again:
                return False
    return True
