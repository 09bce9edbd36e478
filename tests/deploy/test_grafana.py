"""The dashboard: what it asks for is exported, and what it shows has a unit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from safetake.operate.metrics.families import METRICS
from tests.operate.metrics.support import promtool

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "safetake.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NAME = re.compile(r"\b(?:safetake|backup)_[a-z_]+\b")


def test_it_is_a_dashboard() -> None:
    assert DASHBOARD["title"] == DASHBOARD["uid"] == "safetake"
    assert DASHBOARD["schemaVersion"] >= 36
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert "id" not in DASHBOARD, "the number of one installation"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_each_panel_has_a_unit_and_asks_for_what_is_exported(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["description"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    for target in panel["targets"]:
        names = set(NAME.findall(target["expr"]))
        assert names, target["expr"]
        assert names <= METRICS.keys()
        for name in names:
            for braces in re.findall(rf"{name}\{{(.*?)\}}", target["expr"]):
                labels = set(re.findall(r"(\w+)=", braces)) - {"instance"}
                assert labels <= set(METRICS[name].labels)
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for label in legend:
            assert any(label in METRICS[name].labels for name in names), target


def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{panel['id']}:{target['refId']}", "expr": target["expr"]}
        for panel in PANELS
        for target in panel["targets"]
    ]
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", str(path))


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


def test_every_metric_is_on_a_panel_or_for_alerts_alone() -> None:
    shown = {
        name
        for panel in PANELS
        for target in panel["targets"]
        for name in NAME.findall(target["expr"])
    }
    assert METRICS.keys() - shown == {
        "backup_last_success_timestamp",
        "safetake_build_info",
        "safetake_metrics_timestamp_seconds",
        "safetake_history_begin_timestamp_seconds",
        "safetake_daemon_up",
        "safetake_daemon_start_timestamp_seconds",
        "safetake_job_last_run_timestamp_seconds",
        "safetake_job_runs_total",
        "safetake_job_last_missed_timestamp_seconds",
        "safetake_source_partial_rto_seconds",
        "safetake_source_partial_restore_measured_seconds",
        "safetake_notification_last_delivered_timestamp_seconds",
        "safetake_notifications_pending",
        "safetake_notifications_dropped_total",
        "safetake_proof_problems",
        "safetake_restore_interrupted",
        "safetake_notification_failures_total",
        "safetake_publish_failures_total",
    }
