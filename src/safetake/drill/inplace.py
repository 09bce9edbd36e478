"""`total-loss` on production: every store is replaced by a snapshot of itself, with the restore.

Services stop, so that nobody writes; a snapshot of what they left is taken and restored in place by
the engine of `restore --in-place`, with its journal, its safety copy, its health gate and its way
back. Nothing is deleted, and nothing is replaced that was written in between (`recovery.rehearsed`
holds that). What was found is kept as evidence, whatever the end.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetake.backup import take_snapshot
from safetake.clock import go_time, now_ns
from safetake.drill.rungs import record_rung
from safetake.drill.scenario import TOTAL, find_scenario, targets
from safetake.errors import RefusedError, SafetakeError, SnapshotNotFoundError, UsageError
from safetake.evidence import Check, Draft, Evidence, Step, save
from safetake.evidence.versions import place, versions
from safetake.hostname import host_name
from safetake.recovery.inplace import Telling, alone, described, engine_of, restores_folder
from safetake.recovery.journal import Journal, create, journals
from safetake.recovery.plan import PlannedRestore, Wishes, plan_restore
from safetake.recovery.rehearsed import RehearsedEngine
from safetake.snapshots import SnapshotInfo, find_snapshot

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.recovery.outcome import Outcome
    from safetake.repository import Repository

NAME = f"{TOTAL} (in place)"
_HINT = "run it by hand, or leave --in-place out: isolated copies touch nothing of production"


@dataclass(slots=True)
class Terms:
    """What would be done, for whoever has to agree."""

    sources: list[str]
    plan: PlannedRestore
    """Of the newest snapshot that is there: the drill takes one of its own."""
    stop: list[str]
    gate: list[str]
    unstopped: list[str]
    """Sources whose writers nobody stops."""


def chosen(config: Config, scenario: str, words: Sequence[str]) -> list[str]:
    """The sources of a drill in place, in the order of the configuration. Raises UsageError."""
    if scenario != TOTAL or scenario in config.drill.scenarios:
        raise UsageError(
            f"{scenario} can not be rehearsed in place: it would delete what production holds",
            hint=f"only {TOTAL} can (a restore of what is there); leave --in-place out to rehearse "
            "this on isolated copies",
        )
    for name in words:
        if name not in config.sources:
            from safetake.wording import nearest

            raise UsageError(
                f"there is no source {name!r} in the configuration{nearest(name, config.sources)}",
                hint="see [sources] in the configuration",
            )
    return [name for name in config.sources if not words or name in words]


def phrase(sources: Sequence[str]) -> str:
    """What has to be typed: it names the machine and the sources."""
    return f"drill {' '.join(sources)} in place on {host_name()}"


def terms(config: Config, repository: Repository, sources: list[str], *, no_writers: bool) -> Terms:
    """What would be done. Changes nothing.

    Raises RefusedError for whatever stands in the way: another restore, a service that is not well,
    writers that nobody stops, a store that can not be replaced.
    """
    from safetake.services import build_all, users

    services = build_all(config)
    used = {name for source in sources for name in users(config, source)}
    stop = [name for name in config.services if name in used and services[name].can_stop]
    gate = [name for name in config.services if name in used and config.services[name].health]
    unstopped = [name for name in sources if not set(users(config, name)) & set(stop)]
    if unstopped and not no_writers:
        raise RefusedError(
            f"nobody stops what writes to {', '.join(unstopped)}: there is no service that uses it "
            "and can be stopped",
            hint="add [services.NAME] with `stop` and `start`; or stop its writers yourself, and "
            "say so with --no-writers",
        )
    with alone(config):
        plan = _planned(config, repository, _newest(repository, sources), sources)
    for name in stop:
        if services[name].state().get("running") is False:
            raise RefusedError(
                f"{name} does not run now: a drill in place is for a system that is well",
                hint=f"start it first; {_HINT}",
            )
    _well(config, gate)
    return Terms(sources, plan, stop, gate, unstopped)


def _newest(repository: Repository, sources: list[str]) -> SnapshotInfo:
    try:
        return find_snapshot(repository, "latest", sources)
    except SnapshotNotFoundError as error:
        raise RefusedError(
            f"there is no snapshot yet that the drill could be planned with: {error}",
            hint="take one (`safetake backup`): it also makes the drill's own a short one",
        ) from error


def _planned(
    config: Config, repository: Repository, snapshot: SnapshotInfo, sources: list[str]
) -> PlannedRestore:
    history = journals(restores_folder(config))
    plan = plan_restore(repository, config, snapshot, sources, Wishes(), history)
    for name, one in plan.sources.items():
        outline = one.outline
        if outline.absent or outline.damaged:
            raise RefusedError(
                f"{name} is not sound now: {outline.damaged or 'there is nothing there'}",
                hint="this is no drill: `safetake runbook` leads through the real thing",
            )
        if outline.mode == "online" and one.config.type != "redis":
            raise RefusedError(
                f"{outline.target} is in use, and no service of the configuration stops its user",
                hint="stop what uses it, or name it as a service with `stop` and `start`",
            )
    return plan


def _well(config: Config, gate: list[str]) -> None:
    from safetake.services import health

    report = health.gate({name: config.services[name] for name in gate}, config=config)
    bad = [f"{one.name} ({one.last})" for one in report.services if one.asked and not one.ok]
    if bad:
        raise RefusedError(
            f"not well before the drill: {', '.join(bad)}",
            hint=f"mend that first: afterwards nobody could tell why it is so; {_HINT}",
        )


def drill_in_place(
    config: Config, repository: Repository, agreed: Terms, telling: Telling
) -> Evidence:
    """Do it, and keep the evidence, also of a failure: then all was put back, or `problems` says
    what to do. Raises RefusedError when nothing was begun.
    """
    run = _Run(config, repository, agreed, telling)
    with repository.lock(exclusive=False), alone(config):
        run.begin()
        try:
            run.work()
        except SafetakeError as error:
            run.problems.append(f"{error}{f' ({error.hint})' if error.hint else ''}")
        except BaseException as error:
            run.problems.append(f"interrupted: {type(error).__name__}")
            run.keep()
            raise
        return run.keep()


class _Run:
    """One drill."""

    def __init__(
        self, config: Config, repository: Repository, agreed: Terms, telling: Telling
    ) -> None:
        self.problems: list[str] = []
        self._config = config
        self._repository = repository
        self._agreed = agreed
        self._telling = telling
        self._restores = restores_folder(config)
        self._journal: Journal
        self._snapshot: SnapshotInfo | None = None
        self._outcome: Outcome | None = None
        self._checks: list[Check] = []
        self._notes: list[str] = []
        self._steps: list[Step] = []
        self._measured: dict[str, float] = {}
        self._started_ns = now_ns()
        age = self._started_ns - agreed.plan.snapshot.time_ns
        self._measured["rpo_seconds"] = round(age / 1e9, 3)

    def begin(self) -> None:
        """The intent, durable: from here on a killed drill is ended by `restore --rollback`."""
        self._journal = create(
            self._restores,
            secrets.token_hex(8),
            {
                "format": 1,
                "time": go_time(self._started_ns),
                "host": socket.gethostname(),
                "snapshot": "",
                "bytes": 0,
                "sources": {},
                "stop": self._agreed.stop,
                "switch": [],
                "gate": self._agreed.gate,
                "undo_of": "",
                "drill": {"unstopped": self._agreed.unstopped},
            },
        )

    def work(self) -> None:
        """All of it. Raises what the restore raises."""
        begun = time.monotonic()
        engine = engine_of(self._config, self._journal, self._telling)
        assert isinstance(engine, RehearsedEngine)
        engine.ahead(self._take, self._plan)
        engine = engine_of(self._config, self._journal, self._telling)
        assert self._snapshot is not None
        taken = self._snapshot
        self._outcome = engine.forward(lambda: (self._repository, taken))
        self._measured["rto_seconds"] = round(time.monotonic() - begun, 3)
        self._integrity()

    def _take(self) -> SnapshotInfo:
        from safetake.counts import shrink_limit
        from safetake.sources import build

        names = self._agreed.sources
        report = take_snapshot(
            self._repository,
            [build(name, self._config.sources[name]) for name in names],
            barrier=self._config.barrier,
            progress=self._telling.progress,
            shrink={name: shrink_limit(self._config, name) for name in names},
        )
        for name, captured in report.sources.items():
            if captured.unread or not captured.one_moment or captured.facts.get("form") == "aof":
                what = "; ".join(captured.unread[:3]) or "somebody wrote meanwhile"
                raise RefusedError(
                    f"the snapshot of {name} is not whole: {what}",
                    hint="stop what writes there, and see what the backup says",
                )
        self._repository.reload()
        return find_snapshot(self._repository, report.id)

    def _plan(self, snapshot: SnapshotInfo) -> None:
        plan = _planned(self._config, self._repository, snapshot, self._agreed.sources)
        plan.stop, plan.gate = self._agreed.stop, self._agreed.gate
        self._snapshot = snapshot
        self._measured["bytes"] = float(
            sum(int(source.entry.get("bytes") or 0) for source in plan.sources.values())
        )
        told = described(self._restores, self._journal.id, plan)
        self._journal.amend(told | {"drill": self._journal.plan["drill"]})

    # ------------------------------------------------------------------------ what was found

    def _integrity(self) -> None:
        """The live stores' own checks, services running again."""
        from safetake.integrity import run_integrity

        started_ns, begun = now_ns(), time.monotonic()
        self._telling.say("integrity", "the checks of `safetake integrity`")
        report = run_integrity(self._config, self._agreed.sources, self._repository)
        for finding in report.findings:
            if not finding.asked:
                self._notes.append(
                    f"not asked: {finding.source}: {finding.check}: {finding.detail}"
                )
            elif finding.ok or finding.level == "error":
                self._check(finding.check, finding.source, finding.ok, found=finding.detail)
            else:
                self._notes.append(f"warning: {finding.source}: {finding.check}: {finding.detail}")
        self._steps.append(
            Step(
                name="integrity",
                started_ns=started_ns,
                seconds=round(time.monotonic() - begun, 3),
                ok=report.exit_code == 0,
            )
        )

    def _check(
        self, name: str, source: str, ok: bool, expected: Any = None, found: Any = None
    ) -> None:
        self._checks.append(Check(name=name, source=source, ok=ok, expected=expected, found=found))

    def _from_the_journal(self) -> list[Step]:
        """Every step of the restore, and what each one that was reached proves."""
        last = self.problems[-1] if self.problems else ""
        steps = []
        for name, started_ns, seconds, done in self._journal.timeline():
            if name == "restore":
                continue
            detail = "" if done else last
            steps.append(
                Step(name=name, started_ns=started_ns, seconds=seconds, ok=done, detail=detail)
            )
            word, _, what = name.partition(":")
            if word in _PROVES:
                self._check(_PROVES[word], what, done, "so", "so" if done else last)
            elif word in ("start", "back-start"):
                told = self._journal.done.get(name, {}).get("problem", "")
                self._check(f"{what} runs again", "", done and not told, "so", told or "so")
        answers = self._journal.done.get("health", {}).get("services", {})
        for name in self._agreed.gate if "health" in self._journal.begun else ():
            said = answers.get(name)
            self._check(
                f"{name} is well after the recovery", "", said is not None, "well", said or last
            )
        return steps

    def keep(self) -> Evidence:
        """The document, and the rung where all is well. Raises StorageError."""
        config, snapshot = self._config, self._snapshot
        steps = [*self._from_the_journal(), *self._steps]
        outcome = self._outcome
        ended = outcome.ended if outcome is not None else self._journal.ended
        self._check(
            "the restore is committed", "", ended == "committed", "committed",
            ended or "not ended: `safetake restore --rollback`",
        )  # fmt: skip
        self._notes.insert(0, f"restore {self._journal.id} (`safetake restore --list`)")
        self._notes += outcome.warnings if outcome is not None else []
        if self._agreed.unstopped:
            self._notes.append(f"writers not stopped by it: {', '.join(self._agreed.unstopped)}")
        host, user = place()
        draft = Draft(
            kind="drill",
            name=NAME,
            started_ns=self._started_ns,
            ended_ns=now_ns(),
            host=host,
            user=user,
            repository=self._repository.id,
            snapshot=snapshot.id if snapshot is not None else "",
            versions=versions(),
            checks=self._checks,
            steps=steps,
            measured=self._measured,
            targets=targets(config, find_scenario(config, TOTAL, self._agreed.sources)),
            problems=[*self.problems, *(outcome.problems if outcome is not None else [])],
            notes=self._notes,
        )
        document = save(self._repository, draft)
        if document.verdict == "passed" and snapshot is not None:
            record_rung(self._repository, snapshot, document, answered=bool(self._agreed.gate))
        return document


_PROVES = {
    "check": "the staged copy is what the snapshot's facts say",
    "same": "nobody wrote between the snapshot and the switch",
    "confirm": "the live store is the restored one",
    "compare": "the live store holds what it held before",
    "back": "the data from before is back",
}
