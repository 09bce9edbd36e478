"""The kit is enough, what is missing from it is named, and the page says what a stranger needs."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from safetake import configfile
from safetake.connect import open_repository
from safetake.evidence import save
from safetake.kit.configuration import hidden_words
from safetake.kit.page import commands
from tests.cli.conftest import Workplace
from tests.evidence.test_evidence import draft


@pytest.mark.parametrize("words", [pytest.param((), marks=pytest.mark.slow), ("--with-password",)])
def test_the_kit_is_enough(workplace: Workplace, words: tuple[str, ...]) -> None:
    if words:  # several jobs: the newest snapshot has one source of two
        with sqlite3.connect(workplace.folder / "projects.db") as db:
            db.execute("INSERT INTO projects (name) VALUES ('newer')")
        db.close()
        workplace.run("backup", "nightly")
    assert "never rehearsed" in workplace.run("kit").stdout
    document = workplace.json("kit", "--check", *words)
    assert document["verdict"] == "passed"
    names = {(check["source"], check["name"]) for check in document["checks"] if check["source"]}
    for source in ("projects", "scripts"):
        assert (source, "both ways bring back the same") in names
        assert any(one == source and name.startswith("restored: ") for one, name in names)
    rows = [one for one in document["checks"] if one["name"] == "restored: row counts"]
    assert [one["found"] for one in rows] == [{"projects": 101 if words else 100}]
    assert sum(step["name"].startswith("restic") for step in document["steps"]) == 3
    assert set(document["measured"]) == {"bytes", "safetake_seconds", "restic_seconds"}
    assert "password\n" not in str(document), "the password is in the evidence"
    assert '"kind": "kit"' in workplace.run("--json", "history").stdout
    assert re.search(r"\| rehearsed on .* s with safetake, ", workplace.run("kit").stdout)


def test_the_page(workplace: Workplace) -> None:
    page = workplace.run("kit").stdout
    assert "password_file" in page
    assert "\npassword\n" not in page
    assert len(commands(page)) == 8
    assert "On the disk of projects, scripts" in page
    assert "There is no second copy" not in page, "the worse is said"
    told = workplace.run("kit", "--with-password", "--output", "kit.md").stdout
    assert "kit.md" in told
    file = workplace.folder / "kit.md"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "printf '%s\\n' password > kit.password" in file.read_text(encoding="utf-8")
    assert "never overwritten" in workplace.error("kit", "--output", "kit.md", code=2)[0]


def test_what_was_rehearsed_of_another_repository_is_not_said_of_a_copy(
    workplace: Workplace,
) -> None:
    config = configfile.load(workplace.folder / "safetake.toml")
    with open_repository(config) as repository:
        save(repository, draft("recovery kit", kind="kit", repository="of the first"))
    assert "never rehearsed" in workplace.run("kit").stdout


def test_what_is_in_no_snapshot_and_what_else_opens_it(workplace: Workplace) -> None:
    config = workplace.folder / "safetake.toml"
    config.write_text(
        config.read_text() + '[sources.new]\ntype = "files"\npath = "new"\n'
        '[copies.elsewhere]\nlocation = "second"\npassword_file = "second.password"\n'
        '[copies.away]\nlocation = "not/there"\npassword_file = "second.password"\n'
    )
    for name, text in (("second.password", "another one"), ("third.password", "a third one")):
        (workplace.folder / name).write_text(text + "\n")
        (workplace.folder / name).chmod(0o600)
    workplace.run("copy", "elsewhere", "--init")
    workplace.run("key", "add", "--new-password-file", "third.password")
    page = workplace.run("kit").stdout
    assert "**Never backed up: new**" in page
    assert re.search(r"\| 2, made by \S+ [-\d]+ \(this one\), \S+ [-\d]+ \|", page)
    assert re.search(r"\| copy elsewhere \| `.*/second`, .* 1 snapshots, the newest of ", page)
    assert "NOT REACHED when this page was made" in page
    assert "another one" not in page
    assert "The copy elsewhere has a password of its own." in page
    both = workplace.run("kit", "--with-password").stdout
    assert "printf '%s\\n' 'another one' > kit.password" in both
    assert len(commands(both)) == len(commands(page)) + 1, "a copy's password is no step"


SECRETS = """
[sources.vectors]
type = "chroma"
url = "http://127.0.0.1:1"
headers = {Authorization = "Bearer sesame-1"}
headers_env = {X-Token = "CHROMA_TOKEN"}
[sources.queue]
type = "redis"
url = "redis://127.0.0.1:6379"
password_env = "QUEUE_PASSWORD"
[services.api]
start = ["sh", "-c", "API_TOKEN=sesame-2 http://me:sesame-3@host/ --db-password=sesame-4 sesame-9"]
stop = ["redis-cli", "-a", "sesame-5", "--secret", "sesame-6", "shutdown"]
running = ["curl", "-H", "Authorization: Bearer sesame-7", "-u", "me:sesame-8", "http://host/"]
health = "http://host/health?key=sesame-10"
[notify]
urls = ["json://host/sesame-11"]
# sesame-12
"""


def test_no_secret_of_the_configuration_is_printed(workplace: Workplace) -> None:
    config = workplace.folder / "safetake.toml"
    config.write_text(config.read_text() + SECRETS)
    workplace.environment |= {"QUEUE_PASSWORD": "sesame-9", "CHROMA_TOKEN": "sesame-13"}
    page = workplace.run("kit").stdout
    assert re.findall(r"sesame\S*", page) == []
    (block,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    printed = tomllib.loads(block)
    assert list(printed) == ["sources", "services"]
    assert printed["sources"]["projects"]["path"] == str(workplace.folder / "projects.db")
    assert printed["services"]["api"]["stop"] == [
        "redis-cli", "-a", "***", "--secret", "***", "shutdown",
    ]  # fmt: skip
    assert "`***` stands for a secret" in page
    assert hidden_words(["run", "--port", "80", "-a", "x"], []) == [
        "run",
        "--port",
        "80",
        "-a",
        "x",
    ]


def damaged(workplace: Workplace) -> None:
    for pack in (workplace.folder / "repo" / "data").rglob("*/*"):
        content = bytearray(pack.read_bytes())
        content[len(content) // 2 - 400 : len(content) // 2] = bytes(400)
        pack.chmod(0o600)
        pack.write_bytes(content)


def test_a_kit_that_is_not_enough(workplace: Workplace) -> None:
    damaged(workplace)
    document = workplace.json("kit", "--check", code=1)
    wrong = [check["name"] for check in document["checks"] if not check["ok"]]
    assert "safetake --config kit.toml restore latest projects --to restored" in wrong
    assert "both ways bring back the same" in wrong
    page = workplace.run("kit").stdout
    assert "rehearsal of this page FAILED" in page
    assert "| DAMAGED |" in page


@pytest.mark.slow
def test_two_ways_that_are_wrong_together(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They agree with one another, and not with the facts of the snapshot."""
    from safetake.kit.collect import make
    from safetake.kit.rehearse import check_kit

    for name, value in workplace.environment.items():
        monkeypatch.setenv(name, value)
    file = workplace.folder / "safetake.toml"
    with open_repository(configfile.load(file)) as repository:
        kit = make(configfile.load(file), repository, file, with_password=False)
        facts: Any = kit.entries["projects"]["facts"]
        facts["rows"]["projects"] += 1
        document = check_kit(kit, repository, "password", None)
    wrong = [check.name for check in document.checks if not check.ok]
    assert wrong == ["restored: row counts"]
    assert document.verdict == "failed"


def test_a_command_that_hangs_is_a_failed_check(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence, and nothing that goes on in a folder that is gone."""
    from safetake.kit import rehearse
    from safetake.kit.collect import make

    monkeypatch.setattr(rehearse, "_TIMEOUT_S", 0.05)
    file = workplace.folder / "safetake.toml"
    monkeypatch.chdir(workplace.folder)
    with open_repository(configfile.load(file)) as repository:
        kit = make(configfile.load(file), repository, file, with_password=False)
        document = rehearse.check_kit(kit, repository, "password", None)
    assert document.verdict == "failed"
    hung = [check for check in document.checks if str(check.found).startswith("no end after")]
    assert any("restore latest" in check.name for check in hung)


def test_a_check_writes_no_page(workplace: Workplace) -> None:
    said = workplace.error("kit", "--check", "--output", "kit.md", code=2)
    assert "writes no page" in said[0]
    assert not (workplace.folder / "kit.md").exists()


@pytest.mark.slow
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
