"""What is installed is what is declared: locks, the wheel's contents, the two scripts."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / f"requirements-{name}.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {
        re.split(r"[^\w.-]", line, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")
        for line in requirements
    }


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("demo", ["chroma", "demo", "build"]), ("dev", ["chroma", "demo", "build", "dev"])],
)
def test_locks_hold_every_requirement(lock: str, extras: list[str]) -> None:
    """On a difference: ./dev lock"""
    wanted = names(PROJECT["dependencies"])
    for extra in extras:
        wanted |= names(PROJECT["optional-dependencies"][extra])
    assert wanted <= set(pins(lock))


def test_locks_agree_are_hashed_and_name_no_registry() -> None:
    demo, dev = pins("demo"), pins("dev")
    assert {name: dev.get(name) for name in demo} == demo
    for name in ("demo", "dev"):
        text = (ROOT / f"requirements-{name}.lock").read_text(encoding="utf-8")
        assert "://" not in text
        entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
        assert all("--hash=sha256:" in entry for entry in entries)


def test_scripts() -> None:
    for name in ("dev", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK)
    subprocess.run(["sh", "-n", "dev"], cwd=ROOT, check=True)
    done = subprocess.run(["./dev", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for command in ("demo", "test", "proof", "bench", "lock", "schema"):
        assert f"./dev {command}" in done.stdout
    done = subprocess.run(["./dev", "tst"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no './dev tst'" in done.stderr
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith('dev" test')


def test_version_is_told_once() -> None:
    from safetake import __version__

    assert PROJECT["version"] == __version__
