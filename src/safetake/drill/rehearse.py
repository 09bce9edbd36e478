"""The drill itself, in a process that the kernel keeps to the drill's folder.

`python -m safetake.drill.rehearse PLAN ANSWER`: copies are restored, something newer is written,
what is there is remembered item by item, the disaster is made, the real commands recover, and what
is there then is compared. Services are started on the copies and asked, before and after.
The answer is written after each step, so that what was found survives whatever ends the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from safetake.clock import now_ns
from safetake.configdrill import DrillServiceConfig, ScenarioConfig
from safetake.drill import processes
from safetake.drill.lose import add_newer, lose
from safetake.drill.truth import Difference, Truth, files, keys, records, rows
from safetake.errors import SafetakeError

_LAST_OUTPUT = 1500


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
        self.paths_lost: dict[str, list[str]] = {}
        self.answer: dict[str, Any] = {"checks": [], "steps": [], "problems": [], "measured": {}}

    @property
    def whole(self) -> set[str]:
        """Sources that are lost as a whole."""
        return {loss.source for loss in self.scenario.lose if loss.everything}

    @property
    def lost(self) -> list[str]:
        """Sources that something is lost of."""
        return list(dict.fromkeys(loss.source for loss in self.scenario.lose))

    def run(self) -> None:
        """Everything; what went wrong is in the answer."""
        try:
            self._run()
        except Failed:
            pass  # its step says so
        finally:
            for name in (*self.services, *self.ports):
                processes.kill(self.folder / "processes", name)
            self._write()

    def _run(self) -> None:
        with self._step("copies: restore the snapshot beside"):
            self._copies()
        with self._step("services: start on the copies, and answer"):
            self._services_well("before the loss")
        with self._step("services: stop"):
            self._stop_services()
        old: dict[str, dict[str, int]] = {}
        with self._step("newer: what is written after the snapshot"):
            for name, kind in self.kinds.items():
                if name not in self.whole:
                    old[name] = add_newer(kind, self.places[name], self.ports.get(name, 0))
        with self._step("truth: remember every item"):
            before = self._truth("before")
        with self._step("disaster: " + (self.scenario.description or "what the scenario says")):
            self._disaster(old)
        with self._step("loss: see that it is real"):
            after = self._truth("lost", redis=True)
            for name in self.lost:
                difference = before.compare(after, name)
                self._check("something was lost", name, bool(difference), "a loss", difference)
        start = time.monotonic()
        with self._step("recover: with the commands that an operator types"):
            self._recover()
        recovered = time.monotonic()
        with self._step("compare: every item with what was there"):
            now = self._truth("after")
            for name in self.kinds:
                difference = before.compare(now, name)
                self._check(
                    "every item is as it was before the loss", name, not difference,
                    f"{before.count(name)} items", difference,
                )  # fmt: skip
        compared = time.monotonic()
        with self._step("services: start on what came back, and answer"):
            self._services_well("after the recovery")
        took = recovered - start + time.monotonic() - compared
        whole = "rto_seconds" if self.whole else "partial_rto_seconds"
        self.answer["measured"][whole] = round(took, 3)
        with self._step("integrity: checks of the configuration on what came back"):
            self._integrity()

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
            from safetake.sources.redis.wire import Address, Connection

            address = Address("127.0.0.1", self.ports[name], "", False, None, None)
            with Connection(address) as connection:
                return "" if connection.call("PING") else "no answer"

        self._until(answers, name)

    def _truth(self, when: str, *, redis: bool = False) -> Truth:
        truth = Truth(self.folder / f"truth-{when}.db")
        for name, kind in self.kinds.items():
            place = self.places[name]
            if name in self.whole and when == "lost" and kind != "redis":
                truth.take(name, ())  # nothing is there that could be opened
            elif kind == "sqlite":
                truth.take(name, rows(place))
            elif kind == "chroma":
                truth.take(name, records(place, self.folder / "tmp"))
            elif kind == "redis":
                truth.take(name, keys(self.ports[name]))
            else:
                truth.take(name, files(place))
        return truth

    def _disaster(self, old: dict[str, dict[str, int]]) -> None:
        for loss in self.scenario.lose:
            name, kind = loss.source, self.kinds[loss.source]
            if loss.everything and kind == "redis":
                processes.kill(self.folder / "processes", name)
                for path in (self.folder / "data" / name).iterdir():
                    path.unlink()
                self._start_redis(name)  # a new, empty server
                continue
            lost = lose(loss, kind, self.places[name], self.ports.get(name, 0), old.get(name, {}))
            self.paths_lost.setdefault(name, []).extend(lost)

    def _recover(self) -> None:
        if self.whole:
            self._safetake("restore", self.snapshot, *sorted(self.whole), "--in-place", "--yes")
        changed = ["--changed"] if self.scenario.changed else []
        for name in self.lost:
            if name in self.whole:
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
                paths = [word for path in self.paths_lost[name] for word in ("--path", path)]
                words = ["restore", self.snapshot, name, "--in-place", "--online"]
                self._safetake(*words, *paths, "--yes")

    def _recover_records(self, name: str, changed: list[str]) -> None:
        """Through a Chroma server on the folder, started for it."""
        processes.start(self.folder / "processes", name)
        beat = f"http://127.0.0.1:{self.ports[name]}/api/v2/heartbeat"
        self._until(partial(_unanswered, beat), name)
        chosen = [word for one in self._collections(name) for word in ("--collection", one)]
        words = ["restore", self.snapshot, name, "--in-place", *chosen]
        self._safetake(*words, *changed, "--yes", config="safetake-servers.toml")
        if not processes.stop(self.folder / "processes", name):
            raise SafetakeError("the Chroma server did not stop")

    def _collections(self, name: str) -> list[str]:
        truth = Truth(self.folder / "truth-before.db")
        found = list(truth.parts(name))
        truth.close()
        return found

    def _services_well(self, when: str) -> None:
        for name, service in self.services.items():
            processes.start(self.folder / "processes", name)
            if not service.health:
                continue
            try:
                said = self._until(partial(_unwell, service), name)
            except SafetakeError as error:
                self._check(f"{name} is well {when}", "", False, "2xx", str(error))
                raise Failed from error
            self._check(f"{name} is well {when}", "", True, "2xx", said or "2xx")

    def _stop_services(self) -> None:
        for name in self.services:
            if not processes.stop(self.folder / "processes", name):
                raise SafetakeError(f"{name} did not stop")

    def _integrity(self) -> None:
        found = self._safetake("integrity", codes=(0, 1))
        findings = found.get("findings", [])
        for finding in findings:
            self._check(
                str(finding.get("check", "")), str(finding.get("source", "")),
                bool(finding.get("ok")) or finding.get("level") != "error",
                "no finding", finding.get("detail") or finding.get("ids"),
            )  # fmt: skip
        if not findings:
            self._check("integrity has no finding", "", True)

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

    def _until(self, ask: Callable[[], str], name: str) -> str:
        """Ask until it answers with no complaint; returns what it said. Raises SafetakeError."""
        deadline = time.monotonic() + self.start_timeout
        while True:
            complaint = ""
            try:
                complaint = ask()
            except (SafetakeError, OSError) as error:
                complaint = str(error)
            if not complaint:
                return ""
            where = self.folder / "processes"
            if not processes.running(where, name):
                complaint = f"it ended: {processes.last_words(where, name)}"
                raise SafetakeError(f"{name} is not well: {complaint}")
            if time.monotonic() > deadline:
                raise SafetakeError(
                    f"{name} is not well after {self.start_timeout:.0f} s: {complaint}"
                )
            time.sleep(0.1)

    def _check(
        self, name: str, source: str, ok: bool, expected: Any = None, found: Any = None
    ) -> None:
        words = found.words() if isinstance(found, Difference) else found
        self.answer["checks"].append(
            {"name": name, "source": source, "ok": ok, "expected": expected, "found": words}
        )

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


def _unanswered(url: str) -> str:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.reason}"
    except urllib.error.URLError as error:
        return str(error.reason)
    return ""


def _unwell(service: DrillServiceConfig) -> str:
    if complaint := _unanswered(service.health):
        return complaint
    with urllib.request.urlopen(service.health, timeout=5) as answer:
        said = answer.read(1 << 16).decode("utf-8", "replace")
    if service.contains and service.contains not in said:
        return f"it answers without {service.contains!r}: {said[:200]}"
    return ""


def main(plan: Path, answer: Path) -> int:
    """Rehearse; the answer's file tells how it went."""
    os.umask(0o077)
    Rehearsal(json.loads(plan.read_text(encoding="utf-8")), answer).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
