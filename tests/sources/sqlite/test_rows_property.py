"""Random tables, random damage: afterwards the truth, row by row.

Whatever was deleted, changed and added: after bringing back, the table is what it was before plus
exactly the missing rows, with `changed` the changed ones as they were; after the undo it is what
it was before. Truth is worked out in Python from plain dumps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.repositories import memory_folder
from tests.support.rows import Ground, Row

KEYS = {
    "rowid": ("k INTEGER PRIMARY KEY", ""),
    "auto": ("k INTEGER PRIMARY KEY AUTOINCREMENT", ""),
    "text": ("k TEXT PRIMARY KEY", ""),
    "folded": ("k TEXT COLLATE NOCASE PRIMARY KEY", ""),
    "blob": ("k BLOB PRIMARY KEY", "WITHOUT ROWID"),
    "unique": ("k NOT NULL UNIQUE", ""),
    "none": ("k", ""),
}
TYPES = (
    "",
    "TEXT",
    "INTEGER",
    "REAL",
    "NUMERIC",
    "BLOB",
    "TEXT COLLATE NOCASE",
    "TEXT DEFAULT 'd'",
)
VALUES = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    st.sampled_from(["a", "A", "1", "1.0", "\0", "x" * 5000]),
    st.binary(max_size=3),
)


@dataclass(frozen=True)
class Damage:
    """One statement on the live table; `pick` chooses a row."""

    kind: str
    pick: int
    values: Row


@st.composite
def scenes(draw: st.DrawFn) -> tuple[str, list[str], list[Row], list[Damage]]:
    """(kind of key, types of the other columns, rows of the snapshot, damage since)."""
    kind = draw(st.sampled_from(sorted(KEYS)))
    types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*(VALUES for _ in types)), max_size=12))
    damage = st.builds(
        Damage,
        st.sampled_from(["delete", "change", "add"]),
        st.integers(0, 30),
        st.tuples(*(VALUES for _ in types)),
    )
    return kind, types, rows, draw(st.lists(damage, max_size=12))


def key(kind: str, number: int) -> object:
    if kind in ("rowid", "auto"):
        return number
    if kind == "blob":
        return b"k%d" % number
    return f"Key {number}" if kind != "none" else number % 3


def dump(ground: Ground) -> Counter[Row]:
    return ground.table("t")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenes())
def test_exactly_the_missing_rows_come_back(
    scene: tuple[str, list[str], list[Row], list[Damage]],
) -> None:
    kind, types, rows, damages = scene
    first, rest = KEYS[kind]
    columns = ", ".join((first, *(f"c{n} {declared}" for n, declared in enumerate(types))))
    marks = ", ".join("?" for _ in range(len(types) + 1))
    with memory_folder() as folder:
        ground = Ground(folder)
        ground.sql(f"CREATE TABLE t ({columns}) {rest}")
        ground.many(
            f"INSERT INTO t VALUES ({marks})", [(key(kind, n), *row) for n, row in enumerate(rows)]
        )
        ground.capture()
        old = dump(ground)
        for number, damage in enumerate(damages):
            _do(ground, kind, len(types), damage, len(rows) + number)
        now = dump(ground)
        report = ground.rows(apply=True)
        assert report.not_compared == {}
        assert report.result is not None or now == old or not _missing(kind, old, now)
        missing = _missing(kind, old, now)
        assert report.tables["t"].missing == missing.total()
        assert dump(ground) == now + missing
        assert ground.sql("PRAGMA integrity_check") == [("ok",)]
        counts = ground.rows(facts=False).tables["t"]
        assert counts.missing == 0
        assert counts.extra == (now + missing).total() - old.total()
        if report.undo is not None:
            ground.undo()
            assert dump(ground) == now

        # and back to the old values, too: then every row of the snapshot is there again
        report = ground.rows(apply=True, changed=True, recycled=True)
        assert dump(ground) & old == old
        if report.undo is not None:
            ground.undo()
        assert dump(ground) == now


def _do(ground: Ground, kind: str, width: int, damage: Damage, fresh: int) -> None:
    if damage.kind == "add":
        marks = ", ".join("?" for _ in range(width + 1))
        # half of the new rows take the next id that SQLite gives: it may be one of a deleted row
        number = None if kind == "rowid" and damage.pick % 2 else key(kind, fresh)
        ground.many(f"INSERT INTO t VALUES ({marks})", [(number, *damage.values)])
        return
    found = ground.sql("SELECT k FROM t ORDER BY k")
    if not found:
        return
    (value,) = found[damage.pick % len(found)]
    if damage.kind == "delete":
        ground.many("DELETE FROM t WHERE k IS ?", [(value,)])
    else:
        sets = ", ".join(f"c{n} = ?" for n in range(width))
        ground.many(f"UPDATE t SET {sets} WHERE k IS ?", [(*damage.values, value)])


def _missing(kind: str, old: Counter[Row], now: Counter[Row]) -> Counter[Row]:
    if kind == "none":
        return old - now
    there = {row[0] for row in now}
    return Counter({row: count for row, count in old.items() if row[0] not in there})


FAMILY = (
    "CREATE TABLE a (id INTEGER PRIMARY KEY, up INTEGER REFERENCES a(id), u UNIQUE)",
    "CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id), c INTEGER REFERENCES c)",
    "CREATE TABLE c (id TEXT PRIMARY KEY, b INTEGER REFERENCES b(id), v)",
)
STATEMENTS = (
    "DELETE FROM a WHERE id = {n}",
    "DELETE FROM b WHERE id = {n}",
    "DELETE FROM c WHERE id = {n}",
    "DELETE FROM b",
    "INSERT OR IGNORE INTO a (u) VALUES ({m})",
    "INSERT OR IGNORE INTO b (a, c) VALUES ({m}, {n})",
    "INSERT OR IGNORE INTO c VALUES ({m}, {n}, 'new')",
    "UPDATE OR IGNORE a SET u = {m} WHERE id = {n}",
    "UPDATE OR IGNORE a SET up = {m} WHERE id = {n}",
    "UPDATE OR IGNORE b SET a = {m} WHERE id = {n}",
)
SOME = st.one_of(st.none(), st.integers(1, 6))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(SOME, SOME, SOME, SOME), min_size=1, max_size=6),
    st.lists(
        st.tuples(st.sampled_from(STATEMENTS), st.integers(1, 7), st.integers(1, 7)), max_size=10
    ),
    st.booleans(),
)
def test_no_reference_is_broken_and_every_row_is_back_or_named(
    rows: list[tuple[int | None, ...]], damages: list[tuple[str, int, int]], changed: bool
) -> None:
    with memory_folder() as folder:
        ground = Ground(folder)
        ground.sql(*FAMILY)
        ground.many(
            "INSERT INTO a VALUES (?, ?, ?)", [(n, row[0], n) for n, row in enumerate(rows, 1)]
        )
        ground.many(
            "INSERT INTO b VALUES (?, ?, ?)", [(n, row[1], row[2]) for n, row in enumerate(rows, 1)]
        )
        ground.many(
            "INSERT INTO c VALUES (?, ?, 1)", [(str(n), row[3]) for n, row in enumerate(rows, 1)]
        )
        ground.capture()
        old = {name: ground.table(name) for name in "abc"}
        for statement, n, m in damages:
            ground.sql(statement.format(n=n, m=m))
        now = {name: ground.table(name) for name in "abc"}
        broken = Counter(ground.sql("PRAGMA foreign_key_check"))
        report = ground.rows(apply=True, changed=changed)
        left = ground.left_out(report) if report.result is not None else {}
        after = {name: ground.table(name) for name in "abc"}
        for name in "abc":
            back = {row for row in old[name] if row[0] not in {row[0] for row in now[name]}}
            named = {key for key in left if key.startswith(f"{name} ")}
            for row in back:
                quoted = f"'{row[0][1]}'" if name == "c" else str(row[0][1])
                assert (row in after[name]) != (f"{name} id = {quoted}" in named), (row, left)
            if not changed:
                assert set(after[name]) == set(now[name]) | (back & set(after[name]))
        assert not Counter(ground.sql("PRAGMA foreign_key_check")) - broken
        if report.undo is not None:
            ground.undo()
            assert {name: ground.table(name) for name in "abc"} == now
