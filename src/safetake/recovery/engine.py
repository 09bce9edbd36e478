"""A restore in place: the order of its steps, each journalled before it is done.

    stage → check → stop services → quiet → safety snapshot → switch → confirm → start → health
    → commit, or back

Until `commit` is decided everything can be put back, and is, by itself, when a step fails. What a
crash left is ended by `resume` (the rest of the steps, or of the way back when that was begun) or
by `back`. The restorers look at what is there, so that a step may be done twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safetake.backup import BackupReport, snapshot_taken
from safetake.errors import (
    RefusedError,
    RestoreError,
    SafetakeError,
    ServiceError,
    SourceError,
)
from safetake.model import Progress, RestoreWork, Session
from safetake.recovery import workfolder, written
from safetake.recovery.journal import BACK, COMMIT, Journal
from safetake.recovery.one import (
    Once,
    One,
    OpenRepository,
    all_well,
    configured,
    refuse_unknown_services,
)
from safetake.recovery.outcome import Outcome, RolledBackError
from safetake.restore.beside import restore_to
from safetake.snapshots import SAFETY_TAG

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository
    from safetake.services.base import Service

Say = Callable[[str, str], None]
"""(step, what is happening): for people."""
_PATIENCE_S = 10.0


class Engine:
    """Does, or undoes, what a journal says."""

    def __init__(
        self, config: Config, journal: Journal, *, say: Say, progress: Progress | None = None
    ) -> None:
        from safetake.services import build_all
        from safetake.sources import restorer

        self._config = config
        self._journal = journal
        self._say = say
        self._progress = progress or (lambda what, done, total: None)
        self._warnings: list[str] = []
        self._problems: list[str] = []
        self._told: list[str] = []
        """Of each source, what became of that which was written to the restored data."""
        self._stopped: set[str] = set()
        """Services that this process has stopped: nobody else started them since."""
        self._ones: dict[str, One] = {}
        for name, told in journal.plan["sources"].items():
            source = configured(config, journal, name)
            self._ones[name] = One(
                name, restorer(name, source), self._work(name, told), told["saved"]
            )
        refuse_unknown_services(config, journal)
        self._services: dict[str, Service] = build_all(config)

    def _work(self, name: str, told: dict[str, Any]) -> RestoreWork:
        folder = Path(told["work"])
        safety = self._journal.done.get(f"safety:{name}", {})
        return RestoreWork(
            id=self._journal.id,
            entry=told["entry"],
            mode=told["mode"],
            work=folder,
            staged=folder / "new" / name,
            options=told["options"],
            notes=self._journal.notes.setdefault(name, {}),
            note=lambda key, value: self._journal.note(name, key, value),
            safety_ns=int(safety.get("time_ns", 0)),
            progress=self._progress,
        )

    # ------------------------------------------------------------------------ forward

    def forward(self, repository: OpenRepository) -> Outcome:
        """All steps that are not done yet. `repository` is only opened when it is needed.

        Raises RolledBackError when a step failed and all was put back. Any other error means that
        the way back failed, too: the journal stays open.
        """
        once = Once(repository)
        if self._journal.decision == BACK:
            return self.back(self._journal.reason, lambda: once()[0])
        if self._journal.decision != COMMIT:
            try:
                self._until_decided(once)
            except BaseException as error:  # noqa: BLE001 - an interrupt, too, must not stay half-way
                self._failed(error, lambda: once()[0])
        self._end(COMMIT)
        return self._outcome()

    def _failed(
        self, error: BaseException, opening: Callable[[], Repository] | None = None
    ) -> NoReturn:
        text = str(error) or type(error).__name__
        self._say("failed", text)
        try:
            self.back(text, opening)
        except SafetakeError as second:
            also = f"; {second.hint}" if second.hint else ""
            raise RestoreError(
                f"{text}\nand the way back failed: {second}",
                hint=f"mend that, then `safetake restore --rollback`{also}",
            ) from error
        if not isinstance(error, SafetakeError):
            raise error
        also = "".join(f"\n{text[:1].upper()}{text[1:]}" for text in self._told)
        also += "".join(f"\nBut a service does not run again: {p}" for p in self._problems)
        raise RolledBackError(
            f"{text}\n{self._as_before()} (restore {self._journal.id}){also}",
            hint=error.hint,
        ) from error

    def _until_decided(self, repository: Once) -> None:
        for one in self._ones.values():
            self._stage(one, repository)
        for one in self._ones.values():
            self._check_staged(one)
        self._stop()
        for one in self._ones.values():
            if one.work.mode == "offline" and not self._journal.step(f"switch:{one.name}"):
                with self._step(f"quiet:{one.name}", "nobody uses it", again=True):
                    one.quiet(self._patience())
        with self._saved(repository):
            for one in self._ones.values():
                if not self._journal.step(f"switch:{one.name}"):
                    with self._step(f"switch:{one.name}", one.work.mode):
                        one.restorer.switch(one.work)
        for one in self._ones.values():
            if self._journal.step(f"confirm:{one.name}"):
                continue
            with self._step(f"confirm:{one.name}", "the live store is the restored one"):
                all_well(one.name, one.restorer.confirm(one.work))
        self._switched()
        if self._journal.plan["stop"] or self._journal.plan["gate"]:
            for one in self._ones.values():
                written.remember(one.restorer, one.work)
        self._set()
        self._start("start")
        self._health()
        self._journal.decide(COMMIT)

    @contextlib.contextmanager
    def _step(self, name: str, what: str, *, again: bool = False) -> Iterator[dict[str, Any]]:
        """One journalled step; the dictionary's content is recorded when it is done."""
        if again and self._journal.step(name):
            self._journal.forget(name)
        self._say(name, what)
        self._journal.begin(name)
        started = time.perf_counter()
        facts: dict[str, Any] = {}
        yield facts
        self._journal.finish(name, seconds=round(time.perf_counter() - started, 3), **facts)

    def _stage(self, one: One, repository: Once) -> None:
        step = f"stage:{one.name}"
        if self._journal.step(step):
            return
        opened, snapshot = repository()
        with self._step(step, "beside the live data") as facts:
            workfolder.make(one.work.work, self._journal)
            workfolder.remove(one.work.work / "new")
            (one.work.work / "new").mkdir(mode=0o700)
            wanted = one.restorer.wanted(one.work.options)
            report = restore_to(
                opened,
                snapshot,
                [one.name],
                one.work.work / "new",
                progress=self._progress,
                wanted=wanted,
            )
            if wanted is not None:
                one.work.note("staged", report.sources[one.name]["facts"])
            facts["problems"] = report.problems[:20]
            facts["bytes"] = report.sources[one.name]["bytes"]
        self._warnings += report.problems

    def _check_staged(self, one: One) -> None:
        step = f"check:{one.name}"
        if self._journal.step(step):
            return
        with self._step(step, "the staged copy against the snapshot's facts"):
            all_well(one.name, one.restorer.check_staged(one.work))

    # ------------------------------------------------------------------------ the safety snapshot

    @contextlib.contextmanager
    def _saved(self, repository: Once) -> Iterator[None]:
        """What is there now is in the repository, and stays as it is, while the block switches."""
        missing = [one for one in self._ones.values() if self._to_save(one)]
        taken = [one for one in missing if one.saved != "nothing"]
        for one in missing:
            if one.saved == "nothing":
                self._journal.finish(f"safety:{one.name}", snapshot="", time_ns=0)
        if not taken:
            yield
            return
        opened, _ = repository()
        locked = [one for one in taken if one.work.mode == "online"]

        def take_over(sessions: dict[str, Session]) -> bool:
            for one in locked:
                if not one.restorer.take_over(one.work, sessions[one.name]):
                    for other in locked:
                        other.restorer.let_go(other.work)
                    return False
            return True

        self._say("safety", "a snapshot of what is there now")
        self._journal.begin("safety")
        started = time.perf_counter()
        saved = False
        try:
            with snapshot_taken(
                opened,
                [
                    written.live_source(self._config, o.restorer, o.work, raw=o.saved == "raw")
                    for o in taken
                ],
                barrier=self._config.barrier,
                tags=[SAFETY_TAG, f"restore={self._journal.id}"],
                progress=self._progress,
                after_cut=take_over,
                eager=[one.name for one in locked],
            ) as report:
                unread = [f"{n}: {text}" for n, c in report.sources.items() for text in c.unread]
                if unread:
                    raise SourceError(
                        f"some of it could not be read: {'; '.join(unread[:5])}",
                        hint="what is not saved must not be replaced; make it readable, or let its "
                        "writers rest, and restore again",
                    )
                for one in taken:
                    one.work.safety_ns = report.time_ns
                    self._journal.finish(
                        f"safety:{one.name}", snapshot=report.id, time_ns=report.time_ns
                    )
                spent = time.perf_counter() - started
                self._journal.finish("safety", seconds=round(spent, 3), snapshot=report.id)
                self._safe(taken, report, opened)
                saved = True
                yield
        except SourceError as error:
            if saved:  # the switch's own
                raise
            raise SourceError(
                f"what is there now could not be saved: {error}", hint=error.hint
            ) from error
        finally:
            for one in locked:
                one.restorer.let_go(one.work)

    def _to_save(self, one: One) -> bool:
        """Not saved yet, or saved by a process that died before it changed anything."""
        if self._journal.step(f"switch:{one.name}"):
            return False
        begun = f"switch:{one.name}" in self._journal.begun
        if begun and one.work.mode == "online" and one.restorer.touched(one.work):
            return False
        return not (begun and one.work.mode != "online")

    # ------------------------------------------------------------------------ services

    def _stop(self) -> None:
        for name in self._journal.plan["stop"]:
            step = f"stop:{name}"
            if self._journal.step(step):
                if not all(self._journal.step(f"switch:{one}") for one in self._ones):
                    self._stop_again(name)
                continue
            service = self._services[name]
            begun = self._journal.begun.get(step)
            state = begun["service"] if begun is not None else service.state()
            self._say(step, service.describe())
            self._journal.begin(step, service=state)
            started = time.perf_counter()
            service.stop(state)
            spent = time.perf_counter() - started
            self._journal.finish(step, seconds=round(spent, 3), service=state)
            self._stopped.add(name)

    def _patience(self) -> float:
        """A stop command may return before its process has ended; where no command says whether
        that runs, those who use a store tell."""
        told = (self._journal.begun[f"stop:{name}"]["service"] for name in self._stopped)
        return _PATIENCE_S if any(state.get("running") is None for state in told) else 0.0

    def _stop_again(self, name: str) -> None:
        """After a crash: a service that was stopped may have been started since, by its machine's
        boot or by somebody."""
        if name in self._stopped:
            return
        service = self._services[name]
        state = service.state()
        step = f"again-stop:{name}"
        if (runs := state.get("running")) is not False:
            self._say(step, service.describe())
            self._journal.begin(step)
        try:
            service.stop(state)
        except ServiceError:
            if runs is not None:  # else its command may have had nothing to stop
                raise
        if runs is not False:
            self._journal.finish(step)
        self._stopped.add(name)

    def _stop_for_back(self) -> None:
        for name in self._journal.plan["stop"]:
            begun = self._journal.begun.get(f"stop:{name}")
            if f"start:{name}" in self._journal.begun and not self._journal.step(
                f"back-stop:{name}"
            ):
                assert begun is not None
                with self._step(f"back-stop:{name}", self._services[name].describe()):
                    self._services[name].stop(self._to_run(begun["service"]))
                self._stopped.add(name)
            elif begun is not None:
                self._stop_again(name)

    def _start(self, word: str) -> None:
        """Start what was stopped, the last first."""
        for name in reversed(self._journal.plan["stop"]):
            begun = self._journal.begun.get(f"stop:{name}")
            step = f"{word}:{name}"
            if begun is None or self._journal.step(step):
                continue
            state = begun["service"] if word != "start" else self._to_run(begun["service"])
            with self._step(step, self._services[name].describe()):
                self._services[name].start(state)

    def _set(self) -> None:
        """Point the services at data that has a new name."""
        for service, source in self._journal.plan["switch"]:
            step = f"set:{service}:{source}"
            if self._journal.step(step):
                continue
            begun = self._journal.begun.get(step)
            old = begun["old"] if begun is not None else self._services[service].current(source)
            path = Path(self._ones[source].work.notes["new_path"])
            self._say(step, f"to {path}")
            self._journal.begin(step, old=old)
            self._services[service].switch(source, self._services[service].value(source, path))
            if service not in self._journal.plan["stop"]:
                self._services[service].restart()
            self._journal.finish(step)
            self._warnings.append(
                f"the configuration still names the old file of {source!r}: set its path to {path}"
            )

    def _health(self) -> None:
        from safetake.services.health import gate

        names = [n for n in self._journal.plan["gate"] if self._config.services[n].health]
        if not names:
            return
        with self._step("health", ", ".join(names), again=True) as facts:
            report = gate(
                {name: self._config.services[name] for name in names},
                lambda name, text: self._say(f"health:{name}", text),
                config=self._config,
            )
            try:
                report.must_be_well()
            except ServiceError as error:
                error.hint += "; when another store is what they lack, restore it together with "
                error.hint += "this one, or add --no-gate"
                raise
            facts["services"] = {health.name: health.last for health in report.services}

    # ------------------------------------------------------------------------ what a drill adds

    def _safe(self, saved: Sequence[One], report: BackupReport, opened: Repository) -> None:
        """Between saving and switching, writers kept out."""

    def _switched(self) -> None:
        """Every store is the restored one; no service was started yet."""

    def _kept(
        self, switched: Sequence[One], opening: Callable[[], Repository] | None
    ) -> Collection[str]:
        """The sources that stay as they are on the way back. What was written to the others goes
        into a snapshot."""
        for one in switched:
            step = f"keep:{one.name}"
            if not self._journal.step(step):
                begun = f"back:{one.name}" in self._journal.begun
                if begun or not written.since(self._journal, one.restorer, one.work):
                    continue
                with self._step(step, "what was written to it meanwhile", again=True) as facts:
                    facts |= written.keep(
                        self._config, one.restorer, one.work, opening, self._progress
                    )
            kept = self._journal.done[step]
            self._told.append(written.told(one.name, one.restorer.type, kept))
        self._warnings += self._told
        return ()

    def _as_before(self) -> str:
        """What the way back led to."""
        return "The data is exactly as it was before"

    def _to_run(self, state: dict[str, Any]) -> dict[str, Any]:
        """After a restore a service runs, also one that had died of its data; what somebody scaled
        to nothing stays there."""
        return state if "replicas" in state else {**state, "running": True}

    # ------------------------------------------------------------------------ back, and the end

    def back(
        self, reason: str = "asked for", opening: Callable[[], Repository] | None = None
    ) -> Outcome:
        """Put everything back, whatever was done. Raises RestoreError when the restore is committed
        already, and what stands in the way otherwise (the journal then stays open).

        The repository is only opened when somebody wrote to what was restored: that is kept there.
        """
        journal = self._journal
        if journal.decision == COMMIT:
            raise RefusedError(
                f"restore {journal.id} is committed; what is left is to clean up after it",
                hint="`safetake restore --resume`, then `safetake restore --undo`",
            )
        if journal.decision != BACK:
            journal.decide(BACK, reason)
        for one in self._ones.values():
            one.restorer.let_go(one.work)
        switched = [o for o in self._ones.values() if f"switch:{o.name}" in journal.begun]
        started = any(step.startswith("back-start:") for step in journal.begun)
        if not started and (switched or any(step.startswith("set:") for step in journal.begun)):
            self._stop_for_back()
        for service, source in reversed(journal.plan["switch"]):
            begun, step = journal.begun.get(f"set:{service}:{source}"), f"unset:{service}:{source}"
            if begun is not None and not journal.step(step):
                with self._step(step, "back to the old setting"):
                    self._services[service].switch(source, begun["old"])
                    if service not in journal.plan["stop"]:
                        self._services[service].restart()
        for one in switched:
            if one.work.mode == "offline" and f"back:{one.name}" not in journal.begun:
                one.quiet(_PATIENCE_S)  # who has the restored data open would go on with it
        kept = self._kept(switched, opening)
        for one in reversed(switched):
            if one.name not in kept and not journal.step(f"back:{one.name}"):
                with self._step(f"back:{one.name}", "the data from before"):
                    one.restorer.switch_back(one.work)
        self._start_again()
        self._end(BACK, kept)
        return self._outcome()

    def _start_again(self) -> None:
        """The data is back: a service that does not start on it is told, and holds nothing up."""
        try:
            self._start("back-start")
        except ServiceError as error:
            self._say("failed", str(error))
            self._problems.append(str(error))
            missed = set(self._journal.begun) - set(self._journal.done)
            for step in sorted(step for step in missed if step.startswith("back-start:")):
                self._journal.finish(step, problem=str(error))
            self._start_again()

    def _end(self, decision: str, kept: Collection[str] = ()) -> None:
        committed = decision == COMMIT
        for one in self._ones.values():
            one.restorer.finish(one.work, committed=committed or one.name in kept)
            if workfolder.mine(one.work.work, self._journal):
                workfolder.clear(one.work.work)
        self._journal.end("committed" if committed else "rolled back")

    def _outcome(self) -> Outcome:
        outcome = Outcome.of(self._journal)
        outcome.warnings, outcome.problems = self._warnings, self._problems
        return outcome
