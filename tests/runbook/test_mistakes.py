"""What goes wrong is said, and leaves something to go on with."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from safetake.cli.app import run
from safetake.errors import RefusedError, SafetakeError, UsageError
from safetake.runbook.journal import Journal, create, the_open
from tests.cli.conftest import Workplace
from tests.runbook.conftest import terminal


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "no terminal to ask on", "--yes"),
        (["--json"], "no terminal to ask on", "--yes"),
        (["--resume", "--yes"], "no runbook is open in", "begins one"),
        (["--abandon"], "no runbook is open in", "begins one"),
        (["--resume", "--abandon"], "exclude each other", ""),
        (["--yes", "--output", "safetake.toml/x"], "cannot be made", ""),
        (["--language", "de"], "'de' is not one of", ""),
    ],
)
def test_mistakes_of_the_command_line(
    destroyed: Workplace,
    words: list[str],
    message: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(destroyed.folder)
    assert run(["runbook", *words]) == 2
    said = "".join(capfd.readouterr())
    assert message in said
    assert hint in said
    assert not [one for one in destroyed.folder.glob("state/runbooks/*") if one.is_dir()]


def test_a_repository_that_cannot_be_read_stops_and_can_be_abandoned(
    destroyed: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (destroyed.folder / "safetake.password").write_text("wrong\n")
    monkeypatch.chdir(destroyed.folder)
    assert run(["runbook", "--yes", "--language", "en"]) == 1
    stopped = capfd.readouterr()
    assert "wrong password" in stopped.out
    assert "stopped at step 1, Backups available" in stopped.err
    assert "--resume" in stopped.err

    with terminal(destroyed, "runbook", "--resume") as person:
        person.expect("cannot be read. Try again, or stop")
        person.interrupt()
        assert person.end() == 130
        assert "--resume` goes on" in person.seen

    assert run(["runbook", "--abandon", "--output", "out"]) == 0
    given_up = capfd.readouterr().out
    assert "abandoned at step 1" in given_up
    assert "not in the repository" in given_up
    report = (destroyed.folder / "out" / "incident.md").read_text(encoding="utf-8")
    assert "**failed**" in report
    assert "abandoned at step 1, Backups available" in report
    assert not (destroyed.folder / "projects.db").exists()


def test_a_damaged_snapshot_gives_way_to_an_older_one_on_a_bare_machine(
    workplace: Workplace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Only the recovery kit's configuration: no sources, no state, an empty HOME."""
    older = workplace.json("snapshots")[0]["id"]
    before = {path for path in (workplace.folder / "repo" / "data").rglob("*") if path.is_file()}
    (workplace.folder / "scripts" / "new.bin").write_bytes(os.urandom(100_000))
    workplace.run("backup")
    now = {path for path in (workplace.folder / "repo" / "data").rglob("*") if path.is_file()}
    pack = max(now - before, key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)

    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(workplace.folder / "safetake.password", bare / "kit.password")
    location = workplace.folder / "repo"
    (bare / "kit.toml").write_text(
        f'[repository]\nlocation = "{location}"\npassword_file = "kit.password"\n'
    )
    monkeypatch.chdir(bare)
    monkeypatch.setenv("HOME", str(bare))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    capfd.readouterr()
    assert run(["--json", "--config", "kit.toml", "runbook", "--yes", "--language", "en"]) == 0
    found = json.loads(capfd.readouterr().out)
    document = found["evidence"]
    assert document["snapshot"] == older
    assert document["verdict"] == "passed"
    notes = "\n".join(document["notes"])
    unknown = {step["name"]: step["detail"] for step in document["steps"] if "known" in step}
    assert "no RTO" in unknown["2. RTO set"]
    assert {"5. Integrity verified", "9. Stakeholders told"} < set(unknown)
    assert "older (the default)" in notes
    assert (bare / "restored" / "projects" / "projects.db").exists()
    assert Path(found["files"][0]).read_text(encoding="utf-8").startswith("<!doctype html>")


def begun(folder: Path) -> Journal:
    return create(folder, {"format": 1, "time_ns": 1, "language": "en"})


def test_the_journal_survives_what_a_power_cut_does(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.begin(1)
    journal.answer(1, "q", "yes", "Really?", "예", "root")
    journal.finish(1, {"state": "ok", "detail": "", "checks": []})
    journal.begin(2)
    file = journal.folder / "journal"
    whole = file.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        found = the_open(tmp_path)
        assert (1 in found.done) == (whole[:cut].count(b"\n") > 2)
        found.begin(3)  # what was torn is gone, so this line is whole
        assert 3 in the_open(tmp_path).begun
    file.write_bytes(b"x" + whole[1:])
    with pytest.raises(SafetakeError, match="cannot be read"):
        the_open(tmp_path)


def test_one_runbook_at_a_time(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    with pytest.raises(RefusedError, match="0 of 10 steps"):
        begun(tmp_path)
    journal.end("finished")
    with pytest.raises(UsageError, match="no runbook is open"):
        the_open(tmp_path)
    assert begun(tmp_path).id != journal.id
    assert json.loads((journal.folder / "plan.json").read_text())["format"] == 1


@pytest.mark.parametrize(
    ("spoil", "ended"),
    [
        ("a line", True),
        ("a line", False),
        ("the plan", True),
        ("the plan", False),
        ("no file", False),
    ],
)
def test_a_damaged_one_is_named_and_does_not_hinder_a_new_one(
    destroyed: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spoil: str,
    ended: bool,
) -> None:
    """Emergencies are rare, and disks rot: what is left of the last one must not stop the next."""
    (destroyed.folder / "safetake.password").write_text("wrong\n")  # stops it at step 1
    monkeypatch.chdir(destroyed.folder)
    runbooks = destroyed.folder / "state" / "runbooks"
    runbooks.mkdir(parents=True)
    old = begun(runbooks)
    old.begin(1)
    if ended:
        old.end("finished")
    if spoil == "no file":
        (old.folder / "journal").unlink()
        (old.folder / "journal").mkdir()
    else:
        name = "journal" if spoil == "a line" else "plan.json"
        whole = (old.folder / name).read_bytes()
        if spoil == "a line" and not ended:
            old.begin(2)
            whole = (old.folder / name).read_bytes()
        (old.folder / name).write_bytes(b"\0" + whole[1:])
    before = {f.name: f.read_bytes() for f in old.folder.iterdir() if f.is_file()}
    if not ended:
        for option in ("--resume", "--abandon"):
            assert run(["runbook", option, "--yes"]) == 1
            said = capfd.readouterr().err
            assert f"{old.folder} cannot be read" in said
            assert "may be an unfinished recovery" in said

    assert run(["runbook", "--yes", "--language", "en"]) == 1
    stopped = capfd.readouterr()
    assert "stopped at step 1" in stopped.err
    (warning,) = [line for line in stopped.out.splitlines() if str(old.folder) in line]
    assert ("had ended" in warning) == ended
    assert ("may be an unfinished recovery" in warning) != ended
    assert f"mv {old.folder} " in warning
    assert run(["runbook", "--resume", "--yes"]) == 1  # the new one, and it is named again
    assert str(old.folder) in capfd.readouterr().out
    assert run(["--json", "runbook", "--abandon"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert warning.strip() in document["evidence"]["notes"]
    assert {f.name: f.read_bytes() for f in old.folder.iterdir() if f.is_file()} == before


def test_a_terminal_that_speaks_another_encoding(destroyed: Workplace) -> None:
    """Neither a question that it can not say nor a byte that is no character ends the walk."""
    words = ("runbook", "--language", "ko")
    with terminal(destroyed, *words, PYTHONUTF8="0", PYTHONIOENCODING="ascii:strict") as person:
        person.expect(r"어떤 스냅샷을 복원할까요[^\n]*: $")
        os.write(person._main, b"\xff\xc7\n")
        person.expect("시작하는 스냅샷이 없거나")
        person.answer("어떤 스냅샷을 복원할까요")
        person.expect(r"먼저 검증할까요[^\n]*: $")
        person.interrupt()
        assert person.end() == 130
        assert "--resume" in person.seen


def test_nobody_said_that_it_works_so_it_is_not_recovered(
    destroyed: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In place, without a service that has a health, by defaults: the data is back, no more."""
    monkeypatch.chdir(destroyed.folder)
    assert run(["runbook", "--yes", "--language", "en"]) == 0
    said = capfd.readouterr().out
    assert "recovered in" not in said
    assert "nobody said that the application works on it, so the RTO of 1 h 00 m runs on" in said
    report = next(destroyed.folder.glob("state/runbooks/*/incident.md")).read_text("utf-8")
    assert "time to recovery" not in report


def test_a_folder_of_somebody_else_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetake.config import Config
    from safetake.runbook.journal import alone

    (tmp_path / "runbooks" / "lock").mkdir(parents=True)
    config = Config.model_validate(
        {"repository": {"location": "r", "password_env": "P"}, "restore": {"state": str(tmp_path)}}
    )
    with pytest.raises(SafetakeError, match="lock cannot be opened"), alone(config):
        pass
