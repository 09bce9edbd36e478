"""Disasters that take more than data: the newest snapshot, the repository, the password, the
machine; a collection; and what must hold afterwards. Each ends well, and each is made to fail."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safetake import configfile, sandbox
from safetake.configscenario import ScenarioConfig
from safetake.drill.aftermath import Aftermath
from safetake.drill.twin import fill
from safetake.drill.without import refuse_unhidden
from safetake.errors import ConfigError, RefusedError, UsageError
from tests.cli.conftest import Workplace
from tests.support.redis_server import running

SECRET = "an escrowed sentence that nobody guesses"
LOST = "[drill.scenarios.lost]\n"


@pytest.fixture
def workplace(workplace: Workplace) -> Workplace:
    """One whose drills do not give way to other tests."""
    configured(workplace, '[drill]\npriority = "normal"\n')
    return workplace


def configured(place: Workplace, toml: str) -> None:
    with (place.folder / "safetake.toml").open("a") as file:
        file.write(toml)


def drilled(place: Workplace, *words: str, scenario: str = "lost") -> dict[str, Any]:
    document: dict[str, Any] = place.json("drill", scenario, *words)
    assert document["verdict"] == "passed"
    assert not list(Path(place.environment["TMPDIR"]).glob("safetake-*")), "copies were left"
    return document


def failed(place: Workplace, *words: str, scenario: str = "lost") -> tuple[str, dict[str, Any]]:
    """What is said of the checks that are not good and of the problems."""
    document = place.json("drill", scenario, *words, code=1)
    assert document["verdict"] == "failed"
    wrong = [f"{one['name']}: {one['found']}" for one in document["checks"] if not one["ok"]]
    return "\n".join([*wrong, *document["problems"]]), document


def repository_id(place: Workplace, name: str) -> str:
    words = ["restic", "-r", name, "--password-file", f"{name}.password", "cat", "config"]
    said = subprocess.run(words, cwd=place.folder, capture_output=True, check=True, timeout=60)
    return str(json.loads(said.stdout)["id"])


def found(document: dict[str, Any], name: str) -> Any:
    (check,) = [one for one in document["checks"] if one["name"] == name]
    return check["found"]


def changed(place: Workplace) -> str:
    """Something else in every store, and its snapshot: the newest."""
    with sqlite3.connect(place.folder / "projects.db") as db:
        db.execute("UPDATE projects SET name = 'newer' WHERE id > 50")
        db.execute("INSERT INTO projects (name) VALUES ('newest')")
    db.close()
    (place.folder / "scripts" / "one.txt").write_text("newer")
    (place.folder / "scripts" / "two.txt").write_text("newest")
    return str(place.json("backup")["id"])


def escrowed(place: Workplace) -> Path:
    """A second password, of which a file is kept elsewhere."""
    file = place.folder / "safe" / "second.password"
    file.parent.mkdir()
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    place.run("key", "add", "--new-password-file", str(file))
    return file


def copied(place: Workplace) -> None:
    configured(
        place, '[copies.elsewhere]\nlocation = "second"\npassword_file = "second.password"\n'
    )
    (place.folder / "second.password").write_text("another\n")
    place.run("copy", "elsewhere", "--init")


# ------------------------------------------------------------------------------ the newest snapshot


@pytest.mark.slow
def test_without_the_newest_snapshot(workplace: Workplace) -> None:
    older = workplace.json("snapshots")[0]
    newest = changed(workplace)
    configured(workplace, LOST + 'without = ["newest-snapshot"]\n')
    document = drilled(workplace)
    assert document["snapshot"] == older["id"]
    assert found(document, f"the newest snapshot {newest[:8]} is gone") == "not listed"
    judged = [one for one in document["checks"] if one["name"].startswith("every item")]
    assert all("brought back by restic" in one["expected"] for one in judged)
    rungs = {one["id"]: one["rung"] for one in workplace.json("snapshots")}
    assert rungs == {older["id"]: "restored", newest: "stored"}


def test_no_older_snapshot(workplace: Workplace) -> None:
    configured(workplace, LOST + 'without = ["newest-snapshot"]\n')
    said, _ = failed(workplace)
    assert "there is an older snapshot: none of projects, scripts is older" in said


@pytest.mark.slow
def test_the_age_of_the_older_snapshot_counts(workplace: Workplace) -> None:
    changed(workplace)
    configured(workplace, LOST + 'without = ["newest-snapshot"]\n')
    age = drilled(workplace)["measured"]["rpo_seconds"]
    configured(workplace, f"[objectives.projects]\nrpo = {age}\n")
    _, document = failed(workplace)
    assert document["targets"] == {"rpo_seconds": age}
    assert document["problems"] == []


@pytest.mark.slow
def test_the_older_snapshot_is_damaged(workplace: Workplace) -> None:
    large = workplace.folder / "scripts" / "large"
    large.write_bytes(os.urandom(20 << 20))
    before = set((workplace.folder / "repo" / "data").rglob("*/*"))
    older = workplace.json("backup")["id"]
    packs = set((workplace.folder / "repo" / "data").rglob("*/*")) - before
    large.unlink()
    changed(workplace)
    pack = max(packs, key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    configured(workplace, LOST + 'without = ["newest-snapshot"]\n')
    said, _ = failed(workplace)
    assert f"snapshot {older[:8]} does not come back: restic ended with" in said


# ------------------------------------------------------------------------------------ the password


@pytest.mark.slow
@pytest.mark.parametrize("way", ["file", "env", "command"])
def test_without_the_password(workplace: Workplace, way: str) -> None:
    file = escrowed(workplace)
    workplace.environment["ESCROW"] = SECRET
    configured(
        workplace,
        LOST
        + 'without = ["password"]\n'
        + {
            "file": 'password_file = "safe/second.password"\n',
            "env": 'password_env = "ESCROW"\n',
            "command": f"password_command = {json.dumps(f'cat {file}')}\n",
        }[way],
    )
    document = drilled(workplace)
    name = "the usual password file safetake.password is out of reach"
    assert found(document, name) == "nothing can be read"
    assert SECRET not in json.dumps(document)
    assert SECRET not in workplace.run("history", "--json").stdout


@pytest.mark.slow
def test_a_password_that_opens_nothing(workplace: Workplace) -> None:
    file = escrowed(workplace)
    file.write_text("another one\n")
    configured(workplace, LOST + 'without = ["password"]\npassword_file = "safe/second.password"\n')
    said, _ = failed(workplace)
    assert "another password opens the repository: " in said
    assert "another one" not in said
    file.unlink()
    said, _ = failed(workplace)
    assert "another password is there: the password file" in said


def test_a_password_that_is_fetched_where_it_was_lost(workplace: Workplace) -> None:
    usual = workplace.folder / "safetake.password"
    command = json.dumps(f"cat {usual}")
    configured(workplace, LOST + f'without = ["password"]\npassword_command = {command}\n')
    said, _ = failed(workplace)
    assert "another password is there" in said
    assert "password_command failed (exit code 1)" in said


# ---------------------------------------------------------------------------------- the repository


@pytest.mark.slow
def test_without_the_repository(workplace: Workplace) -> None:
    copied(workplace)
    configured(workplace, LOST + 'without = ["repository"]\n')
    document = drilled(workplace)
    assert found(document, "the first repository is out of reach") == "nothing can be read"
    assert document["repository"] == repository_id(workplace, "second")
    assert workplace.json("snapshots")[-1]["rung"] == "stored"
    # the proof is where the data came from
    assert list((workplace.folder / "second" / "proofs").iterdir())
    # parts of a store come back from a copy as well
    configured(
        workplace,
        '[drill.scenarios.part]\nwithout = ["repository"]\nrecover_from = "elsewhere"\n'
        '[[drill.scenarios.part.lose]]\nsource = "projects"\nshare = 0.2\n',
    )
    assert "projects" in {one["source"] for one in drilled(workplace, scenario="part")["checks"]}


@pytest.mark.slow
def test_a_copy_that_is_behind(workplace: Workplace) -> None:
    copied(workplace)
    older = workplace.json("snapshots")[0]["id"]
    changed(workplace)
    configured(
        workplace,
        LOST
        + 'without = ["repository"]\n'
        + '[drill.scenarios.part]\nwithout = ["repository"]\n'
        + '[[drill.scenarios.part.lose]]\nsource = "projects"\nshare = 0.2\n',
    )
    document = drilled(workplace)
    assert document["measured"]["rpo_seconds"] > 0
    assert document["snapshot"] != older  # a copied snapshot has an id of its own
    message, hint = workplace.error("drill", "part", code=2)
    assert "parts can only be compared with the same snapshot" in message
    assert "safetake copy" in hint


@pytest.mark.slow
def test_a_copy_that_is_of_no_use(workplace: Workplace) -> None:
    configured(workplace, LOST + 'without = ["repository"]\n')
    message, hint = workplace.error("drill", "lost", code=2)
    assert "no copy is configured" in message
    assert "safetake copy" in hint
    copied(workplace)
    for path in (workplace.folder / "second" / "snapshots").iterdir():
        path.unlink()
    said, _ = failed(workplace)
    assert "the copy has a snapshot: it has none of projects, scripts" in said
    (workplace.folder / "second" / "config").unlink()
    said, _ = failed(workplace)
    assert "the copy opens: " in said


# ------------------------------------------------------------------------------------- the machine


@pytest.mark.slow
def test_without_the_machine(workplace: Workplace, tmp_path: Path) -> None:
    with running("redis-7.0", tmp_path / "redis") as server, server.client() as client:
        client.hset("job", mapping={"a": 1})
        client.set("session", "1", ex=3600)
        configured(
            workplace,
            f'[sources.queue]\ntype = "redis"\nurl = "redis://127.0.0.1:{server.port}"\n'
            + LOST
            + 'without = ["machine", "newest-snapshot"]\n'
            + '[drill.scenarios.bare]\nwithout = ["machine"]\n',
        )
        older = workplace.json("backup")["id"]
        before = listing(workplace.folder / "repo")
        client.set("newer", "1")
        newest = changed(workplace)
        document = drilled(workplace, scenario="bare")
        assert document["snapshot"] == newest
        assert any("--config kit.toml restore latest" in note for note in document["notes"])
        assert found(document, "the place of projects is out of reach") == "nothing can be read"
        document = drilled(workplace)
        assert document["snapshot"] == older
    assert before <= listing(workplace.folder / "repo"), "the repository was changed"
    assert {one["rung"] for one in workplace.json("snapshots")[-2:]} == {"restored"}


def listing(root: Path) -> set[tuple[str, int]]:
    """What holds the data in a repository."""
    return {
        (str(path.relative_to(root)), path.stat().st_size)
        for kind in ("data", "index", "keys", "snapshots")
        for path in (root / kind).rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_everything_at_once(workplace: Workplace) -> None:
    """No machine, repository, password or newest snapshot: the older one of the copy."""
    workplace.folder.joinpath("second.password").write_text("another\n")
    changed(workplace)
    copied(workplace)
    file = escrowed(workplace)
    second = workplace.folder / "second.toml"
    second.write_text('[repository]\nlocation = "second"\npassword_file = "second.password"\n')
    workplace.run("--config", str(second), "key", "add", "--new-password-file", str(file))
    configured(
        workplace,
        LOST + 'without = ["machine", "repository", "password", "newest-snapshot"]\n'
        'password_file = "safe/second.password"\n'
        '[[drill.scenarios.lost.hold]]\nname = "a hundred"\nsource = "projects"\n'
        'sql = "SELECT count(*) FROM projects"\nexpected = 100\n',
    )
    document = drilled(workplace)
    names = [one["name"] for one in document["checks"]]
    assert [name for name in names if "out of reach" in name][:-1] == [
        "the first repository is out of reach",
        "the usual password file safetake.password is out of reach",
        "the usual password file second.password is out of reach",
        "the place of projects is out of reach",
        "the place of scripts is out of reach",
    ]


@pytest.mark.slow
def test_a_kit_that_brings_back_another(workplace: Workplace) -> None:
    older = workplace.json("snapshots")[0]["id"]
    workplace.run("backup", "projects")
    configured(workplace, LOST + 'without = ["machine"]\n')
    message, _ = workplace.error("drill", "lost", "--snapshot", older[:12], code=2)
    assert "the recovery kit brings projects back from" in message
    assert f"not from {older[:8]}" in message


@pytest.mark.slow
def test_a_kit_whose_commands_fail(workplace: Workplace, tmp_path: Path) -> None:
    """The command is named, and nothing is said of items."""
    folder = tmp_path / "saboteur"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nif 'kit.toml' in sys.argv and 'check' in sys.argv:\n"
        "    sys.exit('the disk is slow today')\n"
    )
    workplace.environment["PYTHONPATH"] = str(folder)
    configured(workplace, LOST + 'without = ["machine"]\n')
    said, document = failed(workplace)
    assert "the kit's `safetake --config kit.toml check` ended with 1: " in said
    assert "the disk is slow today" in said
    assert not [one for one in document["checks"] if one["name"].startswith("every item")]


# ---------------------------------------------------------------------------- what must hold


def test_what_must_hold(workplace: Workplace) -> None:
    production = workplace.folder / "scripts" / "one.txt"
    reach = "import sys; open(sys.argv[1], 'a')"
    configured(
        workplace,
        "[drill.scenarios.lost]\n"
        '[[drill.scenarios.lost.lose]]\nsource = "projects"\neverything = true\n'
        + "".join(
            f"[[drill.scenarios.lost.hold]]\n{line}\n"
            for line in (
                'name = "a hundred"\nsource = "projects"\n'
                'sql = "SELECT count(*) FROM projects"\nexpected = 100',
                'name = "none unnamed"\nsource = "projects"\n'
                "sql = \"SELECT id FROM projects WHERE name = ''\"",
                'name = "the copy is there"\ncommand = ["test", "-s", "{projects}"]',
                'name = "nobody is last"\nsource = "projects"\n'
                'sql = "SELECT id FROM projects WHERE id > 99"',
                'name = "ninety"\nsource = "projects"\n'
                'sql = "SELECT count(*) FROM projects"\nexpected = 90',
                'name = "no question"\nsource = "projects"\nsql = "-- later"',
                'name = "its schema"\nsource = "projects"\nsql = "SELECT * FROM episodes"',
                'name = "production"\n'
                f"command = {json.dumps([sys.executable, '-c', reach, str(production)])}",
            )
        ),
    )
    before = production.read_bytes()
    _, document = failed(workplace, "projects")
    checks = {one["name"]: one for one in document["checks"]}
    assert (checks["a hundred"]["expected"], checks["a hundred"]["found"]) == (100, 100)
    assert (checks["none unnamed"]["expected"], checks["none unnamed"]["found"]) == ("no row",) * 2
    assert checks["the copy is there"]["found"] == "exit code 0"
    wrong = {one["name"]: one["found"] for one in document["checks"] if not one["ok"]}
    assert list(wrong) == ["nobody is last", "ninety", "no question", "its schema", "production"]
    assert wrong["no question"] == "it asks nothing: no SELECT"
    assert wrong["nobody is last"] == "a row: (100,)"
    assert wrong["ninety"] == 100
    assert "no such table: episodes" in wrong["its schema"]
    assert "Permission denied" in wrong["production"]
    assert production.read_bytes() == before
    assert workplace.json("snapshots")[-1]["rung"] == "stored"


# -------------------------------------------------------------------------------- a collection


@pytest.fixture
def vectors(workplace: Workplace) -> Workplace:
    """With a Chroma store of two collections, in a snapshot."""
    code = (
        "import chromadb\nclient = chromadb.PersistentClient('chroma')\n"
        "for name in ('scripts', 'notes'):\n"
        "    one = client.create_collection(name, embedding_function=None)\n"
        "    ids = [f'{name}-{i}' for i in range(20)]\n"
        "    one.add(ids=ids, embeddings=[[i / 7, 1.0, i % 5] for i in range(20)],\n"
        "            documents=ids, metadatas=[{'n': i} for i in range(20)])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=workplace.folder, check=True, timeout=120)
    configured(
        workplace,
        '[sources.vectors]\ntype = "chroma"\npath = "chroma"\n'
        + LOST
        + '[[drill.scenarios.lost.lose]]\nsource = "vectors"\ncollection = "notes"\n'
        + "[drill.scenarios.typo]\n"
        + '[[drill.scenarios.typo.lose]]\nsource = "vectors"\ncollection = "note"\n',
    )
    workplace.run("backup")
    return workplace


@pytest.mark.slow
def test_a_collection_that_is_dropped(vectors: Workplace, tmp_path: Path) -> None:
    message, hint = vectors.error("drill", "typo", code=2)
    assert "vectors has no collection 'note'" in message
    assert "'notes'" in message
    assert hint == "it has: notes, scripts"
    document = drilled(vectors, "vectors")
    assert "21 missing" in found(document, "something was lost")
    assert any("--collection notes" in note for note in document["notes"])
    assert not any("--collection scripts" in note for note in document["notes"])
    # one record comes back with another document
    folder = tmp_path / "saboteur"
    folder.mkdir()
    (folder / "spoil.py").write_text(
        "import sys, tomllib, chromadb\n"
        "url = tomllib.load(open(sys.argv[1], 'rb'))['sources']['vectors']['server']\n"
        "client = chromadb.HttpClient('127.0.0.1', int(url.rsplit(':', 1)[1]))\n"
        "one = client.get_collection('notes', embedding_function=None)\n"
        "one.update(ids=['notes-7'], metadatas=[{'n': 99}])\n"
    )
    (folder / "sitecustomize.py").write_text(
        "import atexit, subprocess, sys\n"
        "if '--collection' in sys.argv:\n"
        "    config = sys.argv[sys.argv.index('--config') + 1]\n"
        f"    words = [sys.executable, r'{folder}/spoil.py', config]\n"
        "    atexit.register(lambda: subprocess.run(words))\n"
    )
    vectors.environment["PYTHONPATH"] = str(folder)
    said, _ = failed(vectors, "vectors")
    assert "0 missing, 1 changed, 0 extra: notes notes-7 is another" in said


# ------------------------------------------------------------------- a loss that is not real


def test_what_is_only_said_to_be_lost_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, repository = tmp_path / "drill", tmp_path / "repo"
    (repository / "data").mkdir(parents=True)
    folder.mkdir()
    for name in ("password", "after-safetake.toml", "after-safetake-servers.toml"):
        (folder / name).write_text("x")
    pack = repository / "data" / "pack"
    pack.write_text("x")
    monkeypatch.setattr(sandbox, "hide", lambda *_: None)
    told = {"without": ["repository"], "snapshot": "a" * 64, "location": "x", "other": False,
            "hidden": {"the first repository": str(repository)}, "gone": "b" * 64}  # fmt: skip
    aftermath = Aftermath(folder, told)
    assert aftermath.strike() == [
        (
            "the first repository is out of reach",
            False,
            "nothing can be read",
            f"{pack} can be read",
        )
    ]
    assert not (folder / "password").exists()
    assert aftermath.newest(there=True)[2:] == (False, "not listed", "it is listed")
    assert aftermath.newest(there=False)[2] is True


# ----------------------------------------------------------------- what makes no sense is refused


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("", "one of lose and without is needed"),
        ('without = ["the-moon"]', "newest-snapshot"),
        ('without = ["machine", "machine"]', "names a disaster twice"),
        ('without = ["password"]', "one of password_file, password_env and password_command"),
        ('without = ["machine"]\npassword_env = "X"', "do not go with anything else"),
        ('without = ["machine"]\nrecover_from = "elsewhere"', "recover_from goes with"),
        ('without = ["repository"]\nrecover_from = "elsewher"', "there is no copy 'elsewher'"),
        (
            'without = ["password"]\npassword_file = "a"\npassword_env = "b"',
            "only one of password_file, password_env",
        ),
        ('without = ["machine"]\nlose = [{source = "projects", everything = true}]', "every store"),
        (
            'without = ["newest-snapshot"]\nlose = [{source = "projects", share = 0.1}]',
            "everything",
        ),
        ('lose = [{source = "projects", collection = "a"}]', "of a source of type chroma"),
        ('lose = [{source = "scripts", sql = "DELETE FROM a"}]', "of a source of type sqlite"),
        (
            'lose = [{source = "projects", everything = true}, {source = "projects", share = 0.1}]',
            "nothing else of it can be",
        ),
        ('without = ["machine"]\nhold = [{name = "a"}]', "exactly one of sql and command"),
        ('without = ["machine"]\nhold = [{name = "a", sql = "SELECT 1"}]', "source goes with sql"),
        (
            'without = ["machine"]\nhold = [{name = "a", sql = "SELECT 1", source = "scripts"}]',
            "sql is asked of SQLite",
        ),
        (
            'without = ["machine"]\nhold = [{name = "a", command = ["x"], expected = 1}]',
            "expected goes with sql",
        ),
    ],
)
def test_what_can_not_be_rehearsed(tmp_path: Path, toml: str, told: str) -> None:
    text = (
        '[repository]\nlocation = "repo"\n[sources.projects]\ntype = "sqlite"\npath = "a.db"\n'
        '[sources.scripts]\ntype = "files"\npath = "scripts"\n[copies.elsewhere]\n'
        f'location = "second"\n{LOST}{toml}\n'
    )
    with pytest.raises(ConfigError) as caught:
        configfile.parse(text, tmp_path / "safetake.toml")
    assert told in str(caught.value)


def test_nothing_is_hidden_where_the_kernel_can_not() -> None:
    gone = ScenarioConfig(without=["newest-snapshot", "repository"])
    with pytest.raises(RefusedError, match="can not take the repository out of reach"):
        refuse_unhidden(gone, sandbox.Confinement())
    refuse_unhidden(gone, sandbox.Confinement(folders=True))
    refuse_unhidden(ScenarioConfig(without=["newest-snapshot"]), sandbox.Confinement())


@pytest.mark.slow
def test_mistakes(workplace: Workplace) -> None:
    configured(
        workplace,
        LOST + 'without = ["machine"]\nhold = [{name = "x", command = ["{nothing}"]}]\n'
        '[drill.scenarios.same]\nwithout = ["password"]\npassword_file = "safetake.password"\n',
    )
    configured(
        workplace,
        '[drill.scenarios.part]\nlose = [{source = "scripts", share = 0.5}]\n'
        '[drill.scenarios.slow]\nlose = [{source = "scripts", share = 0.5}]\n'
        'hold = [{name = "x", command = ["sleep", "600"]}]\n',
    )
    assert "(x): there is no {nothing}" in workplace.error("drill", "lost", code=2)[0]
    message, hint = workplace.error("drill", "same", code=2)
    assert "where it was lost: the file" in message
    assert "safetake key add" in hint
    message, hint = workplace.error("drill", "part", "projects", code=2)
    assert message == "scenario part needs 'scripts', which is not among the sources named"
    config = workplace.folder / "safetake.toml"
    config.write_text(config.read_text().replace("[drill]\n", "[drill]\ntimeout = 6\n"))
    said, _ = failed(workplace, scenario="slow")
    assert "took longer than 6 s, at `hold: what the scenario says must be true`" in said


def test_placeholders() -> None:
    known = {"projects": "/p", "port:a.b": "1", "x": "{projects}"}
    text = '{projects} {port:a.b} {x} {"port": 8, "b": {}} {} { projects}'
    assert fill(text, known, "w") == '/p 1 {projects} {"port": 8, "b": {}} {} { projects}'
    for wrong in ("{project}", "{port:ab}", '{"a": "{project}"}'):
        with pytest.raises(UsageError, match=r"w: there is no \{p"):
            fill(wrong, known, "w")


@pytest.mark.slow
def test_a_newer_snapshot_of_another_job(workplace: Workplace) -> None:
    """A scenario takes the newest with its sources; what a drill of all has not is told."""
    older = workplace.json("snapshots")[0]["id"]
    workplace.run("backup", "projects")
    configured(workplace, LOST + 'lose = [{source = "scripts", share = 0.5}]\n')
    assert drilled(workplace)["snapshot"] == older
    document = drilled(workplace, scenario="total-loss")
    assert "not rehearsed: scripts, not in this snapshot" in document["notes"]
    assert "not rehearsed: scripts" in workplace.run("drill", "total-loss").stderr
    assert "not rehearsed" not in workplace.run("drill", "total-loss", "projects").stderr
