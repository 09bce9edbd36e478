"""`safetake history` and what the commands leave in it."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any, get_args

import safetake
from safetake.cli.history import KINDS
from safetake.configjobs import JobConfig
from tests.cli.conftest import Workplace

SOURCE = Path(safetake.__file__).parent


def test_every_kind_of_run_can_be_asked_for() -> None:
    """Those that the source records, of every kind of job, and the two that are no run."""
    named = {
        found
        for path in SOURCE.rglob("*.py")
        for found in re.findall(r'recorded\(config, "(\w+)"', path.read_text(encoding="utf-8"))
    }
    jobs = get_args(JobConfig.model_fields["kind"].annotation)
    assert len(named) > 10
    assert set(KINDS) == named | set(jobs) | {"daemon", "missed"}


def newest(place: Workplace) -> dict[str, Any]:
    """The record of the last run."""
    records = place.json("history")["records"]
    return dict(records[-1]) if records else {}


def test_every_command_that_does_something_is_on_record(workplace: Workplace) -> None:
    place = workplace
    snapshot = place.json("backup", "nightly")["id"]
    place.run("verify")
    place.run("check", "--read-data")
    (place.folder / "second").write_text("geheim\n")
    (place.folder / "second").chmod(0o600)
    key = place.json("key", "add", "--new-password-file", "second")["id"]
    place.run("key", "remove", key[:12])
    place.run("unlock")
    place.run("init")
    place.run("restore", "latest", "projects", "--to", "out")
    with sqlite3.connect(place.folder / "projects.db") as db:
        db.execute("DELETE FROM projects WHERE id < 10")
    db.close()
    place.run("rows", "latest", "projects")  # only looks
    place.run("rows", "latest", "projects", "--apply", "--yes")
    place.run("rows", "--undo", "latest", "--yes")
    place.run("restore", "latest", "projects", "--in-place", "--dry-run")
    done = place.json("restore", "latest", "projects", "--in-place", "--yes")
    place.run("restore", "--undo", "--yes")

    found = place.json("history", "--verify")
    assert found["problems"] == []
    assert found["unpushed"] == 0
    records = found["records"][1:]  # the first is of the template
    assert [record["kind"] for record in records] == [
        "backup", "verify", "check", "key", "key", "unlock", "init",
        "restore", "rows", "rows", "restore", "restore",
    ]  # fmt: skip
    assert {(record["exit_code"], record["trigger"]) for record in records} == {(0, "hand")}
    assert records[0]["job"] == "nightly"
    facts = [record["facts"] for record in records]
    assert facts[0]["snapshot"] == snapshot
    assert facts[0]["sources"]["projects"]["unread"] == 0
    assert (facts[1]["rung"], facts[1]["sources"]) == ("opened", ["projects"])
    assert facts[2]["read_data"] is True
    assert facts[3] == {"action": "add", "key": key}
    assert facts[4] == {"action": "remove", "key": key}
    assert facts[6]["repository_made"] is False
    beside = facts[7]
    assert (beside["action"], beside["outcome"]) == ("to", "beside")
    assert (beside["sources"], beside["bytes"] > 0) == (["projects"], True)
    assert (facts[8]["action"], facts[9]["action"]) == ("apply", "undo")
    assert (facts[10]["id"], facts[10]["outcome"]) == (done["restore"], "committed")
    assert (facts[11]["action"], facts[11]["undo_of"]) == ("undo", done["restore"])
    assert "geheim" not in str(records)


def test_failures_are_on_record_with_what_was_told(workplace: Workplace) -> None:
    place = workplace
    (place.folder / "projects.db").rename(place.folder / "away.db")
    message, hint = place.error("backup", code=1)
    for record in place.json("history", "--failed")["records"]:  # once as JSON, once as text
        assert (record["exit_code"], record["error"], record["hint"]) == (1, message, hint)
    (place.folder / "safetake.password").write_text("another\n")
    message, _ = place.error("verify", code=12)
    found = place.json("history", "--failed")
    assert found["repository_open"] is False
    assert found["records"][-1]["error"] == message
    assert found["unpushed"] == 2
    (place.folder / "safetake.password").write_text("password\n")
    assert place.json("history")["unpushed"] == 2
    (place.folder / "away.db").rename(place.folder / "projects.db")
    place.run("backup")
    assert place.json("history")["unpushed"] == 0
    for line in place.run("history", "--failed").stdout.splitlines():
        assert len(line) <= 80


def test_the_trigger_is_what_the_environment_says(workplace: Workplace) -> None:
    workplace.environment["SAFETAKE_TRIGGER"] = "timer"
    workplace.run("check")
    assert newest(workplace)["trigger"] == "timer"
    workplace.environment["SAFETAKE_TRIGGER"] = "no such; thing"
    workplace.run("check")
    assert newest(workplace)["trigger"] == "hand"


def test_filters(workplace: Workplace) -> None:
    place = workplace
    place.run("backup", "nightly")
    place.run("check")
    everything = place.json("history")["records"]
    assert [r["kind"] for r in place.json("history", "--limit", "1")["records"]] == ["check"]
    assert {r["job"] for r in place.json("history", "--job", "nightly")["records"]} == {"nightly"}
    assert {r["kind"] for r in place.json("history", "--kind", "check")["records"]} == {"check"}
    assert place.json("history", "--since", "1h")["records"] == everything
    assert place.json("history", "--since", "2100-01-01")["records"] == []
    assert "nothing like that is on record" in place.run("history", "--failed").stdout
    assert place.json("history", "--kind", "daemon")["records"] == []
    message, _ = place.error("history", "--kind", "backups", code=2)
    assert message == "there is no kind of run 'backups' (did you mean 'backup'?)"
    message, _ = place.error("history", "--job", "nightlyy", code=2)
    assert message == "there is no job 'nightlyy' (did you mean 'nightly'?)"
    place.error("history", "--since", "tomorrow", code=2)


def test_another_machine_sees_it_and_a_lost_record_is_named(workplace: Workplace) -> None:
    place = workplace
    place.run("check")
    kept = place.folder / "history"
    shutil.copytree(place.folder / "repo" / "history", kept)
    place.run("check")
    last = newest(place)
    other = Workplace(place.folder, {**place.environment, "HOME": str(place.folder / "other")})
    assert newest(other) == last
    shutil.rmtree(place.folder / "repo" / "history")
    shutil.copytree(kept, place.folder / "repo" / "history")
    for machine in (place, other):
        found = machine.json("history", "--verify", code=1)
        assert any(last["id"][:8] in problem for problem in found["problems"])
        assert last["id"][:8] in machine.run("history", "--verify", code=1).stderr


def test_a_record_that_can_be_kept_nowhere_is_told_and_fails_nothing(workplace: Workplace) -> None:
    place = workplace
    place.run("backup")
    (place.folder / "state").write_text("in the way")
    with (place.folder / "safetake.toml").open("a") as file:
        file.write('[restore]\nstate = "state/inside"\n')
    done = place.run("backup")  # the repository alone has it
    assert "warning: history: cannot open the history" in done.stderr
    history = place.folder / "repo" / "history"
    history.rename(place.folder / "kept")
    history.write_text("in the way")
    done = place.run("backup")
    assert "warning: this run is not in the history" in done.stderr
    history.unlink()
    (place.folder / "kept").rename(history)
    found = place.json("status")
    assert any("is not in the history" in text for text in found["warnings"])
