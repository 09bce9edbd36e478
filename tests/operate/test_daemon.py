"""`safetake run` as a process, with real jobs: what it starts, tells, survives and leaves.

A job of every hour that ran hours ago is caught up with at once, so that no test waits for a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from safetake.operate import joblocks
from tests.support.jobs import PASSWORD, Place, RunningDaemon, until
from tests.support.repositories import restic

HOURS = 3 * 3600.0
MINUTE = (int(time.time()) // 60 + 30) % 60
"""Of the schedules: no test is near it."""
NIGHTLY = f"""
[jobs.nightly]
kind = "backup"
schedule = "{MINUTE} * * * *"
sources = ["projects"]
"""
DAEMON = '[daemon]\nlisten = "127.0.0.1:0"\nlease = 8\ngrace = 60\n'
HANGS = "[barrier]\ntimeout = 300\n"


def page(daemon: RunningDaemon, path: str) -> tuple[int, str]:
    place = daemon.wait_for("listening")["place"]
    try:
        with urllib.request.urlopen(f"http://{place}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_missed_runs_are_told_and_caught_up_with_once(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON)
    place.ran_before(HOURS)
    with place.daemon() as daemon:
        missed = daemon.wait_for("missed", job="nightly")
        assert missed["count"] == 3
        assert daemon.wait_for("started", job="nightly")["late_seconds"] >= 0
        assert daemon.wait_for("done", job="nightly")["exit_code"] == 0
        assert page(daemon, "/healthz") == (200, "ok\n")
        status, text = page(daemon, "/readyz")
        assert status == 200
        assert "last: nightly: exit code 0" in text
        assert "next: nightly: " in text
        assert 'backup_job_success{job="nightly"} 1' in page(daemon, "/metrics")[1]
        assert "safetake_daemon_leader 1" in page(daemon, "/metrics")[1]
        assert "/metrics" in page(daemon, "/")[1]
        assert page(daemon, "/etc/passwd")[0] == 404
        assert daemon.end() == 0
        assert sum(event["event"] == "started" for event in daemon.events()) == 1
        assert PASSWORD not in daemon.log.read_text()
    assert list((place.folder / "repo" / "leader").iterdir()) == []
    (missed_record,) = place.records("missed")
    assert (missed_record.job, missed_record.facts["count"]) == ("nightly", 3)
    backup = place.records("backup")[-1]
    assert (backup.trigger, backup.exit_code) == ("daemon", 0)
    events = [record.facts.get("event") for record in place.records("daemon")]
    assert events[-2:] == ["leads", "stopped"]
    with place.daemon("again") as daemon:  # what was told and caught up with is over
        daemon.wait_for("leader")
        time.sleep(1)
        assert daemon.end() == 0
        assert not {"missed", "started"} & {event["event"] for event in daemon.events()}
    assert "no errors were found" in restic(place.folder / "repo", "check", password=PASSWORD)


def test_without_catching_up_it_is_told_only(place: Place) -> None:
    place.configure(NIGHTLY + "catch_up = false\n" + DAEMON)
    place.ran_before(HOURS)
    with place.daemon() as daemon:
        assert "catching up" not in daemon.wait_for("missed", job="nightly")["text"]
        assert daemon.end() == 0
        assert "started" not in {event["event"] for event in daemon.events()}


def test_a_first_start_has_missed_nothing(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON)
    with place.daemon() as daemon:
        leader = daemon.wait_for("leader")
        assert list(leader["next"]) == ["nightly"]
        assert daemon.end(signal.SIGINT) == 0
        assert "missed" not in {event["event"] for event in daemon.events()}


@pytest.mark.slow
def test_it_starts_jobs_at_their_time(place: Place) -> None:
    """Waits for a minute to begin."""
    place.configure(NIGHTLY.replace(f"{MINUTE} *", "* *") + DAEMON)
    with place.daemon() as daemon:
        started = daemon.wait_for("started", job="nightly")
        assert started["due"].endswith(":00Z")
        daemon.wait_for("done", job="nightly")
        assert daemon.end() == 0


def test_jobs_of_one_source_never_run_together_and_others_do(place: Place) -> None:
    other = NIGHTLY.replace("nightly", "second")
    files = NIGHTLY.replace("nightly", "files").replace("projects", "scripts")
    place.configure(NIGHTLY + other + files + DAEMON + HANGS)
    place.ran_before(HOURS)
    with place.daemon() as daemon:
        with place.busy():
            daemon.wait_for("started", job="nightly")
            daemon.wait_for("done", job="files")
            started = [e.get("job") for e in daemon.events() if e["event"] == "started"]
            assert "second" not in started
        daemon.wait_for("done", job="nightly")
        daemon.wait_for("done", job="second")
        assert daemon.end() == 0


def test_a_child_that_is_killed_is_recorded_as_failed(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON + HANGS)
    place.ran_before(HOURS)
    with place.daemon() as daemon:
        with place.busy():
            pid = daemon.wait_for("started", job="nightly")["pid"]
            until(place.repository_locks, "the work of the job")
            os.kill(pid, signal.SIGKILL)
            failed = daemon.wait_for("failed", job="nightly")
            assert "SIGKILL" in failed["text"]
        assert "exit code 1" in page(daemon, "/readyz")[1]
        assert daemon.end() == 0
    killed = [record for record in place.records("backup") if "SIGKILL" in record.error]
    assert len(killed) == 1
    assert (killed[0].exit_code, killed[0].job, killed[0].trigger) == (1, "nightly", "daemon")


def test_a_graceful_stop_gives_jobs_time_to_end(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON + HANGS)
    place.ran_before(HOURS)
    with place.daemon() as daemon:
        with place.busy():
            daemon.wait_for("started", job="nightly")
            until(place.repository_locks, "the work of the job")
            assert daemon.end() == 0
        assert daemon.events()[-1]["event"] == "stopped"
        assert not any(event["event"] == "killed" for event in daemon.events())
    assert place.repository_locks() == []
    assert place.records("backup")[-1].error == "interrupted"


def test_a_second_sigterm_does_not_wait(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON + HANGS)
    place.ran_before(HOURS)
    with place.daemon() as daemon:
        with place.busy():
            pid = daemon.wait_for("started", job="nightly")["pid"]
            until(place.repository_locks, "the work of the job")
            os.kill(pid, signal.SIGSTOP)  # it will not end when it is asked to
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_for("stopping")
            assert daemon.end() == 0
            daemon_events = [event["event"] for event in daemon.events()]
            assert "killed" in daemon_events
            until(lambda: not joblocks.running(place.config), "the end of the work")


def test_when_the_daemon_is_killed_jobs_go_on_and_the_next_daemon_knows(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON + HANGS)
    place.ran_before(HOURS)
    with place.daemon() as daemon:
        with place.busy():
            pid = daemon.wait_for("started", job="nightly")["pid"]
            until(place.repository_locks, "the work of the job")
            daemon.process.kill()
            daemon.process.wait()
            with place.daemon("next") as after:
                after.wait_for("leader")
                time.sleep(1)
                assert "started" not in {event["event"] for event in after.events()}
                assert after.end() == 0
            os.kill(pid, 0)  # still at work
        until(lambda: not joblocks.running(place.config), "the end of the work")
    assert place.records("backup")[-1].exit_code == 0


def test_of_two_daemons_one_leads_and_the_other_takes_over(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON)
    with place.daemon("first") as first, place.daemon("second") as second:
        until(lambda: _said(first, "leader") or _said(second, "leader"), "a leader")
        one, other = (first, second) if _said(first, "leader") else (second, first)
        follows = other.wait_for("follower")
        assert f"process {one.process.pid}" in follows["text"]
        assert not _said(other, "leader")
        status, text = page(other, "/readyz")
        assert (status, "role: follower" in text) == (200, True)
        assert "safetake_daemon_leader 0" in page(other, "/metrics")[1]
        one.process.kill()
        one.process.wait()
        other.wait_for("leader")
        assert other.end() == 0
    assert list((place.folder / "repo" / "leader").iterdir()) == []
    assert "no errors were found" in restic(place.folder / "repo", "check", password=PASSWORD)


def _said(daemon: RunningDaemon, event: str) -> bool:
    return any(each["event"] == event for each in daemon.events())


def test_sighup_reads_the_configuration_again(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON)
    with place.daemon() as daemon:
        daemon.wait_for("leader")
        place.configure(NIGHTLY + NIGHTLY.replace("nightly", "more") + DAEMON)
        daemon.wait_for("changed")
        daemon.process.send_signal(signal.SIGHUP)
        assert list(daemon.wait_for("reloaded")["next"]) == ["more", "nightly"]
        place.configure(NIGHTLY.replace(f"{MINUTE} *", "99 *") + DAEMON)
        daemon.process.send_signal(signal.SIGHUP)
        assert "jobs.nightly.schedule" in daemon.wait_for("reload-failed")["text"]
        place.configure(NIGHTLY + DAEMON.replace("lease = 8", "lease = 9"))
        daemon.process.send_signal(signal.SIGHUP)
        assert "[daemon] lease" in daemon.wait_for("reload-failed", 2)["text"]
        assert "next: more: " in page(daemon, "/readyz")[1]
        assert daemon.end() == 0


def test_unlocking_by_stock_restic_does_not_end_it(place: Place) -> None:
    """restic asks with SIGHUP whether the holder of a lock lives; the daemon holds none."""
    place.configure(NIGHTLY + DAEMON + HANGS)
    place.ran_before(HOURS)
    with place.daemon() as daemon:
        with place.busy():
            daemon.wait_for("started", job="nightly")
            until(place.repository_locks, "the work of the job")
            restic(place.folder / "repo", "unlock", password=PASSWORD)
        daemon.wait_for("done", job="nightly")
        assert daemon.end() == 0


# -------------------------------------------------------------------------------- mistakes


def test_what_is_wrong_at_the_start_is_said_at_once(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON)
    (place.folder / "password").write_text("wrong\n")
    assert "error:" in place.run("run", code=12).stderr
    (place.folder / "password").write_text(PASSWORD + "\n")
    (place.folder / "repo").rename(place.folder / "elsewhere")
    place.run("run", code=10)
    (place.folder / "elsewhere").rename(place.folder / "repo")
    place.configure(NIGHTLY.replace(f"{MINUTE} *", "0 0 *") + DAEMON)
    assert "no cron expression of five fields" in place.run("run", code=2).stderr
    place.configure(NIGHTLY + '[daemon]\nlisten = "nonsense"\n')
    assert "is no host:port" in place.run("run", code=2).stderr
    place.path.unlink()
    place.run("run", code=2)


def test_a_port_in_use_is_said_and_another_can_be_given(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON)
    with place.daemon() as daemon:
        taken = daemon.wait_for("listening")["place"]
        done = place.run("run", "--listen", taken, code=2)
        assert f"cannot listen on {taken}" in done.stderr
        with place.daemon("silent", "--listen", "") as silent:
            # a machine that is busy enough makes it the leader
            until(lambda: _said(silent, "follower") or _said(silent, "leader"), "a role")
            assert silent.end() == 0
            assert not _said(silent, "listening")
        assert daemon.end() == 0


def test_people_read_lines(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON)
    log = place.folder / "log"
    with log.open("w") as stderr:
        process = place.start("run", stderr=stderr)
        until(lambda: "this daemon leads" in log.read_text(), "a leader", process)
        process.terminate()
        assert process.wait(60) == 0
    lines = log.read_text().splitlines()
    assert all(line[:2] == "20" and line[10] == "T" for line in lines)
    assert lines[-1].endswith(" stopped")


def test_nobody_who_reads_the_log_is_no_reason_to_end(place: Place) -> None:
    place.configure(NIGHTLY + DAEMON)
    place.ran_before(HOURS)
    process = place.start("--json", "run", stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    until(lambda: place.records("missed"), "the record", process)
    until(lambda: place.records("backup")[-1].trigger == "daemon", "the job", process)
    process.terminate()
    assert process.wait(60) == 0


@pytest.mark.slow
def test_a_soak_of_three_minutes(tmp_path: Path) -> None:
    """`python -m bench soak` is the long one: memory, drift, repository."""
    import json

    done = subprocess.run(
        [
            sys.executable,
            *f"-m bench soak --small --data {tmp_path}/d --results {tmp_path}".split(),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    assert (found["failed"], found["missed"], found["restic_check"]) == (0, 0, 0)
    assert found["started"] == found["expected"]
