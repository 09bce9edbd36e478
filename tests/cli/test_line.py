"""The command line itself: options, errors, exit codes, signals, pipes, colour, completion."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safetake.cli.app import COMMANDS, root
from safetake.configfile import load
from safetake.connect import open_repository
from tests.cli.conftest import Workplace, in_a_terminal


def test_help_and_version_need_nothing(empty: Workplace) -> None:
    text = empty.run("--help").stdout
    for name in COMMANDS:
        assert name in text
    assert empty.run("--version").stdout == "safetake 0.1.0\n"
    assert max(map(len, text.splitlines())) <= 80


def test_help_and_version_import_little() -> None:
    code = (
        "import sys; from safetake.cli.app import run; run(['--help']);"
        "heavy = set('pydantic rich numpy apsw redis httpx chromadb cryptography'.split());"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_short_help_is_the_command_s_own(name: str) -> None:
    command = root.get_command(None, name)  # type: ignore[arg-type]  # the context is not used
    assert command is not None
    assert command.help is not None
    assert command.help.splitlines()[0] == COMMANDS[name]


def test_unknown_words(empty: Workplace) -> None:
    message, hint = empty.error("snapshot", code=2)
    assert "did you mean 'snapshots'?" in message
    assert hint == "`safetake --help` shows what there is"
    message, hint = empty.error("backup", "--jsn", code=2)
    assert "--jsn" in message
    assert hint == "`safetake backup --help` shows what there is"


def test_global_options_before_and_after(workplace: Workplace, tmp_path: Path) -> None:
    config = str(workplace.folder / "safetake.toml")
    elsewhere = Workplace(tmp_path, workplace.environment)
    for words in (
        ["--config", config, "--json", "snapshots"],
        ["snapshots", "--config", config, "--json"],
        ["--json", "snapshots", f"--config={config}"],
    ):
        assert len(json.loads(elsewhere.run(*words).stdout)) == 1
    elsewhere.environment = {**workplace.environment, "SAFETAKE_CONFIG": config}
    assert len(elsewhere.json("snapshots")) == 1
    assert len(json.loads(elsewhere.run("key", "list", "--json").stdout)) == 1


def test_json_after_a_double_dash_is_no_option(empty: Workplace) -> None:
    assert empty.run("backup", "--", "--json", code=2).stdout == ""


def test_exit_2_configuration(empty: Workplace) -> None:
    message, hint = empty.error("backup", code=2)
    assert "no configuration file" in message
    assert "safetake init" in hint
    (empty.folder / "safetake.toml").write_text("[repository]\nlocaton = 1\n")
    message, _ = empty.error("backup", code=2)
    assert "did you mean 'location'?" in message


def test_exit_10_no_repository(workplace: Workplace) -> None:
    (workplace.folder / "repo").rename(workplace.folder / "moved")
    for words in (["backup"], ["snapshots"], ["check"], ["restore", "latest", "--to", "x"]):
        message, _ = workplace.error(*words, code=10)
        assert "no repository" in message


def test_exit_11_locked(workplace: Workplace) -> None:
    with open_repository(load(workplace.folder / "safetake.toml")) as repository:
        with repository.lock(exclusive=True):
            for words in (["backup"], ["check"], ["verify"]):
                done = workplace.json(*words, code=11)
                assert f"process {os.getpid()}" in done["error"]["message"]
                assert "unlock" in done["error"]["hint"]
            assert len(workplace.json("snapshots")) == 1  # reading needs no lock
            assert workplace.json("unlock") == []  # it is alive
            assert len(workplace.json("unlock", "--all")) == 1
    workplace.run("backup")


def test_exit_12_wrong_password(workplace: Workplace) -> None:
    (workplace.folder / "safetake.password").write_text("not this one")
    for words in (["backup"], ["snapshots"], ["doctor"]):
        done = workplace.run(*words, code=1 if words == ["doctor"] else 12)
        assert "wrong password" in done.stdout + done.stderr
        assert "not this one" not in done.stdout + done.stderr


def test_a_password_that_is_gone_is_not_made_anew(workplace: Workplace) -> None:
    (workplace.folder / "safetake.password").unlink()
    _, hint = workplace.error("snapshots", code=2)
    assert hint.startswith("bring the password back from where a copy is kept")
    assert "bring the password back" in workplace.error("init", code=2)[1]


def without_capabilities(words: list[str]) -> list[str]:
    """Root reads everything; without these capabilities it does not."""
    if os.geteuid() != 0:
        return words
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]


def test_exit_3_something_was_not_read(workplace: Workplace) -> None:
    (workplace.folder / "scripts" / "secret.txt").write_text("x")
    (workplace.folder / "scripts" / "secret.txt").chmod(0)
    words = without_capabilities(workplace.command("--json", "backup"))
    done = subprocess.run(
        words,
        cwd=workplace.folder,
        env=workplace.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert "secret.txt" in found["sources"]["scripts"]["unread"][0]
    assert len(workplace.json("snapshots")) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_exit_130_interrupted_releases_the_lock(workplace: Workplace, number: int) -> None:
    """The database is locked by a writer, so that the backup waits with its lock taken."""
    config = workplace.folder / "safetake.toml"
    config.write_text(
        config.read_text().replace('"projects.db"', '"projects.db"\nbusy_timeout = 60')
        + "[barrier]\ntimeout = 60\n"
    )
    db = sqlite3.connect(workplace.folder / "projects.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    process = subprocess.Popen(
        workplace.command("backup"),
        cwd=workplace.folder,
        env=workplace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background of a shell passes SIGINT on as ignored
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    locks = workplace.folder / "repo" / "locks"
    deadline = time.monotonic() + 30
    while not any(locks.iterdir()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    db.execute("ROLLBACK")
    out, err = process.communicate(timeout=60)
    db.close()
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "error: interrupted"
    assert not any(locks.iterdir())
    assert len(workplace.json("snapshots")) == 1


def test_exit_130_also_when_nobody_reads_it(workplace: Workplace) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    process = subprocess.Popen(
        workplace.command("query", "latest", "projects", endless, "--csv"),
        cwd=workplace.folder,
        env=workplace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.close()
    assert process.stdout.readline() == b"i\r\n"
    process.send_signal(signal.SIGTERM)
    while process.stdout.read(1 << 20):
        pass
    process.stdout.close()
    assert process.wait(60) == 130
    assert not list(Path(workplace.environment["TMPDIR"]).glob("safetake-error-*"))


def test_broken_pipe_is_silent(workplace: Workplace) -> None:
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500000)"
    sql += " SELECT i FROM n"
    process = subprocess.Popen(
        workplace.command("query", "latest", "projects", sql, "--csv"),
        cwd=workplace.folder,
        env=workplace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"i\r\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


def test_unexpected_is_one_line_and_a_private_file(tmp_path: Path) -> None:
    for flag in ([], ["--json"]):
        code = (
            "import sys; from safetake.cli import app\n"
            "def boom(*a, **k): raise ValueError('boom \\x1b[31m')\n"
            "app.root.main = boom\n"
            f"sys.exit(app.run({flag!r}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        said = done.stderr
        if flag:
            error = json.loads(done.stdout)["error"]
            said = error["message"] + error["hint"]
            assert done.stderr == ""
        assert "internal error: ValueError: boom" in said
        assert "please report it" in said
        assert "Traceback" not in said
        assert "\x1b" not in done.stderr
        path = Path(re.findall(r"details are in (\S+)", said)[0])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "Traceback" in path.read_text()
        path.unlink()


def test_colour_is_for_terminals_and_honours_no_color(workplace: Workplace) -> None:
    assert "\x1b" not in workplace.run("snapshots").stdout
    seen = in_a_terminal(workplace, "snapshots")
    assert "\x1b[1m" in seen
    assert "\x1b" not in in_a_terminal(workplace, "snapshots", NO_COLOR="1")
    assert "\x1b[1;31merror:" in in_a_terminal(workplace, "show", "ffff")
    for line in re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(empty: Workplace, shell: str) -> None:
    assert "_SAFETAKE_COMPLETE" in empty.run("completion", shell).stdout


def complete(place: Workplace, line: str) -> list[str]:
    words = line.split(" ")
    place.environment = {
        **place.environment,
        "_SAFETAKE_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    text = place.run().stdout
    for name in ("_SAFETAKE_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        del place.environment[name]
    return [entry.partition(",")[2] for entry in text.splitlines() if entry]


def test_completion_of_words_names_and_ids(workplace: Workplace) -> None:
    assert complete(workplace, "safetake sn") == ["snapshots"]
    assert complete(workplace, "safetake backup ") == ["projects", "scripts", "nightly"]
    assert complete(workplace, "safetake restore latest pro") == ["projects"]
    found = complete(workplace, "safetake show ")
    assert found == ["latest", workplace.json("snapshots")[0]["id"][:8]]
    (workplace.folder / "safetake.toml").write_text("broken")
    assert complete(workplace, "safetake backup ") == []


def test_tables_and_words_keep_to_the_terminal(workplace: Workplace) -> None:
    from safetake.cli import output

    long = "scripts that were written in the night before the deadline"
    snippet = (
        "from safetake.cli import output as o\n"
        f"o.table(['source', 'what', 'lost', ''], [['a', {long!r}, '1234567', {long!r}]], [2])\n"
        f"o.table(['what', 'lost'], [[{long!r}, '7654321']], [1])\n"
        "o.note('warning: one two three four five six `safetake restore --undo` seven eight')\n"
    )
    workplace.program = ["-c", snippet]
    for columns in (60, 40):
        shown = in_a_terminal(workplace, COLUMNS=str(columns)).splitlines()
        assert max(map(output.width, shown)) <= columns
        text = "\n".join(shown)
        assert "1234567" in text
        assert "7654321" in text
        assert "`safetake restore --undo`" in text
    plain = workplace.run().stdout
    assert plain.count(long) == 3, "what is no terminal gets everything"
    assert workplace.run().stderr.count("\n") == 1
