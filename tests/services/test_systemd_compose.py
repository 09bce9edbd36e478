"""systemd and Docker Compose. Neither runs where the tests run, so that `systemctl` and `docker`
are stand-ins on PATH: they keep a state in files and print what the real ones print. What is proven
is what we ask and how we read the answers, not systemd or Docker.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safetake.config import ServiceConfig
from safetake.errors import ServiceError
from safetake.services import Service, build
from safetake.services.compose import containers

SYSTEMCTL = r"""#!/bin/sh
echo "$*" >> "$STATE/calls"
verb=$3; shift 3
case $verb in
show)
  for unit; do :; done
  test -e "$STATE/$unit.state" || { echo LoadState=not-found; echo ActiveState=inactive; exit 0; }
  echo LoadState=loaded; echo "ActiveState=$(cat "$STATE/$unit.state")"; echo SubState=x
  echo "Result=${RESULT:-exit-code}"; echo "Type=${TYPE:-simple}"; echo "$MORE"
  test "$unit" = app.service && echo "TriggeredBy=$TRIGGERS" ;;
stop) for u; do case $u in -*) ;; *) echo "$STOPPED" > "$STATE/$u.state";; esac; done ;;
start|restart) for u; do echo "$STARTED" > "$STATE/$u.state"; done ;;
esac
exit ${CODE:-0}
"""

DOCKER = r"""#!/bin/sh
echo "$*" >> "$STATE/calls"
shift; test "$1" = --file && shift 2
case $1 in
ps) cat "$STATE/ps"; exit ${PS_CODE:-0} ;;
stop) sed -i "s/running/$STOPPED/" "$STATE/ps" ;;
start|up) sed -i "s/exited/$STARTED/" "$STATE/ps" ;;
esac
exit ${CODE:-0}
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("docker", DOCKER)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path))
    monkeypatch.setenv("TRIGGERS", "")
    return tmp_path


def calls(state: Path) -> list[str]:
    file = state / "calls"
    found = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [c for c in found if " show " not in c and " ps " not in c]


def unit(**more: Any) -> Service:
    limits = {"stop_timeout": 0.3, "start_timeout": 0.3}
    return build("app", ServiceConfig.model_validate({"systemd": "app.service", **limits, **more}))


def test_a_unit_and_what_would_start_it_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, active in (("app.service", "active"), ("app.socket", "active")):
        (state / f"{name}.state").write_text(active)
    (state / "app.timer.state").write_text("inactive")
    monkeypatch.setenv("TRIGGERS", "app.socket app.timer")
    monkeypatch.setenv("STOPPED", "inactive")
    monkeypatch.setenv("STARTED", "active")
    app = unit()
    was = app.state()
    assert was == {"running": True, "triggers": ["app.socket"]}
    app.stop(was)
    assert app.state() == {"running": False, "triggers": []}
    app.start(was)
    assert app.state() == was
    flags = "--no-ask-password --no-pager"
    assert calls(state) == [
        f"{flags} stop --no-block -- app.socket app.service",
        f"{flags} start app.service",
        f"{flags} start app.socket",
    ]
    app.stop({"running": False, "triggers": []})
    app.start({"running": False, "triggers": []})
    assert calls(state) == []


@pytest.mark.parametrize(
    ("stopped", "says"),
    [("deactivating", r"is deactivating/x 0\.3 s after its stop"), ("active", "is active/x")],
)
def test_a_unit_that_does_not_stop(
    state: Path, monkeypatch: pytest.MonkeyPatch, stopped: str, says: str
) -> None:
    (state / "app.service.state").write_text("active")
    monkeypatch.setenv("STOPPED", stopped)
    with pytest.raises(ServiceError, match=says) as error:
        unit().stop({"running": True})
    assert "TimeoutStopSec=" in error.value.hint


@pytest.mark.parametrize(
    ("started", "code", "says"),
    [
        ("failed", "0", "did not start: result exit-code"),
        ("activating", "0", r"not active after 0\.3 s"),
        ("failed", "1", "did not start: exit code 1"),
    ],
)
def test_a_unit_that_does_not_start(
    state: Path, monkeypatch: pytest.MonkeyPatch, started: str, code: str, says: str
) -> None:
    (state / "app.service.state").write_text("inactive")
    monkeypatch.setenv("STARTED", started)
    app = unit()
    monkeypatch.setenv("CODE", "0")
    app.state()

    script = (state / "bin" / "systemctl").read_text()
    script = script.replace("exit ${CODE:-0}", f"test $verb = start && exit {code}; exit 0")
    (state / "bin" / "systemctl").write_text(script)
    with pytest.raises(ServiceError, match=says) as error:
        app.start({"running": True})
    assert "journalctl -u app.service" in error.value.hint


FORGOTTEN = "ConditionResult=no\nConditionTimestampMonotonic=0"
"""What systemd 252 shows of a oneshot unit that ran well, and that nothing refers to."""


@pytest.mark.parametrize(
    ("kind", "result", "more", "says"),
    [
        ("oneshot", "success", FORGOTTEN, ""),
        ("oneshot", "success", "ConditionResult=yes\nConditionTimestampMonotonic=7", ""),
        ("oneshot", "success", "ConditionResult=no\nConditionTimestampMonotonic=7", "a condition"),
        ("oneshot", "exit-code", FORGOTTEN, "not active"),
        ("simple", "success", FORGOTTEN, "not active"),
    ],
)
def test_a_oneshot_unit_has_started_when_it_has_run(
    state: Path, monkeypatch: pytest.MonkeyPatch, kind: str, result: str, more: str, says: str
) -> None:
    """It is inactive again when `start` returns; any other type that is so has ended."""
    (state / "app.service.state").write_text("activating")
    for name, value in (("TYPE", kind), ("RESULT", result), ("MORE", more)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STARTED", "inactive")
    app = unit()
    was = app.state()
    assert was["running"]
    ways: list[Callable[[], None]] = [lambda: app.start(was), app.restart]
    for again in ways:
        if says:
            with pytest.raises(ServiceError, match=f"did not start: {says}"):
                again()
        else:
            again()


def test_a_unit_that_is_not_there_is_not_a_stopped_one(state: Path) -> None:
    with pytest.raises(ServiceError, match=r"there is no unit app\.service \(it is not-found\)"):
        unit().state()
    assert "there is no unit" in unit().problems()[0][0]


def test_systemctl_that_may_not(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / "app.service.state").write_text("active")
    monkeypatch.setenv("CODE", "1")
    with pytest.raises(ServiceError, match="systemctl show"):
        unit().state()
    with pytest.raises(ServiceError, match="systemctl stop"):
        unit().stop({"running": True})


# ------------------------------------------------------------------------ Docker Compose


def compose(**more: Any) -> Service:
    section = {"compose": "web", "stop_timeout": 20, "start_timeout": 0.3, **more}
    return build("web", ServiceConfig.model_validate(section))


def test_containers_are_stopped_and_as_many_started(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"Name": f"web-{i}", "State": "running"}) for i in (1, 2)]
    (state / "ps").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("STOPPED", "exited")
    monkeypatch.setenv("STARTED", "running")
    web = compose(compose_file=state / "compose.yaml")
    was = web.state()
    assert was == {"running": True, "containers": 2}
    web.stop(was)
    assert web.state() == {"running": False, "containers": 0}
    web.start(was)
    assert web.state() == was
    file = f"compose --file {state}/compose.yaml"
    assert calls(state) == [f"{file} stop --timeout 5 web", f"{file} start web"]


def test_with_a_setting_to_switch_the_start_makes_new_containers(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`start` would run the container with the environment that it was made with."""
    (state / "ps").write_text('{"State": "exited"}\n')
    (state / "env").write_text("A=x\n")
    monkeypatch.setenv("STARTED", "running")
    switch = {"projects": {"setting": "A", "value": "{path}", "env_file": state / "env"}}
    web = compose(switch=switch)
    web.start({"running": True, "containers": 0})  # it had died, and is wanted
    assert calls(state) == ["compose up --detach --no-deps --no-build --scale web=1 web"]
    assert web.problems() == []


def test_containers_that_fail(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / "ps").write_text('{"State": "exited"}\n')
    monkeypatch.setenv("STARTED", "restarting")
    with pytest.raises(ServiceError, match=r"does not run 0\.3 s after its start \(restarting\)"):
        compose().start({"running": True, "containers": 1})
    monkeypatch.setenv("CODE", "1")
    with pytest.raises(ServiceError, match="could not be stopped"):
        compose().stop({"running": True})
    monkeypatch.setenv("PS_CODE", "14")
    with pytest.raises(ServiceError, match="can not be asked for"):
        compose().state()


@pytest.mark.parametrize(
    "text",
    [
        '[{"State":"running"},{"State":"exited"}]\n',
        '{"State":"running"}\n{"State":"exited"}\n',
    ],
    ids=["before 2.21", "since 2.21"],
)
def test_both_forms_of_ps(text: str) -> None:
    assert [c["State"] for c in containers(text)] == ["running", "exited"]
    assert containers("") == []


@pytest.mark.parametrize("text", ["no JSON", "[1]", '"x"'])
def test_what_is_no_list_of_containers(state: Path, text: str) -> None:
    with pytest.raises(ValueError):
        containers(text)
    (state / "ps").write_text(text)
    assert "printed no JSON" in compose().problems()[0][0]
