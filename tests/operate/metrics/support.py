"""A configuration of every kind of job, and runs on record at moments that are given."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safetake import configfile
from safetake.config import Config
from safetake.operate.history import History, Record
from safetake.repository import Repository

START_NS = 1_790_000_000 * 10**9
"""2026-09-21T14:13:20Z"""
SECOND = 10**9
HOUR, DAY = 3600 * SECOND, 86400 * SECOND

TOML = """
[repository]
location = "repo"

[sources.projects]
type = "sqlite"
path = "projects.db"

[sources.scripts]
type = "files"
path = "scripts"

[jobs.sqlite-backup]
kind = "backup"
sources = ["projects"]
schedule = "0 */6 * * *"

[jobs.by-hand]
kind = "backup"

[jobs.proof]
kind = "verify"
schedule = "30 3 * * *"

[jobs.whole]
kind = "check"

[jobs.sound]
kind = "integrity"

[jobs.tidy]
kind = "prune"

[jobs.away]
kind = "copy"
to = "offsite"

[copies.offsite]
location = "offsite"

[objectives.projects]
rpo = "6h"
rto = "15m"
partial_rto = "5m"

[objectives.system]
rpo = "24h"
rto = "60m"

[restore]
state = "state"
"""


@dataclass
class Clock:
    """The moment that everything believes it is."""

    now: int = START_NS

    def __call__(self) -> int:
        return self.now


def configured(folder: Path, more: str = "") -> Config:
    """The configuration above, in a folder."""
    return configfile.parse(TOML + more, folder / "safetake.toml")


def ran(
    config: Config,
    clock: Clock,
    kind: str,
    job: str = "",
    *,
    repository: Repository | None = None,
    seconds: float = 10,
    **more: Any,
) -> Record:
    """A run that ends now, on record."""
    return History(config, repository, now_ns=clock).append(
        kind, job=job, started_ns=clock.now - round(seconds * SECOND), **more
    )


def promtool(*words: str, given: bytes = b"", cwd: Path | None = None) -> str:
    """What promtool says; fails when it finds fault, or is missing."""
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is missing: apt-get install prometheus, or run `./dev test`")
    done = subprocess.run([program, *words], input=given, capture_output=True, check=False, cwd=cwd)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


Values = dict[str, dict[tuple[tuple[str, str], ...], float]]


def values(text: bytes) -> Values:
    """What a text of metrics says: by name, then by labels."""
    from prometheus_client.parser import text_string_to_metric_families

    found: Values = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), f"twice: {sample}"
            found[sample.name][labels] = sample.value
    return found


def value(found: Values, name: str, **labels: str) -> float:
    """One value."""
    return found[name][tuple(sorted(labels.items()))]
