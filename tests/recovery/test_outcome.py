"""What is told of a restore that ended."""

from __future__ import annotations

from safetake.recovery.outcome import downtime

S = 1_000_000_000


def test_what_passed_between_a_crash_and_the_end_is_downtime() -> None:
    steps = [
        ("stage:projects", 0, 1.0, True),
        ("stop:app", 10 * S, 1.0, True),
        ("switch:projects", 11 * S, 0.5, False),  # killed here, and ended the next morning
        ("back:projects", 30_000 * S, 2.0, True),
        ("back-start:app", 30_002 * S, 1.0, True),
    ]
    assert downtime(steps) == 30_003 - 10
    assert downtime(steps[:1]) == 0
