"""The crash matrix: a restore in place, killed at any of its calls, ends in one of two states.

A `World` is a set-up with its stores, its services and one snapshot; what is there now differs from
it in every store. `Matrix` counts the calls of one undisturbed restore, and for each chosen call
puts the world back as it was, restores again up to that call, observes the kill, and lets
`--resume` or `--rollback` end it.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetake.recovery.journal import Journal, journals, parse
from tests.faults.stores import Store
from tests.support.ptrace import Call
from tests.support.repositories import PASSWORD, memory_folder, new_repository
from tests.support.states import difference
from tests.support.supervisor import Program, Supervisor
from tests.support.zygote import Run, Zygote

SERVICE = "app"
ENDINGS = ("--resume", "--rollback")
NOISE = r"^/dev/null$|/log$"
"""Nothing, and what a private server tells about itself."""
DONE = (0, 3)
"""Exit codes of a restore that was done; 3: with something to be told."""


@dataclass(slots=True)
class World:
    """Everything on disk is below `base`; `base/home` is put back for each trial."""

    base: Path
    zygote: Zygote
    stores: list[Store]
    supervisor: Supervisor
    program: Program | None = None
    """The service that is stopped and started for the restore."""
    bystander: Program | None = None
    """An application that keeps running, which safetake is not told of."""
    words: tuple[str, ...] = ()
    """Options of the restore."""
    service: str = ""
    """More lines for the service's section."""
    down: bool = False
    """The service does not run when the restore begins."""
    sound: bool = True
    """Whether a backup of what is there before the restore is possible."""
    undo: bool = False
    """The restore is the one that undoes an earlier one."""
    snapshot: str = ""
    before: set[str] = field(default_factory=set)
    """Restores that had ended before."""
    old: dict[str, Any] = field(default_factory=dict)
    new: dict[str, Any] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def restores(self) -> Path:
        return self.home / "state" / "restores"

    def build(self) -> None:
        """Make the stores, take the snapshot, change them, and keep all that as the template."""
        self.home.mkdir()
        (self.home / "tmp").mkdir()
        (self.home / "password").write_text(PASSWORD)
        (self.home / "password").chmod(0o600)
        (self.home / "safetake.toml").write_text(self._config())
        new_repository(self.home / "repository")
        self._run(on=True)
        for store in self.stores:
            store.make(self.home)
        self.snapshot = json.loads(self.safetake("--json", "backup", code=0).said)["id"]
        self.new = self.state()
        for store in self.stores:
            store.change(self.home)
        self.old = self.state()
        self._keep()
        if self.undo:
            assert self.restore().code == 0
            self.before = {journal.id for journal in journals(self.restores)}
            self._keep()
            self.old, self.new, self.snapshot = self.new, self.old, ""
        assert difference(self.state(), self.old) == []
        for store in self.stores:
            assert self.old[store.name] != self.new[store.name]

    def _keep(self) -> None:
        """What is there now is what each trial begins with."""
        self._run(on=False)
        shutil.rmtree(self.base / "template", ignore_errors=True)
        self.home.rename(self.base / "template")
        self.reset()

    def _config(self) -> str:
        lines = ['[repository]\nlocation = "repository"\npassword_file = "password"\n']
        lines.append('[restore]\nstate = "state"\n')
        lines += [f"[sources.{store.name}]\n{store.config()}" for store in self.stores]
        if self.program is not None:
            commands = self.supervisor.commands(SERVICE)
            lines.append(f"[services.{SERVICE}]\n")
            lines += [f"{key} = {json.dumps(words)}\n" for key, words in commands.items()]
            lines.append(self.service)
            lines.append(f"[services.{SERVICE}.health]\ninterval = 0.01\nsuccesses = 1\n")
            lines.append(f"command = {json.dumps(commands['running'])}\n")
        return "".join(lines)

    def _run(self, *, on: bool) -> None:
        if self.program is not None:
            self.supervisor.programs[SERVICE] = self.program
            (self.supervisor.up if on else self.supervisor.down)(SERVICE)
        if self.bystander is not None:
            (self.bystander.start if on else self.bystander.stop)()

    def reset(self) -> None:
        """Everything as it was before the restore, running."""
        self._run(on=False)
        shutil.rmtree(self.home, ignore_errors=True)
        subprocess.run(["cp", "-a", self.base / "template", self.home], check=True)
        self._run(on=not self.down)
        for store in self.stores:
            store.reset(self.home)

    def state(self) -> dict[str, Any]:
        """What every store holds; a service that is needed to ask is started."""
        if self.down and not self.supervisor.is_up(SERVICE):
            self.supervisor.up(SERVICE)
        return {store.name: store.state(self.home) for store in self.stores}

    def safetake(
        self,
        *words: str,
        kill_at: int | None = None,
        alone: bool = False,
        code: int | None = None,
        seconds: float = 120,
    ) -> Run:
        """One run of the command; no traceback, and the exit code when it was not killed."""
        run = self.zygote.run(
            *words,
            folder=self.home,
            environment={"TMPDIR": str(self.home / "tmp"), "HOME": str(self.home)},
            kill_at=kill_at,
            alone=alone,
            ignore=NOISE,
            seconds=seconds,
        )
        self.supervisor.settle()
        assert "Traceback" not in run.said, run.said
        assert "internal error" not in run.said, run.said
        assert code is None or run.code == code, (words, run.code, run.said)
        return run

    def restore(self, kill_at: int | None = None, *, alone: bool = False) -> Run:
        """The restore in place that the campaign is about."""
        words = ["restore", self.snapshot, "--in-place", "--yes", *self.words]
        if not self.snapshot:
            words = ["restore", "--undo", "--yes"]
        return self.safetake(*words, kill_at=kill_at, alone=alone)

    def whole(self) -> None:
        """No restore is open, nothing is left, what ran runs."""
        assert not self.supervisor.failed, self.supervisor.failed
        assert all(journal.ended for journal in journals(self.restores))
        left = [path for path in self.home.rglob(".safetake-*") if path.exists()]
        assert not left, left
        if self.program is not None and not self.down:
            assert self.supervisor.is_up(SERVICE)

    def usable(self) -> None:
        """Applications can write to every store."""
        for store in self.stores:
            store.usable(self.home)

    def journal(self) -> Journal | None:
        """Of the restore of this trial."""
        found = [one for one in journals(self.restores) if one.id not in self.before]
        assert len(found) <= 1
        return found[0] if found else None

    def is_open(self) -> bool:
        """Whether it was begun and not ended."""
        journal = self.journal()
        return journal is not None and not journal.ended

    def step(self) -> str:
        """The last line of its journal, without names: `begin switch`, `done stage` …"""
        journal = self.journal()
        path = journal.folder / "journal" if journal is not None else None
        records = parse(path.read_bytes())[0] if path is not None and path.exists() else []
        return _said(records[-1]) if records else "before the journal"


def _said(record: dict[str, Any]) -> str:
    for key in ("begin", "done", "forget", "decide", "end", "note"):
        if key in record:
            return f"{key} {str(record[key]).partition(':')[0]}" if key != "note" else "note"
    return "?"


@dataclass(slots=True)
class Trial:
    """One kill and how it was ended."""

    call: Call | None
    """None: the restore ended before."""
    step: str
    ending: str
    second: Call | None = None
    """The call at which the ending itself was killed, too."""


class Matrix:
    """Trials of one world, and what was observed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: list[Call] = []
        """Of an undisturbed restore."""
        self.trials: list[Trial] = []

    def count(self) -> int:
        """One undisturbed restore; it gives exactly the snapshot's content."""
        self.world.reset()
        run = self.world.restore()
        assert run.code in DONE, run.said
        found = difference(self.world.state(), self.world.new)
        assert not found, found
        self.world.whole()
        self.calls = run.seen.calls
        return len(self.calls)

    def chosen(self, budget: int, chance: random.Random) -> list[int]:
        """Numbers of calls, spread over all that a restore does: those at the journal's lines (each
        step's boundary) and, with what is left of the budget, the others.
        """
        lines = {c.number for c in self.calls if c.place.endswith("/journal") and c.name == "write"}
        boundaries = sorted(lines | {number + 1 for number in lines})
        others = sorted({call.number for call in self.calls} - set(boundaries))
        half = min(len(boundaries), budget // 2)
        return sorted([*_spread(boundaries, half, chance), *_spread(others, budget - half, chance)])

    def trial(
        self,
        number: int,
        ending: str,
        *,
        alone: bool = False,
        close: bool = False,
        second: tuple[str, int] | None = None,
    ) -> bool:
        """Kill at a call; end it; nothing but one of the two states is accepted. False: the restore
        ended before that call.

        `alone`: what the restore had started is not killed with it. `close` looks closer: a second
        restore is refused meanwhile, and the next backup works and tidies up. `second`: an ending
        that is killed at one of its calls before the last one comes.
        """
        world = self.world
        world.reset()
        run = world.restore(kill_at=number, alone=alone)
        if not run.seen.killed:
            assert run.code in DONE, run.said
            self._ended(world.new, f"not killed at {number}")
            self.trials.append(Trial(None, "", ending))
            return False
        call = run.seen.calls[0]
        assert run.seen.left == 0, f"killed{' alone' if alone else ''} at {call}: something runs on"
        trial = Trial(call, world.step(), ending)
        self.trials.append(trial)
        where = f"killed{' alone' if alone else ''} at {call}, {trial.step}; then {ending}"
        if close and world.is_open():
            again = world.restore()
            assert again.code == 1, f"{where}: a second restore ran\n{again.said}"
            assert "--rollback" in again.said, f"{where}: {again.said}"
        if second is not None and world.is_open():
            cut = world.safetake("restore", second[0], kill_at=second[1])
            if cut.seen.killed:
                trial.second = cut.seen.calls[0]
            where += f", before that {second[0]}, killed at {trial.second}, {world.step()}"
        wanted = self._end(ending, where)
        self._ended(wanted, where)
        if close and world.sound:
            run = world.safetake("backup")
            assert run.code in DONE, f"{where}: {run.said}"
            left = [path for path in (world.home / "tmp").iterdir() if not _probe(path)]
            assert not left, f"{where}: {left}"
            self._ended(wanted, f"{where}, and a backup")
        return True

    def _end(self, ending: str, where: str) -> dict[str, Any]:
        """Which state it has to be."""
        world = self.world
        journal = world.journal()
        if journal is None or journal.ended:
            run = world.safetake("restore", ending)
            assert run.code == 2, f"{where}: nothing was open\n{run.said}"
            return world.new if journal and journal.ended == "committed" else world.old
        decided = journal.decision
        run = world.safetake("restore", ending)
        if decided == "commit" and ending == "--rollback":
            assert run.code not in (0, None), f"{where}: {run.said}"
            run = world.safetake("restore", "--resume")
        assert run.code in DONE, f"{where}: exit code {run.code}\n{run.said}"
        if decided:
            return world.new if decided == "commit" else world.old
        return world.new if ending == "--resume" else world.old

    def _ended(self, wanted: dict[str, Any], where: str) -> None:
        try:
            self.world.whole()
            found = difference(self.world.state(), wanted)
            self.world.usable()
        except Exception as error:
            error.add_note(where)
            raise
        assert not found, f"{where}: " + "\n".join(found[:20])

    def report(self) -> str:
        """Counts, for people."""
        killed = [trial for trial in self.trials if trial.call is not None]
        lines = [
            f"{len(self.calls)} calls in an undisturbed restore; {len(self.trials)} trials, "
            f"{len(killed)} killed and seen to be, "
            f"{sum(t.second is not None for t in killed)} of them once more while they were ended"
        ]
        for title, counted in (
            ("by step", Counter(trial.step for trial in killed)),
            ("by call", Counter(trial.call.name for trial in killed if trial.call)),
            ("by ending", Counter(trial.ending for trial in killed)),
        ):
            lines.append(f"  {title}: " + ", ".join(f"{k} {n}" for k, n in counted.most_common()))
        return "\n".join(lines)


def _probe(path: Path) -> bool:
    """What Python's `tempfile` writes to see whether it can write."""
    return path.is_file() and path.read_bytes() in (b"", b"blat")


def _spread(numbers: list[int], count: int, chance: random.Random) -> Iterable[int]:
    """`count` of them, evenly, at a random offset."""
    if count >= len(numbers):
        return numbers
    step = len(numbers) / max(1, count)
    offset = chance.random() * step
    return [numbers[int(offset + at * step)] for at in range(count)]


@contextlib.contextmanager
def place(*, disk: bool = False) -> Iterator[Path]:
    """A folder in memory, where trials wait for no disk, or on one, where a folder's entries come
    in no order.
    """
    with contextlib.ExitStack() as stack:
        inside = None if disk else stack.enter_context(memory_folder())
        yield Path(stack.enter_context(tempfile.TemporaryDirectory(dir=inside)))
