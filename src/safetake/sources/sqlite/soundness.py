"""Is a live database sound? Asked read-only, in transactions as short as the question allows.

`integrity_check` succeeds whatever it finds, so every line is read; a row that refers to nothing
and an application's own rules are asked apart, because it calls them ok. With a rollback journal a
copy is asked, in WAL mode the file itself (see `reading`). What none of this can see is in
docs/how-to/integrity.md: SQLite keeps no checksums of pages. Memory is bounded; time is not, the
caller runs it where it can end it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from safetake.errors import SourceError
from safetake.findings import Asked, Asking, Finding, not_asked, offenders
from safetake.sources.sqlite import facts, live, reading, rot
from safetake.sources.sqlite.header import Header, read_header, status
from safetake.wording import size as sized

if TYPE_CHECKING:
    from safetake.config import SqlCheck, SqliteConfig

MOST_COMPLAINTS = 100_000
_LARGE_LOG, _LEAST_LOG = 4, 1 << 30
_APPLICATION_ONLY = ("no such collation sequence", "no such function", "unknown function")
_RESTORE = "restore the last proven snapshot, or the damaged tables' rows with `safetake rows`"
_SLACK = 1.1
_SHOWN = 200


def ask(config: SqliteConfig, asking: Asking) -> Asked:
    """Every question to the live database. Never raises for what it finds."""
    found = Asked()
    path = config.path
    try:
        _ask(config, asking, found)
    except SourceError as error:
        _does_not_open(found, asking.name, str(error), error.hint)
    except OSError as error:
        detail = f"{error.filename or path}: {error.strerror or error}"
        hint = "check the disk and its kernel log, and the room in the scratch folder"
        _does_not_open(found, asking.name, detail, hint)
    return found


def _does_not_open(found: Asked, name: str, detail: str, hint: str) -> None:
    found.findings = [finding for finding in found.findings if finding.check != "opens"]
    found.findings.append(Finding(name, "opens", False, "error", detail, [], hint))


def _ask(config: SqliteConfig, asking: Asking, found: Asked) -> None:
    path = config.path
    header = read_header(path)
    size = status(path).st_size
    found.facts |= {"bytes": size, "journal_mode": "wal" if header.wal else "rollback"}
    try:
        with reading.reading(path, header, config.busy_timeout) as connection:
            found.findings.append(Finding(asking.name, "opens", True))
            _sizes(connection, path, header, asking, found)
            if header.wal:
                _questions(connection, config, asking, found, full=_full(asking, size))
            else:
                _on_a_copy(connection, config, asking, found, size)
    except reading.HotJournalError as error:
        _after_a_crash(config, asking, found, error)
        return
    found.findings += rot.unchanged(path, asking)


def _full(asking: Asking, size: int) -> bool:
    return size <= asking.quick_above if asking.full is None else asking.full


def _on_a_copy(
    connection: apsw.Connection, config: SqliteConfig, asking: Asking, found: Asked, size: int
) -> None:
    """With a rollback journal a question keeps writers out for as long as it takes."""
    room = shutil.disk_usage(asking.scratch).free
    why = ""
    if size > asking.quick_above and not asking.full:
        why = f"{sized(size)} in rollback-journal mode: no writer could commit meanwhile"
    elif room < size * _SLACK:
        why = f"no room for a copy: {sized(size)} needed, {sized(room)} free in {asking.scratch}"
    if why:
        hint = "`safetake verify` asks it of the newest snapshot, or switch the database to WAL"
        for check in ("integrity_check", "foreign_key_check"):
            found.findings.append(not_asked(asking.name, check, why, hint))
        _own_checks(connection, config.checks, asking.name, found)
        return
    target = asking.scratch / config.path.name
    held = reading.copy_held(config.path, connection, target)
    found.facts["held_seconds"] = round(held, 4)
    with reading.copied(target) as copy:
        _questions(copy, config, asking, found, full=_full(asking, size))
    target.unlink()


def _after_a_crash(
    config: SqliteConfig, asking: Asking, found: Asked, error: reading.HotJournalError
) -> None:
    """Ask what the application will find after its next start; the live files stay as they are."""
    text = f"{error}; it was left alone, and a copy was rolled back and asked"
    found.findings.append(
        Finding(asking.name, "no crashed writer", False, "warning", text, [], error.hint)
    )
    copy = reading.copy_crashed(config.path, asking.scratch)
    with reading.copied(copy) as connection:
        found.findings.append(Finding(asking.name, "opens", True, detail="as a copy, rolled back"))
        _sizes(connection, copy, read_header(copy), asking, found)
        _questions(connection, config, asking, found, full=True)


def _sizes(
    connection: apsw.Connection,
    path: Path,
    header: Header,
    asking: Asking,
    found: Asked,
) -> None:
    log = live.wal_path(path)
    log_bytes = log.stat().st_size if header.wal and log.exists() else 0
    page_size = connection.pragma("page_size")
    free = connection.pragma("freelist_count")
    found.facts |= {
        "page_size": page_size,
        "pages": connection.pragma("page_count"),
        "free_pages": free,
        "free_bytes": free * page_size,
        "wal_bytes": log_bytes,
    }
    limit = max(found.facts["bytes"] * _LARGE_LOG, _LEAST_LOG)
    if header.wal:
        found.findings.append(
            Finding(
                asking.name,
                "log is folded in",
                log_bytes <= limit,
                "warning",
                f"{log.name} has grown to {sized(log_bytes)}" if log_bytes > limit else "",
                [],
                "a reader that never ends its transaction keeps checkpoints from passing",
            )
        )


def _questions(
    connection: apsw.Connection,
    config: SqliteConfig,
    asking: Asking,
    found: Asked,
    *,
    full: bool,
) -> None:
    name = asking.name
    sound = _structure(connection, asking, found, full=full)
    try:
        tables = facts.tables(connection)
        found.facts["tables"] = len(tables)
        found.findings.append(_not_empty(tables, config, name))
        _references(connection, tables, name, found)
    except (apsw.Error, UnicodeDecodeError) as error:
        found.findings.append(_unanswered(name, "foreign_key_check", error, damaged=not sound))
    _own_checks(connection, config.checks, name, found)


def _not_empty(tables: list[str], config: SqliteConfig, name: str) -> Finding:
    if tables or config.may_be_empty:
        return Finding(name, "has tables", True, detail=f"{len(tables)} tables")
    return Finding(
        name,
        "has tables",
        False,
        detail=f"{config.path} has no table",
        hint="check `path`, or set `may_be_empty = true`",
    )


def _structure(connection: apsw.Connection, asking: Asking, found: Asked, *, full: bool) -> bool:
    """`integrity_check`, or `quick_check` where that would take too long; whether it was ok."""
    name = asking.name
    if not full:
        detail = (
            f"only quick_check was asked of {sized(found.facts['bytes'])}: indexes may lack rows"
        )
        hint = "`--full` asks it now; `safetake verify` asks it of the newest snapshot"
        found.findings.append(not_asked(name, "integrity_check", detail, hint))
    check = "integrity_check" if full else "quick_check"
    if full and connection.readonly("main"):
        why = "this user may not write the database, and SQLite then leaves them out"
        found.findings.append(not_asked(name, "CHECK constraints", why))
    finding = structure(connection, name, check, check)
    found.findings.append(finding)
    return finding.ok


def structure(connection: apsw.Connection, source: str, check: str, pragma: str) -> Finding:
    """What `integrity_check` or `quick_check` says, all lines of it, as the finding `check`."""
    lines: list[str] = []
    try:
        for row in connection.execute(f"PRAGMA {pragma}({MOST_COMPLAINTS})"):
            lines += [line for line in str(row[0]).split("\n") if not line.startswith("***")]
    except apsw.SQLError as error:
        if str(error).startswith(_APPLICATION_ONLY):
            why = f"{error}: only the application has it"
            return not_asked(source, check, why, "its own start-up check can ask")
        lines.append(f"cannot be asked to its end: {error}")
    except (apsw.Error, UnicodeDecodeError) as error:
        lines.append(f"cannot be asked to its end: {error}")
    if lines == ["ok"]:
        return Finding(source, check, True)
    count, ids = offenders(line[:_SHOWN] for line in lines)
    more = "at least " if count >= MOST_COMPLAINTS else ""
    first = ids[0] if ids else "it said nothing, not even ok"
    text = f"{more}{count} problem{'s' * (count != 1)}: {first}"
    return Finding(source, check, False, "error", text, ids, _RESTORE)


def _references(connection: apsw.Connection, tables: list[str], name: str, found: Asked) -> None:
    """Rows that refer to a row that is not there, table by table: a key that is declared wrongly
    hides the others of its own table only."""
    check = "foreign_key_check"
    total, kept, wrong = 0, list[str](), list[str]()
    for table in tables:
        try:
            rows = connection.execute(f"PRAGMA foreign_key_check({facts.quoted(table)})")
            count, ids = offenders(_orphan(*row[:3]) for row in rows)
            total, kept = total + count, kept + ids
        except apsw.SQLError as error:
            wrong.append(f"{table}: {error}")
    count, ids = offenders(kept)
    found.findings.append(
        Finding(
            name,
            check,
            not total,
            "error",
            f"{total} row{'s' * (total != 1)} refer{'s' * (total == 1)} to a row that is not there"
            if total
            else "",
            ids,
            "bring the missing rows back with `safetake rows`, or remove the orphans",
        )
    )
    if wrong:
        reason = "a foreign key is declared wrongly: " + "; ".join(wrong)[:_SHOWN]
        found.findings.append(not_asked(name, f"{check} of {len(wrong)} tables", reason))


def _orphan(table: str, rowid: int | None, parent: str) -> str:
    row = "a row without rowid" if rowid is None else f"rowid {rowid}"
    return f"{table}: {row} → {parent}"


def _own_checks(
    connection: apsw.Connection, checks: list[SqlCheck], name: str, found: Asked
) -> None:
    """The configuration's queries: each row is an offender."""
    for check in checks:
        what = f"check: {check.name}"
        try:
            total, ids = offenders(_identity(row) for row in connection.execute(check.sql))
        except (apsw.Error, UnicodeDecodeError) as error:
            found.findings.append(_unanswered(name, what, error, damaged=False))
            continue
        detail = f"{total} offender{'s' * (total != 1)}" if total else ""
        found.findings.append(Finding(name, what, not total, "error", detail, ids))


def _identity(row: tuple[Any, ...]) -> str:
    """An offender by its first column where there is one only, else by all of them."""
    return (str(row[0]) if len(row) == 1 else ", ".join(map(str, row)))[:_SHOWN]


def _unanswered(name: str, check: str, error: Exception, *, damaged: bool) -> Finding:
    hint = _RESTORE if damaged else "correct the query, or see what the database says about it"
    return Finding(name, check, False, "error", f"cannot be asked: {error}", [], hint)
