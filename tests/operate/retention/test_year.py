"""A year of the schedule R12 under the retention R11, pruned at each day's end.

What stays is compared with an oracle that knows the whole history and counts on the wall clock, in
four zones, and with what stock restic would keep of the same snapshots.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from safetake.cli.init import preset_policy
from safetake.clock import parse_go_time
from safetake.config import Config
from safetake.configfile import parse
from safetake.operate.retention.decide import decide
from safetake.operate.retention.simulate import simulate
from safetake.operate.retention.survey import survey
from safetake.operate.schedule import Schedule
from safetake.repository import Repository
from safetake.snapshots import Rung, SnapshotInfo
from tests.support.repositories import (
    PASSWORD,
    files_source,
    memory_folder,
    new_repository,
    snapshot,
)

ZONES = ["America/New_York", "Europe/Berlin", "Asia/Seoul", "Australia/Lord_Howe"]
DAY_NS = 86400 * 10**9
FIRST, DAYS = date(2024, 1, 1), 430
"""With a 29 February, both changes of clocks on both sides of the equator, and months that go."""


def policy(zone: str, repository: str = "/nowhere", *, floor: int = 3600) -> Config:
    """The preset, as `init` writes it for that zone."""
    text = f'[repository]\nlocation = "{repository}"\n' + preset_policy([], zone)
    place = Path("/etc/safetake/safetake.toml")
    return parse(text.replace("[retention]", f"[retention]\nfloor = {floor}"), place)


def midnight(day: date, zone: str) -> int:
    moment = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return round(moment.timestamp()) * 10**9


def taken(config: Config, zone: str) -> dict[str, list[int]]:
    """By job, every time at which its schedule fires."""
    since, until = midnight(FIRST, zone), midnight(FIRST + timedelta(DAYS), zone)
    return {
        name: list(Schedule(str(config.jobs[name].schedule), zone).between(since - 1, until - 1))
        for name in SOURCES
    }


def made(job: str, source: str, ns: int) -> SnapshotInfo:
    document = {
        "hostname": "h",
        "tags": ["safetake", f"job={job}", "backup"],
        "paths": [f"/{source}"],
    }
    return SnapshotInfo(f"{job}-{ns}", ns, document, Rung("stored", ns))


SOURCES = {"sqlite-backup": "projects", "chroma-backup": "vectors"}


# ------------------------------------------------------------------------------------- the oracle


Wall = tuple[int, datetime]


def on_the_wall(history: Iterable[int], zone: str) -> list[Wall]:
    """Each backup with what a clock on the wall of that zone showed."""
    return [
        (ns, datetime.fromtimestamp(ns // 10**9, ZoneInfo(zone)).replace(tzinfo=None))
        for ns in history
    ]


def oracle(history: list[Wall]) -> set[int]:
    """R11 of one job's whole history: the last backup of each hour of the last 24 hours, of each
    day of the last 30, of each week (Monday to Sunday) of 12 weeks, of each month of 12 months.
    """
    newest, here = max(history)
    year_ago = date(here.year - 1, here.month, 1) + timedelta(here.day - 1)
    days: dict[date, int] = {}
    weeks: dict[date, int] = {}
    months: dict[tuple[int, int], int] = {}
    for ns, there in history:  # the oldest first: the last of each is what is left
        day = there.date()
        if there > here - timedelta(days=30):
            days[day] = ns
        if there > here - timedelta(days=84):
            weeks[day - timedelta(day.weekday())] = ns
        if there > datetime.combine(year_ago, here.time()):
            months[there.year, there.month] = ns
    # R12 never takes two backups in an hour
    hours = [ns for ns, _ in history if newest - ns < 24 * 3600 * 10**9]
    return {*hours, *days.values(), *weeks.values(), *months.values()}


@pytest.mark.parametrize(
    "zone", [*ZONES[:2], *(pytest.param(zone, marks=pytest.mark.slow) for zone in ZONES[2:3])]
)
def test_at_each_days_end_exactly_that_stays(zone: str) -> None:
    config = policy(zone)
    history = taken(config, zone)
    assert len(history["sqlite-backup"]) in range(DAYS * 4 - 2, DAYS * 4 + 3)
    assert len(history["chroma-backup"]) == DAYS
    walls = {job: on_the_wall(every, zone) for job, every in history.items()}
    there: list[SnapshotInfo] = []
    for n in range(DAYS):
        day = FIRST + timedelta(n)
        begin, end = midnight(day, zone), midnight(day + timedelta(1), zone)
        for job, every in history.items():
            there += [made(job, SOURCES[job], ns) for ns in every if begin <= ns < end]
        groups = decide(there, config.retention, ZoneInfo(zone), end - 1, {})
        there = [d.snapshot for group in groups for d in group.decisions if d.keep]
        for job, wall in walls.items():
            stays = {s.time_ns for s in there if s.job == job}
            assert stays == oracle([one for one in wall if one[0] < end]), (day, job)
    # 4 of the last day, 30 days, then what is left of 12 weeks and 12 months
    assert 45 <= sum(s.job == "sqlite-backup" for s in there) <= 57
    assert len({s.id for s in there}) == len(there)


# ------------------------------------------------------------------------------ beside stock restic


GROUP = "host,tags,paths"
R11 = ["--keep-within-hourly", "24h", "--keep-within-daily", "30d"]
R11 += ["--keep-within-weekly", "84d", "--keep-within-monthly", "12m"]


def restic_keeps(folder: Path, zone: str) -> set[str]:
    """Ids that `restic forget` would keep under R11, in that zone."""
    done = subprocess.run(
        ["restic", "--no-cache", "forget", "--dry-run", "--json", "--group-by", GROUP, *R11],
        env={
            **os.environ,
            "RESTIC_REPOSITORY": str(folder),
            "RESTIC_PASSWORD": PASSWORD,
            "TZ": zone,
        },
        capture_output=True,
        check=True,
    )
    start = done.stdout.index(b"[")
    groups = json.JSONDecoder().raw_decode(done.stdout[start:].decode())[0]
    return {one["id"] for group in groups for one in group["keep"] or ()}


CHECKED = {
    "America/New_York": "2024-01-20 2024-03-10 2024-04-09 2024-11-03 2024-11-04 2024-12-31 "
    "2025-03-01",
    "Europe/Berlin": "2024-02-29 2024-03-31 2024-04-30 2024-10-27 2024-11-26 2025-03-05",
}


@pytest.mark.parametrize("zone", list(CHECKED))
def test_stock_restic_would_keep_the_same(zone: str) -> None:
    with memory_folder() as folder:
        (folder / "data").mkdir()
        (folder / "data" / "a").write_text("a")
        repository = new_repository(folder / "repo")
        trees = {
            source: repository.load_document(
                "snapshots", snapshot(repository, files_source(source, folder / "data")).id
            )["tree"]
            for source in SOURCES.values()
        }
        for name, _ in list(repository.storage.list("snapshots")):
            repository.storage.remove("snapshots", name)
        config = policy(zone, str(folder / "repo"), floor=0)
        history = taken(config, zone)
        since = 0
        for text in CHECKED[zone].split():
            end = midnight(date.fromisoformat(text) + timedelta(1), zone)
            for job, every in history.items():
                for ns in every:
                    if since <= ns < end:
                        save(repository, job, trees[SOURCES[job]], ns, zone)
            since = end
            report = survey(config, repository, end)
            ours = {one.snapshot.id for one in report.decisions if one.keep}
            assert ours == restic_keeps(folder / "repo", zone), text
            assert len(ours) < len(list(report.decisions))


def save(repository: Repository, job: str, tree: str, ns: int, zone: str) -> None:
    """A snapshot of that time. restic takes the day of a snapshot from the zone it was saved in."""
    moment = datetime.fromtimestamp(ns // 10**9, ZoneInfo(zone)).isoformat()
    assert parse_go_time(moment) == ns
    repository.save_snapshot(
        {
            "time": moment,
            "tree": tree,
            "paths": [f"/{SOURCES[job]}"],
            "hostname": "h",
            "username": "u",
            "tags": ["safetake", f"job={job}", "backup"],
        }
    )


# ----------------------------------------------------------------------------------- the simulator


@pytest.mark.parametrize("zone", ZONES)
def test_the_simulator_tells_what_the_year_comes_to(zone: str) -> None:
    start = midnight(FIRST, zone)
    jobs = {job.job: job for job in simulate(policy(zone), days=365, now_ns=start)}
    sqlite, chroma = jobs["sqlite-backup"], jobs["chroma-backup"]
    history = [ns for ns in taken(policy(zone), zone)["sqlite-backup"] if start < ns]
    past = [ns for ns in history if ns <= start + 365 * 86400 * 10**9]
    assert sqlite.taken == len(past)
    due = {ns for ns, reasons in sqlite.kept if reasons}
    assert due == oracle(on_the_wall(past, zone))
    # and what the prune of 05:00 on the last day still counted among its 24 hours
    assert all(ns > past[-1] - 2 * DAY_NS for ns, reasons in sqlite.kept if not reasons)
    assert chroma.taken in (364, 365)
    assert sum(sqlite.by_rule.values()) == len(sqlite.kept) == sqlite.looks[-1]["kept"]
    assert [look["day"] for look in sqlite.looks] == [1, 7, 30, 90, 180, 365]
