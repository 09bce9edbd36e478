"""What the user's scripts do around a restore, shown to fail, beside what is done instead.

| what the scripts get wrong | shown by |
| --- | --- |
| `integrity_check` exits 0 whatever it finds | sources/sqlite/test_restore_naive.py |
| `cp` beside a live log or journal; open connections | sources/sqlite/test_restore_naive.py |
| the same for Chroma: a server goes on with the old files | sources/chroma/test_chroma_restore.py |
| `dump.rdb` beside an append-only file is never read | sources/redis/test_restore_offline.py |
| `RESTORE` with a past expiry deletes the live key | sources/redis/test_restore_keys.py |
| "accessible" is a folder that is not empty | sources/chroma/test_chroma_restore.py |
| the safety copy is overwritten by the next run | here |
| `mv` nests where an old copy exists | sources/chroma/test_chroma_restore.py |
| a relative archive path breaks after `cd` | cli/test_restore_in_place.py |
| overwriting the database loses every newer row | sources/sqlite/test_rows.py |
| `RECOVERED >= CURRENT` | sources/sqlite/test_rows.py (wrong rows pass), here (good ones fail) |
| `sleep`, then one question | here |
| a switched setting loses what was written since | here |
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from safetake import configfile
from safetake.recovery.inplace import restore_in_place, undoable
from safetake.recovery.outcome import RolledBackError
from safetake.recovery.plan import PlannedRestore, Wishes
from safetake.snapshots import find_snapshot
from tests.recovery.test_engine import Site, database_of, rows_of


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script], cwd=cwd, capture_output=True, text=True, check=False
    )


def backup_of(site: Site, name: str) -> Path:
    """The snapshot's database as a file, as the scripts have it."""
    from safetake.restore.beside import restore_to

    restore_to(site.repository, site.snapshot, ["projects"], site.folder / name)
    return site.folder / name / "projects" / "p.db"


# -------------------------------------------------------- the safety copy is overwritten


def test_the_safety_copy_of_the_scripts_is_overwritten_by_the_next_run(site: Site) -> None:
    backup = backup_of(site, "backup")
    script = f"cp p.db p.db.before && cp {backup} p.db"
    for _ in range(2):  # it did not help at once: the operator runs it again
        assert shell(script, site.data).returncode == 0
    assert rows_of(site.data / "p.db.before") != site.old["rows"], "what was there is still there"


def test_ours_keeps_one_for_each_restore(site: Site) -> None:
    first = site.restore("projects")
    site.change()
    second = site.restore("projects")
    assert first.safety["projects"] != second.safety["projects"]
    journal, safety = undoable(site.config, first.id)
    site.snapshot = find_snapshot(site.repository, safety)
    site.restore(*journal.saved)
    assert site.state()["rows"] == site.old["rows"]


# -------------------------------------------------------- sleep, then ask once

SLOW = """
if verb == "start":
    (folder / "asked").write_text("")
if verb == "health":
    asked = folder / "asked"
    asked.write_text(asked.read_text() + "x")
    sys.exit(0 if len(asked.read_text()) > 4 else 1)
"""
"""A service that needs until the fifth question to read its data."""
DIES = SLOW.replace("> 4", "== 1")
"""One that answers once, and dies of the data that it finds."""
_ASK = "sleep 0.1; python3 application.py . health"


def behaves(site: Site, how: str) -> None:
    program = site.folder / "application.py"
    program.write_text(program.read_text().replace('if verb == "health":', how + "\nif 0:"))


def scripted(site: Site) -> int:
    """Copy, start, `sleep`, ask: its exit code is that of the question."""
    backup = backup_of(site, "backup")
    ask = _ASK.replace("python3", site.config.services["app"].start[0])
    start = ask.replace("sleep 0.1; ", "").replace("health", "start")
    return shell(f"cp {backup} data/p.db && {start} && {ask}", site.folder).returncode


def test_one_question_after_a_sleep_is_wrong_about_a_slow_service(site: Site) -> None:
    behaves(site, SLOW)
    assert scripted(site) == 1, "a good restore, and the script says that it failed"
    assert rows_of(site.data / "p.db") != site.old["rows"], "and leaves it there"


def test_ours_waits_for_a_slow_service(site: Site) -> None:
    behaves(site, SLOW)
    told = site.folder / "safetake.toml"
    told.write_text(told.read_text().replace("0.05\ntimeout = 1\n", "0.05\ntimeout = 60\n"))
    site.config = configfile.load(told)
    assert site.restore().ended == "committed"
    site.is_new()


def test_one_question_is_content_with_a_service_that_dies(site: Site) -> None:
    behaves(site, DIES)
    assert scripted(site) == 0
    ask = site.config.services["app"].start[0]
    assert shell(f"{ask} application.py . health", site.folder).returncode == 1


def test_ours_sees_it_die_and_goes_back(site: Site) -> None:
    behaves(site, DIES)
    with pytest.raises(RolledBackError, match="not well: app"):
        site.restore()
    site.is_old()


# -------------------------------------------------------- a setting switched to an old database


def test_a_switched_setting_loses_what_was_written_since_without_a_word(site: Site) -> None:
    backup = backup_of(site, "backup")
    shutil.copyfile(backup, site.data / "new.db")
    script = f"sed -i 's|^DATABASE_URL=.*|DATABASE_URL=sqlite:///{site.data}/new.db|' app.env"
    done = shell(script, site.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lost = {row for row in site.old["rows"] if row not in rows_of(database_of(site))}
    assert [row[1] for row in sorted(lost)] == ["written since"]


def test_ours_says_first_what_will_be_lost(site: Site) -> None:
    seen: list[PlannedRestore] = []

    def look(plan: PlannedRestore) -> bool:
        seen.append(plan)
        return False

    restore_in_place(
        site.repository, site.config, site.snapshot, ["projects"], Wishes("beside"), look,
        site.telling(),
    )  # fmt: skip
    (loss,) = seen[0].sources["projects"].outline.losses
    assert (loss.what, loss.newer, loss.missing) == ("rows of episodes", 1, 9)
    assert "written since" in loss.examples[0]
    assert database_of(site) == site.data / "p.db"
    site.is_old()


# -------------------------------------------------------- RECOVERED >= CURRENT


def test_counting_calls_a_perfect_recovery_a_failure(site: Site) -> None:
    """The document's proof, when anything was written between the backup and the loss."""
    recovered = len(rows_of(backup_of(site, "backup")))
    current = len(site.new["rows"]) + 1  # before the loss: all of the snapshot, and a newer one
    assert not recovered >= current
