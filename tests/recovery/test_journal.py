"""The journal: what was recorded is there after a power cut, and nothing else is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import safetake.recovery.journal as journal_module
from safetake.errors import RefusedError, RestoreError
from safetake.recovery.journal import (
    BACK,
    Journal,
    _line,
    create,
    journals,
    load,
    open_restore,
    parse,
    undo_file_name,
    working,
)

HOUR = 3600 * 10**9
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=6)


@given(RECORDS)
def test_records_come_back(records: list[dict[str, Any]]) -> None:
    data = b"".join(map(_line, records))
    assert parse(data) == (records, len(data))


@given(RECORDS.filter(bool), st.data())
def test_a_torn_last_line_is_no_line(records: list[dict[str, Any]], data: st.DataObject) -> None:
    whole = b"".join(map(_line, records[:-1]))
    last = _line(records[-1])
    cut = data.draw(st.integers(0, len(last) - 1))
    assert parse(whole + last[:cut]) == (records[:-1], len(whole))


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=4), min_size=2, max_size=4), st.data())
def test_a_broken_line_before_others_is_an_error(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    whole = bytearray(b"".join(map(_line, records)))
    first = len(_line(records[0]))
    at = data.draw(st.integers(0, first - 2))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found, _ = parse(bytes(whole))
    except ValueError:
        return
    assert found == records  # hexadecimal digits in capitals say the same


@given(st.binary(max_size=200))
def test_anything_is_parsed_or_refused(data: bytes) -> None:
    try:
        records, length = parse(data)
    except ValueError:
        return
    assert b"".join(map(_line, records)) == data[:length] or records


@pytest.fixture
def restores(tmp_path: Path) -> Path:
    folder = tmp_path / "restores"
    folder.mkdir()
    return folder


def begun(restores: Path, name: str = "00" * 8) -> Journal:
    return create(restores, name, {"time": name, "sources": {"projects": {}}})


def test_steps_notes_and_decisions_survive(restores: Path) -> None:
    journal = begun(restores)
    journal.begin("stop:app", service={"replicas": 3})
    journal.finish("stop:app", seconds=1.5)
    journal.begin("switch:projects")
    journal.note("projects", "marker", [1, "x"])
    journal.begin("stage:projects")
    journal.forget("stage:projects")
    journal.decide(BACK, "because")
    again = load(journal.folder)
    assert again.begun["stop:app"] == {"service": {"replicas": 3}}
    assert again.done == {"stop:app": {"seconds": 1.5}}
    assert set(again.begun) == {"restore", "stop:app", "switch:projects"}
    assert again.notes == {"projects": {"marker": [1, "x"]}}
    assert (again.decision, again.reason, again.ended) == (BACK, "because", "")
    assert again.plan == journal.plan


def test_what_a_power_cut_tore_is_cut_off_before_the_next_line(restores: Path) -> None:
    journal = begun(restores)
    journal.begin("safety")
    with (journal.folder / "journal").open("ab") as file:
        file.write(b'1234abcd {"done":"saf')
    torn = (journal.folder / "journal").read_bytes()
    again = load(journal.folder)
    assert (journal.folder / "journal").read_bytes() == torn, "a reader changed it"
    assert not again.step("safety")
    again.finish("safety")
    assert load(journal.folder).step("safety")


def test_a_flipped_bit_in_the_middle_is_told(restores: Path) -> None:
    journal = begun(restores)
    journal.begin("safety")
    path = journal.folder / "journal"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(RestoreError, match="broken"):
        load(journal.folder)


def test_the_open_one_is_found_until_it_has_ended(restores: Path) -> None:
    assert open_restore(restores) is None
    first = begun(restores, "01" * 8)
    first.end("committed")
    assert open_restore(restores) is None
    second = begun(restores, "02" * 8)
    found = open_restore(restores)
    assert found is not None
    assert found.id == second.id
    assert [journal.id for journal in journals(restores)] == [first.id, second.id]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan.json", "[]"),
        ("journal", _line({"note": "projects"}).decode()),
        ("journal", _line({"done": 7}).decode()),
    ],
)
def test_what_is_no_record_of_a_restore_is_told_with_its_folder(
    restores: Path, name: str, text: str
) -> None:
    folder = begun(restores).folder
    (folder / name).write_text(text)
    with pytest.raises(RestoreError, match=f"the journal {folder} cannot be read"):
        journals(restores)


def test_their_order_is_not_the_clocks(restores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begun(restores, "02" * 8)
    monkeypatch.setattr(journal_module, "now_ns", lambda: time.time_ns() - HOUR)  # it was set back
    for folder, name in (("records", f"{first.order + 5:020}-v.jsonl"), ("keys", "README-x")):
        (restores.parent / folder).mkdir()
        (restores.parent / folder / name).touch()
    second = begun(restores, "01" * 8)
    second.amend({"time": "", "sources": {}})
    assert [journal.id for journal in journals(restores)] == [first.id, second.id]
    assert load(second.folder).order == second.order == first.order + 10_005
    assert int(undo_file_name(restores, "v", ".jsonl").removesuffix("-v.jsonl")) > second.order


def test_those_of_before_there_was_an_order_go_by_their_time(restores: Path) -> None:
    for name, when in (("01", "2026-02-01T00:00:00Z"), ("02", "2026-01-01T00:00:00Z"), ("03", "")):
        (restores / (name * 8)).mkdir()
        (restores / (name * 8) / "plan.json").write_text(json.dumps({"time": when}))
    found = [journal.id[:2] for journal in [*journals(restores), begun(restores, "00" * 8)]]
    assert found == ["03", "02", "01", "00"]
    assert journals(restores)[-1].id == "00" * 8


def test_what_was_saved_first_is_what_was_there_before(restores: Path) -> None:
    """Before anything is replaced all is saved anew, after that only the rest."""
    journal = begun(restores)

    def save(snapshot: str, *names: str) -> None:
        for name in names:
            journal.finish(f"safety:{name}", snapshot=snapshot and f"{snapshot}0", time_ns=1)

    save("", "absent")
    save("a", "queue", "scripts")  # killed: the third was not recorded
    save("b", "queue", "scripts", "projects")  # killed before a switch
    save("c", "queue", "scripts", "projects")
    assert journal.saved_since == {}
    save("d", "scripts", "projects")  # the first was switched, and it was killed
    save("e", "projects")
    for one in (journal, load(journal.folder)):
        assert one.saved == dict.fromkeys(("queue", "scripts", "projects"), "c0")
        assert one.saved_since == {"scripts": "d0", "projects": "e0"}


def test_a_begin_that_was_cut_off_before_its_plan_is_nothing(restores: Path) -> None:
    (restores / ("03" * 8)).mkdir()
    assert open_restore(restores) is None


def test_the_next_begin_removes_what_was_cut_off_before_its_plan(restores: Path) -> None:
    (restores / ("0" * 16)).mkdir()
    (restores / ("0" * 16) / ".plan.json.x").write_text("half")
    create(restores, "2" * 16, {})
    assert [entry.name for entry in restores.iterdir()] == ["2" * 16]


def test_journals_are_private(restores: Path) -> None:
    journal = begun(restores)
    assert journal.folder.stat().st_mode & 0o077 == 0
    for path in journal.folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_one_process_works_at_a_time(restores: Path) -> None:
    with (
        working(restores),
        pytest.raises(RefusedError, match="another restore is at work"),
        working(restores),
    ):
        pass
    with working(restores):
        pass


def test_a_full_disk_is_told(restores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    journal = begun(restores)

    write = os.write

    def full(fd: int, data: bytes) -> int:
        return write(fd, data[:5])  # as a file system does that has five bytes left

    with monkeypatch.context() as patch:
        patch.setattr("safetake.recovery.journal.os.write", full)
        with pytest.raises(RestoreError, match="No space left") as caught:
            journal.begin("switch:projects")
        assert caught.value.hint
    assert "switch:projects" not in load(journal.folder).begun
    journal.begin("safety")
    assert "safety" in load(journal.folder).begun
