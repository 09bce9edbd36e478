"""deploy/Containerfile: what a linter says, what it promises, and its own commands, run here.

There is no container engine here, so that the image itself is not built by any test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from safetake.operate.kubernetes.outside import OWN_VARIABLES
from tests.support.kubernetes_tools import R2, ROOT

FILE = ROOT / "deploy" / "Containerfile"
LOCKS = {"requirements-image.lock": ["kubernetes"], "requirements-image-chroma.lock": ["chroma"]}


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, its words), with lines put together."""
    text = re.sub(r"(?m)^\s*#.*\n", "", FILE.read_text(encoding="utf-8")).replace("\\\n", " ")
    found = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(name, " ".join(words.split())) for name, words in found]


def of(name: str) -> list[str]:
    return [words for instruction, words in instructions() if instruction == name]


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", "--failure-threshold", "style", FILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_stage_comes_from_the_base_that_is_given_with_its_digest() -> None:
    assert of("ARG")[0] == "BASE"  # without a default: a digest can not be made up
    assert [words.split()[0] for words in of("FROM")] == ["${BASE}", "${BASE}"]


def test_it_runs_as_nobody_and_without_a_shell() -> None:
    assert of("USER") == ["10001:10001"]
    assert instructions().index(("USER", "10001:10001")) > [i for i, _ in instructions()].index(
        "LABEL"
    )
    for words in (*of("ENTRYPOINT"), *of("CMD"), of("HEALTHCHECK")[0].split("CMD ")[1]):
        assert isinstance(json.loads(words), list)
    names = [name for name, _ in instructions()]
    last = len(names) - 1 - names[::-1].index("FROM")
    assert "RUN" not in names[last:]  # the last stage holds what the first one made, nothing else
    assert not re.search(r"\b(apt|apk|curl|wget)\b", " ".join(of("RUN")))


def test_nothing_is_installed_without_a_hash() -> None:
    for command in re.findall(r"pip install [^&]*", " ".join(of("RUN"))):
        assert "--require-hashes" in command or "--no-deps --no-build-isolation" in command


def test_what_is_copied_is_there_and_not_left_out() -> None:
    listed = (ROOT / "deploy" / "Containerfile.dockerignore").read_text(encoding="utf-8")
    kept = {line[1:] for line in listed.splitlines() if line.startswith("!")}
    for words in of("COPY"):
        if not words.startswith("--from"):
            for name in words.replace("${LOCK}", "requirements-image.lock").split()[:-1]:
                assert (ROOT / name).exists()
                assert name in kept
    assert kept >= set(LOCKS)


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_hold_what_is_needed_with_hashes(lock: str) -> None:
    """On a difference: ./dev lock"""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in ("build", "kubernetes", *LOCKS[lock]):
        wanted += project["optional-dependencies"][extra]
    text = (ROOT / lock).read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
    names = {re.split(r"[^\w.-]", each)[0].lower().replace(".", "-") for each in wanted}
    assert names <= set(pinned)
    dev = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    tested = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", dev, re.MULTILINE))
    assert {name: tested.get(name) for name in pinned} == pinned
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^#.*\n", "", text).strip())
    assert all("--hash=sha256:" in entry for entry in entries)


def test_what_the_pods_set_is_no_secrets_name() -> None:
    for words in of("ENV")[1:]:
        for name in re.findall(r"(\w+)=", words):
            assert name in OWN_VARIABLES or name.startswith("PYTHON")


@pytest.mark.slow
def test_the_commands_of_the_build_work(tmp_path: Path) -> None:
    """Those of the first stage, in a folder that stands for its file system."""
    source, target = tmp_path / "src", tmp_path / "opt" / "safetake"
    source.mkdir()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    environment["PATH"] = f"{Path(sys.base_prefix) / 'bin'}:{environment['PATH']}"
    for name, words in instructions()[: [i for i, _ in instructions()].index("LABEL")]:
        if name == "COPY":
            *files, into = words.replace("${LOCK}", "requirements-image.lock").split()
            for file in files:
                place = source / into
                if (ROOT / file).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / file, place, ignore=ignored)
                else:
                    folder = place if into.endswith("/") else place.parent
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / file, place)
        elif name == "RUN":
            command = words.replace("/opt/safetake", str(target))
            subprocess.run(["sh", "-ec", command], cwd=source, env=environment, check=True)
    program = str(target / "bin" / "safetake")
    shutil.rmtree(source)  # the last stage has the environment only
    (tmp_path / "safetake.toml").write_text(R2, encoding="utf-8")

    def run(*words: str) -> str:
        done = subprocess.run(
            [program, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert run("--version").startswith("safetake ")
    rendered = json.loads(run("kubernetes", "--mode", "daemon", "--json"))
    kinds = [each["kind"] for each in rendered["items"]]
    assert "PrometheusRule" in kinds  # its rules are in the wheel
    left = {path.name.split("-")[0] for path in target.glob("lib/*/site-packages/*.dist-info")}
    assert "safetake" in left
    assert "lightkube" in left
    assert not left & {"pip", "hatchling", "editables"}
