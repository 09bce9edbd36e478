"""The rows themselves, for people and for JSON; a bounded number of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apsw

from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.diff import extra_rows
from safetake.sources.sqlite.rows.plan import TablePlan, value_differs
from safetake.sources.sqlite.rows.schema import NONE
from safetake.sources.sqlite.rows.sql import decoder

_TOGETHER = 500
"""Columns in one statement; SQLite takes 2000 results, and each column needs two."""

Value = None | int | float | str | bytes


@dataclass(frozen=True, slots=True)
class Most:
    """How much is listed."""

    rows: int = 100
    """Of a kind and table."""
    bytes: int = 0
    """Of a text or blob, the beginning; 0: all of it."""


def missing(connection: apsw.Connection, plan: TablePlan, most: Most) -> list[list[Value]]:
    """Rows of the snapshot that the live table does not have, in the order of their keys."""
    return list(
        _rows(
            connection,
            [f"o.{quoted(o.name)}" for _, o in plan.common],
            f"{plan.diff} AS d CROSS JOIN {plan.old.place} AS o ON {plan.old_is('o')}"
            f" WHERE d.kind = 'm' ORDER BY {_order(plan)}",
            most,
        )
    )


def changed(connection: apsw.Connection, plan: TablePlan, most: Most) -> list[dict[str, Any]]:
    """{key, recycled, columns: {name: [in the snapshot, now]}} of what differs."""
    if plan.live.kind == NONE:
        return []
    names = [c.name for c, _ in plan.common]
    found = []
    for row in _rows(
        connection,
        [
            "d.recycled",
            *(f"o.{quoted(o.name)}" for _, o in plan.common),
            *(f"l.{quoted(c.name)}" for c, _ in plan.common),
            *(value_differs("o", o, "l", c) for c, o in plan.common),
        ],
        f"{plan.diff} AS d CROSS JOIN {plan.old.place} AS o ON {plan.old_is('o')}"
        f" CROSS JOIN {plan.live.place} AS l ON {plan.live_is('l')}"
        f" WHERE d.kind = 'c' ORDER BY {_order(plan)}",
        most,
    ):
        width = len(names)
        before, now, moved = row[1 : width + 1], row[width + 1 : -width], row[-width:]
        now_of = dict(zip(names, now, strict=True))
        found.append(
            {
                "key": {name: now_of[name] for name in plan.live.key},
                "recycled": bool(row[0]),
                "columns": {
                    name: [a, b]
                    for name, a, b, differ in zip(names, before, now, moved, strict=True)
                    if differ
                },
            }
        )
    return found


def extra(
    connection: apsw.Connection, plan: TablePlan, condition: str, most: Most
) -> list[list[Value]]:
    """Live rows that the snapshot does not have, in the order of their keys."""
    order = ", ".join(f"l.{quoted(name)}" for name in plan.live.key) or "e.r"
    return list(
        _rows(
            connection,
            [f"l.{quoted(c.name)}" for c, _ in plan.common],
            f"{extra_rows(plan, condition)} ORDER BY {order}",
            most,
        )
    )


def _order(plan: TablePlan) -> str:
    return ", ".join(f"d.{key}" for key in plan.keys)


def _rows(
    connection: apsw.Connection, columns: list[str], rest: str, most: Most
) -> Iterator[list[Value]]:
    """Text is taken as its bytes: it may be none in its encoding."""

    def value(column: str) -> str:
        data = f"CAST({column} AS BLOB)"
        data = f"substr({data}, 1, {most.bytes})" if most.bytes else data
        return f"CASE WHEN typeof({column}) IN ('text', 'blob') THEN {data} ELSE {column} END"

    decoded = decoder(connection)
    parts = [
        connection.execute(
            "SELECT "
            + ", ".join(
                f"typeof({c}) = 'text', {value(c)}" for c in columns[start : start + _TOGETHER]
            )
            + f" FROM {rest} LIMIT ?",
            (most.rows,),
        )
        for start in range(0, len(columns), _TOGETHER)
    ]
    for rows in zip(*parts, strict=True):
        row = [value for part in rows for value in part]
        yield [
            decoded(value) if text and isinstance(value, bytes) else value
            for text, value in zip(row[::2], row[1::2], strict=True)
        ]
