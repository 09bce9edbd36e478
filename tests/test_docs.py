"""The documentation is complete, and its commands work: `console` blocks run on a real set-up.

In a block, `$ ` begins a command, which must end with 0. Other lines are output: each must be
printed, in order, when spaces, ids, times and numbers are taken as they come.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from safetake import config, configdrill, configjobs, configkube, configscenario
from safetake.cli.app import root
from safetake.sources.sqlite.fingerprint import RACY_NS
from tests.support.redis_server import BINARIES, running

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
EXECUTED = [page for page in PAGES if "```console" in page.read_text(encoding="utf-8")]


def section(text: str, heading: str) -> str:
    """From a heading to the next one of its level or above."""
    start = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert start, f"there is no heading {heading!r}"
    end = re.search(rf"^#{{1,{len(start[1])}}} ", text[start.end() :], re.MULTILINE)
    return text[start.end() :][: end.start() if end else None]


def commands(group: click.Group, name: str = "safetake") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        yield f"{name} {word}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")


@pytest.mark.parametrize(("name", "command"), list(commands(root)), ids=lambda x: str(x))
def test_every_command_and_option_is_in_the_reference(name: str, command: click.Command) -> None:
    text = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    own = section(text, f"`{name}`")
    everywhere = section(text, "Every command")
    for option in command.params:
        if isinstance(option, click.Option):
            for word in option.opts:
                assert f"`{word}" in own or f"`{word}" in everywhere, f"{name} {word}"


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("`[repository]`", config.RepositoryConfig),
        ('`type = "sqlite"`', config.SqliteConfig),
        ('`type = "chroma"`', config.ChromaConfig),
        ('`type = "redis"`', config.RedisConfig),
        ('`type = "files"`', config.FilesConfig),
        ("`[jobs.NAME]`", configjobs.JobConfig),
        ("`[barrier]`", config.BarrierConfig),
        ("`[services.NAME]`", config.ServiceConfig),
        ("`[services.NAME.health]`", config.HealthConfig),
        ("`[services.NAME.switch.SOURCE]`", config.SwitchConfig),
        ("`[objectives.NAME]`", config.ObjectiveConfig),
        ("`[restore]`", config.RestoreConfig),
        ("`[copies.NAME]`", config.RepositoryConfig),
        ("`[retention]`", configjobs.RetentionConfig),
        ("`[retention.jobs.NAME]`", configjobs.KeepConfig),
        ("`[references.NAME]`", configjobs.ReferenceConfig),
        ("`[references.NAME.from]`", configjobs.ReferenceEnd),
        ("`[drift]`", configjobs.DriftConfig),
        ("`[drift.sources.NAME]`", configjobs.DriftGuard),
        ("`[integrity]`", configjobs.IntegrityConfig),
        ("`[drill]`", configdrill.DrillConfig),
        ("`[drill.services.NAME]`", configdrill.DrillServiceConfig),
        ("`[drill.kubernetes]`", configdrill.DrillKubernetesConfig),
        ("`[drill.scenarios.NAME]`", configscenario.ScenarioConfig),
        ("`[[drill.scenarios.NAME.lose]]`", configscenario.LossConfig),
        ("`[[drill.scenarios.NAME.hold]]`", configscenario.HoldConfig),
        ("`[daemon]`", configjobs.DaemonConfig),
        ("`[metrics]`", configjobs.MetricsConfig),
        ("`[notify]`", configjobs.NotifyConfig),
        ("`[kubernetes]`", configkube.KubernetesConfig),
        ("`[kubernetes.volumes.NAME]`", configkube.VolumeConfig),
        ("`[kubernetes.peers.HOST]`", configkube.PeerConfig),
        ("`[[kubernetes.tolerations]]`", configkube.TolerationConfig),
    ],
)
def test_every_key_is_in_the_reference(heading: str, model: type[BaseModel]) -> None:
    own = section((DOCS / "reference" / "config.md").read_text(encoding="utf-8"), heading)
    rows = set(re.findall(r"^\| `(\w+)` \|", own, re.MULTILINE))
    fields = {field.alias or name for name, field in model.model_fields.items()}
    assert rows == fields - {"type"}


def test_the_configuration_of_the_reference_is_valid(tmp_path: Path) -> None:
    from safetake import configfile

    text = (DOCS / "reference" / "config.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(configfile.parse(example, tmp_path / "safetake.toml").sources) == 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def named(page: Path) -> Iterator[list[str]]:
    """What a page says to type, in blocks and in passing, as words after `safetake`."""
    text = page.read_text(encoding="utf-8")
    lines = []
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            lines += re.findall(
                r"^\s*(?:\$ )?(safetake .*)$", re.split(r" [|>] |&&|;|\|\|", line)[0]
            )
    lines += re.findall(r"`(safetake [^`|]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        stands_for = {"SHELL": "bash", "COMMAND": "--help"}
        yield [stands_for.get(word, word) for word in words if not re.search("[][…]", word)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_names_are_right(page: Path) -> None:
    for words in named(page):
        context = click.Context(root, info_name="safetake")
        command: click.Command | None = root
        rest = words
        while rest and rest[0] in ("--config", "-q", "--help", "--version"):
            rest = rest[1 + (rest[0] == "--config") :]
        while isinstance(command, click.Group) and rest:
            command = command.get_command(context, rest[0])
            assert command is not None, f"there is no `safetake {' '.join(words)}`"
            rest = rest[1:]
        if command is None or isinstance(command, click.Group) or "--help" in rest:
            continue
        # raises UsageError for an option or a choice that the command does not take
        rest = [word for word in rest if word != "incident.md"]  # a file that is not there
        with contextlib.suppress(click.MissingParameter):
            if rest[-1:] != ["--to"]:
                command.parse_args(click.Context(command, info_name=" ".join(words)), rest)


# ------------------------------------------------------------------- commands that are executed

CHROMA = """
import chromadb
client = chromadb.PersistentClient("data/chroma")
vectors = client.create_collection("scripts", embedding_function=None)
ids = [str(i) for i in range(300)]
vectors.add(ids=ids, embeddings=[[i / 7, 1.0, i % 5, 0.5] for i in range(300)], documents=ids)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores of the pages, made once."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "data" / "scripts").mkdir(parents=True)
    (folder / "data" / "scripts" / "one.txt").write_text("장면 1\n", encoding="utf-8")
    db = sqlite3.connect(folder / "data" / "projects.db")
    db.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT)")
    db.executemany("INSERT INTO projects (name) VALUES (?)", [(f"p{i}",) for i in range(100)])
    db.commit()
    db.close()
    subprocess.run([sys.executable, "-c", CHROMA], cwd=folder, check=True, capture_output=True)
    return folder


def blocks(page: Path) -> list[tuple[str, list[str]]]:
    """(command, lines of output) of every console block, in order."""
    found: list[tuple[str, list[str]]] = []
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def pattern(line: str) -> str:
    """Ids, times and numbers as they come, spaces too."""
    words = []
    for word in line.split():
        if re.fullmatch(r"[0-9a-f]{8}", word):
            words.append("[0-9a-f]{8}")
        else:
            words.append(re.sub(r"\d+", lambda _: r"\d+", re.escape(word)))
    return r"\s+".join(words)


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_the_commands_of_the_page_work(page: Path, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    shutil.copytree(data, place)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {
        "safetake": f"{sys.executable} -m safetake",
        "python3": sys.executable,
    }.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SAFETAKE", "RESTIC")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    environment |= {
        "PATH": f"{programs}:{environment['PATH']}",
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    version = "redis-7.0" if BINARIES["redis-7.0"] else "redis-6.2"
    with running(version, tmp_path / "redis") as server:
        with server.client() as client:
            client.mset({f"job:{i}": "x" for i in range(100)})

        def run(command: str) -> str:
            done = subprocess.run(
                ["sh", "-c", command.replace("6379", str(server.port))],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
            return done.stdout

        done = prepare(page, run, place, server.port)
        for command, expected in blocks(page):
            if command in done:
                continue
            printed = run(command)
            wanted = r"[\s\S]*?".join(rf"^\s*{pattern(line)}\s*$" for line in expected)
            assert re.search(wanted, printed, re.MULTILINE), f"$ {command}\n{printed}"


INIT = "safetake init --repository backup --sqlite data/projects.db --chroma data/chroma"
INIT += " --redis redis://127.0.0.1:6379 --files data/scripts"


def wait_until_settled(place: Path) -> None:
    """Until what was written in `place` is old enough that its bytes are compared with a backup."""
    newest = max(path.stat().st_ctime_ns for path in place.rglob("*"))
    while time.time_ns() - newest < RACY_NS:
        time.sleep(0.05)


def prepare(page: Path, run: object, place: Path, port: int) -> set[str]:
    """What a reader of the page has done before; the README begins with nothing."""
    assert callable(run)
    if page.name == "README.md":
        return set()
    run(INIT)
    done: set[str] = set()
    text = page.read_text(encoding="utf-8")
    if page.name == "redis-acl.md":
        toml = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
        for command, _ in blocks(page)[:2]:
            run(command)
            done.add(command)
        config_file = place / "safetake.toml"
        before = config_file.read_text().split("[sources.queue]")[0]
        config_file.write_text(before + toml.replace("6379", str(port)))
    elif page.name == "references.md":
        toml = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
        with (place / "safetake.toml").open("a") as appended:
            appended.write("\n" + toml)
        wait_until_settled(place)
        run("safetake backup")
    elif page.name == "kubernetes.md":
        toml = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
        (place / "kubernetes.toml").write_text(toml, encoding="utf-8")
    elif page.name == "what-happened.md":
        run(f'python3 -c "{BEFORE}"')
        run("safetake backup")
        run(f'python3 -c "{ACCIDENTS.format(port=port)}"')
    elif page.name != "commands.md":
        run("safetake backup")
    return done


BEFORE = """
import sqlite3
db = sqlite3.connect('data/projects.db')
db.execute('CREATE TABLE episodes (id INTEGER PRIMARY KEY, title TEXT)')
db.execute('CREATE INDEX by_title ON episodes (title)')
db.executemany('INSERT INTO episodes (title) VALUES (?)', ['a', 'b', 'c'])
db.commit()
"""
ACCIDENTS = """
import pathlib, redis, sqlite3
db = sqlite3.connect('data/projects.db')
db.execute('DELETE FROM projects WHERE id = 20')
db.execute('DROP TABLE episodes')
db.commit()
redis.Redis(port={port}).delete('job:7')
pathlib.Path('data/scripts/one.txt').unlink()
"""


def test_both_languages_know_the_same_accidents() -> None:
    english, korean = (
        (DOCS / "runbook" / name).read_text(encoding="utf-8")
        for name in ("what-happened.md", "what-happened.ko.md")
    )

    def typed(text: str) -> list[str]:
        found = re.findall(r"^(?:\$ )?safetake [^#\n]*", text, re.MULTILINE)
        return [line.removeprefix("$ ").replace(" --language ko", "").strip() for line in found]

    assert typed(english) == typed(korean)
    for text in (english, korean):
        heads = {
            re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
            for head in re.findall(r"^## (.+)$", text, re.MULTILINE)
        }
        assert set(re.findall(r"\(#([^)]+)\)", text)) <= heads
        assert len(heads) == 13
