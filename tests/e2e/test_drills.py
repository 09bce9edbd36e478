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
