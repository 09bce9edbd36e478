"""Foreign keys: parents before children, and parents that have to come along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import apsw

from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.plan import TablePlan
from safetake.sources.sqlite.rows.schema import NONE, Table, folded
from safetake.sources.sqlite.rows.sql import run


@dataclass(slots=True)
class ForeignKey:
    """Rows of `child` refer to rows of `parent`; names as the tables spell them."""

    child: str
    columns: list[str]
    parent: str
    parent_columns: list[str]


def foreign_keys(
    connection: apsw.Connection, table: Table, tables: dict[str, Table]
) -> list[ForeignKey]:
    """The references of a live table to tables that are there (`tables` by `folded` name)."""
    rows: dict[int, list[tuple[int, str, str, str | None]]] = {}
    for row in connection.execute(f"PRAGMA main.foreign_key_list({quoted(table.name)})"):
        rows.setdefault(row[0], []).append((row[1], row[2], row[3], row[4]))
    found = []
    for parts in rows.values():
        parts.sort()
        parent = tables.get(folded(parts[0][1]))
        if parent is None:
            continue
        columns = [table.find(part[2]) for part in parts]
        targets: list[str | None] = [part[3] for part in parts]
        if targets[0] is None:
            targets = list(parent.primary)
        there = [parent.find(name) if name else None for name in targets]
        if len(there) == len(columns) and all(columns) and all(there):
            found.append(
                ForeignKey(
                    table.name,
                    [c.name for c in columns if c],
                    parent.name,
                    [c.name for c in there if c],
                )
            )
    return found


def groups(names: Sequence[str], links: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The names in an order in which every parent of a (child, parent) link comes first.

    Names that refer to each other in a circle share one group.
    """
    inside = set(names)
    below: dict[str, set[str]] = {name: set() for name in names}
    for child, parent in links:
        if child in inside and parent in inside:
            below[child].add(parent)

    def reach(name: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(below[name])
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += below[other]
        return seen

    reached = {name: reach(name) for name in names}
    ordered: list[list[str]] = []
    done: set[str] = set()
    while len(done) < len(inside):
        for name in names:
            circle = [n for n in names if n == name or (n in reached[name] and name in reached[n])]
            if name not in done and reached[name] <= done | set(circle):
                ordered.append(circle)
                done.update(circle)
    return ordered


def add_parents(
    connection: apsw.Connection,
    plans: dict[str, TablePlan],
    references: list[ForeignKey],
    kinds: str,
    usable: Callable[[TablePlan], bool],
) -> None:
    """Put missing parents of the differing rows (`kinds`, in SQL) into their tables' `diff`.

    Marked `p`; parents of parents, too. A parent whose key is taken by another row is left out.
    """
    changed = True
    while changed:
        changed = False
        for key in references:
            child, parent = plans.get(key.child), plans.get(key.parent)
            if child is None or parent is None or not usable(parent):
                continue
            if parent.live.kind == NONE or not _in_common(child, key.columns):
                continue
            if not _in_common(parent, key.parent_columns):
                continue
            pairs = list(zip(key.columns, key.parent_columns, strict=True))
            linked = " AND ".join(
                f"p.{quoted(_old(parent, b))} = o.{quoted(_old(child, a))}" for a, b in pairs
            )
            there = " AND ".join(f"l.{quoted(b)} = o.{quoted(_old(child, a))}" for a, b in pairs)
            names = ", ".join(f"p.{quoted(name)}" for name in parent.old.key)
            before = connection.total_changes()
            run(
                connection,
                f"INSERT OR IGNORE INTO {parent.diff} SELECT DISTINCT {names}, 'p', 0"
                f"{parent.values('p')}"
                f" FROM {child.diff} AS d CROSS JOIN {child.old.place} AS o ON {child.old_is('o')}"
                f" CROSS JOIN {parent.old.place} AS p ON {linked}"
                f" WHERE d.kind IN ({kinds}, 'p')"
                f" AND NOT EXISTS (SELECT 1 FROM {parent.live.place} AS l WHERE {there})"
                f" AND NOT EXISTS (SELECT 1 FROM {parent.live.place} AS l"
                f" WHERE {parent.is_row('p', 'l')})",
            )
            changed = changed or connection.total_changes() > before


def _in_common(plan: TablePlan, names: Iterable[str]) -> bool:
    there = {column.name for column, _ in plan.common}
    return all(name in there for name in names)


def _old(plan: TablePlan, name: str) -> str:
    return next(o.name for c, o in plan.common if c.name == name)
