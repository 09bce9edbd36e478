"""Both languages say everything."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest

from safetake.runbook import words

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("key", words.TABLE)
def test_both_languages_have_each_text_with_the_same_gaps(key: str) -> None:
    texts = words.TABLE[key]
    assert set(texts) == set(words.LANGUAGES)
    gaps = [
        {name for _, name, _, _ in string.Formatter().parse(text) if name}
        for text in texts.values()
    ]
    assert gaps[0] == gaps[1]
    assert all(text.strip() for text in texts.values())


def test_no_text_is_left_over() -> None:
    used = set()
    for path in (ROOT / "src/safetake/runbook").glob("*.py"):
        if path.name != "words.py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    used.add(node.value)
    left = {key for key in words.TABLE if key not in used and not re.fullmatch(r"step\d+", key)}
    assert not left


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LC_ALL": "C.UTF-8", "LANG": "ko_KR.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "ko"}, "ko"),
        ({"LC_MESSAGES": "ko_KR", "LANG": "de_DE"}, "ko"),
    ],
)
def test_the_language_of_the_environment(environment: dict[str, str], language: str) -> None:
    assert words.default_language(environment) == language


def test_the_pages_name_the_steps() -> None:
    for language, page in (("en", "emergency.md"), ("ko", "emergency.ko.md")):
        text = (ROOT / "docs/runbook" / page).read_text(encoding="utf-8")
        heads = re.findall(r"^## \d+\. (.*)$", text, re.MULTILINE)
        assert heads == [words.TABLE[f"step{number}"][language] for number in range(1, 11)]


def test_the_pages_give_the_same_commands() -> None:
    """Those of the English page are executed by tests/test_docs.py."""
    english, korean = (
        re.findall(
            r"^\$ .*$", (ROOT / "docs/runbook" / page).read_text(encoding="utf-8"), re.MULTILINE
        )
        for page in ("emergency.md", "emergency.ko.md")
    )
    assert english == korean
    assert english
