"""A drill from outside: the twin, the confinement, the evidence, and the rungs that it proves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake import sandbox
from safetake.clock import now_ns
from safetake.drill import health, priority, processes, scratchredis, without
from safetake.drill.kubernetes import Pods, prepared
from safetake.drill.rungs import record_rung
from safetake.drill.scenario import check, find_scenario, needed, targets
from safetake.drill.started import ASKED
from safetake.drill.twin import Twin, allowed_ports, build
from safetake.drill.without import Left, NothingLeftError
from safetake.errors import RefusedError, SafetakeError, UsageError
from safetake.evidence import Check, Draft, Evidence, Step, save
from safetake.evidence.versions import place, versions
from safetake.scratch import scratch_folder
from safetake.snapshots import SnapshotInfo, read_manifest

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.configscenario import ScenarioConfig
    from safetake.repository import Repository

_GRACE_SECONDS = 20.0
WELL_AGAIN = "is well after the recovery"
UNTOUCHED = "production was out of reach"
ABSENT = "not rehearsed: "


@dataclass(slots=True)
class Wanted:
    """What is to be rehearsed."""

    scenario: str
    sources: Sequence[str] = ()
    unconfined: bool = False
    """Go on where the kernel can not keep the drill to its folder."""


def drill(
    config: Config,
    repository: Repository,
    snapshot: SnapshotInfo,
    wanted: Wanted,
    password: str,
    told: Callable[[str], None] = lambda step: None,
) -> Evidence:
    """Rehearse a disaster, keep the evidence, and record the rungs that were reached.

    `told` hears each step. The repository is only read by the drill; the evidence is written when
    it is over, also when it failed. Raises UsageError, RefusedError where the kernel can not keep
    it to its folder, SafetakeError when there is no room.
    """
    sources = _sources(repository, snapshot, wanted.sources)
    scenario = find_scenario(config, wanted.scenario, list(sources))
    check(scenario, wanted.scenario, snapshot, sources)
    confinement = _confinement(wanted.unconfined)
    without.refuse_unhidden(scenario, confinement)
    started_ns = now_ns()
    kinds = {name: entry["type"] for name, entry in sources.items()}
    with (
        repository.lock(exclusive=False),
        prepared(config, kinds, wanted.unconfined) as pods,
        scratch_folder(config.drill.scratch) as folder,
        contextlib.ExitStack() as held,
    ):
        left = Left(repository, config.repository.location, snapshot, password)
        try:
            left = without.find(
                config, repository, snapshot, scenario, list(sources), password, held
            )
            _room(folder, sources, 4 if left.snapshot.tree != snapshot.tree else 3)
            twin = build(config, folder, kinds, password, held, redis_password=pods is not None)
            rest = without.lay_out(folder, twin.written, config, left, scenario, snapshot)
            plan = _plan(config, twin, snapshot, kinds, sources, scenario, pods)
            answer = _rehearse(config, twin, {**plan, "left": rest}, confinement, told, pods)
            measured = answer["measured"]
            measured["bytes"] = float(sum(int(e.get("bytes") or 0) for e in sources.values()))
            measured["rpo_seconds"] = (started_ns - left.snapshot.time_ns) / 1e9
        except NothingLeftError as error:
            answer = {"checks": [error.check], "steps": [], "problems": [], "measured": {}}
        answer["notes"] = [*answer.get("notes", []), *left.notes]
        for name, service in config.drill.services.items():
            if unused := [source for source in service.uses if source not in kinds]:
                answer["notes"].append(
                    f"{name} was not started: it uses {', '.join(unused)}, not rehearsed here"
                )
        absent = [name for name in config.sources if name not in snapshot.sources]
        if absent and not needed(config, wanted.scenario, wanted.sources):
            answer["notes"].append(f"{ABSENT}{', '.join(absent)}, not in this snapshot")
        draft = _draft(
            config, left.repository, left.snapshot, wanted, answer, started_ns, confinement,
            targets(config, scenario),
        )  # fmt: skip
        document = save(repository, draft)
        whole = {loss.source for loss in scenario.lose if loss.everything}
        if document.verdict == "passed" and whole == set(left.snapshot.sources):
            well = [one.ok for one in document.checks if one.name.endswith(WELL_AGAIN)]
            # in the repository that it came back from: in another one nothing of it was read
            record_rung(left.repository, left.snapshot, document, answered=any(well))
    return document


def _sources(
    repository: Repository, snapshot: SnapshotInfo, chosen: Sequence[str]
) -> dict[str, Any]:
    manifest = read_manifest(repository.reader(), snapshot)
    if manifest is None:
        raise UsageError(
            f"snapshot {snapshot.id[:8]} was not made by safetake: nobody knows what is in it"
        )
    there: dict[str, Any] = manifest["sources"]
    for name in chosen:
        if name not in there:
            raise UsageError(
                f"snapshot {snapshot.id[:8]} has no source {name!r}",
                hint="it has: " + ", ".join(there),
            )
    return {name: there[name] for name in (chosen or there)}


def _confinement(unconfined: bool) -> sandbox.Confinement:
    version = sandbox.abi()
    found = sandbox.Confinement(folders=version >= 3, ports=version >= 4, signals=version >= 6)
    if (not found.folders or not found.ports) and not unconfined:
        raise RefusedError(
            "the kernel can not keep the drill away from production: it does not restrict "
            + ", ".join(found.missing()),
            hint="Linux 6.7 or newer with Landlock does; or --unconfined, where production is "
            "out of reach by other means",
        )
    return found


def _room(folder: Path, sources: dict[str, Any], times: int) -> None:
    from safetake.wording import size

    needed = times * sum(int(entry.get("bytes") or 0) for entry in sources.values())
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if free < needed:
        raise SafetakeError(
            f"no room for a drill in {folder.parent}: {size(needed)} may be needed, "
            f"{size(free)} are free",
            hint="set [drill] scratch to a folder with more room",
        )


def _plan(
    config: Config,
    twin: Twin,
    snapshot: SnapshotInfo,
    kinds: dict[str, str],
    entries: dict[str, Any],
    scenario: ScenarioConfig,
    pods: Pods | None,
) -> dict[str, Any]:
    redis = {
        name: _redis_command(name, entries[name], twin.store_ports[name], twin.data / name)
        for name, kind in kinds.items()
        if kind == "redis"
    }
    if pods is not None:
        pods.see(twin, kinds)
        file = twin.folder / "redis.conf"
        redis = {
            name: scratchredis.reachable(command, pods.address, file, pods.password)
            for name, command in redis.items()
        }
    for name, command in redis.items():
        processes.describe(twin.processes, name, command, {})
    for name, kind in kinds.items():
        if kind == "chroma":
            processes.describe(twin.processes, name, _chroma_command(twin, name), {})
    services: dict[str, Any] = {}
    for name, service in config.drill.services.items():
        if service.uses and not set(service.uses) <= set(kinds):
            continue
        for unknown in health.unknown_counts(service.contains, kinds):
            raise UsageError(
                f"drill.services.{name}.contains: {unknown} is of no source that is rehearsed",
                hint="sources are: " + ", ".join(kinds) + "; `uses` says which ones it needs",
            )
        told = services[name] = service.model_dump()
        if service.kubernetes is not None:
            continue  # its pod is made by `pods`
        told["command"] = [twin.filled(word, name) for word in service.command]
        told["environment"] = {k: twin.filled(v, name) for k, v in service.environment.items()}
        told["health"] = twin.filled(service.health, name)
        processes.describe(twin.processes, name, told["command"], told["environment"])
    return {
        "snapshot": snapshot.id,
        "sources": kinds,
        "places": twin.places,
        "store_ports": twin.store_ports,
        "redis_commands": redis,
        "folder": str(twin.folder),
        "scenario": _told(scenario, twin),
        "services": services,
        "start_timeout": config.drill.start_timeout,
    }


def _told(scenario: ScenarioConfig, twin: Twin) -> dict[str, Any]:
    """What the drill's process must know of it; where a password is, is nothing for a plan."""
    told = scenario.model_dump(include={"description", "lose", "changed", "hold"})
    for hold in told["hold"]:
        where = f"what must hold ({hold['name']})"
        hold["command"] = [twin.filled(word, where=where) for word in hold["command"]]
    return told


def _redis_command(name: str, entry: dict[str, Any], port: int, folder: Path) -> list[str]:
    from safetake.sources.redis.scratch import fitting
    from safetake.sources.redis.server import parse_version

    facts = entry["facts"]
    family, version = str(facts.get("family", "redis")), str(facts.get("version", "0"))
    binaries = fitting(family, parse_version(version))
    if not binaries:
        raise SafetakeError(
            f"{name}: no {family} server {version} or newer is installed to rehearse on",
            hint="install one beside safetake, or name the other sources",
        )
    return scratchredis.command(binaries[0].path, port, folder)


def _chroma_command(twin: Twin, name: str) -> list[str]:
    """The server that brings records back, as an operator starts it beside an application that
    is stopped."""
    program = "from chromadb.cli.cli import app; app()"
    words = ["run", "--path", twin.places[name], "--host", "127.0.0.1"]
    return [sys.executable, "-c", program, *words, "--port", str(twin.store_ports[name])]


def _rehearse(
    config: Config,
    twin: Twin,
    plan: dict[str, Any],
    confinement: sandbox.Confinement,
    told: Callable[[str], None],
    pods: Pods | None,
) -> dict[str, Any]:
    """Run the child to its end, whatever happens; what it answered."""
    plan_file, answer_file = twin.folder / "plan.json", twin.folder / "answer.json"
    plan_file.write_text(json.dumps(plan), encoding="utf-8")
    lifeline, ours = os.pipe()  # when we are gone, it is closed, and the drill ends
    words = [sys.executable, "-m", "safetake.drill.rehearse"]
    words += [str(plan_file), str(answer_file), str(lifeline)]
    if confinement.folders:
        closed = [] if pods is None else [pods.api_port]
        ports = allowed_ports(config, twin, closed) if confinement.ports else None
        words = sandbox.command(words, [twin.folder], ports)
    environment = {
        **{key: value for key, value in os.environ.items() if key in _INHERITED},
        "HOME": str(twin.folder / "home"),
        "TMPDIR": str(twin.folder / "tmp"),
    }
    if pods is not None:
        environment[scratchredis.PASSWORD] = pods.password
    with (twin.folder / "output").open("wb") as errors, os.fdopen(lifeline):
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL if pods is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors,
            env=environment, cwd=twin.folder, start_new_session=True, text=True,
            pass_fds=[lifeline],
        )  # fmt: skip
    if config.drill.priority == "low":
        priority.lower(child.pid)
    ended, step = "the drill ended early", "its start"
    timer = _Timer(child, config.drill.timeout)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step "):
                step = line[5:].rstrip("\n")
                told(step)
            elif pods is not None and line.startswith(ASKED) and child.stdin is not None:
                answered = pods.answer(line.removeprefix(ASKED))
                with contextlib.suppress(BrokenPipeError):  # its time was over meanwhile
                    print(answered, file=child.stdin, flush=True)
        child.wait()
        if timer.rang:
            ended = f"the drill took longer than {config.drill.timeout:.0f} s, at `{step}`"
    finally:
        timer.cancel()
        if child.stdin is not None:
            with contextlib.suppress(OSError):  # an answer that nobody read
                child.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        os.close(ours)
        for name in (*plan["services"], *plan["store_ports"]):
            processes.kill(twin.processes, name)
        processes.sweep(twin.folder / "home")
    answer: dict[str, Any] = {"checks": [], "steps": [], "problems": [], "measured": {}}
    with contextlib.suppress(FileNotFoundError):
        answer = json.loads(answer_file.read_text(encoding="utf-8"))
    if pods is not None:
        answer["problems"] += pods.end()
        answer["checks"] += [check.model_dump() for check in pods.checks]
        answer["notes"] = [*answer.get("notes", []), *pods.notes]
    if child.returncode != 0:
        last = (twin.folder / "output").read_text(encoding="utf-8", errors="replace").strip()
        answer["problems"].append(f"{ended}: {(last.splitlines() or ['nothing was said'])[-1]}")
    return answer


_INHERITED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""Of the environment: no credentials of production reach a drill."""


class _Timer:
    """SIGTERM to the child when the time is over, SIGKILL a little later."""

    def __init__(self, child: subprocess.Popen[str], seconds: float) -> None:
        import threading

        self.rang = False
        self._child = child
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        self.rang = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def cancel(self) -> None:
        self._timer.cancel()


def _draft(
    config: Config,
    repository: Repository,
    snapshot: SnapshotInfo,
    wanted: Wanted,
    answer: dict[str, Any],
    started_ns: int,
    confinement: sandbox.Confinement,
    promised: dict[str, float],
) -> Draft:
    host, user = place()
    kept = "kept by the kernel to its own folder, TCP ports and processes"
    if confinement.missing():
        found = "not enforced here: " + ", ".join(confinement.missing())
    else:
        urls = (str(getattr(source, "url", None)) for source in config.sources.values())
        sockets = [url for url in urls if url.startswith("unix:")]
        # Landlock (ABI 7) has no right for the sockets of the file system
        found = "; ".join([kept, *(f"not from the socket {url}" for url in sockets)])
    checks = [Check.model_validate(check) for check in answer["checks"]]
    checks.append(
        Check(
            name=UNTOUCHED,
            ok=not confinement.missing() or wanted.unconfined,
            expected=kept,
            found=found,
        )
    )
    return Draft(
        kind="drill",
        name=wanted.scenario,
        started_ns=started_ns,
        ended_ns=now_ns(),
        host=host,
        user=user,
        repository=repository.id,
        snapshot=snapshot.id,
        versions=versions(),
        checks=checks,
        steps=[Step.model_validate(step) for step in answer["steps"]],
        measured=answer["measured"],
        targets=promised,
        problems=answer["problems"],
        notes=[f"ran: {words}" for words in answer.get("commands", [])] + answer.get("notes", []),
    )
