"""What an undo needed goes with its age, and never while it is needed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from safetake.errors import RestoreError
from safetake.operate.retention import run_prune
from safetake.operate.retention.undofiles import outdated, remove
from tests.operate.retention.test_run import DAY, NOW, configured, dated
from tests.support.repositories import files_source, memory_folder, new_repository, snapshot


def aged(path: Path, days: float) -> Path:
    for one in (*path.glob("*"), path):
        os.utime(one, ns=(NOW - round(days * DAY),) * 2)
    return path


def undo_files(state: Path, days: float) -> set[Path]:
    """As the three kinds of restores leave them."""
    rows = state / "rows" / f"{days}"
    for folder in (rows, state / "records", state / "keys"):
        folder.mkdir(parents=True, exist_ok=True)
    (rows / "record.json").write_text("{}")
    (rows / "rows.sqlite").write_text("")
    records, keys = state / "records" / f"{days}.jsonl", state / "keys" / f"{days}.keys.undo"
    records.write_text(json.dumps({"begin": {}}) + "\n" + json.dumps({"done": {}}) + "\n")
    keys.write_text("{}\n")
    return {aged(path, days) for path in (rows, records, keys)}


def test_only_what_is_older_than_the_safety_snapshots_goes() -> None:
    with memory_folder() as place:
        (place / "data").mkdir()
        (place / "data" / "a").write_text("a")
        config = configured(place)
        old, young = undo_files(place / "state", 31), undo_files(place / "state", 29)
        with new_repository(place / "repo") as repository:
            dated(repository, snapshot(repository, files_source("scripts", place / "data")).id, 0)
            said = run_prune(config, repository, dry_run=True, now_ns=NOW)
            assert set(said.undo_files) == {str(path) for path in old}
            assert all(path.exists() for path in old | young)
            report = run_prune(config, repository, now_ns=NOW)
            assert report.as_dict()["undo_files"] == said.undo_files
            assert not any(path.exists() for path in old)
            assert all(path.exists() for path in young)
            assert run_prune(config, repository, now_ns=NOW).undo_files == []


def test_a_restore_of_records_that_is_open_keeps_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"begin": {"name": "a"}}) + "\n")
    aged(folder / "a.jsonl", 99)
    found = outdated(tmp_path, NOW)
    assert found == [], "it was cut off, and --rollback needs it"


def test_without_a_state_folder_there_is_nothing(tmp_path: Path) -> None:
    assert outdated(tmp_path / "none", NOW) == []
    assert not (tmp_path / "none").exists()


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    target, rows = tmp_path / "target", tmp_path / "rows"
    target.mkdir()
    rows.mkdir()
    (target / "kept").write_text("x")
    (rows / "link").symlink_to(target)
    os.utime(rows / "link", ns=(0, 0), follow_symlinks=False)
    remove(outdated(tmp_path, NOW))
    assert list(rows.iterdir()) == []
    assert (target / "kept").exists()


def test_what_cannot_be_removed_is_said() -> None:
    with pytest.raises(RestoreError, match=r"cannot be removed: .*/proc/self/environ"):
        remove([Path("/proc/self/environ")])
