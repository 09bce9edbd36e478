"""A service that is a systemd unit.

What the unit became is read from its properties, never from an exit code. Sockets, timers and paths
that would start the unit again at the next connection are stopped before it, and started with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.errors import ServiceError
from safetake.services.base import State, wait_until, was_running
from safetake.services.commands import ASK_TIMEOUT, Settings
from safetake.services.process import Ended, Runner

if TYPE_CHECKING:
    from safetake.config import ServiceConfig

PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Result", "Type", "TriggeredBy",
    "ConditionResult", "ConditionTimestampMonotonic",
)  # fmt: skip
STOPPED = ("inactive", "failed")


class SystemdService(Settings):
    """`systemctl stop`, `start` and `show` of one unit."""

    can_stop = True

    def __init__(self, name: str, config: ServiceConfig, runner: Runner) -> None:
        super().__init__(name, config, runner)
        assert config.systemd is not None
        self._unit = config.systemd

    def describe(self) -> str:
        """The unit."""
        return f"systemd unit {self._unit}"

    def state(self) -> State:
        """Whether it runs, and what would start it again."""
        shown = self._show(self._unit)
        triggers = [
            unit
            for unit in shown.get("TriggeredBy", "").split()
            if self._show(unit).get("ActiveState") == "active"
        ]
        return {"running": shown.get("ActiveState") not in STOPPED, "triggers": triggers}

    def stop(self, state: State) -> None:
        """What triggers it first, then the unit."""
        units = [*state.get("triggers", []), *([self._unit] if was_running(state) else [])]
        if not units:
            return
        # without --no-block, a unit with a long TimeoutStopSec= would be waited for in systemctl
        self._must("stop", "--no-block", "--", *units)

        def late() -> ServiceError:
            shown = self._show(self._unit)
            return ServiceError(
                f"{self.describe()} is {shown.get('ActiveState')}/{shown.get('SubState')} "
                f"{self._config.stop_timeout:g} s after its stop",
                hint=f"journalctl -u {self._unit}; TimeoutStopSec= must be below stop_timeout",
            )

        wait_until(
            lambda: all(self._show(unit).get("ActiveState") in STOPPED for unit in units),
            self._config.stop_timeout,
            late,
        )

    def start(self, state: State) -> None:
        """The unit, then what triggers it."""
        if was_running(state):
            self._start()
        if state.get("triggers"):
            self._must("start", *state["triggers"])

    def restart(self) -> None:
        """Stop and start, as one job of systemd's."""
        self._must("restart", self._unit)
        self._wait_active()

    def problems(self) -> list[tuple[str, str]]:
        """A unit that is not there; settings that can not be read."""
        try:
            self.state()
        except ServiceError as error:
            return [(str(error), error.hint), *self.setting_problems()]
        return self.setting_problems()

    def _start(self) -> None:
        ended = self._systemctl("start", self._unit, timeout=self._config.start_timeout)
        if ended.code != 0:
            raise self._failed(ended.words)
        self._wait_active()

    def _wait_active(self) -> None:
        """After a `start` that returned 0."""

        def active() -> bool:
            shown = self._show(self._unit)
            if shown.get("ActiveState") == "failed":
                raise self._failed(f"result {shown.get('Result')}")
            if shown.get("ActiveState") == "active":
                return True
            if shown.get("ActiveState") != "inactive" or shown.get("Type") != "oneshot":
                return False
            # Without RemainAfterExit= it has done its work. systemd forgets it then, unless
            # something refers to it, and shows it as if it had never run: what ended badly is
            # `failed`, and remembered.
            if _skipped(shown):
                raise self._failed("a condition of the unit is not met")
            return shown.get("Result") == "success"

        wait_until(
            active,
            self._config.start_timeout,
            lambda: self._failed(f"not active after {self._config.start_timeout:g} s"),
        )

    def _failed(self, why: str) -> ServiceError:
        return ServiceError(
            f"{self.describe()} did not start: {why}",
            hint=f"systemctl status {self._unit}; journalctl -u {self._unit}",
        )

    def _must(self, verb: str, *units: str) -> None:
        ended = self._systemctl(verb, *units, timeout=self._config.start_timeout)
        if ended.code != 0:
            raise ServiceError(
                f"systemctl {verb} {self._unit} failed, {ended.words}",
                hint="run as a user who may do that (root, or a polkit rule for the unit)",
            )

    def _systemctl(self, *words: str, timeout: float) -> Ended:
        command = ["systemctl", "--no-ask-password", "--no-pager", *words]
        return self._runner.run(command, timeout, f"systemctl {words[0]}")

    def _show(self, unit: str) -> dict[str, str]:
        ended = self._systemctl(
            "show", f"--property={','.join(PROPERTIES)}", "--", unit, timeout=ASK_TIMEOUT
        )
        if ended.code != 0:
            raise ServiceError(
                f"systemctl show {unit} failed, {ended.words}",
                hint="is systemd what runs this machine? a container has its own ways",
            )
        shown = dict(line.split("=", 1) for line in ended.output.splitlines() if "=" in line)
        if shown.get("LoadState") != "loaded":
            raise ServiceError(
                f"there is no unit {unit} (it is {shown.get('LoadState', 'unknown')})",
                hint=f"systemctl list-units --all; services.{self.name}.systemd names the unit",
            )
        return shown


def _skipped(shown: dict[str, str]) -> bool:
    """Whether it did not run for a Condition…=, as long as systemd remembers it."""
    asked = shown.get("ConditionTimestampMonotonic", "0") != "0"
    return asked and shown.get("ConditionResult") == "no"
