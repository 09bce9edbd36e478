"""What a table is made of, as far as comparing and writing its rows depends on it."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, field

import apsw

from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.sql import number

_ROWID_NAMES = ("rowid", "_rowid_", "oid")

_MODULE = re.compile(r"\bUSING\s+[\"'`\[]?(\w+)", re.IGNORECASE)
_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

ROWID = "rowid"
KEY = "key"
NONE = "none"


def folded(name: str) -> str:
    """A name as SQLite compares names: small letters of ASCII are capital ones, no others are."""
    return name.translate(_SMALL)


@dataclass(slots=True)
class Column:
    """A stored column (generated ones are left out)."""

    name: str
    affinity: str
    """TEXT, NUMERIC, INTEGER, REAL or BLOB (values keep the type that they came with)."""
    notnull: bool
    default: str | None
    """The SQL of the default."""
    collation: str


@dataclass(slots=True)
class Table:
    """One ordinary table of one of the two databases."""

    schema: str
    name: str
    columns: list[Column]
    generated: list[str]
    kind: str
    """How a row is known: `rowid` (an INTEGER PRIMARY KEY), `key` (another key), or `none`."""
    key: list[str] = field(default_factory=list)
    collations: list[str] = field(default_factory=list)
    rowid: str = ""
    """A name under which the rowid is reached; empty when there is none."""
    autoincrement: bool = False
    primary: list[str] = field(default_factory=list)
    """Columns of the PRIMARY KEY, in its order; they may hold NULL, and are no `key` then."""

    @property
    def place(self) -> str:
        """`schema."name"`."""
        return f"{self.schema}.{quoted(self.name)}"

    @property
    def names(self) -> list[str]:
        """Names of the stored columns."""
        return [column.name for column in self.columns]

    @property
    def exact(self) -> set[str]:
        """Columns of the key whose equal values are the same; 'A' and 'a', or 1 and 1.0, are not
        where the collation, or no affinity, lets them be equal."""
        return {
            name
            for name, collation in zip(self.key, self.collations, strict=True)
            if collation == "BINARY" and (c := self.find(name)) and c.affinity != "BLOB"
        }

    def find(self, name: str) -> Column | None:
        """The column of that name, in any case."""
        wanted = folded(name)
        return next((c for c in self.columns if folded(c.name) == wanted), None)

    def key_is(self, alias: str, values: Iterable[str]) -> str:
        """SQL: the row `alias` of this table is the one with these values of its key."""
        return " AND ".join(
            f"{alias}.{quoted(name)} = {value} COLLATE {quoted(collation)}"
            if collation != "BINARY"
            else f"{alias}.{quoted(name)} = {value}"
            for name, value, collation in zip(self.key, values, self.collations, strict=True)
        )


def affinity(declared: str) -> str:
    """Of a declared type (https://sqlite.org/datatype3.html, 3.1); ANY counts as BLOB."""
    upper = declared.upper()
    if "INT" in upper:
        return "INTEGER"
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in upper or not upper or upper == "ANY":
        return "BLOB"
    if any(word in upper for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"


def table_kinds(connection: apsw.Connection, schema: str) -> dict[str, tuple[str, bool]]:
    """(type, WITHOUT ROWID) of each table by name: `table`, `virtual` or `shadow`.

    A shadow of a module that this SQLite does not have is told by its name.
    """
    kinds = {
        str(row[1]): (str(row[2]), bool(row[4]))
        for row in connection.execute(f"PRAGMA {schema}.table_list")
        if row[0] == schema and row[2] != "view" and not str(row[1]).startswith("sqlite_")
    }
    parts = tuple(f"{folded(name)}_" for name in not_known_modules(connection, schema))
    for name, (kind, without) in list(kinds.items()):
        if kind == "table" and folded(name).startswith(parts):
            kinds[name] = ("shadow", without)
    return kinds


def not_known_modules(connection: apsw.Connection, schema: str) -> list[str]:
    """Virtual tables whose module this SQLite does not have."""
    have = {folded(str(row[0])) for row in connection.execute("PRAGMA module_list")}
    found = []
    for name, sql in connection.execute(
        f"SELECT name, sql FROM {schema}.sqlite_schema"
        " WHERE type = 'table' AND coalesce(rootpage, 0) = 0"
    ):
        module = _MODULE.search(str(sql))
        if module is None or folded(module[1]) not in have:
            found.append(str(name))
    return found


def read_table(connection: apsw.Connection, schema: str, name: str, without_rowid: bool) -> Table:
    """Raises apsw.Error when the schema cannot be asked."""
    columns: list[Column] = []
    generated: list[str] = []
    primary: dict[int, str] = {}
    everything: set[str] = set()
    for row in connection.execute(f"PRAGMA {schema}.table_xinfo({quoted(name)})"):
        _, column, declared, notnull, default, pk, hidden = row
        everything.add(folded(column))
        if hidden in (2, 3):
            generated.append(column)
            continue
        collation = connection.column_metadata(schema, name, column)[1]
        columns.append(Column(column, affinity(declared), bool(notnull), default, collation))
        if pk:
            primary[pk] = column
    table = Table(schema, name, columns, generated, NONE)
    table.primary = [column for _, column in sorted(primary.items())]
    if not without_rowid:
        table.rowid = next((word for word in _ROWID_NAMES if word not in everything), "")
    indexes = list(connection.execute(f"PRAGMA {schema}.index_list({quoted(name)})"))
    if len(primary) == 1 and not any(index[3] == "pk" for index in indexes):
        (column,) = primary.values()
        table.kind, table.key, table.collations = ROWID, [column], ["BINARY"]
        table.rowid = quoted(column)
        table.autoincrement = bool(connection.column_metadata(schema, name, column)[4])
        return table
    # the primary key, else the first UNIQUE over columns that are never NULL
    for index in sorted(indexes, key=lambda index: (index[3] != "pk", index[0])):
        _, index_name, unique, origin, partial = index[:5]
        if not unique or partial:
            continue
        parts = [
            (row[2], row[4])
            for row in connection.execute(f"PRAGMA {schema}.index_xinfo({quoted(index_name)})")
            if row[5]
        ]
        if any(part is None or table.find(part) is None for part, _ in parts):
            continue
        names = [str(part) for part, _ in parts]
        if without_rowid or _never_null(connection, table, names, origin == "pk"):
            table.kind, table.key = KEY, names
            table.collations = [str(collation) for _, collation in parts]
            return table
    return table


def _never_null(connection: apsw.Connection, table: Table, names: list[str], primary: bool) -> bool:
    """Whether no row has NULL in the key. SQLite lets a PRIMARY KEY be NULL, even repeatedly."""
    loose = [name for name in names if not (column := table.find(name)) or not column.notnull]
    if not loose:
        return True
    if not primary:
        return False
    return not any(
        number(
            connection,
            f"SELECT EXISTS (SELECT 1 FROM {table.place} WHERE {quoted(name)} IS NULL)",
        )
        for name in loose
    )
