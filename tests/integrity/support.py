"""Asking live stores in this process, and what was found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetake.config import SourceConfig
from safetake.findings import Asked, Asking, Finding
from safetake.sources import ask_live

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "integrity.md"


def ask(config: SourceConfig, scratch: Path, **more: Any) -> Asked:
    """Every question, as a run puts it."""
    scratch.mkdir(mode=0o700, exist_ok=True)
    return ask_live(config, Asking("store", scratch, **more))


def wrong(asked: Asked | Iterable[Finding]) -> dict[str, Finding]:
    """The bad answers by question."""
    findings = asked.findings if isinstance(asked, Asked) else asked
    return {finding.check: finding for finding in findings if not finding.ok}


def by_check(asked: Asked) -> dict[str, Finding]:
    """All answers by question; a question is asked once."""
    found = {finding.check: finding for finding in asked.findings}
    assert len(found) == len(asked.findings), [finding.check for finding in asked.findings]
    return found


def picture(folder: Path) -> dict[str, bytes]:
    """Every byte below a folder, less SQLite's index of a log, which readers write to."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }


def table(heading: str) -> dict[str, str]:
    """The table of the how-to page below a heading: damage to what the page says of it."""
    text = PAGE.read_text(encoding="utf-8")
    part = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[1].strip() for row in rows[2:]}
