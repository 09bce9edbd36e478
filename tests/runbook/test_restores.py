"""A runbook says what became of a restore: cut off, of other sources, or taken back by hand."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.cli.conftest import Workplace
from tests.runbook.conftest import SERVICE, restore_of, terminal
from tests.runbook.test_terminal import whole
from tests.support.jobs import until


def slow_to_stop(place: Workplace) -> None:
    file = place.folder / "safetake.toml"
    file.write_text(file.read_text() + SERVICE)
    (place.folder / "up").touch()


def cut_off_by_hand(place: Workplace) -> None:
    """`safetake restore latest projects`, killed while the service is being stopped."""
    by_hand = subprocess.Popen(
        place.command("restore", "latest", "projects", "--in-place", "--yes"),
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: (place.folder / "stopping").exists(), "the stop")
    by_hand.kill()
    by_hand.wait()
    (place.folder / "go").touch()


def test_one_that_was_cut_off_is_not_said_to_have_gone_back(destroyed: Workplace) -> None:
    slow_to_stop(destroyed)
    with terminal(destroyed, "runbook", "--yes") as person:
        until(lambda: (destroyed.folder / "stopping").exists(), "the stop")
        os.kill(restore_of(person.process.pid), signal.SIGKILL)
        person.expect("the restore was cut off and is still open: the live data is neither")
        assert person.end() == 1, person.seen
        assert "what was there before is the live data" not in person.seen
    (destroyed.folder / "go").touch()
    with terminal(destroyed, "runbook", "--resume", "--yes") as person:
        person.expect("was interrupted")
        assert person.end() == 0, person.seen
    whole(destroyed)


def test_one_of_fewer_sources_is_not_taken_for_the_whole(destroyed: Workplace) -> None:
    slow_to_stop(destroyed)
    with terminal(destroyed, "runbook") as person:
        for question in (
            "Restore which snapshot",
            "Prove it",
            "must work",
            "began",
            "which sources",
        ):
            person.answer(question)
        person.expect(r"Replace the live data[^\n]*: $")
        person.interrupt()
        person.end()
    cut_off_by_hand(destroyed)
    said = destroyed.run("runbook", "--resume", "--yes").stdout
    assert "was interrupted" in said
    assert "is the live data now" in said
    whole(destroyed)  # the scripts, too, that the first restore was not about


def test_one_that_was_taken_back_by_hand_is_not_the_live_data(workplace: Workplace) -> None:
    file = workplace.folder / "safetake.toml"
    file.write_text(file.read_text() + '[restore]\nstate = "state"\n')
    text = workplace.folder / "scripts" / "one.txt"
    text.write_text("newer")
    with terminal(workplace, "runbook") as person:
        for question in (
            "Restore which snapshot",
            "Prove it",
            "must work",
            "began",
            "which sources",
        ):
            person.answer(question)
        person.answer("Replace the live data")
        person.expect("is the live data now")
        person.answer("Do the services run", "yes")
        person.expect(r"Does the application work[^\n]*: $")
        person.interrupt()
        person.end()
    assert text.read_text(encoding="utf-8").startswith("장면")
    workplace.run("restore", "--undo", "--yes")
    assert text.read_text() == "newer"
    said = workplace.run("runbook", "--resume", "--yes").stdout
    assert "ended by itself" not in said
    assert said.index("4/10") < said.index("is the live data now")
    assert text.read_text(encoding="utf-8").startswith("장면")


def test_one_that_was_cut_off_before_the_runbook_is_decided_about_first(
    destroyed: Workplace,
) -> None:
    slow_to_stop(destroyed)
    cut_off_by_hand(destroyed)
    stopped = destroyed.run("runbook", "--yes", code=1)
    assert "was interrupted" in stopped.stdout
    assert "stopped at step 3" in stopped.stderr
    assert not (destroyed.folder / "projects.db").exists()
    with terminal(destroyed, "runbook", "--resume") as person:
        person.answer("which sources")
        person.answer("Resume it, roll it back", "rollback")
        person.expect(r"Replace the live data[^\n]*: $")
        person.interrupt()
        person.end()
    assert destroyed.run("runbook", "--resume", "--yes").returncode == 0
    whole(destroyed)
