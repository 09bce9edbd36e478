"""The kit is enough, and what is missing from it is named."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

from safetake.kit.page import commands
from tests.cli.conftest import Workplace


@pytest.mark.parametrize("words", [(), ("--with-password",)])
def test_the_kit_is_enough(workplace: Workplace, words: tuple[str, ...]) -> None:
    document = workplace.json("kit", "--check", *words)
    assert document["verdict"] == "passed"
    assert {check["source"] for check in document["checks"] if check["source"]} == {
        "projects",
        "scripts",
    }
    assert sum("restic" in step["name"] for step in document["steps"]) == 2
    assert "password\n" not in str(document), "the password is in the evidence"
    assert '"kind": "kit"' in workplace.run("--json", "history").stdout


def test_the_page(workplace: Workplace) -> None:
    page = workplace.run("kit").stdout
    assert "password_file" in page
    assert "\npassword\n" not in page
    assert len(commands(page)) == 7
    told = workplace.run("kit", "--with-password", "--output", "kit.md").stdout
    assert "kit.md" in told
    file = workplace.folder / "kit.md"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "printf '%s\\n' password > kit.password" in file.read_text(encoding="utf-8")
    assert "never overwritten" in workplace.error("kit", "--output", "kit.md", code=2)[0]


def test_a_kit_that_is_not_enough(workplace: Workplace) -> None:
    for pack in (workplace.folder / "repo" / "data").rglob("*/*"):
        content = bytearray(pack.read_bytes())
        content[len(content) // 2 - 400 : len(content) // 2] = bytes(400)
        pack.chmod(0o600)
        pack.write_bytes(content)
    document = workplace.json("kit", "--check", code=1)
    wrong = [check["name"] for check in document["checks"] if not check["ok"]]
    assert "safetake --config kit.toml restore latest --to restored" in wrong
    assert "both ways bring back the same" in wrong


def test_the_password_is_in_no_process_list(empty: Workplace) -> None:
    secret = "xyzzy-plugh-4711"
    (empty.folder / "secret").write_text(secret + "\n")
    (empty.folder / "secret").chmod(0o600)
    empty.run("init", "--repository", "repo", "--password-file", "secret", "--files", "scripts")
    empty.run("backup")
    checking = subprocess.Popen(
        empty.command("--json", "kit", "--check", "--with-password"),
        cwd=empty.folder,
        env=empty.environment,
        stdout=subprocess.PIPE,
    )
    seen: set[bytes] = set()
    while checking.poll() is None:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                seen.add(process.read_bytes())
    assert checking.wait() == 0
    assert any(b"command.sh" in words for words in seen), "no command was met"
    assert not any(secret.encode() in words for words in seen)
    assert checking.stdout is not None
    assert secret not in checking.stdout.read().decode()
