"""What the two pages of the emergency say in passing is true, too: each command in their text runs.

The commands of the steps themselves are executed by tests/test_docs.py.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace
from tests.runbook.conftest import SERVICE, terminal
from tests.support.jobs import until

PAGES = Path(__file__).parent.parent.parent / "docs/runbook"
IN_PASSING = {
    "safetake runbook",
    "safetake runbook --resume",
    "safetake runbook --abandon",
    "safetake --config kit.toml runbook",
    "safetake restore --resume",
    "safetake restore --rollback",
    "safetake restore --undo",
    "safetake restore --list",
    "safetake evidence list --kind runbook",
    "safetake evidence verify incident.md",
}
"""What the test below runs, in the order of a bad night."""


@pytest.mark.parametrize("page", ["emergency.md", "emergency.ko.md"])
def test_the_pages_name_no_other_command(page: str) -> None:
    text = (PAGES / page).read_text(encoding="utf-8")
    text = text.replace("safetake runbook --language ko\n", "safetake runbook\n")
    named = re.findall(r"`(safetake [^`\n]+)`|^(safetake .*)$", text, re.MULTILINE)
    assert {one or other for one, other in named} == IN_PASSING


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ko"])
def test_they_work(destroyed: Workplace, tmp_path: Path, language: str) -> None:
    spoken = ["--language", "ko"] if language == "ko" else []
    first = "1/10 백업 확인" if language == "ko" else "1/10 Backups available"

    def seen(place: Workplace, *words: str) -> None:
        with terminal(place, *words) as person:
            person.expect(first)
            person.expect(r"\]: $")
            person.interrupt()
            assert person.end() == 130
            assert "`safetake runbook --resume`" in person.seen.split("]: ")[-1]

    seen(destroyed, "runbook", *spoken)
    seen(destroyed, "runbook", "--resume")  # in the language of before
    destroyed.run("runbook", "--abandon")
    listed = destroyed.json("evidence", "list", "--kind", "runbook")
    assert [one["verdict"] for one in listed] == ["failed"]
    (report,) = destroyed.folder.rglob("incident.md")
    review = report.read_text(encoding="utf-8").rstrip() + "\n\nThe disk was full.\n"
    report.write_text(review, encoding="utf-8")
    said = destroyed.run("evidence", "verify", str(report)).stderr
    assert "facts untouched" in said, said

    for way, there in (("--rollback", False), ("--resume", True)):
        killed_restore(destroyed)
        assert "open" in destroyed.run("restore", "--list").stdout
        destroyed.run("restore", way)
        assert (destroyed.folder / "projects.db").exists() == there
    (destroyed.folder / "scripts" / "one.txt").write_text("mine")
    destroyed.run("restore", "latest", "scripts", "--in-place", "--yes")
    with terminal(destroyed, "restore", "--undo") as person:
        person.answer("Replace the live data", "y")
        assert person.end() == 0, person.seen
    assert (destroyed.folder / "scripts" / "one.txt").read_text() == "mine"

    page = destroyed.run("kit").stdout
    bare = tmp_path / "bare"
    bare.mkdir()
    (write,) = re.findall(r"^\$ (printf .*?> kit\.toml)$", page, re.MULTILINE | re.DOTALL)
    subprocess.run(["sh", "-c", write], cwd=bare, check=True)
    shutil.copy(destroyed.folder / "safetake.password", bare / "kit.password")
    seen(Workplace(bare, {**destroyed.environment, "HOME": str(bare)}),
         "--config", "kit.toml", "runbook", *spoken)  # fmt: skip


def killed_restore(place: Workplace) -> None:
    """A restore that was killed while it waited for the application to stop."""
    file = place.folder / "safetake.toml"
    if SERVICE not in file.read_text():
        file.write_text(file.read_text() + SERVICE)
    for name in ("go", "stopping"):
        (place.folder / name).unlink(missing_ok=True)
    (place.folder / "up").touch()
    process = subprocess.Popen(
        place.command("restore", "latest", "--in-place", "--yes"),
        cwd=place.folder, env=place.environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    until(lambda: (place.folder / "stopping").exists(), "the stop")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (place.folder / "go").touch()
