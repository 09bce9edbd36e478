"""The alerts: promtool accepts them, each was seen to fire and to be silent, each has a page."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from safetake.cli.app import root
from safetake.operate.metrics.families import METRICS
from tests.operate.metrics.support import promtool
from tests.support.prometheus import program

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "safetake.rules.yml"
PAGES = ROOT / "docs" / "runbook" / "alerts"
TESTS = sorted(Path(__file__).parent.glob("*.test.yml"))
HEADINGS = ["What it means", "What to look at", "What to do", "When to escalate"]
STANDS_FOR = {"JOB": "nightly", "SOURCE": "projects", "ID": "latest", "DIR": "somewhere"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


NAMES = sorted({alert["alert"] for alert in alerts()})


def test_promtool_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_each_alert_fires_and_does_not_when_it_should(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", path.name, cwd=path.parent)


def test_the_examples_are_valid() -> None:
    assert "is valid prometheus config" in promtool(
        "check", "config", str(FOLDER / "prometheus.yml")
    )
    example = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    assert all(job["honor_labels"] for job in example["scrape_configs"])
    done = subprocess.run(
        [program("amtool"), "check-config", str(FOLDER / "alertmanager.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_in_a_test_of_either_outcome() -> None:
    fires, silent = set(), set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for asked in test["alert_rule_test"]:
                for expected in asked["exp_alerts"]:
                    severity = expected["exp_labels"]["severity"]
                    fires.add((asked["alertname"], severity))
                if not asked["exp_alerts"]:
                    silent.add(asked["alertname"])
    assert fires == {(alert["alert"], alert["labels"]["severity"]) for alert in alerts()}
    assert silent == set(NAMES)


def test_the_documents_alerts_are_as_it_says() -> None:
    found = {alert["alert"]: alert for alert in alerts()}
    failed, aging = found["BackupFailed"], found["BackupAging"]
    assert failed["expr"] == "backup_job_success == 0"
    assert (failed["for"], failed["labels"]) == ("5m", {"severity": "critical"})
    assert aging["expr"] == "time() - backup_last_success_timestamp > 86400"
    assert (aging["for"], aging["labels"]) == ("1h", {"severity": "warning"})


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_each_alert_says_what_is_needed(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["for"]
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/runbook/alerts/{alert['alert']}.md"
    assert (ROOT / notes["runbook_url"]).is_file()
    words = set(re.findall(r"\b(?:safetake|backup)_\w+", f"{alert['expr']} {notes['description']}"))
    assert words <= METRICS.keys()


def test_pages_and_alerts_are_the_same() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "README") == NAMES
    listed = re.findall(r"^\| \[(\w+)\]\(\1\.md\)", (PAGES / "README.md").read_text(), re.MULTILINE)
    assert listed == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_page_helps(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    assert parts[0].startswith(f"# {name}\n")
    assert parts[1::2] == HEADINGS
    assert all(len(part.split()) > 6 for part in parts[2::2])
    severities = {a["labels"]["severity"] for a in alerts() if a["alert"] == name}
    assert all(severity in parts[0] for severity in severities)
    assert commands(text), "no command to copy"


def commands(text: str) -> list[list[str]]:
    """What a page says to type, in blocks and in passing, as words after `safetake`."""
    found = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    found += re.findall(r"`(safetake [a-z][^`…]*)`", text)
    words = [shlex.split(line) for line in found if line.startswith("safetake ")]
    return [[STANDS_FOR.get(word, word) for word in line[1:]] for line in words]


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_commands_of_the_pages_exist(path: Path) -> None:
    for words in commands(path.read_text(encoding="utf-8")):
        command: click.Command | None = root
        context = click.Context(root, info_name="safetake")
        rest = words
        while isinstance(command, click.Group) and rest:
            command = command.get_command(context, rest[0])
            assert command is not None, f"there is no `safetake {' '.join(words)}`"
            rest = rest[1:]
            context = click.Context(command, parent=context, info_name="x")
        assert command is not None
        # raises UsageError for an option or argument that the command does not take
        command.parse_args(
            click.Context(command, info_name=words[0], resilient_parsing=False), rest
        )
