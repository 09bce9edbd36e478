"""`safetake kubernetes` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from safetake.cli.app import run
from tests.cli.conftest import Workplace
from tests.support.kubernetes_tools import R2, rendered_by_helm, run_tool


@pytest.fixture
def place(empty: Workplace) -> Workplace:
    (empty.folder / "safetake.toml").write_text(R2, encoding="utf-8")
    return empty


def test_yaml_for_kubectl_or_one_list(place: Workplace) -> None:
    done = place.run("kubernetes", "--mode", "daemon")
    documents = list(yaml.safe_load_all(done.stdout))
    assert "Deployment" in [document["kind"] for document in documents]
    assert done.stderr.startswith("warning: kubernetes.volumes.data: the repository is on")
    assert place.run("--quiet", "kubernetes").stderr == ""
    found = place.json("kubernetes", "--mode", "daemon")
    assert found == {"apiVersion": "v1", "kind": "List", "items": documents}


def test_files_that_kustomize_reads_whatever_was_there_before(place: Workplace) -> None:
    folder = place.folder / "manifests"
    done = place.run("kubernetes", "--output", "manifests")
    assert done.stdout.split()[0].startswith("manifests/")
    before = {each.name for each in folder.iterdir()}
    assert "cronjob-safetake-sqlite-backup.yaml" in before
    (folder / "mine.yaml").write_text("a: b\n")
    done = place.run("kubernetes", "--output", "manifests", "--mode", "daemon")
    assert "cronjob-safetake-sqlite-backup.yaml: not rendered any more" in done.stderr
    assert "mine.yaml" not in done.stderr
    found = run_tool("kubectl", "kustomize", folder)
    assert found.returncode == 0, found.stderr
    assert "kind: Deployment" in found.stdout
    assert "kind: CronJob" not in found.stdout


def test_files_of_others_are_not_overwritten(place: Workplace) -> None:
    (place.folder / "kustomization.yaml").write_text("mine: true\n")
    message, hint = place.error("kubernetes", "--output", ".", "--quiet", code=1)
    assert message == "kustomization.yaml was not written by safetake"
    assert "empty folder" in hint
    assert not list(place.folder.glob("cronjob-*"))


def test_values_for_the_chart(place: Workplace) -> None:
    values = yaml.safe_load(place.run("kubernetes", "--values", "--quiet").stdout)
    documents = rendered_by_helm(values, place.folder, "ai-script-generator")
    assert sum(document["kind"] == "CronJob" for document in documents) == 3
    assert values == place.json("kubernetes", "--values")


def test_a_command_once(place: Workplace) -> None:
    words = ("restore", "latest", "--in-place", "--yes", "--json")
    found = yaml.safe_load(place.run("kubernetes", "-q", "--mode", "job", "--", *words).stdout)
    assert found["kind"] == "Job"
    assert found["spec"]["template"]["spec"]["containers"][0]["args"] == list(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "job"], "--mode job and a command go together"),
        (["backup"], "--mode job and a command go together"),
        (["--values", "--output", "x"], "--values goes with neither"),
        (["--mode", "both"], "both"),
        (["--image", "safetake:1"], "safetake.toml: kubernetes.image: has no digest"),
    ],
)
def test_wrong_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    file = tmp_path / "safetake.toml"
    file.write_text(R2, encoding="utf-8")
    assert run(["kubernetes", "--json", "--config", str(file), *words]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert message in error["message"]
    assert error["hint"]


def test_unpinned_images_are_a_decision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "safetake.toml"
    file.write_text(R2, encoding="utf-8")
    words = ["--image", "safetake:1", "--allow-unpinned-image", "--quiet"]
    assert run(["kubernetes", "--config", str(file), *words]) == 0
    assert capsys.readouterr().out.count('image: "safetake:1"') == 3


def test_a_configuration_that_does_not_fit_is_all_told(place: Workplace) -> None:
    text = R2.replace('mount = "/data"', 'mount = "/elsewhere"')
    (place.folder / "safetake.toml").write_text(text, encoding="utf-8")
    message, hint = place.error("kubernetes", code=2)
    assert len(message.splitlines()) == 4
    assert "docs/how-to/kubernetes.md" in hint
