"""The health gate: services are asked until each is well, or until its deadline.

All are asked at once, each again and again on a connection of its own, until it answered well
`successes` times in a row; what any of them answered is kept and shown. The gate is to be entered
after the start has returned, when no old process is left that could answer for the new one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import contains
from typing import TYPE_CHECKING, Any

from safetake.errors import ServiceError
from safetake.services.httpget import Answer, get
from safetake.services.process import Runner, excerpt, hidden_names

if TYPE_CHECKING:
    from safetake.config import Config, HealthConfig, ServiceConfig

MAX_KEPT = 1000
"""Observations that are kept of one service: the newest."""

Saw = Callable[[str, str], None]
"""(service, what it answered); called from any thread."""
Contained = Callable[[str, str], bool]
"""Whether the second text is in the first, an answer."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One answer, or why there was none."""

    seconds: float
    """Since the gate was entered."""
    ok: bool
    text: str
    """The status and the beginning of the answer, without passwords."""


@dataclass(slots=True)
class Health:
    """What the gate saw of one service."""

    name: str
    ok: bool = False
    asked: bool = True
    """False when the configuration does not say how to ask."""
    seconds: float = 0.0
    observations: list[Observation] = field(default_factory=list)

    @property
    def last(self) -> str:
        """The newest answer."""
        return self.observations[-1].text if self.observations else "it was not asked"

    def as_dict(self) -> dict[str, Any]:
        """For the report of a restore, JSON-able."""
        return {
            "name": self.name,
            "ok": self.ok,
            "asked": self.asked,
            "seconds": round(self.seconds, 3),
            "observations": [
                {"seconds": round(o.seconds, 3), "ok": o.ok, "text": o.text}
                for o in self.observations
            ],
        }


@dataclass(slots=True)
class Report:
    """What the gate saw of all."""

    services: list[Health]

    @property
    def ok(self) -> bool:
        """Whether every service that can be asked is well."""
        return all(health.ok or not health.asked for health in self.services)

    def must_be_well(self) -> None:
        """Raises ServiceError that names each service that is not well, and its last answer."""
        bad = [health for health in self.services if health.asked and not health.ok]
        if bad:
            raise ServiceError(
                "not well: "
                + "; ".join(f"{h.name} after {h.seconds:.0f} s ({h.last}){_few(h)}" for h in bad),
                hint="the services' logs say why",
            )

    def as_dict(self) -> dict[str, Any]:
        """For the report of a restore, JSON-able."""
        return {"ok": self.ok, "services": [health.as_dict() for health in self.services]}


def _few(health: Health) -> str:
    """The last answer may have been a good one."""
    last = health.observations[-1:]
    return ", but not often enough in a row" if last and last[0].ok else ""


def gate(
    services: Mapping[str, ServiceConfig],
    progress: Saw = lambda name, text: None,
    *,
    config: Config | None = None,
) -> Report:
    """Ask all services until each is well or its time is up; never raises for a sick one."""
    begun = time.monotonic()
    ended = threading.Event()
    found = [Health(name, asked=section.health is not None) for name, section in services.items()]
    threads = []
    for health in found:
        how = services[health.name].health
        if how is None:
            continue
        work = (health, how, _runner(health.name, config), begun, ended, progress)
        threads.append(threading.Thread(target=_watch, args=work, name=f"health {health.name}"))
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        ended.set()  # Ctrl-C: threads end after the question that they are at
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    return Report(found)


def ask(
    name: str,
    how: HealthConfig,
    contained: Contained = contains,
    *,
    config: Config | None = None,
) -> Observation:
    """One question, now; `contained` judges whether the text is in the answer."""
    ok, text = _ask(how, _runner(name, config), how.answer_timeout, contained)
    return Observation(0.0, ok, text)


def _runner(name: str, config: Config | None) -> Runner:
    """A health command gets no password of the repository's."""
    own = config.repository.password_env if config is not None else None
    return Runner(name, hidden_names([own]))


def _watch(
    health: Health,
    how: HealthConfig,
    runner: Runner,
    begun: float,
    ended: threading.Event,
    progress: Saw,
) -> None:
    deadline = begun + how.timeout
    row = 0
    while not ended.is_set():
        ok, text = _ask(how, runner, how.answer_timeout)
        health.seconds = time.monotonic() - begun
        row = row + 1 if ok else 0
        health.observations.append(Observation(health.seconds, ok, text))
        del health.observations[:-MAX_KEPT]
        progress(health.name, f"{text} ({row} of {how.successes})" if ok else text)
        if row >= how.successes:
            health.ok = True
            return
        left = deadline - time.monotonic()
        if left <= 0:
            return
        # the last question comes at the deadline, not an interval before it
        ended.wait(min(how.interval, left))


def _ask(
    how: HealthConfig, runner: Runner, timeout: float, contained: Contained = contains
) -> tuple[bool, str]:
    if how.url is not None:
        return _judged(get(how.url, timeout), how.contains, contained)
    try:
        answer = runner.run(how.command, timeout, "its health command")
    except ServiceError as error:
        return False, str(error)
    if answer.code != 0:
        return False, answer.words
    if not contained(answer.output, how.contains):
        return False, f"without {how.contains!r}: {excerpt(answer.output, 200)}"
    return True, f"exit code 0 {excerpt(answer.output, 200)}".strip()


def _judged(answer: Answer, wanted: str, contained: Contained) -> tuple[bool, str]:
    said = answer.words
    if not answer.ok:
        return False, said
    if not contained(answer.text, wanted):
        return False, f"without {wanted!r}: {said}"
    return True, said
