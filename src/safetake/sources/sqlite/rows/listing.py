"""The rows themselves, for people and for JSON; a bounded number of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw

from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.diff import extra_rows
from safetake.sources.sqlite.rows.plan import TablePlan
from safetake.sources.sqlite.rows.schema import NONE
from safetake.sources.sqlite.rows.sql import decoder

_TOGETHER = 500
"""Columns in one statement; SQLite takes 2000 results, and each column needs two."""

Value = None | int | float | str | bytes


def missing(connection: apsw.Connection, plan: TablePlan, limit: int) -> list[list[Value]]:
    """Rows of the snapshot that the live table does not have, in the order of their keys."""
    return list(
        _rows(
            connection,
            [f"o.{quoted(o.name)}" for _, o in plan.common],
            f"{plan.diff} AS d CROSS JOIN {plan.old.place} AS o ON {plan.old_is('o')}"
            f" WHERE d.kind = 'm' ORDER BY {_order(plan)}",
            limit,
        )
    )


def changed(connection: apsw.Connection, plan: TablePlan, limit: int) -> list[dict[str, Any]]:
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
        ],
        f"{plan.diff} AS d CROSS JOIN {plan.old.place} AS o ON {plan.old_is('o')}"
        f" CROSS JOIN {plan.live.place} AS l ON {plan.live_is('l')}"
        f" WHERE d.kind = 'c' ORDER BY {_order(plan)}",
        limit,
    ):
        before, now = row[1 : len(names) + 1], row[len(names) + 1 :]
        now_of = dict(zip(names, now, strict=True))
        found.append(
            {
                "key": {name: now_of[name] for name in plan.live.key},
                "recycled": bool(row[0]),
                "columns": {
                    name: [a, b]
                    for name, a, b in zip(names, before, now, strict=True)
                    if (type(a), a) != (type(b), b)
                },
            }
        )
    return found


def extra(
    connection: apsw.Connection, plan: TablePlan, condition: str, limit: int
) -> list[list[Value]]:
    """Live rows that the snapshot does not have, in the order of their keys."""
    order = ", ".join(f"l.{quoted(name)}" for name in plan.live.key) or "e.r"
    return list(
        _rows(
            connection,
            [f"l.{quoted(c.name)}" for c, _ in plan.common],
            f"{extra_rows(plan, condition)} ORDER BY {order}",
            limit,
        )
    )


def _order(plan: TablePlan) -> str:
    return ", ".join(f"d.{key}" for key in plan.keys)


def _rows(
    connection: apsw.Connection, columns: list[str], rest: str, limit: int
) -> Iterator[list[Value]]:
    """Text is taken as its bytes: it may be none in its encoding."""
    decoded = decoder(connection)
    parts = [
        connection.execute(
            "SELECT "
            + ", ".join(
                f"typeof({c}) = 'text', CASE typeof({c}) WHEN 'text' THEN CAST({c} AS BLOB)"
                f" ELSE {c} END"
                for c in columns[start : start + _TOGETHER]
            )
            + f" FROM {rest} LIMIT ?",
            (limit,),
        )
        for start in range(0, len(columns), _TOGETHER)
    ]
    for rows in zip(*parts, strict=True):
        row = [value for part in rows for value in part]
        yield [
            decoded(value) if text and isinstance(value, bytes) else value
            for text, value in zip(row[::2], row[1::2], strict=True)
        ]
