"""A service that is stopped and started with commands of the configuration; also a service that
can only be asked. The setting of a source is a line in a file, or has commands of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import ServiceError
from safetake.services.base import State, wait_until, was_running
from safetake.services.envfile import read_setting, write_setting
from safetake.services.process import Runner

if TYPE_CHECKING:
    from safetake.config import ServiceConfig, SwitchConfig

ASK_TIMEOUT = 30.0
"""Seconds for a command that only looks."""

NOT_FOUND = (126, 127)
"""What a shell answers for a program that is not there: not the same as `not running`."""


class Settings:
    """The settings of a service whose processes read them at their start."""

    def __init__(self, name: str, config: ServiceConfig, runner: Runner) -> None:
        self.name = name
        self._config = config
        self._runner = runner

    def value(self, source: str, path: Path) -> str:
        """What the setting of a source has to be for its new file."""
        return self._switch(source).value.replace("{path}", str(path))

    def current(self, source: str) -> str:
        """The setting now. Raises ServiceError."""
        switch = self._switch(source)
        if switch.env_file is not None:
            return read_setting(switch.env_file, switch.setting)
        what = f"the read_command of {switch.setting}"
        return self._runner.done(switch.read_command, ASK_TIMEOUT, what).output.strip()

    def switch(self, source: str, value: str) -> None:
        """Set it, and read it back. Raises ServiceError."""
        switch = self._switch(source)
        if self.current(source) == value:
            return
        if switch.env_file is not None:
            write_setting(switch.env_file, switch.setting, value)
        else:
            what = f"the command that sets {switch.setting}"
            timeout = self._config.start_timeout
            self._runner.done(switch.command, timeout, what, {switch.setting: value})
        if self.current(source) != value:
            raise ServiceError(
                f"{self.name}: {switch.setting} was set, and still has another value",
                hint=f"see services.{self.name}.switch.{source}: what sets it, and what reads it",
            )

    def setting_problems(self) -> list[tuple[str, str]]:
        """What is wrong with the settings."""
        found = []
        for source in self._config.switch:
            try:
                self.current(source)
            except ServiceError as error:
                found.append((str(error), error.hint))
        return found

    def _switch(self, source: str) -> SwitchConfig:
        try:
            return self._config.switch[source]
        except KeyError:
            raise ServiceError(
                f"{self.name}: nothing says how it is switched to another {source}",
                hint=f"add [services.{self.name}.switch.{source}] to the configuration",
            ) from None


class CommandService(Settings):
    """Commands stop it, start it, and say whether it runs."""

    @property
    def can_stop(self) -> bool:
        """With commands to do it."""
        return bool(self._config.stop)

    def describe(self) -> str:
        """What runs it."""
        return f"commands ({self._config.stop[0]} …)" if self.can_stop else "not run by safetake"

    def state(self) -> State:
        """Running, stopped, or unknown where no command says it."""
        return {"running": self._running()}

    def stop(self, state: State) -> None:
        """Run the command, then wait until it runs no more."""
        if not was_running(state) or self._running() is False:
            return
        ended = self._runner.run(self._config.stop, self._config.stop_timeout, "its stop command")
        if ended.code != 0 and self._running() is not False:
            raise ServiceError(
                f"{self.name}: its stop command failed, {ended.words}",
                hint="run it by hand to see why",
            )
        wait_until(
            lambda: self._running() is not True,
            self._config.stop_timeout,
            lambda: ServiceError(
                f"{self.name} still runs {self._config.stop_timeout:g} s after its stop command",
                hint="see what keeps it (its log); a longer stop_timeout gives it more time",
            ),
        )

    def start(self, state: State) -> None:
        """Run the command, then wait until it says that it runs."""
        if not was_running(state) or self._running() is True:
            return
        self._runner.done(self._config.start, self._config.start_timeout, "its start command")
        wait_until(
            lambda: self._running() is not False,
            self._config.start_timeout,
            lambda: ServiceError(
                f"{self.name} does not run {self._config.start_timeout:g} s after its start",
                hint="its log says why",
            ),
        )

    def restart(self) -> None:
        """Stop and start."""
        state = self.state()
        self.stop(state)
        self.start(state)

    def problems(self) -> list[tuple[str, str]]:
        """Programs that are not there; settings that can not be read."""
        found = []
        for key in ("stop", "start", "running"):
            words: list[str] = getattr(self._config, key)
            if words and shutil.which(words[0]) is None:
                found.append(
                    (
                        f"services.{self.name}.{key}: there is no program {words[0]}",
                        "give its full path; it is run without a shell",
                    )
                )
        if not found:
            try:
                self._running()
            except ServiceError as error:
                found.append((str(error), error.hint))
        if self._config.switch and not self.can_stop:
            found.append(
                (
                    f"{self.name} has a setting to switch, and nothing says how it is stopped and "
                    "started: its processes would go on with the old file",
                    f"add `stop` and `start` to [services.{self.name}]",
                )
            )
        return found + self.setting_problems()

    def _running(self) -> bool | None:
        if not self._config.running:
            return None
        ended = self._runner.run(self._config.running, ASK_TIMEOUT, "its command `running`")
        if ended.code < 0 or ended.code in NOT_FOUND:
            raise ServiceError(
                f"{self.name}: its command `running` failed, {ended.words}",
                hint="it must exit 0 while the service runs, and 1 while it does not",
            )
        return ended.code == 0
