"""Drills that go wrong, each in a way of its own: every one is caught, and named.

A `sitecustomize` in the drill's PYTHONPATH is the saboteur: it spoils what a recovery command has
just brought back, as a wrong tool would, so that counts agree and contents do not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Workplace
from tests.support.redis_server import TestServer, running

SABOTEUR = """
import atexit, sqlite3, sys
from pathlib import Path

def spoil():
    words = sys.argv
    if "--config" not in words:
        return
    data = Path(words[words.index("--config") + 1]).parent / "data"
    CODE

if "rows" in sys.argv or ("--in-place" in sys.argv and "--online" not in sys.argv) or (
    "--path" in sys.argv
):
    atexit.register(spoil)
"""


DRILL = '[drill]\npriority = "normal"\n'


@pytest.fixture
def workplace(workplace: Workplace) -> Workplace:
    """One whose drills do not give way to other tests."""
    configured(workplace, DRILL)
    return workplace


@pytest.fixture
def stores(workplace: Workplace, tmp_path: Path) -> Iterator[tuple[Workplace, TestServer]]:
    """A database, files and Redis, one snapshot."""
    with running("redis-7.0", tmp_path / "redis") as server, server.client() as client:
        client.set("session", "1", ex=3600)
        client.hset("job", mapping={"a": 1})
        config = workplace.folder / "safetake.toml"
        with config.open("a") as file:
            file.write(
                f'[sources.queue]\ntype = "redis"\nurl = "redis://127.0.0.1:{server.port}"\n'
            )
        workplace.run("backup")
        yield workplace, server


def configured(place: Workplace, toml: str) -> None:
    with (place.folder / "safetake.toml").open("a") as file:
        file.write(toml)


def sabotaged(place: Workplace, tmp_path: Path, code: str) -> None:
    folder = tmp_path / "saboteur"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SABOTEUR.replace("CODE", code))
    before = place.environment.get("PYTHONPATH", "")
    place.environment["PYTHONPATH"] = f"{folder}:{before}" if before else str(folder)


def failed(place: Workplace, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    document = place.json("drill", *words, code=1)
    assert document["verdict"] == "failed"
    return [check for check in document["checks"] if not check["ok"]], document


def test_both_disasters_are_overcome(stores: tuple[Workplace, TestServer]) -> None:
    place, server = stores
    with server.client() as client:
        before = client.dbsize()
        document = place.json("drill", "partial-loss")
        assert document["verdict"] == "passed"
        assert {step["ok"] for step in document["steps"]} == {True}
        assert "drill total-loss passed" in place.run("drill", "total-loss").stdout
        assert client.dbsize() == before
    assert place.json("snapshots")[-1]["rung"] == "restored"
    assert not list(Path(place.environment["TMPDIR"]).glob("safetake-*")), "copies were left"


@pytest.mark.parametrize(
    ("scenario", "code", "source", "told"),
    [
        # the right number of rows, one of them with another content
        (
            "partial-loss",
            'db = sqlite3.connect(data / "projects" / "projects.db"); '
            "db.execute(\"UPDATE projects SET name = 'wrong' WHERE id = 98\"); db.commit()",
            "projects",
            "0 missing, 1 changed, 0 extra: projects 98 is another",
        ),
        # what is newer than the snapshot was thrown away
        pytest.param(
            "partial-loss",
            'db = sqlite3.connect(data / "projects" / "projects.db"); '
            'db.execute("DELETE FROM projects WHERE id = 101"); db.commit()',
            "projects",
            "projects 101 is missing",
            marks=pytest.mark.slow,
        ),
        ("total-loss", '(data / "scripts" / "one.txt").unlink()', "scripts", "one.txt is missing"),
        pytest.param(
            "total-loss",
            '(data / "scripts" / "one.txt").write_text("other")',
            "scripts",
            "one.txt is another",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_recovery_that_lies_is_caught(
    workplace: Workplace, tmp_path: Path, scenario: str, code: str, source: str, told: str
) -> None:
    sabotaged(workplace, tmp_path, code)
    check = failed(workplace, scenario)[0][0]  # integrity may see a spoilt file as well
    assert (check["source"], check["name"]) == (source, "every item is as it was before the loss")
    assert told in check["found"]


def test_a_key_that_would_expire_earlier_is_caught(
    stores: tuple[Workplace, TestServer], tmp_path: Path
) -> None:
    place, _ = stores
    sabotaged(
        place,
        tmp_path,
        "import tomllib; from safetake.sources.redis.wire import Address, Connection; "
        "url = tomllib.loads((data.parent / 'safetake.toml').read_text())"
        "['sources']['queue']['url']; "
        "c = Connection(Address('127.0.0.1', int(url.rsplit(':', 1)[1]), '', False, None, None)); "
        "c.call('EXPIRE', 'session', 60)",
    )
    wrong, document = failed(place, "total-loss", "queue")
    assert len(wrong) == 1, (wrong, document["problems"])
    (check,) = wrong
    assert "session expires 3" in check["found"]
    assert check["found"].endswith(" s earlier than it did")


@pytest.mark.slow
def test_one_bit_of_one_vector_is_caught(workplace: Workplace, tmp_path: Path) -> None:
    code = (
        "import chromadb; one = chromadb.PersistentClient('chroma').create_collection('scripts')\n"
        "one.add(ids=['a', 'b'], embeddings=[[1.0, 2.0], [3.0, 4.0]])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=workplace.folder, check=True, timeout=120)
    configured(workplace, '[sources.vectors]\ntype = "chroma"\npath = "chroma"\n')
    workplace.run("backup", "vectors")
    sabotaged(
        workplace,
        tmp_path,
        'db = sqlite3.connect(data / "vectors" / "chroma.sqlite3"); '
        "(old,) = db.execute(\"SELECT vector FROM embeddings_queue WHERE id = 'b'\").fetchone(); "
        'db.execute("UPDATE embeddings_queue SET vector = ? WHERE vector = ?", '
        "(bytes([old[0] ^ 1]) + old[1:], old)); db.commit()",
    )
    (check,), _ = failed(workplace, "total-loss", "vectors")
    assert check["source"] == "vectors"
    assert check["found"] == "0 missing, 1 changed, 0 extra: scripts b is another"


def test_what_was_changed_needs_the_word(workplace: Workplace) -> None:
    lose = (
        '[[drill.scenarios.{}.lose]]\nsource = "projects"\nsql = "UPDATE projects SET name = 1"\n'
    )
    configured(
        workplace,
        lose.format("spoilt")
        + "[drill.scenarios.mended]\nchanged = true\n"
        + lose.format("mended"),
    )
    wrong, document = failed(workplace, "spoilt")
    (check,) = wrong or [document["problems"]]
    assert "0 missing, 101 changed" in check["found"] or "100 changed" in check["found"]
    # every row looks like another one under a used key: `rows` leaves them out, and says so
    _, document = failed(workplace, "mended")
    assert any("--apply --changed" in note for note in document["notes"])


def test_a_target_that_is_missed(workplace: Workplace) -> None:
    configured(workplace, "[objectives.system]\nrto = 0.001\n[objectives.projects]\nrpo = 0.001\n")
    wrong, document = failed(workplace, "total-loss")
    assert wrong == []
    assert set(document["targets"]) == {"rto_seconds", "rpo_seconds"}
    said = workplace.run("drill", "total-loss", code=1).stderr
    assert "problem: rto_seconds was" in said
    assert "promised 0.0 s" in said


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; sys.exit('no data')", "no data"),  # it does not start
        (
            "import http.server as h; h.HTTPServer(('127.0.0.1', {port}), "
            "h.SimpleHTTPRequestHandler).serve_forever()",
            "answers without 'rows: 100'",  # it answers, about nothing
        ),
        ("open(r'{production}', 'a')", "Permission denied"),  # it reaches for production
    ],
)
def test_a_service_that_is_not_well(workplace: Workplace, program: str, told: str) -> None:
    production = str(workplace.folder / "scripts" / "one.txt")
    command = json.dumps([sys.executable, "-c", program.replace("{production}", production)])
    config = workplace.folder / "safetake.toml"
    config.write_text(config.read_text().replace(DRILL, DRILL + "start_timeout = 5\n"))
    configured(
        workplace,
        f"[drill.services.app]\ncommand = {command}\n"
        'health = "http://127.0.0.1:{port}/"\ncontains = "rows: 100"\n',
    )
    before = Path(production).read_bytes()
    (check,), _ = failed(workplace, "total-loss")
    assert check["name"] == "app is well before the loss"
    assert told in check["found"]
    assert Path(production).read_bytes() == before


def test_a_damaged_snapshot(workplace: Workplace) -> None:
    for pack in (workplace.folder / "repo" / "data").rglob("*/*"):
        content = bytearray(pack.read_bytes())
        content[len(content) // 3] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(content)
    done = workplace.run("drill", "total-loss", code=1)
    assert "damaged" in done.stdout + done.stderr


def test_mistakes(workplace: Workplace) -> None:
    assert "partial-loss" in workplace.error("drill", "partial-los", code=2)[0]
    assert "no source 'x'" in workplace.error("drill", "total-loss", "x", code=2)[0]
    configured(
        workplace,
        '[drill.services.app]\ncommand = ["x", "{nothing}"]\n',
    )
    assert "there is no {nothing}" in workplace.error("drill", "total-loss", code=2)[0]


def test_what_the_kernel_does_not_refuse_is_said(workplace: Workplace) -> None:
    configured(
        workplace,
        '[sources.queue]\ntype = "redis"\nurl = "unix:///run/redis.sock"\n'
        '[drill.services.worker]\ncommand = ["false"]\nuses = ["queue"]\n'
        '[drill.services.silent]\ncommand = ["sleep", "600"]\n',
    )
    document = workplace.json("drill", "partial-loss", "projects")
    (check,) = [one for one in document["checks"] if one["name"] == "production was out of reach"]
    assert check["found"].endswith(
        "TCP ports and processes; not from the socket unix:///run/redis.sock"
    )
    assert "worker was not started: it uses queue, not rehearsed here" in document["notes"]
    told = "silent was started after the recovery; without `health` nobody can ask it"
    assert told in document["notes"]
