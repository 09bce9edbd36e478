"""What `safetake drill` says at its end."""

from __future__ import annotations

import pytest

from safetake.cli.drill import _show
from safetake.evidence import Check, Draft
from safetake.evidence.document import finished


def test_what_was_measured_has_its_own_unit(capsys: pytest.CaptureFixture[str]) -> None:
    draft = Draft(
        kind="drill", name="total-loss", started_ns=0, ended_ns=90 * 10**9, host="h", user="u",
        repository="r", versions={}, checks=[Check(name="c", ok=True)],
        measured={"rto_seconds": 75.0, "bytes": 9093.0}, targets={"rto_seconds": 900.0},
    )  # fmt: skip
    _show(finished(draft, []), quiet=False)
    said = capsys.readouterr().out
    assert "  rto: 1 m 15 s, promised 15 m 00 s\n" in said
    assert "  bytes: 8.88 KiB\n" in said
    assert "drill total-loss passed in 1 m 30 s" in said
