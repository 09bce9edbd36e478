"""`init --preset ai-script-generator`: the whole policy of the document; it works as written."""

from __future__ import annotations

import re

import pytest

from safetake import configfile
from safetake.config import Config
from tests.cli.conftest import Workplace

PRESET = ("init", "--preset", "ai-script-generator", "--repository", "repo")


def written(place: Workplace) -> Config:
    return configfile.load(place.folder / "safetake.toml")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul"])
def test_it_says_what_the_document_asks_for(empty: Workplace, zone: str) -> None:
    empty.run(*PRESET, "--timezone", zone)
    config = written(empty)
    assert {name: source.type for name, source in config.sources.items()} == {
        "projects": "sqlite",
        "vectors": "chroma",
        "queue": "redis",
        "scripts": "files",
    }
    jobs = config.jobs
    times = {name: job.schedule for name, job in jobs.items()}
    assert times["sqlite-backup"] == "0 */6 * * *"  # R12
    assert times["chroma-backup"] == "0 2 * * *"
    assert times["integrity"] == "0 4 * * *"
    assert {job.timezone for job in jobs.values()} == {zone} == {config.retention.timezone}
    assert (jobs["sqlite-backup"].sources, jobs["chroma-backup"].sources) == (
        ["projects"],
        ["vectors"],
    )
    assert {job.kind for job in jobs.values()} == {
        "backup",
        "verify",
        "integrity",
        "prune",
        "check",
    }
    keep = config.retention  # R11
    assert (keep.hourly, keep.daily, keep.weekly, keep.monthly) == ("24h", "30d", "12w", "12m")
    goals = config.objectives  # R13, R14
    assert (goals["projects"].rpo, goals["projects"].rto) == (6 * 3600, 900)
    assert goals["projects"].partial_rto == 300
    assert (goals["vectors"].rpo, goals["vectors"].rto) == (24 * 3600, 1800)
    assert goals["system"].rto == 3600
    ports = [str(service.health.url) for service in config.services.values() if service.health]
    assert ports == [f"http://127.0.0.1:{port}/api/v1/health" for port in (8001, 8002)]
    assert config.kubernetes.namespace == "ai-script-generator"


def test_its_defaults_are_the_documents_places(empty: Workplace) -> None:
    from safetake.cli.init import default_repository

    assert default_repository("ai-script-generator") == "/data/backup"
    empty.run(*PRESET)
    text = (empty.folder / "safetake.toml").read_text()
    for place in ("/data/projects.db", "/data/chroma", "redis://127.0.0.1:6379"):
        assert f'"{place}"' in text


def test_what_is_commented_out_is_right_as_well(empty: Workplace) -> None:
    empty.run(*PRESET)
    path = empty.folder / "safetake.toml"
    lines = path.read_text().splitlines()
    line = re.compile(r"# (\[[a-z.-]+\]|[a-z_]+ = .*)$")
    config = configfile.parse("\n".join(line.sub(r"\1", one) for one in lines), path)
    assert config.copies
    assert config.jobs["copy"].to == "second"
    assert config.references
    assert config.notify.urls_file is not None


def test_its_places_may_be_others_and_it_works(empty: Workplace) -> None:
    words = ("--sqlite", "projects.db", "--files", "scripts")
    empty.run(*PRESET, *words)
    config = written(empty)
    assert getattr(config.sources["projects"], "path", None) == empty.folder / "projects.db"
    found = empty.json("backup", "sqlite-backup")
    assert list(found["sources"]) == ["projects"]
    assert empty.json("prune", "--dry-run")["removed"] == 0
    assert len(empty.json("prune", "--simulate")["jobs"]) == 4
    with_orphans = configfile.load(empty.folder / "safetake.toml").sources["projects"]
    assert "FROM episodes" in getattr(with_orphans, "checks")[0].sql  # noqa: B009


def test_what_it_cannot_be_asked(empty: Workplace) -> None:
    message, _ = empty.error(*PRESET, "--timezone", "Mars/Olympus", code=2)
    assert message == "there is no time zone 'Mars/Olympus'"
    message, _ = empty.error("init", "--repository", "r", "--timezone", "UTC", code=2)
    assert message == "--timezone goes with --preset"
    message, hint = empty.error(*PRESET, "--sqlite", "a=a.db", "--sqlite", "b=b.db", code=2)
    assert message == "the preset has one sqlite source"
    assert hint
    assert not (empty.folder / "safetake.toml").exists()
