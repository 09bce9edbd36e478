"""What every step has at hand: the configuration, the journal, the commands, and the person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.runbook.commands import Commands, Ran
    from safetake.runbook.journal import Journal
    from safetake.runbook.words import Words

OK, UNKNOWN, FAILED = "ok", "unknown", "failed"
STEPS = range(1, 11)
NOTHING = "-"
"""The default of what may stay empty, so that each question shows one."""
_SHOWN = 5


def moment(ns: int) -> str:
    """`2026-11-22 21:58:00 KST`: the time on the wall of who reads it, and which that is."""
    local = datetime.fromtimestamp(ns // 10**9, UTC).astimezone()
    return local.strftime("%Y-%m-%d %H:%M:%S %Z")


class Person(Protocol):
    """Who is asked. Answers are text; an empty one takes the default."""

    def tell(self, text: str) -> None:
        """Show one line."""

    def heading(self, text: str) -> None:
        """Show the name of a step."""

    def waiting(self, text: str) -> None:
        """Show what is being done, in the place of what was shown so before; empty: nothing."""

    def ask(self, question: str, default: str) -> str:
        """What was typed, or the default. Raises KeyboardInterrupt, EOFError."""


class StoppedError(SafetakeError):
    """A person, or the default, stopped the walk; it can be resumed."""


class AgainError(Exception):
    """Earlier steps have to be done again, with another decision."""

    def __init__(self, steps: Sequence[int]) -> None:
        super().__init__(steps)
        self.steps = steps


@dataclass(slots=True)
class Found:
    """What a step found."""

    state: str = OK
    detail: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)
    """As `evidence.Check`."""

    def check(
        self, name: str, ok: bool, expected: Any = None, found: Any = None, source: str = ""
    ) -> None:
        """One question and its answer; a bad one makes the step a failed one."""
        self.checks.append(
            {"name": name, "ok": ok, "expected": expected, "found": found, "source": source}
        )
        if not ok:
            self.state = FAILED


@dataclass(slots=True)
class Walk:
    """One walk through the steps."""

    config: Config
    journal: Journal
    commands: Commands
    person: Person
    words: Words
    user: str
    unattended: bool
    step: int = 1

    def say(self, key: str, **gaps: Any) -> str:
        """Show one text of the table; returns it."""
        text = self.words(key, **gaps)
        self.person.tell(text)
        return text

    def choose(
        self,
        key: str,
        options: Sequence[str],
        default: str,
        *,
        remember: bool = True,
        **gaps: Any,
    ) -> str:
        """One of the options (keys of the table). `stop` raises StoppedError.

        With `remember` what was answered before an interruption is the default.
        """
        before = self.journal.previous(key) if remember else None
        if before in options and before not in ("stop", "again", "older", "undo"):
            default = str(before)
        labels = {self.words(option): option for option in options}
        question = f"{self.words(key, **gaps)} ({'/'.join(labels)})"
        while True:
            typed = self._ask(question, self.words(default)).strip()
            chosen = labels.get(typed) or next(
                (one for one in options if one == typed.lower()), None
            )
            if chosen is None and typed:
                near = [one for label, one in labels.items() if label.startswith(typed)]
                chosen = near[0] if len(near) == 1 else None
            if chosen is not None:
                break
            self.say("not_an_answer", options=", ".join(labels))
        self._decided(key, chosen, self.words(key, **gaps), self.words(chosen))
        if chosen == "stop":
            raise self.stopped()
        return chosen

    def text(
        self,
        key: str,
        default: str,
        check: Callable[[str], str] | None = None,
        *,
        remember: bool = True,
        **gaps: Any,
    ) -> str:
        """Free text; `check` returns why it is no answer, or nothing, and then it is asked again.

        Raises StoppedError when not even the default is one and nobody can be asked.
        """
        before = self.journal.previous(key) if remember else None
        if before is not None and not (check and check(before)):
            default = before
        while True:
            typed = self._ask(self.words(key, **gaps), default or NOTHING).strip()
            typed = "" if typed == NOTHING else typed
            why = check(typed) if check else ""
            if not why:
                break
            self.person.tell(why)
            if self.unattended:
                raise self.stopped()
        self._decided(key, typed, self.words(key, **gaps), typed or NOTHING)
        return typed

    def failure(self, ran: Ran) -> None:
        """Show why a command gave nothing."""
        self.say("error", text=ran.error)
        if ran.hint:
            self.say("hint", text=ran.hint)

    def some(self, lines: Sequence[str]) -> None:
        """The first few of many lines."""
        for one in lines[:_SHOWN]:
            self.person.tell(one)
        if len(lines) > _SHOWN:
            self.say("more", count=len(lines) - _SHOWN)

    def stopped(self) -> StoppedError:
        """The error that ends this walk, and leaves it open."""
        return StoppedError(
            self.words("stopped", step=self.step, name=self.words(f"step{self.step}")),
            hint=self.words("stopped_hint"),
        )

    def _ask(self, question: str, default: str) -> str:
        if self.unattended:
            self.person.tell(f"{question} ({default})")
            return default
        return self.person.ask(question, default) or default

    def _decided(self, key: str, value: str, question: str, shown: str) -> None:
        by = "default" if self.unattended else self.user
        self.journal.answer(self.step, key, value, question, shown, by)
