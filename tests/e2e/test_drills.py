"""Both drills of the document on the sample application, unattended, beside a live one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from safetake.tomltext import toml
from tests.e2e.test_recovery import Site, site
from tests.support.sample_application import EXAMPLES, running_load

__all__ = ["site"]


def drill_section(site: Site) -> dict[str, Any]:
    """How the services are started on copies: `[drill]` of the configuration."""
    environment = {
        "DATABASE_URL": "sqlite:///{projects}",
        "CHROMA_PATH": "{vectors}",
        "REDIS_URL": "{queue}/0",
        "SCRIPTS_DIR": "{scripts}",
        "PROJECT_SERVICE_URL": "http://127.0.0.1:{port:project-service}",
        "GENERATION_SERVICE_URL": "http://127.0.0.1:{port:generation-service}",
        "PYTHONPATH": str(EXAMPLES),
    }
    program = [sys.executable, "-m", "script_generator"]
    services = {
        name: {
            "command": [*program, name, "--port", "{port}"],
            "environment": dict(environment),
            "health": "http://127.0.0.1:{port}/api/v1/health",
        }
        for name in site.names
    }
    return {"services": services}


def bad(document: dict[str, Any]) -> list[Any]:
    return [check for check in document["checks"] if not check["ok"]]


@pytest.mark.slow
def test_both_drills(site: Site, tmp_path: Path) -> None:
    site.config.write_text(site.config.read_text() + "\n" + toml({"drill": drill_section(site)}))
    with running_load(site.services, tmp_path / "journal.jsonl", "--workers", "2") as load:
        load.wait_for(150)
        taken = site.safetake("backup")
        for scenario in ("partial-loss", "total-loss"):
            document = site.safetake("drill", scenario)
            assert bad(document) == []
            assert document["problems"] == []
            assert document["verdict"] == "passed"
            assert document["snapshot"] == taken["id"]
        load.wait_for(load.lines() + 20)  # the live application went on
    assert site.safetake("snapshots")[-1]["rung"] == "app-checked"
    assert site.safetake("evidence", "verify")["documents"] == 2


@pytest.mark.slow
def test_the_kit_the_copy_and_another_password_are_enough(site: Site, tmp_path: Path) -> None:
    """The machine, the first repository, its password and the newest snapshot are gone at once."""
    escrow, second = tmp_path / "escrow", tmp_path / "second"
    escrow.write_text("in the safe\n")
    section = drill_section(site)
    section["priority"] = "normal"
    section["scenarios"] = {
        "all": {
            "without": ["machine", "repository", "password", "newest-snapshot"],
            "password_file": str(escrow),
            "hold": [
                {
                    "name": "no episode is an orphan",
                    "source": "projects",
                    "sql": "SELECT id FROM episodes WHERE project_id NOT IN "
                    "(SELECT id FROM projects)",
                },
                {
                    "name": "a service answers",
                    "command": [
                        sys.executable, "-c",
                        "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=20)",
                        "http://127.0.0.1:{port:project-service}/api/v1/health",
                    ],
                },
            ],
        }
    }  # fmt: skip
    copies = {"elsewhere": {"location": str(second), "password_env": "SECOND_PASSWORD"}}
    site.environment["SECOND_PASSWORD"] = "of the copy"
    site.config.write_text(
        site.config.read_text() + "\n" + toml({"drill": section, "copies": copies})
    )
    other = tmp_path / "other.toml"
    repository = {"location": str(second), "password_env": "SECOND_PASSWORD"}
    other.write_text(toml({"repository": repository}))
    with running_load(site.services, tmp_path / "journal.jsonl", "--workers", "2") as load:
        load.wait_for(100)
        site.safetake("backup")
        load.wait_for(load.lines() + 50)
        site.safetake("backup")
        site.safetake("copy", "elsewhere", "--init")
        site.safetake("--config", str(other), "key", "add", "--new-password-file", str(escrow))
        document = site.safetake("drill", "all")
        load.wait_for(load.lines() + 20)  # the live application went on
    assert bad(document) == []
    assert document["verdict"] == "passed"
    well = [one for one in document["checks"] if one["name"].endswith("well after the recovery")]
    assert len(well) == 2
    assert document["measured"]["rto_seconds"] < document["targets"]["rto_seconds"] == 3600
    there = site.safetake("--config", str(other), "snapshots")
    assert [one["rung"] for one in there] == ["app-checked", "stored"]
    assert {one["rung"] for one in site.safetake("snapshots")} == {"stored"}
