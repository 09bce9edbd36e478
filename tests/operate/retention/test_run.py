"""`prune` on real repositories: what stays restores, restic agrees, and damage forbids it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.clock import go_time, now_ns
from safetake.config import Config
from safetake.errors import DamagedError, RefusedError
from safetake.operate.retention import run as running
from safetake.operate.retention import run_prune
from safetake.repository import Repository
from safetake.restore.beside import restore_to
from safetake.snapshots import list_snapshots
from tests.cli.conftest import Workplace, environment
from tests.support.repositories import (
    files_source,
    memory_folder,
    new_repository,
    restic,
    snapshot,
)

DAY = 86400 * 10**9
NOW = now_ns()


def configured(folder: Path, **retention: Any) -> Config:
    return Config.model_validate(
        {
            "repository": {"location": str(folder / "repo")},
            "sources": {"scripts": {"type": "files", "path": str(folder / "data")}},
            "jobs": {"nightly": {"kind": "backup", "schedule": "0 2 * * *"}},
            "restore": {"state": str(folder / "state")},
            "retention": {"daily": "3d", **retention},
        }
    )


def dated(repository: Repository, name: str, days_ago: float, job: str = "nightly") -> str:
    """The snapshot as if it had been taken then; its new id."""
    document = repository.load_document("snapshots", name)
    document["time"] = go_time(NOW - round(days_ago * DAY))
    document["tags"] = ["safetake", f"job={job}", "backup"]
    fresh = repository.save_snapshot(document)
    repository.storage.remove("snapshots", name)
    return fresh


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_folder() as folder:
        (folder / "data").mkdir()
        yield folder


def filled(place: Path, days: int = 8) -> tuple[Repository, list[str]]:
    """A repository with a snapshot of each day, of other content each; the newest first."""
    repository = new_repository(place / "repo")
    ids = []
    for n in reversed(range(days)):
        (place / "data" / "script.txt").write_text(f"장면 {n}\n" * 5000)
        (place / "data" / f"day{n}.bin").write_bytes(bytes([n]) * 50_000)
        source = files_source("scripts", place / "data")
        ids.append(dated(repository, snapshot(repository, source).id, n + 0.1))
    return repository, ids[::-1]


def proof(repository: Repository, name: str, rung: str, *, ok: bool = True) -> str:
    document = repository.load_document("snapshots", name)
    said = {"tree": document["tree"], "time": go_time(now_ns()), "ok": ok, "rung": rung}
    return repository.save_document("proofs", {**said, "problems": []})


def test_what_is_not_kept_goes_and_what_stays_restores(place: Path) -> None:
    repository, ids = filled(place)
    proof(repository, ids[5], "opened")
    config = configured(place)
    told = run_prune(config, repository, dry_run=True)
    assert told.exit_code == 0
    assert sorted(told.forget) == sorted([ids[3], ids[4], ids[6], ids[7]])
    assert told.space["freed_bytes"] > 0
    assert len(list_snapshots(repository)) == 8
    done = run_prune(config, repository)
    assert done.forget == told.forget
    assert done.facts()["removed"] == 4
    assert done.facts()["kept"] == 4
    stays = [one.id for one in reversed(list_snapshots(repository))]
    assert stays == [*ids[:3], ids[5]]
    restic(place / "repo", "check", "--read-data")
    for n in (0, 1, 2, 5):
        (found,) = [one for one in list_snapshots(repository) if one.id == ids[n]]
        restore_to(repository, found, [], place / f"out{n}")
        text = (place / f"out{n}" / "scripts" / "script.txt").read_text()
        assert text == f"장면 {n}\n" * 5000
    assert run_prune(config, repository).forget == []


def test_snapshots_of_stock_restic_are_never_touched(place: Path) -> None:
    repository, _ = filled(place, 5)
    for day in ("2019-01-01", "2020-01-01"):
        restic(place / "repo", "backup", "--time", f"{day} 00:00:00", place / "data")
    done = run_prune(configured(place), repository)
    assert "2 snapshots are not safetake's: they are never touched" in done.notes
    assert len(done.forget) == 2
    assert sum(not one.ours for one in list_snapshots(repository)) == 2
    restic(place / "repo", "check")


def test_without_a_rule_nothing_is_removed_and_it_says_so(place: Path) -> None:
    repository, _ = filled(place, 5)
    for dry_run in (True, False):
        done = run_prune(configured(place, daily=None), repository, dry_run=dry_run)
        assert done.forget == []
        assert done.notes == ["[retention] has no rule: nothing is removed"]


def test_an_append_only_repository_is_refused_and_explained(place: Path) -> None:
    repository, _ = filled(place, 5)
    config = configured(place, append_only=True)
    with pytest.raises(RefusedError, match="append-only"):
        run_prune(config, repository)
    assert len(run_prune(config, repository, dry_run=True).forget) == 2
    assert len(list_snapshots(repository)) == 5


def test_a_proof_that_cannot_be_read_forbids_it(place: Path) -> None:
    repository, ids = filled(place, 5)
    name = proof(repository, ids[4], "opened")
    path = place / "repo" / "proofs" / name
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match="which snapshot was proven last; nothing was removed"):
        run_prune(configured(place), repository)
    assert len(list_snapshots(repository)) == 5


def test_a_newest_snapshot_that_cannot_be_read_forbids_it(place: Path) -> None:
    repository, ids = filled(place, 5)
    document = repository.load_document("snapshots", ids[0])
    document["tree"] = "00" * 32
    repository.storage.remove("snapshots", ids[0])
    repository.save_snapshot(document)
    with pytest.raises(DamagedError):
        run_prune(configured(place), repository)
    assert len(list_snapshots(repository)) == 5


def test_a_lost_pack_of_what_stays_forbids_it(place: Path) -> None:
    repository, _ = filled(place, 5)
    newest = max(
        (place / "repo" / "data").rglob("*"), key=lambda p: (p.is_file(), p.stat().st_mtime)
    )
    newest.unlink()
    with pytest.raises(DamagedError):
        run_prune(configured(place), repository)
    assert len(list_snapshots(repository)) == 5


def test_nothing_goes_while_the_newest_is_found_damaged(place: Path) -> None:
    repository, ids = filled(place)
    proof(repository, ids[0], "read back", ok=False)
    done = run_prune(configured(place), repository)
    assert (done.exit_code, done.forget) == (3, [])
    assert len(list_snapshots(repository)) == 8
    assert ids[0][:8] in done.held[0]
    proof(repository, ids[0], "opened")
    assert run_prune(configured(place), repository).exit_code == 0


def test_a_proof_that_comes_in_between_is_heard(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found damaged after the plan was made, and before anything was removed."""
    repository, ids = filled(place)
    from safetake.repository import prune

    planned = prune.plan_prune

    def slowly(*arguments: Any, **more: Any) -> Any:
        plan = planned(*arguments, **more)
        proof(repository, ids[0], "read back", ok=False)
        return plan

    monkeypatch.setattr(prune, "plan_prune", slowly)
    done = running.run_prune(configured(place), repository)
    assert (done.exit_code, done.forget) == (3, [])
    assert len(list_snapshots(repository)) == 8


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def command(place: Path) -> Workplace:
    filled(place)
    (place / "password").write_text("correct horse 말")
    (place / "password").chmod(0o600)
    (place / "safetake.toml").write_text(
        '[repository]\nlocation = "repo"\npassword_file = "password"\n'
        '[sources.scripts]\ntype = "files"\npath = "data"\n'
        '[jobs.nightly]\nkind = "backup"\nschedule = "0 */6 * * *"\n'
        '[jobs.tidy]\nkind = "prune"\nschedule = "30 3 * * *"\n'
        '[restore]\nstate = "state"\n'
        '[retention]\nhourly = "24h"\ndaily = "3d"\n'
    )
    return Workplace(place, environment(place))


def test_the_command_explains_each_snapshot_in_80_columns(command: Workplace) -> None:
    shown = command.run("prune", "--dry-run").stdout
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "is kept by" in shown or "older than hourly 24h, daily 3d" in shown
    assert "pinned: last of scripts" in shown
    assert "5 snapshots would be removed, 3 kept" in shown
    found = command.json("prune", "--dry-run")
    (group,) = found["groups"]
    assert (group["job"], group["sources"], group["kind"]) == ("nightly", ["scripts"], "backup")
    assert [one["keep"] for one in group["snapshots"]] == [False] * 5 + [True] * 3
    assert all(one["reasons"] for one in group["snapshots"])
    assert (found["dry_run"], found["removed"], found["kept"]) == (True, 5, 3)


def test_the_command_removes_and_leaves_a_record(command: Workplace) -> None:
    command.run("prune", "--dry-run")
    found = command.json("prune")
    assert (found["dry_run"], found["removed"], found["kept"]) == (False, 5, 3)
    again = command.run("prune").stdout
    assert again == "0 snapshots removed, 3 kept\n"
    command.run("check", "--read-data")
    assert len(command.json("snapshots")) == 3


def test_the_command_looks_a_year_ahead(command: Workplace) -> None:
    shown = command.run("prune", "--simulate").stdout
    assert "job nightly: 0 */6 * * * (UTC)" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    found = command.json("prune", "--simulate", "--days", "40")
    assert found["days"] == 40
    (job,) = found["jobs"]
    assert job["taken"] == 160
    assert job["days"][-1]["kept"] == len(job["kept"])
    message, _ = command.error("prune", "--days", "3", code=2)
    assert message == "--days goes with --simulate"


def test_no_schedule_no_simulation(command: Workplace) -> None:
    path = command.folder / "safetake.toml"
    path.write_text(path.read_text().replace('schedule = "0 */6 * * *"\n', ""))
    message, hint = command.error("prune", "--simulate", code=2)
    assert message.startswith("no backup job has a schedule")
    assert hint


def test_the_facts_are_small(place: Path) -> None:
    repository, _ = filled(place, 5)
    facts = run_prune(configured(place), repository).facts()
    assert len(json.dumps(facts)) < 2000


def test_a_second_repository_is_pruned_by_the_same_rules(command: Workplace) -> None:
    path = command.folder / "safetake.toml"
    path.write_text(
        path.read_text()
        + 'append_only = true\n[copies.second]\nlocation = "second"\npassword_file = "password"\n'
    )
    command.run("copy", "second", "--init")
    message, hint = command.error("prune", code=1)
    assert "append-only" in message
    assert hint
    found = command.json("prune", "--copy", "second")
    assert (found["removed"], found["kept"]) == (5, 3)
    assert len(command.json("snapshots")) == 8
    message, _ = command.error("prune", "--copy", "secnd", code=2)
    assert message.startswith("there is no copy 'secnd' (did you mean 'second'?)")
