"""Random families of tables, random damage: what comes back is right, and goes without a trace.

Keys of every kind, references in any direction (circles, actions, deferred), generated columns,
unique indexes besides the key, STRICT, WITHOUT ROWID, odd names. Nothing that is live is touched by
default; a row that stays away is named, and could not have come back; no reference is broken; the
undo ends in exactly the state before, and after later writes it leaves those alone.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import apsw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.job import Report
from tests.support.repositories import memory_folder
from tests.support.rows import Ground, Row

NAMES = ("plain", 'o"r "der', "select", "가\n나")
KEYS = {
    "rowid": ("k INTEGER PRIMARY KEY",),
    "auto": ("k INTEGER PRIMARY KEY AUTOINCREMENT",),
    "text": ("k TEXT PRIMARY KEY",),
    "folded": ("k TEXT COLLATE NOCASE PRIMARY KEY",),
    "unique": ("k TEXT NOT NULL UNIQUE",),
    "pair": ("k INTEGER NOT NULL", "l TEXT COLLATE NOCASE NOT NULL", "PRIMARY KEY (l, k)"),
    "none": ("k INTEGER",),
}
NUMBERS = {"rowid", "auto", "none"}
TYPES = ("TEXT", "INTEGER", "REAL", "BLOB", "ANY")
FREE_TYPES = ("", "NUMERIC", "TEXT COLLATE NOCASE", "TEXT DEFAULT 'd'", *TYPES)
INDEXES = ("", "({w})", "({w}) WHERE {v} IS NOT NULL", "(lower({w}))", "({v}, {w} COLLATE NOCASE)")
ACTIONS = ("", "ON DELETE CASCADE", "ON DELETE SET NULL", "DEFERRABLE INITIALLY DEFERRED")
VALUES = st.one_of(
    st.none(),
    st.sampled_from([0, 1, 1.0, "1", "a", "A", "b", b"a", 2**63 - 1, float("inf"), "x" * 5000]),
)
SMALL = st.integers(1, 4)
V, W = '"va""l"', '"w\n"'


@dataclass(frozen=True)
class Reference:
    target: int
    action: str


@dataclass(frozen=True)
class Shape:
    number: int
    key: str
    without_rowid: bool
    strict: bool
    types: tuple[str, str]
    generated: str
    index: str
    references: tuple[Reference, ...]

    @property
    def name(self) -> str:
        return quoted(NAMES[self.number])

    @property
    def key_columns(self) -> list[str]:
        return ["k", "l"] if self.key == "pair" else ["k"]

    def reference_columns(self, at: int, shapes: list[Shape]) -> list[str]:
        return [f"f{at}{c}" for c in shapes[self.references[at].target].key_columns]

    def columns(self, shapes: list[Shape]) -> list[str]:
        """What an INSERT names."""
        found = [*self.key_columns, V, W]
        for at in range(len(self.references)):
            found += self.reference_columns(at, shapes)
        return found

    def sql(self, shapes: list[Shape]) -> list[str]:
        parts = [p for p in KEYS[self.key] if not p.startswith("PRIMARY")]
        parts += [f"{V} {self.types[0]}", f"{W} {self.types[1]}"]
        ends = [p for p in KEYS[self.key] if p.startswith("PRIMARY")]
        for at, reference in enumerate(self.references):
            target = shapes[reference.target]
            mine = self.reference_columns(at, shapes)
            for column, theirs in zip(mine, target.key_columns, strict=True):
                number = theirs == "k" and (target.key in NUMBERS or target.key == "pair")
                parts.append(f"{column} {'INTEGER' if number else 'TEXT'}")
            ends.append(
                f"FOREIGN KEY ({', '.join(mine)}) REFERENCES {target.name}"
                f" ({', '.join(target.key_columns)}) {reference.action}"
            )
        if self.generated:
            parts.append(f"g TEXT AS (coalesce(hex({V}), '') || 'g') {self.generated}")
        options = ", ".join(
            word
            for word, wanted in (("WITHOUT ROWID", self.without_rowid), ("STRICT", self.strict))
            if wanted
        )
        made = [f"CREATE TABLE {self.name} ({', '.join((*parts, *ends))}) {options}"]
        if self.index:
            on = self.index.format(v=V, w=W)
            made.append(f"CREATE UNIQUE INDEX i{self.number} ON {self.name} {on}")
        return made


@dataclass(frozen=True)
class Write:
    """One statement of the application."""

    kind: str
    table: int
    key: int
    upper: bool
    values: tuple[Any, Any]
    parents: tuple[int | None, ...]


@dataclass(frozen=True)
class Scene:
    shapes: list[Shape]
    rows: list[Write]
    damage: list[Write]
    later: list[Write]
    enforced: bool


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    count = draw(st.integers(1, 3))
    keys = [draw(st.sampled_from(sorted(KEYS))) for _ in range(count)]
    targets = [number for number, key in enumerate(keys) if key != "none"]
    shapes = []
    for number, key in enumerate(keys):
        strict = draw(st.booleans())
        types = st.sampled_from(TYPES if strict else FREE_TYPES)
        shapes.append(
            Shape(
                number,
                key,
                key in ("text", "folded", "pair") and draw(st.booleans()),
                strict,
                (draw(types), draw(types)),
                draw(st.sampled_from(["", "", "STORED", "VIRTUAL"])),
                draw(st.sampled_from(INDEXES)),
                tuple(
                    draw(
                        st.lists(
                            st.builds(
                                Reference, st.sampled_from(targets), st.sampled_from(ACTIONS)
                            ),
                            max_size=2,
                        )
                    )
                )
                if targets
                else (),
            )
        )

    def writes(kinds: list[str]) -> st.SearchStrategy[Write]:
        return st.builds(
            Write,
            st.sampled_from(kinds),
            st.integers(0, count - 1),
            SMALL,
            st.booleans(),
            st.tuples(VALUES, VALUES),
            st.tuples(st.one_of(st.none(), SMALL), st.one_of(st.none(), SMALL)),
        )

    every = ["add", "fresh", "delete", "delete", "empty", "values", "parents", "key"]
    return Scene(
        shapes,
        draw(st.lists(writes(["add"]), min_size=1, max_size=12)),
        draw(st.lists(writes(every), min_size=1, max_size=8)),
        draw(st.lists(writes([*every, "vacuum"]), max_size=5)),
        draw(st.booleans()),
    )


def key_values(shape: Shape, number: int, upper: bool) -> list[Any]:
    if shape.key in NUMBERS:
        return [number]
    word = f"K{number % 2}" if upper and shape.key in ("folded", "pair") else f"k{number % 2}"
    return [number, word] if shape.key == "pair" else [f"{word}{number}"]


def write(ground: Ground, scene: Scene, what: Write, *, enforced: bool) -> None:
    """As an application does it: a constraint that says no is an error, and life goes on."""
    shape = scene.shapes[what.table]
    key = key_values(shape, what.key, what.upper)
    here = " AND ".join(f"{column} = ?" for column in shape.key_columns)
    values: list[Any] = []
    names: list[str] = []
    for at, reference in enumerate(shape.references):
        target = scene.shapes[reference.target]
        names += shape.reference_columns(at, scene.shapes)
        parent = what.parents[at]
        values += (
            [None] * len(target.key_columns)
            if parent is None
            else key_values(target, parent, not what.upper)
        )
    if what.kind == "vacuum":
        statement, bound = "VACUUM", []
    elif what.kind in ("add", "fresh"):
        if what.kind == "fresh" and shape.key in ("rowid", "auto"):
            key = [None]
        columns = shape.columns(scene.shapes)
        statement = (
            f"INSERT INTO {shape.name} ({', '.join(columns)})"
            f" VALUES ({', '.join('?' for _ in columns)})"
        )
        bound = [*key, *what.values, *values]
    elif what.kind == "delete":
        statement, bound = f"DELETE FROM {shape.name} WHERE {here}", key
    elif what.kind == "empty":
        statement, bound = f"DELETE FROM {shape.name}", []
    elif what.kind == "values":
        statement = f"UPDATE {shape.name} SET {V} = ?, {W} = ? WHERE {here}"
        bound = [*what.values, *key]
    elif what.kind == "parents" and names:
        sets = ", ".join(f"{name} = ?" for name in names)
        statement, bound = f"UPDATE {shape.name} SET {sets} WHERE {here}", [*values, *key]
    else:
        other = key_values(shape, 1 + what.key % 4, not what.upper)
        sets = ", ".join(f"{column} = ?" for column in shape.key_columns)
        statement, bound = f"UPDATE {shape.name} SET {sets} WHERE {here}", [*other, *key]
    run(ground, statement, bound, enforced=enforced)


def run(ground: Ground, statement: str, bound: list[Any], *, enforced: bool) -> None:
    connection = apsw.Connection(str(ground.path))
    try:
        connection.pragma("foreign_keys", enforced)
        connection.pragma("synchronous", "off")
        with contextlib.suppress(apsw.ConstraintError, apsw.MismatchError, apsw.SQLError):
            connection.execute(statement, bound).fetchall()
    finally:
        connection.close()


def dump(ground: Ground, scene: Scene) -> list[Counter[Row]]:
    return [ground.table(shape.name) for shape in scene.shapes]


def identity(shape: Shape, row: Row) -> Row:
    return tuple(
        value.lower() if isinstance(value, str) and shape.key in ("folded", "pair") else value
        for _, value in row[: len(shape.key_columns)]
    )


def missing(shape: Shape, old: Counter[Row], now: Counter[Row]) -> Counter[Row]:
    if shape.key == "none":
        return old - now
    there = {identity(shape, row) for row in now}
    return Counter(row for row in old if identity(shape, row) not in there)


def broken(ground: Ground) -> Counter[Row]:
    return Counter(
        row[0:1] + row[2:] for row in ground.sql("PRAGMA foreign_key_check")
    )  # row ids of tables without a key are not promised


def could_come_back(ground: Ground, scene: Scene, shape: Shape, row: Row) -> bool:
    """Whether a row that was left out fits in by itself."""
    columns = shape.columns(scene.shapes)
    values = [value for _, value in row[: len(columns)]]
    connection = apsw.Connection(str(ground.path))
    try:
        connection.pragma("foreign_keys", False)
        connection.execute("BEGIN").fetchall()
        try:
            connection.execute(
                f"INSERT INTO {shape.name} ({', '.join(columns)})"
                f" VALUES ({', '.join('?' for _ in columns)})",
                values,
            ).fetchall()
        except apsw.ConstraintError:
            return False
        named = dict(zip(columns, values, strict=True))
        for at, reference in enumerate(shape.references):
            target = scene.shapes[reference.target]
            parent = [named[name] for name in shape.reference_columns(at, scene.shapes)]
            here = " AND ".join(f"{name} = ?" for name in target.key_columns)
            asked = f"SELECT count(*) FROM {target.name} WHERE {here}"
            if None not in parent and not connection.execute(asked, parent).get:
                return False
        return True
    finally:
        connection.close(True)


def reasons(report: Report) -> list[str]:
    return [row["reason"] for row in report.result.reasons] if report.result is not None else []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenes())
def test_what_comes_back_is_right_and_undone_it_was_never_there(scene: Scene) -> None:
    with memory_folder() as folder:
        ground = Ground(folder)
        for shape in scene.shapes:
            ground.sql(*shape.sql(scene.shapes))
        for what in scene.rows:
            write(ground, scene, what, enforced=False)
        ground.capture()
        old = dump(ground, scene)
        for what in scene.damage:
            write(ground, scene, what, enforced=scene.enforced)
        now, already = dump(ground, scene), broken(ground)

        report = ground.rows(apply=True)
        assert report.not_compared == {}
        after = dump(ground, scene)
        assert ground.sql("PRAGMA integrity_check") == [("ok",)]
        assert not broken(ground) - already
        recycled = any("perhaps another" in reason for reason in reasons(report))
        away = 0
        for shape, was, live, found in zip(scene.shapes, old, now, after, strict=True):
            wanted = missing(shape, was, live)
            assert not live - found
            assert not (found - live) - wanted
            lost = wanted - (found - live)
            away += lost.total()
            for row in lost:
                assert recycled or not could_come_back(ground, scene, shape, row), (shape, row)
        assert away == (report.result.skipped if report.result is not None else 0)
        if report.undo is not None:
            assert ground.undo().skipped == 0
        assert dump(ground, scene) == now

        # back to the old values, too
        report = ground.rows(apply=True, changed=True, recycled=True)
        after = dump(ground, scene)
        assert ground.sql("PRAGMA integrity_check") == [("ok",)]
        assert not broken(ground) - already
        for shape, was, live, found in zip(scene.shapes, old, now, after, strict=True):
            newer = missing(shape, live, was)
            assert not newer - found
            if report.result is None or report.result.skipped == 0:
                assert found == (was | live if shape.key == "none" else was + newer)
        if report.undo is not None:
            assert ground.undo().skipped == 0
        assert dump(ground, scene) == now

        # and an undo after other writes leaves those alone
        report = ground.rows(apply=True, changed=True, recycled=True)
        if report.undo is None:
            return
        after = dump(ground, scene)
        for what in scene.later:
            write(ground, scene, what, enforced=scene.enforced)
        later, before_undo = dump(ground, scene), broken(ground)
        ground.undo()
        final = dump(ground, scene)
        assert ground.sql("PRAGMA integrity_check") == [("ok",)]
        assert not broken(ground) - (already + before_undo)
        for written, unwritten, found in zip(later, after, final, strict=True):
            assert not (written - unwritten) - found


CHANGES = (
    "ALTER TABLE {t} ADD COLUMN more TEXT DEFAULT draft",
    "ALTER TABLE {t} ADD COLUMN {w} TEXT",
    "ALTER TABLE {t} ADD COLUMN must INTEGER NOT NULL DEFAULT 0 CHECK (must = 0)",
    "ALTER TABLE {t} DROP COLUMN {v}",
    "ALTER TABLE {t} DROP COLUMN {w}",
    "ALTER TABLE {t} RENAME COLUMN {v} TO renamed",
    "ALTER TABLE {t} RENAME TO another",
    "CREATE UNIQUE INDEX since ON {t} ({w})",
    "CREATE TABLE again AS SELECT * FROM {t}; DROP TABLE {t}; ALTER TABLE again RENAME TO {t}",
    "CREATE TABLE again (k INTEGER PRIMARY KEY, l, {v} INTEGER NOT NULL DEFAULT 7, {w} BLOB);"
    " INSERT OR IGNORE INTO again (k, {w}) SELECT rowid, {w} FROM {t}; DROP TABLE {t};"
    " ALTER TABLE again RENAME TO {t}",
    "VACUUM",
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scenes(),
    st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 2)), min_size=1, max_size=3),
    st.booleans(),
)
def test_after_a_change_of_the_schema_nothing_live_is_lost(
    scene: Scene, changes: list[tuple[str, int]], changed: bool
) -> None:
    with memory_folder() as folder:
        ground = Ground(folder)
        for shape in scene.shapes:
            ground.sql(*shape.sql(scene.shapes))
        for what in scene.rows:
            write(ground, scene, what, enforced=False)
        ground.capture()
        for statement, number in changes:
            name = scene.shapes[number % len(scene.shapes)].name
            run(ground, statement.format(t=name, v=V, w=W), [], enforced=False)
        for what in scene.damage:
            write(ground, scene, what, enforced=scene.enforced)
        names = [
            quoted(row[0])
            for row in ground.sql("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if not row[0].startswith("sqlite_")
        ]
        now = {name: ground.table(name) for name in names}
        try:
            already = broken(ground)
        except apsw.SQLError:  # a reference whose parent has another key now
            already = None
        report = ground.rows(apply=True, changed=changed, recycled=changed)
        after = {name: ground.table(name) for name in names}
        assert ground.sql("PRAGMA integrity_check") == [("ok",)]
        assert already is None or not broken(ground) - already
        assert {*report.tables, *report.not_compared} >= {
            NAMES[shape.number] for shape in scene.shapes
        }
        for name in names:
            assert changed or not now[name] - after[name]
            assert len(after[name]) >= len(now[name]) or changed
        if report.undo is not None:
            assert ground.undo().skipped == 0
        assert {name: ground.table(name) for name in names} == now
