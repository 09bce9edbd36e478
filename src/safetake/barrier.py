"""The one moment of a snapshot: every store's writers are held at once, and let go.

They are held one after the other, the store with most work inside first, so that there is an
instant at which none of them could commit: every cut is the state of that instant. A writer that
holds one store while it waits for another would dead-lock with us: each hold has a timeout,
everything is let go, and the barrier is tried again after a growing random pause.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetake.clock import now_ns
from safetake.errors import BarrierTimeoutError
from safetake.model import Cut, Session

if TYPE_CHECKING:
    from safetake.config import BarrierConfig

AfterCut = Callable[[dict[str, Session]], bool]
"""Called right after the stores were let go: whether the cut is of use."""
_PAUSE_S = 0.1


@dataclass(slots=True)
class Barrier:
    """What was measured of the one moment."""

    ms: float
    """First hold to last release."""
    skew_ms: float
    """0.0 when there was an instant at which every store was held; else how far they were apart."""
    attempts: int
    holds_ms: dict[str, float]
    time_ns: int
    """Wall clock of the instant at which all were held."""


def hold_together(
    sessions: dict[str, Session], config: BarrierConfig, after_cut: AfterCut | None
) -> Barrier:
    """Hold all stores in their order, fix the cut, let all go; what was measured.

    Raises BarrierTimeoutError when they could not be held together in so many attempts, and what
    `after_cut` raises; nothing is held any more then.
    """
    last: BarrierTimeoutError | None = None
    for attempt in range(1, config.attempts + 1):
        gc.disable()  # a collection of the pre-copies' garbage would stretch the hold
        cuts: dict[str, Cut] = {}
        released: dict[str, int] = {}
        held_at = 0
        try:
            for name, session in sessions.items():
                cuts[name] = session.hold(config.timeout)
            held_at = now_ns()
        except BarrierTimeoutError as error:
            last = error
        finally:
            for name in reversed(sessions):
                sessions[name].release()
                released[name] = time.monotonic_ns()
            gc.enable()
        if held_at and after_cut is not None and not after_cut(sessions):
            last = BarrierTimeoutError("somebody wrote right after the cut")
        elif held_at:
            held = [cut.held_ns for cut in cuts.values()]
            return Barrier(
                ms=_ms(max(released.values()) - min(held)),
                skew_ms=_ms(max(0, max(held) - min(released.values()))),
                attempts=attempt,
                holds_ms={name: _ms(released[name] - cuts[name].held_ns) for name in cuts},
                time_ns=held_at,
            )
        time.sleep(_PAUSE_S * 2 ** (attempt - 1) * (0.5 + random.random()))
    raise BarrierTimeoutError(
        f"the stores could not be held together in {config.attempts} attempts: {last}",
        hint="a writer holds one store for long, perhaps while it waits for another; "
        "raise [barrier] timeout or attempts, or find the long transaction",
    ) from last


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
