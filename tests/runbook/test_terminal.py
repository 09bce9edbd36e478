"""From a destroyed application to the incident report, at a real terminal, in both languages."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace
from tests.operate.notify.receivers import webhook
from tests.runbook.conftest import SERVICE, folder_of, restore_of, terminal
from tests.support.jobs import until


def whole(place: Workplace) -> None:
    """The application has its data again."""
    db = sqlite3.connect(place.folder / "projects.db")
    assert db.execute("SELECT count(*), max(name) FROM projects").fetchone() == (
        100,
        "프로젝트 99",
    )
    db.close()
    assert (place.folder / "scripts" / "odd\nname").read_text() == "x"
    assert "장면" in (place.folder / "scripts" / "one.txt").read_text(encoding="utf-8")


def test_killed_in_the_middle_of_the_restore_and_resumed(destroyed: Workplace) -> None:
    file = destroyed.folder / "safetake.toml"
    (destroyed.folder / "up").touch()
    with webhook() as hook:
        (destroyed.folder / "urls").write_text(hook.url() + "\n")
        (destroyed.folder / "urls").chmod(0o600)
        file.write_text(file.read_text() + SERVICE + '[notify]\nurls_file = "urls"\n')

        with terminal(destroyed, "runbook", LC_ALL="en_US.UTF-8") as person:
            person.expect("1/10 Backups available")
            person.answer(r"Restore which snapshot\?")
            person.answer(r"Prove it first", "nonsense")
            person.expect("Please answer one of: open, read, skip")
            person.answer(r"Prove it first", "re")
            person.expect("is proven: read back")
            person.expect(r"system: RTO 1 h 00 m, last restore unknown, predicted unknown")
            person.answer(r"must work again within", "soon")
            person.expect("soon is no span of time")
            person.answer(r"must work again within", "45m")
            person.answer(r"began how long ago", "10m")
            person.answer(r"Restore which sources", "projects, nothing")
            person.expect("there is no source nothing")
            person.answer(r"Restore which sources")
            person.expect("projects: there is nothing there now")
            person.answer(r"Replace the live data with snapshot \w+ of .* UTC now\?")
            until(lambda: (destroyed.folder / "stopping").exists(), "the stop")
            child = restore_of(person.process.pid)
            os.kill(person.process.pid, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            person.process.wait()
        assert not (destroyed.folder / "projects.db").exists()
        # the shell that waits to stop the application is still there, and ends when it may
        (destroyed.folder / "go").touch()

        refused = destroyed.run("runbook", "--yes", code=1).stderr
        assert "was begun and not ended: 3 of 10 steps" in refused
        assert "--resume" in refused
        with terminal(destroyed, "runbook", "--resume", "--output", "out") as person:
            person.expect("3 of 10 steps are done")
            person.expect(r"4/10 Restore run\s+the restore \w{8} of snapshot \w{8} was interrupted")
            person.answer(r"Resume it, roll it back")
            person.expect(r"snapshot \w+ is the live data now")
            person.expect(r"ok, took .*, 1\d m \d\d s of 45 m 00 s RTO")
            person.expect("5/10 Integrity verified")
            person.expect("nothing wrong")
            person.expect("app: running")
            person.answer(r"Does the application work\?", "yes")
            person.answer(r"Were dashboards", "y")
            person.answer(r"Anything to add", "Sorry for the trouble")
            person.answer(r"Tell json now\?")
            person.expect("told by: json")
            person.answer(r"The review meeting begins", "2020-01-01 10:00")
            person.expect("is no moment to come")
            person.answer(r"The review meeting begins")
            person.answer(r"Who comes", "a@example.org")
            person.expect(r"recovered in 1\d m \d\d s, within the RTO of 45 m 00 s")
            assert person.end() == 0, person.seen
        told = [one for one in hook.documents if "data restored" in one["title"]]
        assert len(told) == 1
        assert "Sorry for the trouble" in told[0]["message"]
    whole(destroyed)
    assert (destroyed.folder / "up").exists()

    (document,) = destroyed.json("evidence", "list", "--kind", "runbook")
    assert document["verdict"] == "passed"
    assert [step["name"].split(". ")[0] for step in document["steps"]] == [
        str(number) for number in range(1, 11)
    ]
    assert 600 < document["measured"]["rto_seconds"] < document["targets"]["rto_seconds"] == 2700
    notes = "\n".join(document["notes"])
    assert "interrupted and resumed: 1" in notes
    assert "decision, step 7" in notes
    report = (destroyed.folder / "out" / "incident.md").read_text(encoding="utf-8")
    assert document["id"] in report
    assert "Root cause" in report
    page = (destroyed.folder / "out" / "incident.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "Does the application work?" in page
    assert "RTO until" in page
    exported_is_the_runbooks_own(destroyed, destroyed.folder / "out", "en")
    meeting = (destroyed.folder / "out" / "review-meeting.ics").read_bytes()
    assert b"ATTENDEE:mailto:a@example.org\r\n" in meeting


def exported_is_the_runbooks_own(place: Workplace, folder: Path, language: str) -> None:
    """The same bytes, and `verify` knows both by name."""
    for suffix in ("html", "md"):
        own = folder / f"incident.{suffix}"
        words = ["--language", language, "--output", f"exported.{suffix}"]
        place.run("evidence", "export", *words)
        assert (place.folder / f"exported.{suffix}").read_bytes() == own.read_bytes()
        assert place.json("evidence", "verify", str(own))["ok"]


def test_in_korean(destroyed: Workplace) -> None:
    with terminal(destroyed, "runbook", LC_ALL="", LANG="ko_KR.UTF-8", PYTHONUTF8="1") as person:
        person.expect("1/10 백업 확인")
        person.answer("어떤 스냅샷을 복원할까요")
        person.answer("먼저 검증할까요", "생략")
        person.answer("얼마 안에 정상화해야")
        person.answer("얼마 전에")
        person.answer("어떤 소스를 복원할까요")
        person.answer("지금 운영 데이터를", "예")
        person.expect("이제 스냅샷")
        person.answer("서비스가 복원된 데이터로", "예")
        person.answer("애플리케이션이 동작합니까", "예")
        person.answer("대시보드", "모름")
        person.expect("아무에게도 알리지 않습니다")
        person.answer("직접 알렸습니까", "예")
        person.answer("사후 검토 회의 시작")
        person.answer("참석자")
        person.expect("이내")
        person.expect(r"미확인: 8\. 모니터링 및 로그 확인")
        assert person.end() == 0, person.seen
    whole(destroyed)
    report = (folder_of(destroyed) / "incident.md").read_text(encoding="utf-8")
    assert "# 장애 보고서: 긴급 복구" in report
    unknown = report.split("## 확인되지 않은 것")[1].split("##")[0]
    assert [line[:4] for line in unknown.split("\n") if line] == ["- 1.", "- 8."]
    assert "4. 복원 실행" in report
    assert "애플리케이션이 동작합니까? 예" in report
    assert "<html lang=ko>" in (folder_of(destroyed) / "incident.html").read_text(encoding="utf-8")
    exported_is_the_runbooks_own(destroyed, folder_of(destroyed), "ko")
    journal = (folder_of(destroyed) / "journal").read_bytes().splitlines()
    assert json.loads(journal[-1][9:])["end"] == "finished"


@pytest.mark.slow
def test_a_restore_that_did_not_help_is_taken_back(workplace: Workplace) -> None:
    """Step 5 finds it wrong: undone, and once more with the older snapshot."""
    first = workplace.json("snapshots")[0]["short_id"]
    (workplace.folder / "scripts" / "one.txt").write_text("broken")
    workplace.run("backup")
    (workplace.folder / "scripts" / "one.txt").write_text("broken, too")
    with terminal(workplace, "runbook", XDG_STATE_HOME=str(workplace.folder / "state")) as person:
        person.answer(r"Restore which snapshot\?")
        person.answer(r"Prove it first", "skip")
        person.answer(r"must work again")
        person.answer(r"began how long ago")
        person.answer(r"Restore which sources", "scripts")
        person.expect("scripts: files: 0 will be lost, 1 go back")
        person.answer(r"Replace the live data")
        person.expect("what was there before is snapshot")
        person.expect("did not shrink")
        person.answer(r"Go on anyway, undo", "undo")
        person.expect("1/10")
        person.answer(rf"Restore which snapshot\? \[{first}\]")
        person.answer(r"Prove it first")
        person.answer(r"Restore which sources")
        person.answer(r"Replace the live data")
        person.answer(r"Do the services run", "yes")
        person.answer(r"Does the application work", "yes")
        person.answer(r"Were dashboards", "yes")
        person.answer(r"told by hand", "yes")
        person.answer(r"review meeting")
        person.answer(r"Who comes")
        assert person.end() == 0, person.seen
    text = (workplace.folder / "scripts" / "one.txt").read_text(encoding="utf-8")
    assert text.startswith("장면")
    listed = workplace.json("evidence", "list", "--kind", "runbook")
    assert listed[0]["snapshot"].startswith(first)
    assert listed[0]["verdict"] == "passed"


@pytest.mark.slow
def test_a_restore_goes_on_alone_and_is_waited_for(destroyed: Workplace) -> None:
    """Only the runbook is killed: the restore ends by itself, and is not run again."""
    file = destroyed.folder / "safetake.toml"
    file.write_text(file.read_text() + SERVICE)
    (destroyed.folder / "up").touch()
    first = subprocess.Popen(
        destroyed.command("runbook", "--yes"),
        cwd=destroyed.folder,
        env=destroyed.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: (destroyed.folder / "stopping").exists(), "the stop")
    first.kill()
    first.wait()
    with terminal(destroyed, "runbook", "--resume", "--yes") as person:
        person.expect("a restore is still at work; waiting")
        (destroyed.folder / "go").touch()
        person.expect("the restore went on and ended by itself meanwhile")
        person.expect(r"snapshot \w+ is the live data now")
        assert person.end() == 0, person.seen
    whole(destroyed)
    assert len(destroyed.json("restore", "--list")) == 1
