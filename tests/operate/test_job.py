"""`safetake run JOB` as a process: every kind, what is in the way, and every way to end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safetake.operate import joblocks
from safetake.operate.job import JobRun
from safetake.operate.joblocks import Need
from safetake.storage.local import process_exists
from tests.support.jobs import Place, until

BACKUP = '[jobs.nightly]\nkind = "backup"\nsources = ["projects"]\n'
QUICK = "retry_delay = 0.2\n"
HANGS = "[barrier]\ntimeout = 300\n"
"""With a busy writer a backup waits for so long."""


def test_every_kind_runs_and_leaves_one_record(place: Place) -> None:
    place.configure(
        BACKUP
        + '[jobs.all]\nkind = "backup"\n[jobs.proof]\nkind = "verify"\nlevel = "read"\n'
        + '[jobs.look]\nkind = "check"\nread_data = true\n[jobs.tidy]\nkind = "prune"\n'
        + '[jobs.live]\nkind = "integrity"\n'
    )
    for name in ("all", "nightly", "proof", "look", "live", "tidy"):
        done = place.run("run", name)
        assert done.stdout.startswith(f"job {name} (")
    records = place.records()
    assert [(record.job, record.exit_code) for record in records] == [
        (name, 0) for name in ("all", "nightly", "proof", "look", "live", "tidy")
    ]
    assert all(record.facts["attempts"] == 1 for record in records if record.job != "tidy")
    # the newest snapshot of `projects` is that of `nightly`, of `scripts` that of `all`
    proof = place.records("verify")[0].facts
    assert len(proof["snapshots"]) == 2
    assert sorted(proof["sources"]) == ["projects", "scripts"]
    assert place.repository_locks() == []


def test_json_is_one_document(place: Place) -> None:
    place.configure(BACKUP)
    found = place.json("run", "nightly")
    assert (found["job"], found["kind"], found["exit_code"]) == ("nightly", "backup", 0)
    assert found["facts"]["snapshot"]


def test_a_proof_of_a_source_without_a_snapshot_fails_and_says_so(place: Place) -> None:
    place.configure(BACKUP + '[jobs.proof]\nkind = "verify"\nlevel = "read"\n')
    place.run("run", "nightly")
    done = place.run("run", "proof", code=1)
    assert "no snapshot of scripts" in done.stderr
    assert len(place.records("verify")[0].facts["snapshots"]) == 1


def test_wrong_words_are_wrong_usage(place: Place) -> None:
    place.configure(BACKUP)
    assert "did you mean 'nightly'" in place.run("run", "nigtly", code=2).stderr
    assert "goes without JOB" in place.run("run", "nightly", "--listen", ":0", code=2).stderr
    assert place.records() == []


# ---------------------------------------------------------------------------------- retries


def test_a_busy_store_is_tried_again_and_that_is_one_record(place: Place) -> None:
    place.configure(BACKUP + QUICK + "[barrier]\ntimeout = 0.1\nattempts = 1\n")
    with place.busy():
        done = place.run("run", "nightly", code=1)
    assert "attempt 1 of 3 failed" in done.stderr
    assert "attempt 2 of 3 failed" in done.stderr
    (record,) = place.records()
    assert (record.exit_code, record.facts["attempts"]) == (1, 3)
    assert "could not be held" in record.error


def test_a_store_that_is_free_in_time_makes_it_a_success(place: Place) -> None:
    place.configure(BACKUP + "retries = 50\n" + QUICK + "[barrier]\ntimeout = 0.1\nattempts = 1\n")
    with place.busy() as writer:
        process = place.start("run", "nightly", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr is not None
        assert "attempt 1" in process.stderr.readline()
        writer.execute("ROLLBACK")
        process.communicate(timeout=200)
    assert process.returncode == 0
    (record,) = place.records()
    assert record.ok
    assert record.facts["attempts"] > 1


def test_a_wrong_password_is_not_tried_again(place: Place) -> None:
    place.configure(BACKUP)
    (place.folder / "password").write_text("wrong\n")
    found = place.json("run", "nightly", code=12)
    assert found["attempts"] == 1
    (place.folder / "password").write_text("the password of the test\n")
    (record,) = place.records()
    assert record.exit_code == 12


# ------------------------------------------------------------------------------------- locks


def test_no_two_jobs_overlap_on_one_source(place: Place) -> None:
    place.configure(BACKUP + "wait = 0.3\n")
    place_of_locks = joblocks.folder(place.config)
    with joblocks.held(place_of_locks, [Need("source-projects")], "another", wait=0):
        done = place.run("run", "nightly", code=11)
    assert "waiting: source projects is in use by job another" in done.stderr
    (record,) = place.records()
    assert record.exit_code == 11
    assert record.job == "nightly"


def test_it_waits_for_the_other_one(place: Place) -> None:
    place.configure(BACKUP)
    place_of_locks = joblocks.folder(place.config)
    with joblocks.held(place_of_locks, [Need("source-projects")], "another", wait=0):
        process = place.start("run", "nightly", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr is not None
        assert "waiting" in process.stderr.readline()
        assert place.repository_locks() == []
    process.communicate(timeout=200)
    assert process.returncode == 0


def test_proofs_run_beside_backups_but_not_beside_a_prune(place: Place) -> None:
    place.configure(
        BACKUP
        + '[jobs.proof]\nkind = "verify"\n[jobs.look]\nkind = "check"\n'
        + '[jobs.tidy]\nkind = "prune"\n'
    )
    config = place.config
    need = {name: joblocks.needs(config, name, job) for name, job in config.jobs.items()}
    assert not joblocks.conflict(need["nightly"], need["proof"])
    assert not joblocks.conflict(need["nightly"], need["tidy"])  # the repository's locks do it
    assert not joblocks.conflict(need["proof"], need["look"])
    assert joblocks.conflict(need["proof"], need["tidy"])
    assert joblocks.conflict(need["tidy"], need["look"])
    assert joblocks.conflict(need["nightly"], need["nightly"])
    assert all(each == sorted(each) for each in need.values())


def test_who_is_at_work_is_known(place: Place) -> None:
    place.configure(BACKUP)
    assert joblocks.running(place.config) == set()
    with joblocks.held(joblocks.folder(place.config), [Need("job-nightly")], "nightly", wait=0):
        assert joblocks.running(place.config) == {"nightly"}
    assert joblocks.running(place.config) == set()


# ------------------------------------------------------------------------------ how it is ended


def test_a_backup_that_takes_too_long_is_ended_and_leaves_no_lock(place: Place) -> None:
    place.configure(BACKUP + "timeout = 3\n[daemon]\ngrace = 60\n" + HANGS)
    with place.busy():
        done = place.run("run", "nightly", code=1)
    assert "longer than its timeout" in done.stderr
    (record,) = place.records()
    assert "longer than its timeout" in record.error
    assert record.exit_code == 1
    assert place.repository_locks() == []


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids", "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def test_what_does_not_end_when_asked_is_killed_with_all_that_it_started(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.configure(BACKUP + "timeout = 2\n[daemon]\ngrace = 0.2\n")
    monkeypatch.chdir(place.folder)
    command = [sys.executable, "-c", STUBBORN]
    outcome = JobRun(place.config, place.path, "nightly", command=command).run()
    assert "longer than its timeout" in outcome.error
    pids = [int(word) for word in Path("pids").read_text().split()]
    until(lambda: not any(map(_lives, pids)), "the end of all of them")
    (record,) = place.records()
    assert record.exit_code == 1


def _lives(pid: int) -> bool:
    """Whether it is there, and no zombie that nobody collects."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_an_attempt_that_is_killed_is_tried_again_and_told(place: Place) -> None:
    place.configure(BACKUP + "retries = 1\n" + QUICK)
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    outcome = JobRun(place.config, place.path, "nightly", command=command).run()
    assert outcome.attempts == 2
    assert "SIGKILL" in outcome.error
    assert "memory" in outcome.hint
    (record,) = place.records()
    assert (record.exit_code, record.facts["attempts"]) == (1, 2)


def hanging(place: Place) -> subprocess.Popen[str]:
    """A run that holds the repository's lock and waits for a writer."""
    process = place.start("run", "nightly", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    until(place.repository_locks, "the lock of the repository", process)
    time.sleep(1)  # it has its lock now: right at taking it, an interrupt may leave it to be healed
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop_is_recorded_and_leaves_no_lock(place: Place, number: int) -> None:
    place.configure(BACKUP + "[daemon]\ngrace = 60\n" + HANGS)
    with place.busy():
        process = hanging(place)
        process.send_signal(number)
        _, said = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "interrupted" in said
    assert place.repository_locks() == []
    (record,) = place.records()
    assert (record.exit_code, record.error) == (130, "interrupted")


def test_when_it_is_killed_its_work_ends_and_only_then_the_source_is_free(place: Place) -> None:
    place.configure(BACKUP + HANGS)
    with place.busy():
        process = hanging(place)
        process.kill()
        process.communicate()
        until(lambda: not joblocks.running(place.config), "the end of the work")
    place.run("run", "nightly")
    assert place.repository_locks() == []


def test_a_lock_that_a_killed_attempt_left_is_in_nobodys_way(place: Place) -> None:
    place.configure(BACKUP + "retries = 0\n" + HANGS)
    with place.busy():
        process = hanging(place)
        (attempt,) = _children(process.pid)
        os.kill(attempt, signal.SIGKILL)
        _, said = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "SIGKILL" in said
    assert not process_exists(attempt)
    assert len(place.repository_locks()) == 1
    place.run("run", "nightly")
    assert place.repository_locks() == []
    assert [record.exit_code for record in place.records()] == [1, 0]


def _children(pid: int) -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return [int(word) for word in found]
    raise AssertionError("it has no child")


def test_a_restore_that_is_not_ended_keeps_backups_away(place: Place) -> None:
    from safetake.recovery import journal

    place.configure(BACKUP)
    restores = place.folder / "state" / "restores"
    restores.mkdir(parents=True)
    plan = {"sources": {"projects": {}}, "time": "2026-01-01T00:00:00Z"}
    journal.create(restores, "20260101-000000", plan)
    found = place.json("run", "nightly", code=1)
    assert "is not ended" in found["error"]
    assert found["attempts"] == 1
