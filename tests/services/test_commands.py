"""Services that commands stop and start: real processes, real commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.config import Config, HealthConfig, ServiceConfig
from safetake.errors import ServiceError
from safetake.services import build
from safetake.services.health import ask
from safetake.services.process import MAX_OUTPUT, Runner, excerpt, redact
from tests.support import ctl

CTL = [sys.executable, ctl.__file__]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid_file in tmp_path.glob("*.pid"):
        if pid := ctl.running(pid_file):
            os.kill(pid, 9)


def config(folder: Path, command: list[str] = SLEEP, **more: Any) -> ServiceConfig:
    (folder / "app.json").write_text(json.dumps({"command": command, "environment": {}}))
    ways = {verb: [*CTL, str(folder), verb, "app"] for verb in ("stop", "start", "running")}
    return ServiceConfig.model_validate({**ways, "stop_timeout": 20, "start_timeout": 20, **more})


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_it_is_stopped_and_started_to_what_it_was(folder: Path) -> None:
    app = build("app", config(folder))
    assert app.can_stop
    assert app.state() == {"running": False}
    app.start({"running": False})
    assert app.state() == {"running": False}
    app.start({"running": True})
    first = ctl.running(folder / "app.pid")
    assert first
    state = app.state()
    app.start(state)  # it runs: nothing to do
    assert ctl.running(folder / "app.pid") == first
    app.stop(state)
    assert not ctl.running(folder / "app.pid")
    app.stop(state)
    app.start(json.loads(json.dumps(state)))
    app.restart()
    assert ctl.running(folder / "app.pid") not in (0, first)


def test_a_process_that_ignores_sigterm_is_told_not_believed(folder: Path) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); "
    script += f"open({str(folder / 'deaf')!r}, 'w'); time.sleep(600)"
    kill = f"kill -TERM $(cat {folder}/app.pid)"  # exits 0, as many a stop script does
    section = config(folder, [sys.executable, "-c", script], stop=sh(kill), stop_timeout=0.5)
    app = build("app", section)
    app.start({"running": True})
    while not (folder / "deaf").exists():
        pass
    with pytest.raises(ServiceError, match=r"app still runs 0\.5 s after its stop command") as e:
        app.stop(app.state())
    assert "stop_timeout" in e.value.hint
    assert app.state() == {"running": True}


@pytest.mark.parametrize("ends", [True, False])
def test_a_stop_command_that_fails_is_believed_only_when_nothing_runs(
    folder: Path, ends: bool
) -> None:
    kill = f"kill -KILL $(cat {folder}/app.pid); " if ends else ""
    app = build("app", config(folder, stop=sh(kill + "echo no such unit >&2; exit 5")))
    app.start({"running": True})
    if ends:
        app.stop({"running": True})
    else:
        with pytest.raises(ServiceError, match="its stop command failed, exit code 5: no such"):
            app.stop({"running": True})


def test_a_service_that_dies_after_its_start(folder: Path) -> None:
    app = build("app", config(folder, ["false"], start_timeout=1))
    with pytest.raises(ServiceError, match="does not run 1 s after its start"):
        app.start({"running": True})


def test_a_start_command_that_is_the_service_itself_gets_a_hint(folder: Path) -> None:
    app = build("app", config(folder, start=SLEEP, start_timeout=0.3))
    with pytest.raises(ServiceError, match=r"did not end within 0\.3 s") as error:
        app.start({"running": True})
    assert "must end once the service runs" in error.value.hint


def test_a_program_that_is_not_there(folder: Path) -> None:
    section = config(folder, stop=["/no/such"], running=sh("nosuchprogram"))
    app = build("app", section)
    assert "there is no program /no/such" in app.problems()[0][0]
    with pytest.raises(ServiceError, match="exit code 127"):
        app.state()  # not the same as `it does not run`


def test_without_a_command_that_asks_the_state_is_unknown_and_it_is_brought_back(
    folder: Path,
) -> None:
    made = folder / "made"
    section = ServiceConfig(stop=["rm", "-f", str(made)], start=["touch", str(made)])
    app = build("app", section)
    state = app.state()
    assert state == {"running": None}
    app.start(state)
    assert made.exists()
    app.stop(state)
    assert not made.exists()
    assert not build("app", ServiceConfig()).can_stop


# ------------------------------------------------------------------------ what is told


def test_the_repository_password_is_not_given_to_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SAFETAKE_PASSWORD", "RESTIC_PASSWORD", "OURS", "THEIRS"):
        monkeypatch.setenv(name, "x")
    seen = folder / "seen"
    section = config(folder, start=sh(f"env > {seen}; exec {' '.join(CTL)} {folder} start app"))
    build("app", section, hidden=["OURS"]).start({"running": True})
    names = {line.split("=")[0] for line in seen.read_text().splitlines()}
    assert "THEIRS" in names
    assert not names & {"SAFETAKE_PASSWORD", "RESTIC_PASSWORD", "OURS"}


def test_nor_to_the_one_question_of_a_status(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "x")
    whole = Config.model_validate({"repository": {"location": "r", "password_env": "OURS"}})
    how = HealthConfig(command=sh(f"env > {folder / 'seen'}"))
    assert ask("app", how, config=whole).ok
    assert "OURS=" not in (folder / "seen").read_text()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("DATABASE_URL=postgres://me:s3cr3t@host/db", "DATABASE_URL=postgres://me:***@host/db"),
        ("redis://:s3/c@r3t@host:1 down", "redis://:***@host:1 down"),
        ('{"password": "s3cr3t", "user": "me"}', '{"password": *** "user": "me"}'),
        ("PGPASSWORD=s3cr3t psql", "PGPASSWORD=*** psql"),
        ("http://host:8001/a?x=1", "http://host:8001/a?x=1"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_passwords_are_left_out(said: str, told: str) -> None:
    assert redact(said) == told
    runner = Runner("app")
    with pytest.raises(ServiceError) as error:
        runner.done(["sh", "-c", 'echo "$1" >&2; exit 3', "sh", said], 10, "a command")
    assert "s3" not in str(error.value)


def test_output_is_bounded_and_one_safe_line() -> None:
    ended = Runner("app").run(sh("head -c 3000000 /dev/zero | tr '\\0' x; exit 1"), 30, "it")
    assert len(ended.output) == MAX_OUTPUT
    assert len(ended.words) < 500
    assert excerpt("a\n\x1b[31mb") == "a \\x1b[31mb"


def test_a_service_left_behind_does_not_keep_its_starter(folder: Path) -> None:
    """It inherits stdout; a pipe would never end."""
    ended = Runner("app").run(sh("sleep 30 & echo $!"), 10, "it")
    os.kill(int(ended.output), 9)


# ------------------------------------------------------------------------ the setting


def switched(folder: Path, **how: Any) -> ServiceConfig:
    switch = {"setting": "DATABASE_URL", "value": "sqlite:///{path}", **how}
    return config(folder, switch={"projects": switch})


def test_a_setting_in_a_file(folder: Path) -> None:
    file = folder / "app.env"
    file.write_bytes(b"# caf\xe9\r\nA=1\nexport DATABASE_URL='sqlite:////old.db'\nB=\"x y\"\n")
    file.chmod(0o640)
    app = build("app", switched(folder, env_file=file))
    assert app.current("projects") == "sqlite:////old.db"
    value = app.value("projects", Path("/data/new.db"))
    assert value == "sqlite:////data/new.db"
    app.switch("projects", value)
    assert file.read_bytes() == (
        b'# caf\xe9\r\nA=1\nexport DATABASE_URL=sqlite:////data/new.db\nB="x y"\n'
    )
    assert file.stat().st_mode & 0o777 == 0o640
    app.switch("projects", "sqlite:////with a space")
    assert app.current("projects") == "sqlite:////with a space"
    assert [p.name for p in folder.iterdir() if ".env" in p.name] == ["app.env"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can not be read"),
        ("A=1\n", "has no line DATABASE_URL="),
        ("DATABASE_URL=$HOME/x\n", "not plain text"),
        ("DATABASE_URL=a # comment\n", "not plain text"),
        ('DATABASE_URL="a"b"\n', "not plain text"),
    ],
)
def test_a_setting_that_can_not_be_read_is_a_problem(
    folder: Path, content: str | None, says: str
) -> None:
    file = folder / "app.env"
    if content is not None:
        file.write_text(content)
    app = build("app", switched(folder, env_file=file))
    assert says in app.problems()[0][0]
    with pytest.raises(ServiceError, match=says):
        app.switch("projects", "x")
    assert content is None or file.read_text() == content


@pytest.mark.parametrize("value", ["a\nB=1", "a$b", 'a"b'])
def test_a_value_that_would_break_the_file_is_refused(folder: Path, value: str) -> None:
    file = folder / "app.env"
    file.write_text("DATABASE_URL=x\n")
    with pytest.raises(ServiceError):
        build("app", switched(folder, env_file=file)).switch("projects", value)
    assert file.read_text() == "DATABASE_URL=x\n"


def test_a_setting_with_commands(folder: Path) -> None:
    file = folder / "setting"
    file.write_text("old")
    how = {"command": sh(f'printf %s "$DATABASE_URL" > {file}'), "read_command": ["cat", str(file)]}
    app = build("app", switched(folder, **how))
    assert app.current("projects") == "old"
    app.switch("projects", "a $b 'c")
    assert file.read_text() == "a $b 'c"
    deaf = build("app", switched(folder, **{**how, "command": ["true"]}))
    with pytest.raises(ServiceError, match="was set, and still has another value"):
        deaf.switch("projects", "new")
    with pytest.raises(ServiceError, match="nothing says how it is switched") as error:
        app.current("vectors")
    assert "[services.app.switch.vectors]" in error.value.hint


def test_a_switch_without_a_way_to_start_anew_is_a_problem(folder: Path) -> None:
    (folder / "app.env").write_text("DATABASE_URL=sqlite:///x.db\n")
    section = switched(folder, env_file=folder / "app.env")
    assert build("app", section).problems() == []
    alone = section.model_copy(update={"stop": [], "start": [], "running": []})
    ((text, hint),) = build("app", alone).problems()
    assert "would go on with the old file" in text
    assert "[services.app]" in hint
