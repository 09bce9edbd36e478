"""What `safetake rows` prints, for people and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetake.wording import counted, printable

if TYPE_CHECKING:
    from safetake.sources.sqlite.rows.apply import Result
    from safetake.sources.sqlite.rows.job import Report
    from safetake.sources.sqlite.rows.listing import Value

CELL = 60
"""Characters of a value in a table for people."""
FETCHED = 4 * CELL
"""Bytes of it that are fetched: a character has at most four."""


def as_document(report: Report) -> dict[str, Any]:
    """The part of the JSON that a comparison and its application give."""
    tables = {}
    for name, counts in report.tables.items():
        tables[name] = {
            "missing": counts.missing,
            "changed": counts.changed,
            "recycled": counts.recycled,
            "extra": counts.extra,
            "parents": counts.parents,
            "key": report.keys.get(name, []),
            "notes": report.notes.get(name, []),
        }
        listed = report.rows.get(name)
        if listed:
            tables[name]["columns"] = report.columns[name]
            tables[name]["rows"] = _jsonable(listed)
    return {
        "tables": tables,
        "not_compared": report.not_compared,
        "applied": report.result.as_dict() if report.result else None,
        "undo": report.undo.id if report.undo else None,
    }


def _jsonable(value: Any) -> Any:
    """Blobs as hexadecimal text; JSON has no infinity."""
    import math

    if isinstance(value, dict):
        return {name: _jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_report(report: Report) -> None:
    """What differs, as tables."""
    from safetake.cli import output

    rows = []
    for name, counts in report.tables.items():
        changed = str(counts.changed)
        if counts.recycled:
            changed += f" ({counts.recycled} recycled?)"
        missing = str(counts.missing)
        if counts.parents:
            missing += f" + {counts.parents} parents"
        rows.append([name, missing, changed, str(counts.extra)])
    if rows:
        output.table(["table", "missing", "changed", "extra"], rows, right=[1, 2, 3])
    for name, notes in report.notes.items():
        for note in notes:
            output.line(output.printable_lines(f"{name}: {note}"))
    for name, reason in report.not_compared.items():
        output.line(output.printable_lines(f"{name}: not compared: {reason}"))
    for name, listed in report.rows.items():
        for kind in ("missing", "extra"):
            if listed.get(kind):
                output.line()
                output.line(f"{kind} in {printable(name)}")
                output.table(report.columns[name], [list(map(_cell, row)) for row in listed[kind]])
        if listed.get("changed"):
            output.line()
            output.line(f"changed in {printable(name)}")
            lines = []
            for row in listed["changed"]:
                key = ", ".join(_cell(value) for value in row["key"].values())
                for column, (before, now) in row["columns"].items():
                    mark = "recycled?" if row["recycled"] else ""
                    lines.append([key, column, _cell(before), _cell(now), mark])
            output.table(["key", "column", "in the snapshot", "now", ""], lines)


def _cell(value: Value) -> str:
    from safetake.cli import output

    if value is None:
        return "NULL"
    text = value.hex() if isinstance(value, bytes) else str(value)
    return output.cut(text[: CELL * 2], CELL)


def print_result(result: Result, dry_run: bool, inserted: str, updated: str) -> None:
    """What was written, or would be."""
    from safetake.cli import output

    would = "would be " if dry_run else ""
    names = dict.fromkeys((*result.inserted, *result.updated))
    for name in names:
        parts = []
        if result.inserted.get(name):
            parts.append(f"{counted(result.inserted[name], 'row')} {would}{inserted}")
        if result.updated.get(name):
            parts.append(f"{result.updated[name]} {would}{updated}")
        output.line(output.printable_lines(f"{name}: {', '.join(parts)}"))
    if not names:
        output.line("no row was written" if not dry_run else "no row would be written")
    for name, triggers in result.silent.items():
        output.line(output.printable_lines(f"{name}: not fired: {', '.join(triggers)}"))
    print_left_out(result)


def print_changed(report: Report) -> None:
    """What differs and was left as it is: whoever brings rows back may want that, too."""
    from safetake.cli import output

    for name, counts in report.tables.items():
        if counts.changed:
            output.paragraph(
                output.printable_lines(
                    f"{counted(counts.changed, 'row')} of {name} changed since, and stay: "
                    "--changed puts them back"
                )
            )


def print_left_out(result: Result | None) -> None:
    """Rows that were left out, to stderr."""
    from safetake.cli import output

    if result is None:
        return
    for row in result.reasons:
        output.note(
            output.printable_lines(f"left out: {row['table']} ({row['key']}): {row['reason']}")
        )
    if result.skipped > len(result.reasons):
        output.note(f"left out: {result.skipped - len(result.reasons)} more")
