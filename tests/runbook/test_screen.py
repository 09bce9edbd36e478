"""What a person has before their eyes: 80 columns, something that moves, no answer by accident."""

from __future__ import annotations

import re
import time

import pytest

from safetake.cli.output import width
from safetake.runbook.words import Words
from tests.cli.conftest import Workplace
from tests.runbook.conftest import SERVICE, terminal


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ko"])
def test_eighty_columns_and_what_is_being_done(destroyed: Workplace, language: str) -> None:
    """Hangul takes two columns. A command stays whole, to be copied, as does a path."""
    words = Words(language)
    file = destroyed.folder / "safetake.toml"
    file.write_text(file.read_text() + SERVICE)
    (destroyed.folder / "up").touch()
    how = {"TERM": "xterm", "COLUMNS": "80"}
    with terminal(destroyed, "runbook", "--yes", "--language", language, **how) as person:
        person.expect(r"… \d+\.0 s, " + re.escape(words("doing_stop", name="app")))
        (destroyed.folder / "go").touch()
        assert person.end() == 0, person.seen
    shown = re.sub(r"\x1b\[[0-9]*m", "", person.seen).split("\n")
    lines = [line.split("\x1b[K")[-1] for line in shown]
    assert not [line for line in lines if "…" in line], "what is over still stands there"
    assert any(width(line) > 70 for line in lines)
    for line in lines:
        if not line.startswith("  $ ") and " " in line.strip():
            assert width(line) < 80, line


def test_an_enter_from_before_the_question_is_no_answer(destroyed: Workplace) -> None:
    with terminal(destroyed, "runbook") as person:
        person.type("\n\n\n")
        person.expect("1/10")
        person.type("\nyes\n")  # the snapshots are being listed
        person.expect(r"Restore which snapshot\?[^\n]*: $")
        time.sleep(0.3)
        person.type("nonsense\n")
        person.expect("no snapshot, or more than one, begins with nonsense")
        assert "Prove it first" not in person.seen
