"""What is overdue: jobs that did not run when they should have, sources older than agreed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.operate.notify import words
from safetake.operate.objectives import due, source_states
from safetake.operate.past import view
from safetake.wording import duration

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import History

_GRACE_S = 600.0
"""A backup every 6 hours keeps an RPO of 6 hours, although it takes a moment."""


def late(config: Config, history: History, since_ns: int, now_ns: int) -> dict[str, str]:
    """By job or source: why. What has never run is counted from `since_ns`."""
    records = view(history).records
    found: dict[str, str] = {}
    for name, job in config.jobs.items():
        when = due(name, job, records, since_ns, floor_ns=since_ns)
        if when is not None and when.overdue_ns < now_ns:
            at = words.moment(config, when.at_ns)
            found[name] = f"The job {name} was due {at}, and has not run."
    for name, state in source_states(config, records, None).items():
        if state.rpo_s is None or state.rpo_met(now_ns):
            continue
        age = state.age_s(now_ns)
        so_far = (now_ns - since_ns) / 1e9 if age is None else age
        if so_far < state.rpo_s + _GRACE_S:
            continue
        limit = duration(state.rpo_s)
        if age is None:
            found[name] = f"There is no snapshot of {name}; at most {limit} may be lost."
        else:
            old = duration(age)
            found[name] = (
                f"The newest snapshot of {name} is {old} old; at most {limit} may be lost."
            )
    return found
