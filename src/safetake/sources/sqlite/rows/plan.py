"""Which tables can be compared, and how; for the others, why not.

A table is compared over the columns that both sides have. Rows are told apart by the table's key;
without one they are counted as whole rows, equal rows one against one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import apsw

from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.marker import TABLE
from safetake.sources.sqlite.rows.connect import SNAPSHOT
from safetake.sources.sqlite.rows.schema import (
    KEY,
    NONE,
    ROWID,
    Column,
    Table,
    folded,
    not_known_modules,
    read_table,
    table_kinds,
)

CREATED = (
    "created_at", "created", "created_on", "createdat", "created_time", "creation_time",
    "creation_date", "date_created", "time_created", "inserted_at",
)  # fmt: skip
"""Columns that never change in the life of a row: where they differ, it is another row."""
COLUMNS = 990
"""A changed row is kept as it was and as it shall be, in one row of at most 2000 columns."""


@dataclass(slots=True)
class TablePlan:
    """How one table is compared and written."""

    number: int
    live: Table
    old: Table
    common: list[tuple[Column, Column]]
    """(in the live table, in the snapshot's)"""
    notes: list[str] = field(default_factory=list)
    no_insert: str = ""
    """Why no row can be brought back into it."""
    keep: str = ""
    """Whose old values `diff` keeps as o0, o1, …: of no row, of the missing (`m`), or also of the
    changed (`c`). Reading them a second time would fetch most chunks a second time."""

    @property
    def name(self) -> str:
        """As the live database spells it."""
        return self.live.name

    @property
    def added(self) -> set[str]:
        """Columns that the live table has and the snapshot's has not."""
        return set(self.live.names) - {live.name for live, _ in self.common}

    @property
    def diff(self) -> str:
        """The temporary table with the keys of what differs: k0…, kind (m, c or p), recycled."""
        return f"temp.safetake_diff_{self.number}"

    @property
    def keys(self) -> list[str]:
        """Columns of `diff` that make up the key: the table's, or the snapshot's rowid."""
        return [f"k{n}" for n in range(len(self.live.key) or 1)]

    @property
    def shape(self) -> str:
        """Columns of `diff` after its key."""
        kept = [f"o{n}" for n, _ in enumerate(self.common)] if self.keep else []
        return ", ".join(("kind", "recycled", *kept))

    def values(self, old: str, missing: str = "") -> str:
        """SQL of o0, o1, … with a comma before; `missing` is SQL, true when a row is missing."""
        if not self.keep:
            return ""
        found = [f"{old}.{quoted(o.name)}" for _, o in self.common]
        if self.keep == "m" and missing:
            found = [f"iif({missing}, {value}, NULL)" for value in found]
        return "".join(f", {value}" for value in found)

    def differs(self, old: str, live: str) -> str:
        """SQL: the row under the alias `old` is not, value for value, the one under `live`."""
        return any_of([value_differs(old, o, live, c) for c, o in self.common]) or "0"

    def is_row(self, old: str, live: str) -> str:
        """SQL: both aliases have the same key."""
        return self.live.key_is(live, [f"{old}.{quoted(name)}" for name in self.old.key])

    def old_is(self, alias: str, diff: str = "d") -> str:
        """SQL: the snapshot's row under `alias` is the one that `diff` names."""
        if self.live.kind == NONE:
            return f"{alias}.{self.old.rowid} = {diff}.k0"
        return self.old.key_is(alias, [f"{diff}.{key}" for key in self.keys])

    def live_is(self, alias: str, diff: str = "d") -> str:
        """SQL: the live row under `alias` is the one that `diff` names (tables with a key)."""
        return self.live.key_is(alias, [f"{diff}.{key}" for key in self.keys])

    def absent(self, alias: str) -> str:
        """SQL: the live side of a LEFT JOIN found nothing."""
        column = quoted(self.live.key[0]) if self.live.kind != NONE else self.live.rowid
        return f"{alias}.{column} IS NULL"

    @property
    def created(self) -> tuple[Column, Column] | None:
        """The column that tells when a row came into being."""
        for name in CREATED:
            for pair in self.common:
                if folded(pair[0].name) == name:
                    return pair
        return None

    def recycled(self, old: str, live: str, highest: int | None) -> str:
        """SQL: the live row may be another one under an id that was used again.

        SQLite gives a new row the id after the highest there is, so that an id can be used again
        only when every row at or above it was gone; `highest` is the highest id whose row is still
        unchanged. A time of creation that is the same, or not, decides; without one, ids above
        `highest` are suspicious, and below it rows of which nothing is left.
        """
        if self.live.kind != ROWID or self.live.autoincrement:
            return "0"
        others = [pair for pair in self.common if pair[0].name != self.live.key[0]]
        key = f"{old}.{quoted(self.old.key[0])}"
        above = "1" if highest is None else f"{key} > {highest}"
        same = any_of([f"NOT ({value_differs(old, o, live, c)})" for c, o in others])
        guess = f"({above} OR NOT ({same}))" if len(others) > 1 else f"({above})"
        if self.created is None:
            return guess
        mine, theirs = self.created
        a, b = f"{old}.{quoted(theirs.name)}", f"{live}.{quoted(mine.name)}"
        return (
            f"CASE WHEN {a} IS NULL AND {b} IS NULL THEN {guess}"
            f" ELSE {value_differs(old, theirs, live, mine)} END"
        )


def any_of(terms: list[str]) -> str:
    """OR over many terms as a balanced tree: SQLite limits the depth of an expression to 1000."""
    if len(terms) <= 1:
        return "".join(terms)
    middle = len(terms) // 2
    return f"({any_of(terms[:middle])} OR {any_of(terms[middle:])})"


def value_differs(a: str, first: Column, b: str, second: Column) -> str:
    """Exactly: no collation hides a change, and where types are free 1 is not 1.0."""
    x, y = f"{a}.{quoted(first.name)}", f"{b}.{quoted(second.name)}"
    plain = f"{x} COLLATE BINARY IS NOT {y}"
    if first.affinity == second.affinity == "BLOB":
        return f"({plain} OR typeof({x}) <> typeof({y}))"
    return plain


def plan_tables(
    connection: apsw.Connection,
) -> tuple[list[TablePlan], dict[str, str], dict[str, str]]:
    """(tables that can be compared, why others can not, why others need not be).

    Those that need not be hold no row of the snapshot by themselves. Raises apsw.Error.
    """
    old_kinds, live_kinds = table_kinds(connection, SNAPSHOT), table_kinds(connection, "main")
    spelt = {folded(name): name for name in old_kinds}
    collations = {str(row[1]).upper() for row in connection.execute("PRAGMA collation_list")}
    plans: list[TablePlan] = []
    refused: dict[str, str] = {}
    needless: dict[str, str] = {}
    for name, (kind, without) in sorted(live_kinds.items()):
        old_name = spelt.pop(folded(name), None)
        if kind == "shadow":
            continue  # a part of its virtual table
        if TABLE in (name, old_name):
            continue  # of a restore, and none of the application's
        if kind == "virtual":
            reason = _virtual(connection, name, live_kinds)
            follows = _follows(connection, name)
            (needless if follows or old_name is None else refused)[name] = reason
            continue
        if old_name is None:
            needless[name] = "it is not in the snapshot: all of its rows are newer"
            continue
        if old_kinds[old_name][0] != "table":
            refused[name] = "it was a virtual table in the snapshot"
            continue
        try:
            live = read_table(connection, "main", name, without)
            old = read_table(connection, SNAPSHOT, old_name, old_kinds[old_name][1])
        except apsw.Error as error:
            refused[name] = f"its columns cannot be asked: {error}"
            continue
        plan = _plan(len(plans), live, old, collations)
        if isinstance(plan, str):
            refused[name] = plan
        else:
            plans.append(plan)
    for old_name in spelt.values():
        if old_kinds[old_name][0] == "table" and old_name != TABLE:
            refused[old_name] = (
                "it is not in the live database any more: make it again first, with the SQL that "
                f"`safetake query` shows (SELECT sql FROM sqlite_schema WHERE name = '{old_name}')"
            )
    return plans, refused, needless


def _follows(connection: apsw.Connection, name: str) -> bool:
    """Whether a virtual table is an FTS index over another table (`content=TABLE`)."""
    row = connection.execute(
        "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?", (name,)
    ).fetchone()
    sql = "".join(str(row[0]).lower().split()).replace('"', "'") if row else ""
    return "usingfts" in sql and "content=" in sql and "content=''" not in sql


def _virtual(connection: apsw.Connection, name: str, kinds: Mapping[str, tuple[str, bool]]) -> str:
    if _follows(connection, name):
        return (
            "a full-text index over another table: it follows that table through its triggers,"
            f" or is made anew with INSERT INTO {quoted(name)}({quoted(name)}) VALUES ('rebuild')"
        )
    reason = (
        "a virtual table: its rows lie coded in tables of its module; `safetake restore` brings"
        " the whole database back beside the live one"
    )
    parts = [
        other
        for other, (kind, _) in kinds.items()
        if kind == "shadow" and folded(other).startswith(f"{folded(name)}_")
    ]
    if parts and name in not_known_modules(connection, "main"):
        reason += f". Taken for parts of it, by their names: {', '.join(sorted(parts))}"
    return reason


def _plan(number: int, live: Table, old: Table, collations: set[str]) -> TablePlan | str:
    unknown = {c.collation for t in (live, old) for c in t.columns} | {*live.collations}
    unknown = {name for name in unknown if name.upper() not in collations}
    if unknown:
        return f"it uses the collation {min(unknown)}, which only the application has"
    common = [(c, o) for c in live.columns if (o := old.find(c.name)) is not None]
    if max(len(live.columns), len(old.columns)) > COLUMNS:
        return f"it has more than {COLUMNS} columns"
    if not common:
        return "it has no column in common with the snapshot's"
    plan = TablePlan(number, live, old, common)
    if not _same_key(live, old):
        if not (live.rowid and old.rowid) or ROWID in (live.kind, old.kind):
            return "its key is another one than in the snapshot"
        live.kind = old.kind = NONE
        live.key, old.key, live.collations, old.collations = [], [], [], []
    if live.kind == NONE:
        if not (live.rowid and old.rowid):
            return "it has no key, and columns that hide every name of the rowid"
        plan.notes.append("no key: whole rows are compared, equal ones counted")
    added = [c for c in live.columns if c.name in plan.added]
    if added:
        plan.notes.append("columns since the snapshot: " + ", ".join(c.name for c in added))
    gone = [
        c.name for c in old.columns if live.find(c.name) is None and c.name not in live.generated
    ]
    if gone:
        plan.notes.append("columns that are gone: " + ", ".join(gone))
    needed = [c.name for c in added if c.notnull and c.default is None]
    if needed:
        plan.no_insert = (
            f"column {needed[0]} was added since, may not be NULL and has no default: "
            "there is no value for it"
        )
    return plan


def _same_key(live: Table, old: Table) -> bool:
    if live.kind != old.kind:
        return False
    if live.kind == NONE:
        return True
    names = {folded(a): x for a, x in zip(live.key, live.collations, strict=True)}
    others = {folded(b): x for b, x in zip(old.key, old.collations, strict=True)}
    if names != others:
        return False
    if live.kind == KEY and [folded(k) for k in live.key] != [folded(k) for k in old.key]:
        order = {folded(name): n for n, name in enumerate(live.key)}
        pairs = sorted(zip(old.key, old.collations, strict=True), key=lambda p: order[folded(p[0])])
        old.key, old.collations = [k for k, _ in pairs], [c for _, c in pairs]
    return True
