"""The drill itself, in a process that the kernel keeps to the drill's folder.

`python -m safetake.drill.rehearse PLAN ANSWER LIFELINE`: copies are restored, something newer is
written, what is there is remembered item by item, the disaster is made, the real commands recover,
and what is there then is compared. Services are started on the copies and asked, before and after.
The answer is written after each step, so that what was found survives whatever ends the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from safetake.clock import now_ns
from safetake.configdrill import DrillServiceConfig
from safetake.configscenario import LossConfig, ScenarioConfig
from safetake.drill import bare, health, hold, processes, scratchredis
from safetake.drill.aftermath import Aftermath
from safetake.drill.expected import by_restic
from safetake.drill.items import Item, items
from safetake.drill.lose import Taken, add_newer, lose, pattern
from safetake.drill.newer import Old
from safetake.drill.started import started, until
from safetake.drill.truth import Difference, Truth
from safetake.errors import SafetakeError

_LAST_OUTPUT = 1500
_NAMED = 100
"""Files that are named one by one to bring them back; more of them come back with all others."""


class Failed(Exception):
    """A step that could not be done; what follows makes no sense."""


class Rehearsal:
    """One drill. `plan` is what `drill.run` wrote."""

    def __init__(self, plan: dict[str, Any], answer: Path) -> None:
        self.answer_file = answer
        self.snapshot: str = plan["snapshot"]
        self.kinds: dict[str, str] = plan["sources"]
        self.places = {name: Path(place) for name, place in plan["places"].items()}
        self.ports: dict[str, int] = plan["store_ports"]
        self.redis: dict[str, list[str]] = plan["redis_commands"]
        self.folder = Path(plan["folder"])
        self.scenario = ScenarioConfig.model_validate(plan["scenario"])
        self.services = {
            name: DrillServiceConfig.model_validate(told) for name, told in plan["services"].items()
        }
        self.start_timeout: float = plan["start_timeout"]
        self.left = Aftermath(self.folder, plan["left"])
        self.started = started(self.services, self.folder / "processes", self.start_timeout)
        self.judge = ""
        """Who brought back what is expected, in words; empty: it was there before."""
        self.taken: list[tuple[LossConfig, Taken]] = []
        """What each loss took."""
        self.empty: set[str] = set()
        """Sources that something was to be lost of, and that hold nothing."""
        self.answer: dict[str, Any] = {"checks": [], "steps": [], "problems": [], "measured": {}}

    @property
    def whole(self) -> set[str]:
        """Sources that are lost as a whole."""
        return {loss.source for loss in self.scenario.lose if loss.everything}

    @property
    def lost(self) -> list[str]:
        """Sources that something is lost of."""
        return list(dict.fromkeys(loss.source for loss in self.scenario.lose))

    def _dropped(self, name: str) -> list[str]:
        return [
            one.collection for one in self.scenario.lose if one.source == name and one.collection
        ]

    def run(self) -> None:
        """Everything; what went wrong is in the answer."""
        try:
            self._run()
        except Failed:
            pass  # its step says so
        finally:
            for one in self.started.values():
                one.kill()
            for name in self.ports:
                processes.kill(self.folder / "processes", name)
            self._write()

    def _run(self) -> None:
        expected: Truth | None = None
        if self.left.other:
            with self._step(f"expected: what snapshot {self.left.snapshot[:8]} holds"):
                expected = self._expected()
        with self._step("copies: restore the snapshot beside"):
            self._copies()
        counts: Truth | None = None
        if self._counting:
            with self._step("truth: count what is there"):
                counts = self._truth("copies")
        with self._step("services: start on the copies, and answer"):
            self._services_well("before the loss", counts)
        with self._step("services: stop"):
            self._stop_services()
        old: dict[str, dict[str, Old]] = {}
        plain = Truth(self.folder / "truth-plain.db")
        by_sql = {loss.source for loss in self.scenario.lose if loss.sql}
        with self._step("newer: what is written after the snapshot"):
            for name in by_sql:
                plain.take(name, self._items(name, self.places[name]))
            for name, kind in self.kinds.items():
                if name not in self.whole:
                    port = self.ports.get(name, 0)
                    dropped = self._dropped(name)
                    old[name], without = add_newer(kind, self.places[name], port, dropped)
                    if without:
                        self._note(f"{name}: nothing newer could be written to {without}")
        with self._step("truth: remember every item"):
            before = self._truth("before")
        then, what = before, "every item is as it was before the loss"
        if expected is not None:
            then, what = expected, "every item is as the snapshot had it"
            for name in set(self.kinds) - self.whole:
                expected.adopt(before, name)
        with self._step("disaster: " + (self.scenario.description or "what the scenario says")):
            self._disaster(old)
            self._strike()
        with self._step("loss: see that it is real"):
            after = self._truth("lost", redis=True)
            self._loss_is_real(before, after)
            for name in by_sql:
                if gone := then.concede(plain, after, name):
                    self._note(f"{name}: the loss also took {gone} of what is newer than the "
                               "snapshot: nothing brings that back")  # fmt: skip
        if asked := [name for name in self._counting if self._uses(name) <= self.whole]:
            with self._step("services: none tells of what is gone"):
                self._services_know(asked, before)
        start = time.monotonic()
        with self._step("recover: with the commands that an operator types"):
            if self.left.machine:
                self._recover_bare()
            else:
                self._recover()
        recovered = time.monotonic()
        with self._step("compare: every item with what was there"):
            now = self._truth("after")
            for name in self.kinds:
                difference = then.compare(now, name)
                count = f"{then.count(name)} items{self.judge}"
                self._check(what, name, not difference, count, difference)
        compared = time.monotonic()
        with self._step("services: start on what came back, and answer"):
            self._services_well("after the recovery", then)
        took = recovered - start + time.monotonic() - compared
        whole = "rto_seconds" if self.whole else "partial_rto_seconds"
        self.answer["measured"][whole] = round(took, 3)
        with self._step("integrity: checks of the configuration on what came back"):
            self._integrity()
        if self.scenario.hold:
            with self._step("hold: what the scenario says must be true"):
                for one in self.scenario.hold:
                    place = self.places[one.source] if one.source is not None else None
                    self._check(one.name, one.source or "", *hold.asked(one, place))

    # ------------------------------------------------------------------------------- the parts

    def _copies(self) -> None:
        beside = [name for name, kind in self.kinds.items() if kind != "redis"]
        if beside:
            target = str(self.folder / "data" / "restored")
            self._safetake("restore", self.snapshot, *beside, "--to", target)
            for name in beside:
                (self.folder / "data" / "restored" / name).rename(self.folder / "data" / name)
                if not self.places[name].exists():
                    raise SafetakeError(f"{name}: the snapshot has no {self.places[name].name}")
        for name in self.redis:
            self._start_redis(name)
            words = ("restore", self.snapshot, name, "--in-place", "--online", "--yes")
            self._safetake(*words)

    def _start_redis(self, name: str) -> None:
        (self.folder / "data" / name).mkdir(mode=0o700, exist_ok=True)
        processes.start(self.folder / "processes", name)

        def answers() -> str:
            with scratchredis.connection(self.ports[name]) as connection:
                return "" if connection.call("PING") else "no answer"

        self._until(answers, name)

    def _truth(self, when: str, *, redis: bool = False) -> Truth:
        truth = Truth(self.folder / f"truth-{when}.db")
        for name, kind in self.kinds.items():
            if name in self.whole and when == "lost" and kind != "redis":
                truth.take(name, ())  # nothing is there that could be opened
            else:
                truth.take(name, self._items(name, self.places[name]))
        return truth

    def _items(self, name: str, place: Path) -> Iterator[Item]:
        return items(self.kinds[name], place, self.ports.get(name, 0), self.folder / "tmp")

    def _expected(self) -> Truth:
        """What comes back, by another tool: the one that is judged must not be the judge."""
        target, left = self.folder / "expected", self.left
        tool = by_restic(left.location, left.password_file, left.snapshot, target)
        if not tool:
            tool = "safetake restore --to"
            self._safetake("restore", left.snapshot, "--to", str(target), config=left.config)
        self.judge = f", brought back by {tool}"
        truth = Truth(self.folder / "truth-expected.db")
        for name, kind in self.kinds.items():
            if kind != "redis":
                inside = [self.places[name].name] if kind == "sqlite" else []
                truth.take(name, self._items(name, (target / name).joinpath(*inside)))
                continue
            (target / name).rename(self.folder / "data" / name)
            self._start_redis(name)
            truth.take(name, self._items(name, self.places[name]))
            processes.kill(self.folder / "processes", name)
            shutil.rmtree(self.folder / "data" / name)
        shutil.rmtree(target)
        return truth

    def _disaster(self, old: dict[str, dict[str, Old]]) -> None:
        for loss in self.scenario.lose:
            name, kind = loss.source, self.kinds[loss.source]
            if loss.everything and kind == "redis":
                processes.kill(self.folder / "processes", name)
                for path in (self.folder / "data" / name).iterdir():
                    path.unlink()
                self._start_redis(name)  # a new, empty server
                continue
            took = lose(loss, kind, self.places[name], self.ports.get(name, 0), old.get(name, {}))
            self.taken.append((loss, took))

    def _loss_is_real(self, before: Truth, after: Truth) -> None:
        """Each loss took something, or there was nothing to take. Raises Failed."""
        said = {}
        for name in self.lost:
            difference = before.compare(after, name)
            missed = [one for one, took in self.taken if one.source == name and not took.items]
            named = [one.told for one in missed if one.share is None]
            if named:
                said[name] = f"nothing is lost by {', '.join(named)}"
            elif difference:
                self._check("something was lost", name, True, "a loss", difference)
            elif any(one.sql for one, _ in self.taken if one.source == name):
                said[name] = "it changed rows to what they were"
            else:
                self.empty.add(name)
        for name in self.empty:
            self._note(f"{name} is empty: nothing can be lost of it")
        if self.empty == set(self.lost):
            said |= dict.fromkeys(self.empty, "there is nothing in it")
        for name, found in said.items():
            self._check("something was lost", name, False, "a loss", found)
        if said:
            raise Failed

    def _strike(self) -> None:
        for name, ok, expected, found in self.left.strike():
            self._check(name, "", ok, expected, found)
        if self.left.gone and not self.left.machine:
            listed = {one["id"] for one in self._safetake("snapshots")}
            self._check(*self.left.newest(self.left.gone in listed))
        self.snapshot = self.left.snapshot

    def _recover_bare(self) -> None:
        commands = self.answer.setdefault("commands", [])
        restored = bare.bring_back(self.folder, self.left.password, commands.append)
        for name in self.redis:
            processes.kill(self.folder / "processes", name)
        bare.put_into_place(restored, self.folder / "data", self.kinds)
        for name in self.redis:
            self._start_redis(name)
        self.left.give_back()

    def _recover(self) -> None:
        if self.whole:
            self._safetake("restore", self.snapshot, *sorted(self.whole), "--in-place", "--yes")
        changed = ["--changed"] if self.scenario.changed else []
        for name in self.lost:
            if name in self.whole or name in self.empty:
                continue
            kind = self.kinds[name]
            if kind == "sqlite":
                words = ["rows", self.snapshot, name, "--apply", *changed, "--yes"]
                self._safetake(*words, codes=(0, 3))  # 3: rows left out; the comparison names them
            elif kind == "chroma":
                self._recover_records(name, changed)
            elif kind == "redis":
                words = ["restore", self.snapshot, name, "--in-place", "--keys", "*"]
                self._safetake(*words, *changed, "--yes")
            else:
                lost = [path for one, took in self.taken if one.source == name
                        for path in took.paths]  # fmt: skip
                named = lost if len(lost) <= _NAMED else []
                paths = [word for path in named for word in ("--path", pattern(path))]
                words = ["restore", self.snapshot, name, "--in-place", "--online"]
                self._safetake(*words, *paths, "--yes")

    def _recover_records(self, name: str, changed: list[str]) -> None:
        """Through a Chroma server on the folder, started for it."""
        processes.start(self.folder / "processes", name)
        beat = f"http://127.0.0.1:{self.ports[name]}/api/v2/heartbeat"
        self._until(partial(health.unwell, beat), name)
        dropped = self._dropped(name)
        only = len(dropped) == sum(one.source == name for one in self.scenario.lose)
        wanted = dropped if only else self._collections(name)
        chosen = [word for one in wanted for word in ("--collection", one)]
        words = ["restore", self.snapshot, name, "--in-place", *chosen]
        self._safetake(*words, *changed, "--yes", config="safetake-servers.toml")
        if not processes.stop(self.folder / "processes", name):
            raise SafetakeError("the Chroma server did not stop")

    def _collections(self, name: str) -> list[str]:
        truth = Truth(self.folder / "truth-before.db")
        found = list(truth.parts(name))
        truth.close()
        return found

    @property
    def _counting(self) -> list[str]:
        """Services whose answer must tell how many items there are."""
        return [name for name, one in self.services.items() if health.COUNT.search(one.contains)]

    def _uses(self, service: str) -> set[str]:
        return set(self.services[service].uses or self.kinds)

    def _services_well(self, when: str, counts: Truth | None) -> None:
        for name, service in self.services.items():
            contains = health.counted(service.contains, counts) if counts else service.contains
            try:
                self.started[name].start()
                if not service.health:
                    self._note(f"{name} was started {when}; without `health` nobody can ask it")
                    continue
                self.started[name].until_well(contains)
                complaint = ""
            except SafetakeError as error:
                complaint = str(error)
            self._check(f"{name} is well {when}", "", not complaint, "2xx", complaint or "2xx")
            if complaint:
                raise Failed

    def _services_know(self, names: list[str], before: Truth) -> None:
        """Each may end, or say that it is not well; it may not answer as if nothing was gone."""
        for name in names:
            contains = health.counted(self.services[name].contains, before)
            complaint = self.started[name].complaint(contains)
            self._check(
                f"{name} knows that its data is gone", "", bool(complaint), "another answer",
                complaint or f"it still answers with {contains!r}",
            )  # fmt: skip
        self._stop_services()

    def _stop_services(self) -> None:
        for one in self.started.values():
            one.stop()

    def _integrity(self) -> None:
        found = self._safetake("integrity", codes=(0, 1))
        findings = found.get("findings", [])
        asked = False
        for finding in findings:
            name, source = str(finding.get("check", "")), str(finding.get("source", ""))
            level, good = finding.get("level"), bool(finding.get("ok"))
            if level == "not asked" or (level != "error" and not good):
                # neither proves anything: a note, as `safetake integrity` has it
                word = "not asked" if level == "not asked" else "warning"
                self._note(f"{word}: {source}: {name}: {finding.get('detail', '')}")
                continue
            said = finding.get("detail") or finding.get("ids")
            self._check(name, source, good, "no finding", said or "none")
            asked = True
        if not asked:
            self._check("integrity asks something", "", False, "an answer", "none")

    # ------------------------------------------------------------------------------ the machinery

    def _safetake(
        self, *words: str, codes: tuple[int, ...] = (0,), config: str = "safetake.toml"
    ) -> Any:
        """Run the command on the twin's configuration; its JSON."""
        place = ["--config", str(self.folder / config)]
        command = [sys.executable, "-m", "safetake", *place, "--json", *words]
        done = subprocess.run(command, capture_output=True, check=False)
        self.answer.setdefault("commands", []).append(" ".join(["safetake", *words])[:500])
        try:
            found = json.loads(done.stdout)
        except ValueError:
            found = {}
        if done.returncode not in codes:
            said = found.get("error", {}).get("message") if isinstance(found, dict) else ""
            last = done.stderr.decode("utf-8", "replace")[-_LAST_OUTPUT:]
            raise SafetakeError(
                f"`safetake {' '.join(words)[:300]}` ended with {done.returncode}: {said or last}"
            )
        return found

    def _until(self, ask: Callable[[], str], name: str) -> None:
        """Ask a server of the drill until it has no complaint. Raises SafetakeError."""
        until(ask, self.folder / "processes", name, self.start_timeout)

    def _check(
        self, name: str, source: str, ok: bool, expected: Any = None, found: Any = None
    ) -> None:
        words = found.words() if isinstance(found, Difference) else found
        self.answer["checks"].append(
            {"name": name, "source": source, "ok": ok, "expected": expected, "found": words}
        )

    def _note(self, text: str) -> None:
        self.answer.setdefault("notes", []).append(text)

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began, started_ns = time.monotonic(), now_ns()
        step: dict[str, Any] = {"name": name, "started_ns": started_ns, "seconds": 0.0, "ok": False}
        self.answer["steps"].append(step)
        print(f"step {name}", flush=True)
        try:
            yield
            step["ok"] = True
        except Failed:
            raise
        except (SafetakeError, OSError) as error:
            step["detail"] = str(error)
            self.answer["problems"].append(f"{name}: {error}")
            raise Failed from error
        finally:
            step["seconds"] = round(time.monotonic() - began, 3)
            self._write()

    def _write(self) -> None:
        fresh = self.answer_file.with_suffix(".new")
        fresh.write_text(json.dumps(self.answer, default=str), encoding="utf-8")
        fresh.rename(self.answer_file)


def main(plan: Path, answer: Path, lifeline: int) -> int:
    """Rehearse; the answer's file tells how it went. `lifeline`: see `processes.end_with`."""
    os.umask(0o077)
    rehearsal = Rehearsal(json.loads(plan.read_text(encoding="utf-8")), answer)
    folder = rehearsal.folder
    processes.end_with(lifeline, folder / "processes", folder / "home")
    rehearsal.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
