"""A service of Docker Compose, through the `docker compose` command.

A stopped service is one without a container that runs, restarts or is paused. With a setting to
switch, the start is an `up` of this service alone, because an existing container keeps the
environment that it was made with.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from safetake.errors import ServiceError
from safetake.services.base import State, wait_until, was_running
from safetake.services.commands import ASK_TIMEOUT, Settings
from safetake.services.process import Ended, Runner

if TYPE_CHECKING:
    from safetake.config import ServiceConfig

ALIVE = ("running", "restarting", "paused")
MARGIN = 15.0
"""Seconds that Docker gets beyond the grace period of the containers."""


class ComposeService(Settings):
    """`docker compose stop`, `start` and `ps` of one service."""

    can_stop = True

    def __init__(self, name: str, config: ServiceConfig, runner: Runner) -> None:
        super().__init__(name, config, runner)
        assert config.compose is not None
        self._service = config.compose

    def describe(self) -> str:
        """The service, and the file that it is in."""
        file = self._config.compose_file
        return f"Compose service {self._service}" + (f" in {file}" if file else "")

    def state(self) -> State:
        """How many of its containers run."""
        alive = sum(c.get("State") in ALIVE for c in self._containers())
        return {"running": alive > 0, "containers": alive}

    def stop(self, state: State) -> None:
        """With the whole `stop_timeout` as the grace period; Docker kills what is left after it."""
        if not was_running(state):
            return
        grace = max(1, math.ceil(self._config.stop_timeout - MARGIN))
        ended = self._compose(
            "stop", "--timeout", str(grace), self._service, timeout=grace + 2 * MARGIN
        )
        if ended.code != 0:
            raise ServiceError(
                f"{self.describe()} could not be stopped, {ended.words}",
                hint="run `docker compose stop` by hand to see why",
            )
        wait_until(
            lambda: self.state()["running"] is False,
            self._config.stop_timeout,
            lambda: ServiceError(
                f"{self.describe()} still has running containers after its stop",
                hint=f"docker compose ps {self._service}",
            ),
        )

    def start(self, state: State) -> None:
        """As many containers as there were."""
        if not was_running(state):
            return
        count = max(1, int(state.get("containers") or 1))
        if self._config.switch:
            words = ["up", "--detach", "--no-deps", "--no-build", "--scale"]
            words += [f"{self._service}={count}", self._service]
        else:
            words = ["start", self._service]
        ended = self._compose(*words, timeout=self._config.start_timeout)
        if ended.code != 0:
            raise ServiceError(
                f"{self.describe()} could not be started, {ended.words}",
                hint=f"docker compose logs {self._service}",
            )

        def up() -> bool:
            states = [c.get("State") for c in self._containers()]
            return states.count("running") >= count

        wait_until(up, self._config.start_timeout, self._not_up)

    def restart(self) -> None:
        """Stop and start."""
        state = self.state()
        self.stop(state)
        self.start(state)

    def problems(self) -> list[tuple[str, str]]:
        """No Docker, no such service; settings that can not be read."""
        try:
            if not self._containers():
                return [
                    (
                        f"{self.describe()} has no container",
                        "docker compose up -d; compose_file names the file",
                    )
                ]
        except ServiceError as error:
            return [(str(error), error.hint)]
        return self.setting_problems()

    def _not_up(self) -> ServiceError:
        states = sorted({str(c.get("State")) for c in self._containers()})
        return ServiceError(
            f"{self.describe()} does not run {self._config.start_timeout:g} s after its start "
            f"({', '.join(states) or 'no container'})",
            hint=f"docker compose logs {self._service}",
        )

    def _compose(self, *words: str, timeout: float) -> Ended:
        file = self._config.compose_file
        where = ["--file", str(file)] if file is not None else []
        return self._runner.run(
            ["docker", "compose", *where, *words], timeout, f"docker compose {words[0]}"
        )

    def _containers(self) -> list[dict[str, Any]]:
        ended = self._compose("ps", "--all", "--format", "json", self._service, timeout=ASK_TIMEOUT)
        if ended.code != 0:
            raise ServiceError(
                f"{self.describe()} can not be asked for, {ended.words}",
                hint="is Docker there, and may this user use it?",
            )
        try:
            return containers(ended.output)
        except ValueError:
            raise ServiceError(
                f"docker compose ps printed no JSON: {ended.words}",
                hint="Docker Compose 2.0 or newer is needed",
            ) from None


def containers(text: str) -> list[dict[str, Any]]:
    """What `docker compose ps --format json` prints: one list before version 2.21, else a document
    a line. Raises ValueError.
    """
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        document = json.loads(line)
        documents = document if isinstance(document, list) else [document]
        if not all(isinstance(each, dict) for each in documents):
            raise ValueError("not a list of containers")
        found += documents
    return found
