"""Is a live Chroma store sound? Asked of a consistent copy, since opening a store changes it.

The copy is what a backup of this moment would hold (`session`), so writers wait as long as for a
backup and no longer. Chroma notices almost no damage by itself, so the copy's structure is read
without it (`proof`), then its rows (`rowchecks`), and at last chromadb opens it, where it is
installed. A server is asked over its API as well (`selfquery`). Runs where it can be ended: a
damaged store hangs or crashes whoever opens it.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import BarrierTimeoutError, SafetakeError
from safetake.findings import Asked, Asking, Finding, not_asked
from safetake.model import Captured, Check
from safetake.sources import hotcopy
from safetake.sources.chroma import hnsw, rot
from safetake.sources.chroma.database import BUSY_SECONDS, NAME
from safetake.sources.chroma.pickles import BadPickleError, load_ids
from safetake.sources.chroma.proof import questions
from safetake.sources.chroma.residents import WORK_PREFIX
from safetake.sources.chroma.rowchecks import row_checks
from safetake.sources.chroma.source import ChromaSource, require_folder
from safetake.sources.sqlite import reading
from safetake.sources.sqlite.header import read_header
from safetake.sources.sqlite.soundness import structure
from safetake.wording import size as sized

if TYPE_CHECKING:
    from safetake.config import ChromaConfig

_RESTORE = "restore the store, or the collection, from the last proven snapshot"
_NOT_ASKED = re.compile(r"(?P<name>.*?) \(not asked: (?P<why>.*)\)", re.DOTALL)
_ONE_OF_BOTH = re.compile(r"(?P<what>\d+ ids have only one of both): (?P<ids>\[.*\])", re.DOTALL)
_RECORD = re.compile(r"(?P<collection>.*): record (?P<id>'.*'|\".*\")", re.DOTALL)
_OF_THE_COPY = re.compile(rf"/|^segments$|{re.escape(NAME)}: ")
_MISSED = "not among its own nearest"
_SHOWN = 300
_CHECKED = f"{NAME}: integrity_check"
_STRUCTURE = "structure of the folder"


def ask(config: ChromaConfig, asking: Asking) -> Asked:
    """Every question to the live store. Never raises for what it finds."""
    found = Asked()
    if config.path is not None:
        try:
            _folder(config, config.path, asking, found)
        except BarrierTimeoutError as error:
            found.findings.append(_failed(asking.name, "held for a copy", str(error), error.hint))
        except SafetakeError as error:
            found.findings.append(_failed(asking.name, "opens", str(error), error.hint))
            found.findings += _complaints(config.path / NAME, asking)
        except OSError as error:
            where = error.filename or config.path
            hint = "check the disk and its kernel log, and the room in the scratch folder"
            detail = f"{where}: {error.strerror or error}"
            found.findings.append(_failed(asking.name, "opens", detail, hint))
    if config.url is not None or config.server is not None:
        from safetake.sources.chroma.selfquery import ask_server

        ask_server(config, asking, found)
    return found


def _complaints(path: Path, asking: Asking) -> Iterator[Finding]:
    """What SQLite says of a database from which no copy could be captured, as far as it opens."""
    try:
        with reading.reading(path, read_header(path), BUSY_SECONDS) as connection:
            reading.copy_held(path, connection, copy := asking.scratch / "damaged.sqlite3")
        with reading.copied(copy) as connection:
            found = structure(connection, asking.name, _CHECKED, "integrity_check")
    except (SafetakeError, OSError):
        return  # that it does not open is told already
    if not found.ok:
        yield replace(found, hint=_RESTORE)


def _failed(name: str, check: str, detail: str, hint: str) -> Finding:
    return Finding(name, check, False, "error", detail, [], hint or _RESTORE)


def _folder(config: ChromaConfig, folder: Path, asking: Asking, found: Asked) -> None:
    require_folder(folder)
    size = _bytes(folder)
    found.facts["bytes"] = size
    room = shutil.disk_usage(asking.scratch).free
    if room < size * hotcopy.NEEDED:
        why = f"{sized(size * hotcopy.NEEDED)} needed for a copy, {sized(room)} free"
        hint = "name a larger `scratch` in [integrity]; `safetake verify` asks the newest snapshot"
        found.findings.append(not_asked(asking.name, _STRUCTURE, why, hint))
        return
    live = _crashed(folder, asking, found)
    source = ChromaSource(asking.name, config.model_copy(update={"path": live}))
    captured, held = hotcopy.take(source, asking.scratch, copy := asking.scratch / "copy")
    found.facts["held_seconds"] = round(held, 4)
    entry = _entry(captured)
    names = _names(entry["facts"])
    found.findings += [
        _failed(asking.name, "complete", _named(text, names), _RESTORE) for text in captured.unread
    ]
    if not captured.unread:
        found.findings.append(Finding(asking.name, "complete", True))
    facts = entry["facts"]
    found.facts["collections"] = {
        known["name"]: known["records"] for known in facts["collections"].values()
    }
    found.facts["queue"] = facts["queue"]
    with reading.copied(copy / NAME) as connection:
        checked = structure(connection, asking.name, _CHECKED, "integrity_check")
        found.findings.append(replace(checked, hint=_RESTORE))
        found.findings += row_checks(connection, asking.name)
    found.findings += _positions(copy, facts, asking.name)
    found.findings += _as_findings(
        questions(copy, entry), names, asking.name, damaged=not checked.ok
    )
    found.findings += rot.unchanged(folder, entry, asking)


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        if not path.name.startswith(WORK_PREFIX):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
    return total


def _crashed(folder: Path, asking: Asking, found: Asked) -> Path:
    """The folder to copy from: the live one, or raw copy of one whose writer died in a transaction.

    A capture would roll its journal back, as Chroma's next start does; this check changes nothing.
    """
    header = read_header(folder / NAME)
    try:
        with reading.reading(folder / NAME, header, BUSY_SECONDS):
            return folder
    except reading.HotJournalError as error:
        text = f"{error}; it was left alone, and a copy was rolled back and asked"
        found.findings.append(
            Finding(asking.name, "no crashed writer", False, "warning", text, [], error.hint)
        )
    raw = asking.scratch / "raw"
    shutil.copytree(folder, raw, ignore=shutil.ignore_patterns(WORK_PREFIX + "*", NAME + "*"))
    reading.copy_crashed(folder / NAME, raw)
    return raw


def _entry(captured: Captured) -> dict[str, Any]:
    """As the manifest would have it."""
    entry: dict[str, Any] = json.loads(
        json.dumps({"facts": captured.facts, "fingerprint": captured.fingerprint})
    )
    return entry


def _names(facts: Mapping[str, Any]) -> dict[str, str]:
    """What people call a segment: its collection."""
    return {
        known["vector_segment"]: f"collection {known['name']}"
        for known in facts["collections"].values()
        if known["vector_segment"]
    }


def _named(text: str, names: Mapping[str, str]) -> str:
    for segment, name in names.items():
        text = text.replace(segment, name)
    return text


def _as_findings(
    checks: list[Check], names: Mapping[str, str], name: str, *, damaged: bool
) -> Iterator[Finding]:
    missed: list[str] = []
    records: dict[str, list[str]] = {}
    asked = 0
    for check in checks:
        if check.name == _CHECKED or (damaged and check.name == NAME):
            continue  # asked already, with every line of the answer
        if match := _NOT_ASKED.fullmatch(check.name):
            yield not_asked(name, match["name"], match["why"])
            continue
        if match := _RECORD.fullmatch(check.name):
            asked += 1
            if _MISSED in check.detail:
                missed.append(check.name)
            bad = records.setdefault(match["collection"], [])
            bad += [] if check.ok else [match["id"]]
            continue
        if check.ok and _OF_THE_COPY.search(check.name):
            continue  # a copy that is not what was just read would be told
        detail, ids = ("", []) if check.ok else _detail(check)
        what = _named(check.name, names)
        yield Finding(name, what, check.ok, "error", _named(detail, names), ids, _RESTORE)
    for collection, bad in records.items():
        detail = f"{len(bad)} of those asked for have another vector, or none" if bad else ""
        yield Finding(name, f"{collection}: records", not bad, "error", detail, bad, _RESTORE)
    if asked:
        yield _self_query(name, asked, missed)


def _detail(check: Check) -> tuple[str, list[str]]:
    """What is wrong, and the offenders where the check names them."""
    if match := _ONE_OF_BOTH.fullmatch(check.detail):
        return match["what"], [str(one) for one in ast.literal_eval(match["ids"])]
    if check.detail and check.found is not None:
        return f"{_short(check.found)}: {check.detail}", []
    return check.detail or f"expected {_short(check.expected)}, is {_short(check.found)}", []


def _self_query(name: str, asked: int, missed: list[str]) -> Finding:
    """A vector that is asked finds its own record. An approximate index may miss a few."""
    bad = len(missed) > asked // 2
    detail = f"{len(missed)} of {asked} do not find themselves" if missed else f"{asked} asked"
    hint = "the graph of the index may be damaged: restore the collection, or build it anew"
    return Finding(name, "a vector finds itself", not bad, "error", detail, missed, hint)


def _positions(copy: Path, facts: Mapping[str, Any], name: str) -> Iterator[Finding]:
    """How far files and rows reach is recorded, or Chroma replays onto them, or loses them."""
    bad = [
        facts["collections"].get(known["collection"], {}).get("name", known["collection"])
        for segment, known in facts["segments"].items()
        if known["persisted"] and known["recorded"] is None and not _own_position(copy / segment)
    ]
    bad += [
        f"{known['name']}: its metadata"
        for known in facts["collections"].values()
        if known["records"] and known["metadata_max_seq_id"] is None
    ]
    detail = f"not recorded for {len(bad)}" if bad else ""
    yield Finding(name, "positions are recorded", not bad, "error", detail, bad, _RESTORE)


def _own_position(segment: Path) -> bool:
    """Chroma 0.4 and 0.5 kept it in the pickle; a bad pickle is told by the proof."""
    try:
        return load_ids(segment / hnsw.PICKLE).max_seq_id is not None
    except (BadPickleError, OSError):
        return True


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
