"""What a person types and reads when the live data is replaced, and when that is taken back."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess

import pytest

from safetake.cli.restore import _together as together
from safetake.errors import UsageError
from tests.cli.conftest import Workplace, in_a_terminal
from tests.cli.test_commands import restic
from tests.support.jobs import until


@pytest.mark.parametrize(
    ("way", "given", "message"),
    [
        ("--to", ["--overwrite"], ""),
        ("--to", ["--id"], "--id does not go with --to"),
        ("--to", ["--db"], "--db does not go with --to"),
        ("--to", ["--online"], "--online does not go with --to"),
        ("--in-place", ["--online", "--path", "--yes"], ""),
        ("--in-place", ["--overwrite"], "--overwrite does not go with --in-place"),
        ("--in-place", ["--changed"], "--changed does not go with --in-place"),
        ("--in-place", ["--keys", "--db", "--changed"], ""),
        ("--in-place", ["--beside", "--keys"], "--beside does not go with --keys"),
        ("--in-place", ["--db", "--exact"], "--exact does not go with --keys"),
        ("--in-place", ["--collection", "--id", "--exact"], ""),
        ("--in-place", ["--path", "--collection"], "--path does not go with --collection"),
        ("--undo", ["--dry-run", "--yes"], ""),
        ("--undo", ["--id"], "--id does not go with --undo"),
        ("--resume", ["--dry-run"], "--dry-run does not go with --resume"),
        ("--list", ["--online"], "--online does not go with --list"),
    ],
)
def test_options_that_would_mean_nothing_are_refused(
    way: str, given: list[str], message: str
) -> None:
    if not message:
        together(way, given)
        return
    with pytest.raises(UsageError) as told:
        together(way, given)
    assert str(told.value) == message
    assert told.value.hint.startswith("leave it out; it goes with --")


def test_nothing_happens_when_something_is_refused(workplace: Workplace) -> None:
    assert "--id does" in workplace.error("restore", "latest", "--to", "x", "--id", "1", code=2)[0]
    assert not (workplace.folder / "x").exists()
    assert workplace.error("restore", "--undo", "0", "projects", code=2)[0].endswith("no SOURCE")
    words = ["restore", "latest", "--in-place", "--path", "one.txt", "--yes"]
    message, hint = workplace.error(*words, code=2)
    assert message.startswith("paths choose files, and 'projects' is sqlite")
    assert hint == "name the sources of type files that the paths are in"
    assert "there is no restore to undo" in workplace.run("restore", "--undo", code=2).stderr
    said = workplace.run("restore", "--list").stdout
    assert said == "no restore in place is on record on this machine\n"


def test_the_undo_of_some_paths_is_about_them_only(workplace: Workplace) -> None:
    scripts = workplace.folder / "scripts"
    (scripts / "one.txt").unlink()
    words = ["restore", "latest", "scripts", "--in-place", "--path", "/one.txt", "--yes"]
    plan = workplace.run(*words).stdout
    assert "only what is named by /one.txt\n" in plan
    assert (scripts / "one.txt").exists()
    (scripts / "written since").write_text("x")
    plan = workplace.run("restore", "--undo", "latest", "--dry-run").stdout
    assert "scripts: lost files: one.txt\n" in plan
    workplace.run("restore", "--undo", "--yes")
    assert not (scripts / "one.txt").exists()
    assert (scripts / "written since").read_text() == "x"


def test_an_undo_says_what_it_undoes_and_can_be_undone(workplace: Workplace) -> None:
    database = workplace.folder / "projects.db"

    def names() -> int:
        with sqlite3.connect(database) as connection:
            return int(connection.execute("SELECT count(*) FROM projects").fetchone()[0])

    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM projects WHERE id > 50")
    connection.close()
    first = workplace.json("restore", "latest", "projects", "--in-place", "--yes")["restore"]
    assert names() == 100
    said = workplace.run("restore", "--undo", "--yes").stdout
    assert said.startswith(f"undo of restore {first[:8]}: what was there before, snapshot ")
    assert names() == 50
    rows = workplace.run("restore", "--list").stdout.splitlines()
    assert rows[0].split() == ["restore", "begun", "snapshot", "ended", "undo", "of", "sources"]
    assert rows[2].split()[-2:] == [first[:8], "projects"]
    listed = workplace.json("restore", "--list")
    assert [one["undo_of"] for one in listed] == ["", first]
    assert {one["what"] for one in listed} == {"sources"}
    workplace.run("restore", "--undo", "latest", "--yes")
    assert names() == 100
    message, hint = workplace.error("restore", "--undo", "ffffffffffffffff", "--yes", code=2)
    assert message == "there is no restore 'ffffffffffffffff' to undo"
    assert hint == "`safetake restore --list` shows them"


def test_the_newest_is_the_one_that_was_begun_last_whatever_the_clock_says(
    workplace: Workplace,
) -> None:
    (workplace.folder / "scripts" / "one.txt").unlink()
    words = ("restore", "latest", "scripts", "--in-place", "--yes")
    first = workplace.json(*words)["restore"]
    (plan,) = workplace.folder.parent.rglob(f"restores/{first}/plan.json")
    told = json.loads(plan.read_text())
    plan.write_text(  # its clock was an hour ahead
        json.dumps(told | {"order": told["order"] + 3600 * 10**9, "time": "2999-01-01T00:00:00Z"})
    )
    second = workplace.json(*words)["restore"]
    assert [one["restore"] for one in workplace.json("restore", "--list")] == [first, second]
    assert workplace.json("restore", "--undo", "--dry-run")["undo_of"] == second


def test_a_safety_snapshot_that_was_tagged_is_found_and_one_that_is_gone_is_told(
    workplace: Workplace,
) -> None:
    """`restic tag` gives it another id."""
    (workplace.folder / "scripts" / "one.txt").unlink()
    done = workplace.json("restore", "latest", "scripts", "--in-place", "--yes")
    saved = done["safety"]["scripts"]
    restic(workplace, "tag", "--add", "audit", saved)
    plan = workplace.json("restore", "--undo", "--dry-run")
    assert plan["undo_of"] == done["restore"]
    assert plan["snapshot"] != saved
    restic(workplace, "forget", plan["snapshot"])
    message, hint = workplace.error("restore", "--undo", "--dry-run", code=1)
    assert message == (
        f"what restore {done['restore']} replaced was saved as snapshot {saved[:8]}, and that is "
        "not in the repository (any more)"
    )
    assert "`safety` in [retention]" in hint


def test_the_undo_of_a_switch_is_a_switch(workplace: Workplace) -> None:
    """The service keeps the new file until its setting is switched again; a restore of the file
    that it does not use any more would change nothing for it, and say that it did."""
    folder, env = workplace.folder, workplace.folder / "app.env"
    env.write_text(f"DATABASE_URL=sqlite:///{folder / 'projects.db'}\n")
    config = folder / "safetake.toml"
    config.write_text(
        config.read_text()
        + '[services.app]\nuses = ["projects"]\nstop = ["true"]\nstart = ["true"]\n'
        + '[services.app.switch.projects]\nsetting = "DATABASE_URL"\n'
        + f'value = "sqlite:///{{path}}"\nenv_file = "{env}"\n'
    )

    def used() -> tuple[str, int]:
        path = env.read_text().strip().partition("sqlite:///")[2]
        with sqlite3.connect(path) as connection:
            found = int(connection.execute("SELECT count(*) FROM projects").fetchone()[0])
        connection.close()
        return path, found

    with sqlite3.connect(folder / "projects.db") as connection:
        connection.execute("DELETE FROM projects WHERE id > 50")
    connection.close()
    words = ["restore", "latest", "projects", "--in-place", "--yes"]
    workplace.run(*words, "--beside", code=3)
    new, rows = used()
    assert (new != str(folder / "projects.db"), rows) == (True, 100)
    for again in (words, [*words, "--beside"], ["restore", "--undo", "--yes"]):
        said = workplace.run(*again, code=1).stderr
        assert f"app uses {new} since an earlier restore" in said
        assert f'hint: set `path = "{new}"` in [sources.projects], then again' in said
    assert used() == (new, 100)
    told = f"app uses {new}, and source 'projects' is {folder / 'projects.db'}"
    hint = f'set `path = "{new}"` in [sources.projects]'
    for _ in range(2):  # the second one takes its configuration from the cache
        said = workplace.run("backup", "projects").stderr
        assert f"warning: projects: not what its service uses: {told}; {hint}" in said
    assert (
        f"{told}: backups take a file that it does not use"
        in workplace.run("doctor", code=1).stdout
    )
    config.write_text(config.read_text().replace('path = "projects.db"', f'path = "{new}"'))
    assert "not what its service uses" not in workplace.run("backup", "projects").stderr
    assert "does not use" not in workplace.run("doctor").stdout
    workplace.run("restore", "--undo", "--yes", code=3)
    assert used()[0] not in (new, str(folder / "projects.db"))
    assert used()[1] == 50


def test_a_relative_archive_breaks_after_cd_and_ours_does_not(workplace: Workplace) -> None:
    """The user's script packs into `backups/…`, goes elsewhere, and unpacks (control)."""
    folder = workplace.folder
    script = "mkdir backups && tar czf backups/scripts.tar.gz scripts && cd scripts && tar xzf "
    naive = subprocess.run(
        ["sh", "-c", script + "backups/scripts.tar.gz"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert naive.returncode != 0
    assert "No such file" in naive.stderr
    (folder / "scripts" / "one.txt").write_text("spoilt")
    there = Workplace(folder / "scripts", workplace.environment)
    words = ["restore", "latest", "scripts", "--in-place", "--yes"]
    there.run("--config", "../safetake.toml", *words)
    assert (folder / "scripts" / "one.txt").read_text().startswith("장면 1\n")
    assert sorted(path.name for path in there.folder.iterdir()) == ["odd\nname", "one.txt"]


def test_the_plan_fits_a_terminal(workplace: Workplace) -> None:
    scripts = workplace.folder / "scripts"
    (scripts / "two\nerror: lines").write_text("x")
    with sqlite3.connect(workplace.folder / "projects.db") as connection:
        connection.execute('CREATE TABLE "new\nhint: type x" (id INTEGER PRIMARY KEY)')
        connection.execute('INSERT INTO "new\nhint: type x" VALUES (1)')
    connection.close()
    for number in range(12):
        (scripts / f"a name that is as long as names of scripts are {number}.txt").write_text("x")
        (scripts / f"긴 이름을 가진 장면 {number}.txt").write_text("x")
    shown = in_a_terminal(
        workplace, "restore", "latest", "--in-place", "--dry-run", "--delete-extra", NO_COLOR="1"
    )
    assert "scripts: lost files: a name that is as long" in shown
    assert re.search(r"needs .* for a while in .* \(.* free\)", " ".join(shown.split()))
    from safetake.cli.output import width

    # a single word (a path) is not cut
    broad = [line for line in shown.splitlines() if width(line) > 80]
    assert [line for line in broad if len(line.split()) > 1] == []
    assert not re.search(r"^\s*(error|hint):", shown, re.MULTILINE), "a name made a line"


def test_it_goes_on_when_nobody_reads_what_it_says(workplace: Workplace) -> None:
    """`safetake restore … 2>&1 | less`, and less was left."""
    one = workplace.folder / "scripts" / "one.txt"
    before = one.read_bytes()
    one.write_text("lost")
    with subprocess.Popen(
        workplace.command("restore", "latest", "scripts", "--in-place", "--yes"),
        cwd=workplace.folder,
        env=workplace.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
    assert process.returncode == 0
    assert one.read_bytes() == before


def test_it_goes_on_when_the_terminal_is_gone(workplace: Workplace) -> None:
    """A connection that breaks off ends no restore half-way: writing then fails with EIO."""
    one = workplace.folder / "scripts" / "one.txt"
    before = one.read_bytes()
    one.write_text("lost")
    config = workplace.folder / "safetake.toml"
    config.write_text(
        config.read_text()
        + '[services.app]\nuses = ["scripts"]\nstart = ["true"]\n'
        + 'stop = ["sh", "-c", "touch stopping; while [ ! -e go ]; do sleep 0.05; done"]\n'
    )
    main, other = pty.openpty()
    process = subprocess.Popen(
        workplace.command("restore", "latest", "scripts", "--in-place", "--yes"),
        cwd=workplace.folder,
        env={**workplace.environment, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=other,
    )
    os.close(other)
    until(lambda: (workplace.folder / "stopping").exists(), "the stop")
    os.close(main)
    (workplace.folder / "go").touch()
    assert process.wait(60) == 0
    assert one.read_bytes() == before
    assert workplace.json("restore", "--list")[-1]["ended"] == "committed"
