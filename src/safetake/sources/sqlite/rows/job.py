"""The whole of `safetake rows`, but for what the command line prints and asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from safetake.errors import DamagedError, RefusedError, SafetakeError, UsageError
from safetake.model import Node, Reader
from safetake.sources.sqlite.rows import apply as writer
from safetake.sources.sqlite.rows import listing
from safetake.sources.sqlite.rows.apply import Result
from safetake.sources.sqlite.rows.back import recorded_rows, take_back
from safetake.sources.sqlite.rows.connect import Pair, explained, opened, paired
from safetake.sources.sqlite.rows.diff import Conditions, Counts, compare, create
from safetake.sources.sqlite.rows.keys import add_parents, foreign_keys
from safetake.sources.sqlite.rows.plan import TablePlan, plan_tables
from safetake.sources.sqlite.rows.prepare import Schema, note_references, prepare
from safetake.sources.sqlite.rows.schema import folded, read_table, table_kinds
from safetake.sources.sqlite.rows.select import Selection
from safetake.sources.sqlite.rows.sql import number, run
from safetake.sources.sqlite.rows.triggers import virtual_names
from safetake.sources.sqlite.rows.undo import Rows, UndoFolder, attached, find_folder, new_folder

SHOWS = ("missing", "changed", "extra")


@dataclass(slots=True)
class Wish:
    """What shall be done."""

    selection: Selection
    show: frozenset[str] = frozenset()
    """Of SHOWS: the rows themselves."""
    most: listing.Most = field(default_factory=listing.Most)
    apply: bool = False
    changed: bool = False
    """Changed rows go back, too."""
    recycled: bool = False
    """Even those that may be other rows by now."""
    dry_run: bool = False
    fire_triggers: bool = False


@dataclass(slots=True)
class Report:
    """What was found, and what was done."""

    tables: dict[str, Counts] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    not_compared: dict[str, str] = field(default_factory=dict)
    unable: dict[str, str] = field(default_factory=dict)
    """Of those not compared: tables of the snapshot whose rows may be missing."""
    columns: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    result: Result | None = None
    undo: UndoFolder | None = None
    local_bytes: int = 0

    @property
    def wanted(self) -> int:
        """Rows that are missing or changed."""
        return sum(c.missing + c.changed + c.parents for c in self.tables.values())


@dataclass(slots=True)
class Place:
    """One live database and its snapshot."""

    path: Path
    busy_timeout: float
    reader: Reader
    node: Node
    known_rows: Mapping[str, int | None]
    """Rows of each table as the snapshot's facts have them; may be empty."""


def look_and_apply(
    place: Place,
    wish: Wish,
    state: Callable[[], Path],
    record: Mapping[str, Any],
    confirm: Callable[[Report], bool],
) -> Report:
    """Compare; with `wish.apply` also bring rows back when `confirm` says so.

    `state` gives the folder of undo folders, `record` is what they are to say about the snapshot.
    Raises SafetakeError; the live database is unchanged then, unless the message says that it is
    not.
    """
    report = Report()
    with (
        explained(place.path),
        paired(place.path, place.busy_timeout, place.reader, place.node, write=wish.apply) as pair,
    ):
        plans, report.unable, needless = plan_tables(pair.connection)
        report.not_compared = report.unable | needless
        chosen = wish.selection.choose(plans, report.not_compared)
        if wish.selection.tables:
            report.unable, report.not_compared = {}, {}
        if not wish.apply:
            with _reading(pair.connection):
                _compare(pair, chosen, place, wish, report)
        elif wish.dry_run:
            with attached(pair.connection, None):
                written, schema, _ = _prepare(pair, plans, chosen, place, wish, report)
                report.result = writer.apply(
                    pair, written, schema, None, fire_triggers=wish.fire_triggers
                )
        else:
            _apply(pair, plans, chosen, place, wish, report, state(), record, confirm)
        assert pair.local is not None
        report.local_bytes = pair.local.local_bytes
    return report


def _apply(
    pair: Pair,
    plans: list[TablePlan],
    chosen: list[TablePlan],
    place: Place,
    wish: Wish,
    report: Report,
    state: Path,
    record: Mapping[str, Any],
    confirm: Callable[[Report], bool],
) -> None:
    folder = new_folder(state)
    try:
        with attached(pair.connection, folder.rows):
            written, schema, noted = _prepare(pair, plans, chosen, place, wish, report)
            if not written or not confirm(report):
                folder.remove()
                return
            folder.sync()
            whole = {
                **record,
                "database": str(pair.path),
                "tables": [
                    {
                        "number": rows.number,
                        "name": rows.table.name,
                        "columns": rows.table.names,
                        "kind": rows.table.kind,
                        "key": rows.table.key,
                        "collations": rows.table.collations,
                    }
                    for rows in written
                ],
                **noted,
            }
            folder.write_record(whole, "prepared")
            report.result = writer.apply(
                pair, written, schema, folder, fire_triggers=wish.fire_triggers
            )
    except BaseException:
        if report.result is None:
            folder.remove()
        raise
    report.undo = folder
    _note(folder, {**whole, **report.result.as_dict()}, "applied", "the rows were brought back")


def _note(folder: UndoFolder, record: dict[str, Any], state: str, done: str) -> None:
    """What is committed stays so when it cannot be noted any more. Raises SafetakeError."""
    try:
        folder.write_record(record, state)
    except SafetakeError as error:
        raise SafetakeError(
            f"{done}, which could not be noted: {error}",
            hint=f"`safetake rows --undo {folder.id}` works all the same"
            if state == "applied"
            else "nothing is left to do",
        ) from error


class _reading:
    """A read transaction; what was written to temporary or undo tables in it is kept."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        run(self._connection, "BEGIN")

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._connection.in_transaction:
            run(self._connection, "ROLLBACK" if kind else "COMMIT")


def _compare(
    pair: Pair, chosen: list[TablePlan], place: Place, wish: Wish, report: Report
) -> list[TablePlan]:
    """Fill the report; the plans that were compared. Inside a read transaction."""
    connection = pair.connection
    compared = []
    for plan in chosen:
        try:
            conditions = Conditions()
            if wish.selection.filtered:
                conditions.old = wish.selection.condition(connection, plan.old, plan.notes)
                conditions.live = wish.selection.condition(connection, plan.live, plan.notes)
            counts = compare(connection, plan, conditions, place.known_rows)
        except UsageError as error:
            if wish.selection.tables or len(chosen) == 1:
                raise
            report.not_compared[plan.name] = str(error)
            continue
        except (apsw.SQLError, UnicodeDecodeError) as error:
            report.unable[plan.name] = f"SQLite cannot compare it: {error}"
            report.not_compared[plan.name] = report.unable[plan.name]
            continue
        compared.append(plan)
        report.tables[plan.name] = counts
        report.keys[plan.name] = plan.live.key
        report.columns[plan.name] = [c.name for c, _ in plan.common]
        if plan.notes:
            report.notes[plan.name] = plan.notes
        _list(connection, plan, wish, conditions, report)
    if not compared and wish.selection.filtered:
        reason = next(iter(report.not_compared.values()), "there is none")
        raise UsageError(f"the condition fits no table: {reason}", hint="choose one with --table")
    return compared


def _list(
    connection: apsw.Connection,
    plan: TablePlan,
    wish: Wish,
    conditions: Conditions,
    report: Report,
) -> None:
    rows: dict[str, list[Any]] = {}
    if "missing" in wish.show:
        rows["missing"] = list(listing.missing(connection, plan, wish.most))
    if "changed" in wish.show:
        rows["changed"] = list(listing.changed(connection, plan, wish.most))
    if "extra" in wish.show:
        rows["extra"] = list(listing.extra(connection, plan, conditions.live, wish.most))
    report.rows[plan.name] = rows


def live_schema(connection: apsw.Connection) -> Schema:
    """The live tables, their references, and the names of virtual tables."""
    kinds = table_kinds(connection, "main")
    tables = {}
    for name, (kind, without) in kinds.items():
        if kind == "table":
            try:
                tables[name] = read_table(connection, "main", name, without)
            except apsw.SQLError:
                continue  # a collation or function of the application: it is not compared either
    by_name = {folded(name): table for name, table in tables.items()}
    references = [
        key for table in tables.values() for key in foreign_keys(connection, table, by_name)
    ]
    return Schema(tables, references, virtual_names((n, k) for n, (k, _) in kinds.items()))


def _prepare(
    pair: Pair,
    plans: list[TablePlan],
    chosen: list[TablePlan],
    place: Place,
    wish: Wish,
    report: Report,
) -> tuple[list[Rows], Schema, dict[str, Any]]:
    connection = pair.connection
    with _reading(connection):
        schema = live_schema(connection)
        for plan in plans:
            plan.keep = "c" if wish.changed else "m"
        compared = _compare(pair, chosen, place, wish, report)
        names = {plan.name for plan in compared}
        for plan in plans:
            if plan.name not in names:
                create(connection, plan)
        kinds = "'m', 'c'" if wish.changed else "'m'"
        everything = {plan.name: plan for plan in plans}
        if wish.selection.filtered or wish.selection.tables or len(compared) < len(plans):
            # else every missing row is in it anyway
            add_parents(
                connection, everything, schema.references, kinds, lambda plan: not plan.no_insert
            )
        touched = {}
        for name, plan in everything.items():
            if number(
                connection,
                f"SELECT EXISTS (SELECT 1 FROM {plan.diff} WHERE kind IN ({kinds}, 'p'))",
            ):
                touched[name] = plan
            parents = number(connection, f"SELECT count(*) FROM {plan.diff} WHERE kind = 'p'")
            if parents:
                report.tables.setdefault(name, Counts()).parents = parents
                report.not_compared.pop(name, None)
                report.keys.setdefault(name, plan.live.key)
        written = prepare(
            connection, touched, everything, schema, changed=wish.changed, recycled=wish.recycled
        )
        noted = note_references(connection, schema, written)
    return written, schema, noted


# ------------------------------------------------------------------------------------- undo


def read_undo(state: Path, wanted: str) -> tuple[UndoFolder, dict[str, Any]]:
    """One application of rows. Raises UsageError, DamagedError, RefusedError."""
    folder = find_folder(state, wanted)
    record = folder.record()
    if record["state"] == "undone":
        raise RefusedError(f"{folder.id} is undone already", hint="nothing is left to do")
    return folder, record


def undo(
    folder: UndoFolder,
    record: dict[str, Any],
    path: Path,
    busy_timeout: float,
    *,
    dry_run: bool,
    fire_triggers: bool,
) -> Result:
    """Take an application back. Raises SafetakeError; the live database is unchanged then, unless
    the message says that it is not."""
    with explained(path), opened(path, busy_timeout, write=True) as pair:
        if str(pair.path) != record["database"]:
            raise RefusedError(
                f"{folder.id} was applied to {record['database']}, not to {pair.path}",
                hint="correct `path` of the source",
            )
        if not folder.rows.is_file():
            raise DamagedError(f"{folder.rows} is not there")
        with attached(pair.connection, folder.rows):
            with _reading(pair.connection):
                schema = live_schema(pair.connection)
            result = take_back(
                pair,
                recorded_rows(record, schema.tables),
                schema,
                record,
                folder.skipped(),
                fire_triggers=fire_triggers,
                rehearse=dry_run,
            )
    if not dry_run:
        _note(folder, {**record, "undo": result.as_dict()}, "undone", "the rows were taken back")
    return result
