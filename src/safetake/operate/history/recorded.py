"""A run that is remembered: `with recorded(config, "backup") as run`.

Remembering never changes how a run ends. A record that can be kept nowhere is a warning on stderr;
one that could not be brought into the repository waits for the next run, and `status` counts it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake import clock
from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history.record import Record
    from safetake.repository import Repository

TRIGGER = "SAFETAKE_TRIGGER"
"""Environment variable that says who started the command: `timer` in a unit, else `hand`."""
_INTERRUPTED = 130
_TRIGGER = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TIDY = ("prune", "check", "verify")
"""Runs that read much anyway: after them many small documents of the history become few."""
_MANY = 1000


@dataclass(slots=True)
class Run:
    """What is going on; filled while it does."""

    kind: str
    job: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    repository: Repository | None = None
    """Set it once it is open: the record goes there, too, without a second key derivation."""
    error: str = ""
    """Why `exit_code` is not 0, where nothing is raised."""
    hint: str = ""
    wanted: bool = True
    """False: nothing was done (a dry run, a plan that nobody agreed to), nothing to remember."""
    record: Record | None = None
    """What was remembered; set at the end, None when it could be kept nowhere."""

    def opening(self, opened: Callable[[], Repository]) -> Callable[[], Repository]:
        """What gives the repository, and tells this run of it."""

        def told() -> Repository:
            self.repository = opened()
            return self.repository

        return told


def given_trigger() -> str:
    """`hand`, or what SAFETAKE_TRIGGER says."""
    given = os.environ.get(TRIGGER, "")
    return given if _TRIGGER.fullmatch(given) else "hand"


@contextlib.contextmanager
def recorded(
    config: Config,
    kind: str,
    *,
    job: str = "",
    trigger: str | None = None,
    repository: Repository | None = None,
    wanted: bool = True,
    now_ns: Callable[[], int] = clock.now_ns,
) -> Iterator[Run]:
    """Remember what happens in the block, also when it fails; the failure is raised again.

    `trigger` is `hand`, or what the environment variable SAFETAKE_TRIGGER says. Afterwards metrics
    are published and people are told (`operate.after`). Without `wanted` (a dry run) nothing is
    remembered. Raises nothing of its own.
    """
    run = Run(kind, job, repository=repository, wanted=wanted)
    started_ns = now_ns()
    try:
        yield run
    except SafetakeError as error:
        run.exit_code, run.error, run.hint = error.exit_code, str(error), error.hint
        raise
    except KeyboardInterrupt:
        run.exit_code, run.error = _INTERRUPTED, "interrupted"
        raise
    except BaseException as error:
        run.exit_code, run.error = 1, f"unexpected: {type(error).__name__}"
        raise
    finally:
        if run.wanted:
            _remember(config, run, started_ns, trigger or given_trigger(), now_ns)


def _remember(
    config: Config, run: Run, started_ns: int, trigger: str, now_ns: Callable[[], int]
) -> None:
    from safetake.operate.after import after_run
    from safetake.operate.history import History

    history = History(config, run.repository, now_ns=now_ns)
    try:
        run.record = history.append(
            run.kind,
            job=run.job,
            started_ns=started_ns,
            exit_code=run.exit_code,
            trigger=trigger,
            error=run.error,
            hint=run.hint,
            facts=run.facts,
        )
    except SafetakeError as error:
        warn(f"this run is not in the history: {error}")
        return
    if run.kind in _TIDY or history.documents() > _MANY:
        history.put_together()
    for text in history.trouble:
        warn(f"history: {text}")
    after_run(config, history, run.record)


def warn(text: str) -> None:
    """One line on stderr, whatever a command prints on stdout."""
    from safetake.wording import printable

    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        print(f"warning: {printable(text)}", file=sys.stderr, flush=True)
