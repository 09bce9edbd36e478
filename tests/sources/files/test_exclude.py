"""Exclusion patterns mean what git makes of them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetake.errors import ConfigError
from safetake.sources.files.exclude import Exclusions

FOLDERS = ["a", "b", "ab", "a/a", "a/b", "b/a", "ab/a.x", "a/a/a", "a/b/a.x"]
FILES = [
    f"{folder}{name}"
    for folder in ("", *(folder + "/" for folder in FOLDERS))
    for name in ("c", "a.x.x", "[", "-", "b.x")
] + ["b/b", "ab/a", "ab/b", "a/a/b", "a/ab", "a.x", "a/a.x"]


def excluded(rules: Exclusions, path: str, *, folder: bool) -> bool:
    """As the walk applies them: what is below an excluded folder goes with it."""
    parts = path.split("/")
    above = ("/".join(parts[:end]) for end in range(1, len(parts)))
    return any(rules.match(p, folder=True) for p in above) or rules.match(path, folder=folder)


def git_says(tmp: Path, pattern: str) -> set[str]:
    (tmp / ".gitignore").write_text(pattern + "\n")
    asked = "\0".join([*FOLDERS, *FILES])
    answer = subprocess.run(
        ["git", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=tmp,
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode in (0, 1), answer.stderr
    return set(answer.stdout.split("\0")) - {""}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", str(tmp)], check=True)
    for folder in FOLDERS:
        (tmp / folder).mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (tmp / file).write_bytes(b"")
    return tmp


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.sampled_from(
            [
                "a",
                "b",
                "*",
                "?",
                "**",
                "/",
                "/**/",
                "**/",
                "/**",
                "[ab]",
                "[!a]",
                "[a-b]",
                ".x",
                "\\a",
            ]
        ),
        min_size=1,
        max_size=5,
    ).map("".join)
)
def test_given_a_pattern_then_it_excludes_what_git_ignores(checkout: Path, pattern: str) -> None:
    if not pattern.strip("/") or "//" in pattern or re.search(r"[^/]\*\*|\*\*[^/]", pattern):
        return  # what git makes of these is an accident: it lets a**/b match ab
    rules = Exclusions([pattern])
    ours = {path for path in FILES if excluded(rules, path, folder=False)}
    ours |= {path for path in FOLDERS if excluded(rules, path, folder=True)}
    assert ours == git_says(checkout, pattern)


@pytest.mark.parametrize(
    ("pattern", "path", "folder", "expected"),
    [
        ("*.tmp", "deep/er/x.tmp", False, True),
        ("/build", "build", True, True),
        ("/build", "src/build", True, False),
        ("cache/", "cache", False, False),
        ("cache/", "x/cache", True, True),
        ("doc/*.txt", "doc/a/b.txt", False, False),
        ("doc/**/b.txt", "doc/x/y/b.txt", False, True),
        ("\\!important", "!important", False, True),
        ("[]a]", "]", False, True),
        ("new\nline", "new\nline", False, True),
        (os.fsdecode(b"\xff*"), os.fsdecode(b"\xff\xfe"), False, True),
    ],
)
def test_given_patterns_of_the_documentation_then_they_mean_what_it_says(
    pattern: str, path: str, folder: bool, expected: bool
) -> None:
    assert Exclusions([pattern]).match(path, folder=folder) is expected


@pytest.mark.parametrize("pattern", ["!keep", "", "/", "a[b", "a\\", "[z-a]"])
def test_given_an_impossible_pattern_then_it_is_refused_with_a_hint(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Exclusions([pattern])
    assert caught.value.hint
