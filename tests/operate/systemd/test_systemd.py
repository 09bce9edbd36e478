"""Units of systemd, judged by systemd-analyze: they are valid, and mean the same times as cron."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from safetake.config import Config
from safetake.configfile import parse
from safetake.errors import ConfigError, UsageError
from safetake.operate.schedule import Schedule
from safetake.operate.systemd import Unit, daemon_units, timer_units
from safetake.operate.systemd.calendar import events
from safetake.operate.systemd.units import writable

ROOT = Path(__file__).parents[3]
DEPLOYED = ROOT / "deploy" / "systemd"
BASE = datetime(2026, 6, 1, tzinfo=UTC)

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def systemd(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        ["systemd-analyze", *words],
        env={"PATH": "/usr/bin:/bin", "TZ": "UTC", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def elapses(event: str, count: int) -> set[int]:
    base = BASE.strftime("%Y-%m-%d %H:%M:%S UTC")
    said = systemd("calendar", f"--iterations={count}", f"--base-time={base}", event)
    found = re.findall(r"(?:Next elapse|Iter\. #\d+|Iteration #\d+): \w+ (\S+ \S+) UTC", said)
    return {
        round(datetime.fromisoformat(one).replace(tzinfo=UTC).timestamp()) * 10**9 for one in found
    }


@analyze
@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul", "Europe/Berlin"])
@pytest.mark.parametrize(
    "expression",
    [
        "0 */6 * * *",
        "0 2 * * *",
        "30 5 * * 0",
        "*/20 8-18 * * 1-5",
        "15 3 1,15 * *",
        "0 4 1 * 7",  # Debian: the first, or any Sunday
        "0 4 */2 * 1",  # Debian: both
        "0 0 L * *",
        "5 4 29-31 JAN,FEB,MAR *",
    ],
)
def test_systemd_means_the_same_times(expression: str, zone: str) -> None:
    """From June on, where no clock of these zones is set for months."""
    base = round(BASE.timestamp()) * 10**9
    schedule = Schedule(expression, zone)
    there = set()
    for event in events(expression, zone):
        there |= elapses(event, 12)
    ours = []
    at: int | None = base
    for _ in range(12):
        assert at is not None
        at = schedule.after(at)
        assert at is not None
        ours.append(at)
    clocks_are_set = round(datetime(2026, 10, 25, tzinfo=UTC).timestamp()) * 10**9
    ours = [one for one in ours if one < clocks_are_set]
    assert set(ours) <= there
    if ours:
        assert {one for one in there if one <= ours[-1]} == set(ours)


@pytest.mark.parametrize("expression", ["0 0 * * 5L", "0 0 * * 1#2", "0 0 LW * *"])
def test_what_systemd_cannot_say_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="systemd knows no"):
        events(expression, "UTC")
    config = configured(jobs={"x": {"kind": "prune", "schedule": expression}})
    with pytest.raises(ConfigError, match=r"jobs\.x\.schedule: systemd knows no"):
        timer_units(config, Path("/c"), Path("/p"))


def configured(**more: object) -> Config:
    return Config.model_validate(
        {
            "repository": {"location": "/data/backup"},
            "sources": {
                "projects": {"type": "sqlite", "path": "/data/projects.db"},
                "vectors": {"type": "chroma", "path": "/data/chroma"},
                "other": {"type": "sqlite", "path": "/srv/app/my data.db"},
            },
            "restore": {"state": "/var/lib/safetake"},
            **more,
        }
    )


def written(units: list[Unit], folder: Path) -> list[str]:
    for unit in units:
        (folder / unit.name).write_text(unit.text)
    return [str(folder / unit.name) for unit in units]


@analyze
def test_the_units_are_valid(tmp_path: Path) -> None:
    jobs = {
        "sqlite-backup": {"kind": "backup", "schedule": "0 */6 * * *", "timezone": "Asia/Seoul"},
        "a.b_c": {"kind": "prune", "schedule": "0 4 1 * 1", "jitter": 90, "catch_up": False},
        "by-hand": {"kind": "check"},
    }
    config = configured(jobs=jobs)
    odd = Path("/etc/safe take/100%.toml")
    names = written(timer_units(config, odd, Path("/bin/true")), tmp_path)
    assert [Path(name).name for name in names] == [
        "safetake-job@.service",
        "safetake-job@sqlite-backup.timer",
        "safetake-job@a.b_c.timer",
    ]
    assert systemd("verify", *names) == ""
    names = written(daemon_units(config, odd, Path("/bin/true")), tmp_path)
    assert systemd("verify", *names) == ""
    text = Path(names[0]).read_text()
    assert 'ExecStart=/bin/true --config "/etc/safe take/100%%.toml" run\n' in text
    assert "TimeoutStopSec=60\n" in text
    Path(names[0]).write_text(text.replace("Type=exec", "Type=nonsense"))
    assert "nonsense" in systemd("verify", *names)  # the judge is awake


def test_a_timer_catches_up_and_waits_as_the_job_says() -> None:
    jobs = {
        "a": {"kind": "prune", "schedule": "0 4 * * *"},
        "b": {"kind": "prune", "schedule": "0 4 * * *", "jitter": 90, "catch_up": False},
    }
    _, a, b = timer_units(configured(jobs=jobs), Path("/c"), Path("/p"))
    assert "Persistent=true\n" in a.text
    assert "Random" not in a.text
    assert "Persistent=false\nRandomizedDelaySec=90\nFixedRandomDelay=true\n" in b.text


def test_units_write_only_where_the_configuration_says() -> None:
    assert writable(configured()) == ["-/data", "-/srv/app", "-/var/lib/safetake"]
    more = configured(
        copies={"second": {"location": "/mnt/second"}},
        metrics={"textfile": "/var/lib/node_exporter/safetake.prom"},
    )
    assert "-/mnt/second" in writable(more)
    assert "-/var/lib/node_exporter" in writable(more)


def test_without_a_schedule_there_is_nothing_to_time() -> None:
    with pytest.raises(UsageError, match="no job has a schedule"):
        timer_units(configured(), Path("/c"), Path("/p"))


def test_the_deployed_units_are_those_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    from safetake.cli.init import preset_policy

    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib")
    place = Path("/etc/safetake/safetake.toml")
    text = '[repository]\nlocation = "/data/backup"\n' + preset_policy([], "UTC")
    config = parse(text, place)
    program = Path("/usr/local/bin/safetake")
    units = [*timer_units(config, place, program), *daemon_units(config, place, program)]
    assert {unit.name for unit in units} == {
        path.name for path in DEPLOYED.iterdir() if path.suffix in (".service", ".timer")
    }
    for unit in units:
        assert (DEPLOYED / unit.name).read_text() == unit.text, (
            f"{unit.name}: write deploy/systemd again with `safetake systemd --output`"
        )
