"""Both drills on the sample application: green, and then made to fail in ten ways each.

Each way has to be told to the person at night (stderr) and kept in the evidence, with the right
source and item; production stays as it was, and nothing of the drill is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from safetake.drill.newer import following
from safetake.evidence import load_all
from safetake.repository import Repository
from safetake.storage import LocalStorage
from safetake.tomltext import toml
from tests.e2e.test_drills import drill_section
from tests.e2e.test_recovery import Site, running_site
from tests.support import ctl, saboteur
from tests.support.sample_application import running_load, running_redis

pytestmark = pytest.mark.slow

PARTIAL, TOTAL = SCENARIOS = ("partial-loss", "total-loss")
COMPARED = "every item is as it was before the loss"
CHUNK = 110
"""Cut of what is printed of a message."""


@dataclass
class Victims:
    """What is spoilt: of each store one item that both recoveries bring back."""

    episode: str
    vector: str
    floats: str
    key: str
    file: str
    newer: str
    """The episode that the drill writes after the snapshot."""
    indexed: str
    """A vector that lies in the index file, not only in the queue of what is written."""
    inside: str


@dataclass
class Stage:
    """The application, at rest, with one snapshot, and what drills said."""

    site: Site
    victims: Victims
    scratch: Path
    before: dict[str, Any] = field(default_factory=dict)
    said: list[tuple[str, str, str]] = field(default_factory=list)
    green: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(
        self, *words: str, code: int, config: Path | None = None, spoiler: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        path = self.site.environment["PYTHONPATH"]
        done = subprocess.run(
            [sys.executable, "-m", "safetake", "--config", str(config or self.site.config), *words],
            env={
                **self.site.environment,
                "TMPDIR": str(self.scratch),
                "PYTHONPATH": f"{spoiler}{os.pathsep}{path}" if spoiler else path,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        if done.returncode != code:  # pytest cuts what it shows of an assertion
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def drill(
        self, scenario: str, section: dict[str, Any] | None = None, *, way: str = "", code: int = 1,
        change: tuple[str, str] = ("", ""), spoiler: Path | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run it; its evidence. What it said, production and scratch are looked at here."""
        text = self.site.config.read_text()
        assert change[0] in text
        config = self.site.folder / "case.toml"
        section = {"priority": "normal", **(section or drill_section(self.site))}
        drill = toml({"drill": section})
        config.write_text(text.replace(*change) + "\n" + drill)
        done = self.run("drill", scenario, code=code, config=config, spoiler=spoiler)
        self.unharmed()
        shown = self.run("--json", "evidence", "show", code=0, config=config)
        document: dict[str, Any] = json.loads(shown.stdout)
        assert document["name"] == scenario
        assert document["verdict"] == ("failed" if code else "passed")
        document["told"] = [
            line.removeprefix("problem: ")
            for line in done.stderr.splitlines()
            if line.startswith("problem: ")
        ]
        assert bool(document["told"]) == bool(code)
        self.said += [(way, scenario, line) for line in document["told"]]
        return document

    def unharmed(self) -> None:
        """Production is byte for byte what it was; no copies and no processes are left."""
        assert production(self.site) == self.before
        assert list(self.scratch.iterdir()) == []
        assert processes_of(self.scratch) == []


def production(site: Site) -> dict[str, Any]:
    """Everything of the live application: files, keys with their expiry, processes."""
    found: dict[str, Any] = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(site.data.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }
    raw: Any = redis.Redis(port=site.redis.port)
    for key in sorted(raw.scan_iter()):
        found[repr(key)] = raw.dump(key)
    found["writes"] = raw.info("persistence")["rdb_changes_since_last_save"]
    raw.close()
    for name in site.names:
        found[name] = ctl.running(site.control / f"{name}.pid")
        assert found[name], f"{name} does not run"
    return found


def processes_of(folder: Path) -> list[str]:
    """Command lines of what was started with a place below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(folder / "safetake-") in (
                (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            ):
                found.append((entry / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def vectors(site: Site, copy: Path) -> list[tuple[str, str]]:
    """(id, float32 in hex) of every record, as chromadb reads them from a copy."""
    program = (
        "import chromadb, json, numpy, sys; from chromadb.config import Settings;"
        "client = chromadb.PersistentClient(sys.argv[1], Settings(anonymized_telemetry=False));"
        "got = client.get_collection('scripts', embedding_function=None)"
        ".get(include=['embeddings']);"
        "print(json.dumps([(i, numpy.asarray(e, dtype='<f4').tobytes().hex())"
        " for i, e in zip(got['ids'], got['embeddings'])]))"
    )
    shutil.copytree(site.settings.chroma_path, copy)
    done = subprocess.run(
        [sys.executable, "-c", program, str(copy)], capture_output=True, text=True, check=True
    )
    shutil.rmtree(copy)
    return [(name, floats) for name, floats in json.loads(done.stdout)]


def chosen(site: Site, scratch: Path) -> Victims:
    """The newest of each store: what partial loss loses first."""
    import sqlite3

    database = sqlite3.connect(site.settings.database_path)
    (episode,) = database.execute("SELECT id FROM episodes ORDER BY rowid DESC").fetchone()
    database.close()
    found = vectors(site, scratch / "chroma")
    (vector, floats), (indexed, inside) = found[-1], found[0]
    (index,) = Path(site.settings.chroma_path).glob("*/data_level0.bin")
    assert index.read_bytes().count(bytes.fromhex(inside)) == 1
    raw: Any = redis.Redis(port=site.redis.port, decode_responses=True)
    key = min(raw.scan_iter())
    assert raw.ttl(key) > 0
    raw.close()
    scripts = Path(site.settings.scripts_dir)
    files = [path for path in scripts.rglob("*") if path.is_file()]
    newest = max(files, key=lambda path: path.stat().st_mtime_ns)
    file = str(newest.relative_to(scripts))
    return Victims(episode, vector, floats, key, file, following(episode), indexed, inside)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("site")
    scratch = folder / "scratch"
    scratch.mkdir()
    with running_redis(folder / "redis") as server, running_site(folder, server) as site:
        with running_load(site.services, folder / "journal.jsonl", "--workers", "2") as load:
            load.wait_for(480)  # more than 100 vectors, so that some are in the index file
            load.end()
        site.safetake("backup")
        made = Stage(site, chosen(site, scratch), scratch)
        made.before = production(site)
        for scenario in SCENARIOS:
            made.green[scenario] = made.drill(scenario, way="none", code=0)
        yield made
        done = made.run("evidence", "verify", code=0)
        print("\n" + table(made.said) + "\n" + done.stdout)


def table(said: list[tuple[str, str, str]]) -> str:
    """way, scenario, what was said."""
    lines = []
    for way, scenario, text in said:
        lines += [f"{way} | {scenario}", *textwrap.wrap(text, CHUNK, initial_indent="    ",
                  subsequent_indent="    ")]  # fmt: skip
    return "\n".join(lines)


def failing(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["source"], one["name"]) for one in document["checks"] if not one["ok"]]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_ends_green(stage: Stage, scenario: str) -> None:
    document = stage.green[scenario]
    assert failing(document) == []
    assert document["problems"] == []
    compared = {one["source"] for one in document["checks"] if one["name"] == COMPARED}
    assert compared == {"projects", "vectors", "queue", "scripts"}
    well = {one["name"] for one in document["checks"] if "is well" in one["name"]}
    assert well == {
        f"{name} is well {when}"
        for name in stage.site.names
        for when in ("before the loss", "after the recovery")
    }


SPOILT = {
    "wrong rows, right count": (
        "projects",
        'db = sqlite3.connect(data() / "projects" / "projects.db")\n'
        "db.execute(\"UPDATE episodes SET synopsis = 'of another' WHERE id = '{episode}'\")\n"
        "db.commit()",
        "0 missing, 1 changed, 0 extra: episodes {episode} is another",
    ),
    "other rows, right count": (
        "projects",
        'db = sqlite3.connect(data() / "projects" / "projects.db")\n'
        "db.execute(\"UPDATE episodes SET id = 'other' WHERE id = '{episode}'\")\n"
        "db.commit()",
        "1 missing, 0 changed, 1 extra: episodes {episode} is missing; episodes other was not",
    ),
    "one bit of a vector": (
        "vectors",
        # on disk, or through the server that has just brought it back (in a process of its own:
        # chromadb can not start its threads in one that ends)
        'old = bytes.fromhex("{floats}")\n'
        "new = bytes([old[0] ^ 1]) + old[1:]\n"
        'if "--collection" in words:\n'
        "    import subprocess\n"
        '    url = tomllib.loads(place().read_text())["sources"]["vectors"]["server"]\n'
        "    program = (\n"
        '        "import chromadb, numpy, sys; port, name, floats = sys.argv[1:];"\n'
        "        \"one = chromadb.HttpClient('127.0.0.1', int(port))\"\n"
        "        \".get_collection('scripts', embedding_function=None);\"\n"
        '        "one.update(ids=[name],"\n'
        "        \" embeddings=[numpy.frombuffer(bytes.fromhex(floats), '<f4')])\"\n"
        "    )\n"
        '    port = url.rpartition(":")[2]\n'
        '    call = [sys.executable, "-c", program, port, "{vector}", new.hex()]\n'
        "    subprocess.run(call, check=True)\n"
        "    return\n"
        'for path in (data() / "vectors").glob("*/data_level0.bin"):\n'
        "    path.write_bytes(path.read_bytes().replace(old, new))\n"
        'db = sqlite3.connect(data() / "vectors" / "chroma.sqlite3")\n'
        'db.execute("UPDATE embeddings_queue SET vector = ? WHERE vector = ?", (new, old))\n'
        "db.commit()",
        "0 missing, 1 changed, 0 extra: scripts {vector} is another",
    ),
    "one bit of a vector in the index file": (
        "vectors",
        'old = bytes.fromhex("{inside}")\n'
        "new = bytes([old[0] ^ 1]) + old[1:]\n"
        '(path,) = (data() / "vectors").glob("*/data_level0.bin")\n'
        "path.write_bytes(path.read_bytes().replace(old, new))",
        "0 missing, 1 changed, 0 extra: scripts {indexed} is another",
    ),
    "a newer row thrown away": (
        "projects",
        'db = sqlite3.connect(data() / "projects" / "projects.db")\n'
        "db.execute(\"DELETE FROM episodes WHERE id = '{newer}'\")\n"
        "db.commit()",
        "1 missing, 0 changed, 0 extra: episodes {newer} is missing",
    ),
    "a missing file": (
        "scripts",
        '(data() / "scripts" / "{file}").unlink()',
        "1 missing, 0 changed, 0 extra: {file} is missing",
    ),
    "a key that expires earlier": (
        "queue",
        'redis("EXPIRE", "{key}", 60)',
        "0 missing, 1 changed, 0 extra: 0 {key} expires",
    ),
    "an expired key": (
        "queue",
        'redis("PEXPIRE", "{key}", 1)',
        "1 missing, 0 changed, 0 extra: 0 {key} is missing",
    ),
}


ONLY = {"one bit of a vector in the index file": TOTAL, "a newer row thrown away": PARTIAL}
"""Ways that the other scenario has no place for."""


@pytest.mark.parametrize(
    ("way", "scenario"), [(w, s) for w in SPOILT for s in SCENARIOS if ONLY.get(w, s) == s]
)
def test_what_came_back_is_spoilt(stage: Stage, tmp_path: Path, way: str, scenario: str) -> None:
    source, body, told = SPOILT[way]
    victims = vars(stage.victims)
    for name, value in victims.items():
        body = body.replace("{" + name + "}", value)
    document = stage.drill(scenario, way=way, spoiler=saboteur.write(tmp_path / "spoiler", body))
    assert failing(document) == [(source, COMPARED)]
    (line,) = document["told"]
    assert line.startswith(f"{source}: {COMPARED}: ")
    assert told.format(**victims) in line
    if "expires" in told:
        assert "earlier than it did" in line


@pytest.mark.parametrize(
    ("scenario", "target", "old"),
    [
        (PARTIAL, "partial_rto_seconds", 'partial_rto = "5m"'),
        (TOTAL, "rto_seconds", 'rto = "60m"'),
    ],
)
def test_a_target_is_missed(stage: Stage, scenario: str, target: str, old: str) -> None:
    new = old.partition('"')[0] + '"1s"'
    document = stage.drill(scenario, way="a target missed", change=(old, new))
    assert failing(document) == []
    assert document["measured"][target] > document["targets"][target] == 1
    (line,) = document["told"]
    assert line.startswith(f"{target} was ")
    assert line.endswith(", promised 1.0 s")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_snapshot_is_damaged(stage: Stage, scenario: str) -> None:
    place = stage.site.folder / "repository"
    copy = stage.site.folder / f"damaged-{scenario}"
    shutil.copytree(place, copy)
    pack = max((copy / "data").rglob("*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    document = stage.drill(scenario, way="a damaged snapshot", change=(f'"{place}"', f'"{copy}"'))
    assert failing(document) == []
    line = document["told"][0]  # a target that was not measured follows
    assert line.startswith("copies: restore the snapshot beside: ")
    assert pack.name[:8] in line
    assert "damaged" in line


def wrapped(section: dict[str, Any], name: str, program: str) -> dict[str, Any]:
    """A service started by a program of ours, which sees `real` and `again`."""
    service = section["services"][name]
    head = (
        "import os, signal, subprocess, sys; from pathlib import Path\n"
        f"real = {service['command']!r}\n"
        "mark = Path(os.environ['HOME'], 'started'); again = mark.exists(); mark.touch()\n"
    ).replace("'{port}'", "sys.argv[1]")
    service["command"] = [sys.executable, "-c", head + program, "{port}"]
    return section


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_service_does_not_start(stage: Stage, scenario: str) -> None:
    """It did on the copies; it does not on what came back."""
    program = "if again: sys.exit('no such table: episodes')\nos.execv(real[0], real)"
    section = wrapped(drill_section(stage.site), "project-service", program)
    document = stage.drill(scenario, section, way="a service that does not start")
    assert failing(document) == [("", "project-service is well after the recovery")]
    assert "it ended: no such table: episodes" in document["told"][0]


STAYS = """
import http.server, os, signal, sys
from pathlib import Path

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

mark = Path(os.environ["HOME"], "started")
if mark.exists():
    signal.pause()  # waits for the port, or hangs
mark.touch()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, lambda *_: os.setsid())
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
signal.pause()
"""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_process_from_before_answers(stage: Stage, scenario: str) -> None:
    """It hid from being stopped, holds the port, and says 200 in place of the one that started."""
    section = drill_section(stage.site)
    section["services"]["old"] = {
        "command": [sys.executable, "-c", STAYS, "{port}"],
        "health": "http://127.0.0.1:{port}/",
    }
    document = stage.drill(scenario, section, way="a stale health endpoint: of an old process")
    assert failing(document) == [("", "old is well after the recovery")]
    line = document["told"][0]
    assert "is answered by process " in line
    assert "that was not started for it" in line


COUNTS = """
import http.server, os, sys
from pathlib import Path

kept = Path(os.environ["HOME"], "kept")
if not kept.exists():
    kept.write_text("items: %d" % sum(len(d) + len(f) for _, d, f in os.walk(sys.argv[2])))

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(kept.read_bytes())

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


@pytest.mark.parametrize(
    ("scenario", "check", "told"),
    [
        (PARTIAL, "counter is well after the recovery", "it answers without 'items: "),
        (TOTAL, "counter knows that its data is gone", "it still answers with 'items: "),
    ],
)
def test_a_health_endpoint_is_stale(stage: Stage, scenario: str, check: str, told: str) -> None:
    """It answers 200 from what it kept at its first start."""
    section = drill_section(stage.site)
    section["start_timeout"] = 20
    section["services"]["counter"] = {
        "command": [sys.executable, "-c", COUNTS, "{port}", "{scripts}"],
        "health": "http://127.0.0.1:{port}/",
        "contains": "items: {count:scripts}",
    }
    document = stage.drill(scenario, section, way="a stale health endpoint: kept answers")
    assert failing(document) == [("", check)]
    assert told in document["told"][0]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_recovery_reaches_for_a_path_of_production(
    stage: Stage, tmp_path: Path, scenario: str
) -> None:
    live = str(stage.site.settings.database_path)
    body = (
        "text = place().read_text()\n"
        'twin = str(data() / "projects" / "projects.db")\n'
        f"place().write_text(text.replace(twin, {live!r}))"
    )
    spoiler = saboteur.write(tmp_path / "spoiler", body, before=True)
    document = stage.drill(scenario, way="production touched: a path", spoiler=spoiler)
    assert failing(document) == []
    line = document["told"][0]  # a target that was not measured follows
    assert line.startswith("recover: with the commands that an operator types: `safetake ")
    assert str(stage.site.data) in line


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("what", ["a path", "a port", "a process"])
def test_a_service_reaches_for_production(stage: Stage, scenario: str, what: str) -> None:
    section = drill_section(stage.site)
    section["start_timeout"] = 30
    name = "generation-service"
    if what == "a path":
        told = stage.site.settings.scripts_dir
        program = f"open({told + '/' + stage.victims.file!r}, 'a')"
        section = wrapped(section, name, program)
    elif what == "a port":
        told = f"127.0.0.1:{stage.site.redis.port}. Permission denied"
        section["services"][name]["environment"]["REDIS_URL"] = stage.site.settings.redis_url
    else:
        pid = ctl.running(stage.site.control / f"{name}.pid")
        told = str(pid)
        section["services"][name]["command"] = ["bash", "-c", f"exec /usr/bin/env kill {pid}"]
    document = stage.drill(scenario, section, way=f"production touched: {what}")
    assert failing(document) == [("", f"{name} is well before the loss")]
    line = document["told"][0]
    assert told in line
    assert "Permission denied" in line or "Operation not permitted" in line


def names_by_id(repository: Repository) -> dict[str, str]:
    """The stored name of each document of evidence, by its id."""
    found = {}
    for name, _ in repository.storage.list("evidence"):
        text = str(repository.load_document("evidence", name)["evidence"])
        found[hashlib.sha256(text.encode()).hexdigest()] = name
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("how", ["changed", "damaged", "removed", "cut off"])
def test_the_evidence_was_edited(stage: Stage, tmp_path: Path, how: str, scenario: str) -> None:
    """By somebody who has the repository; where it is changed, the password, too."""
    place, copy = stage.site.folder / "repository", tmp_path / "repository"
    shutil.copytree(place, copy)
    wanted = stage.green[scenario]["id"]
    storage = LocalStorage(copy)
    with Repository.open(storage, stage.site.environment["SITE_PASSWORD"]) as repository:
        names = names_by_id(repository)
        if how == "changed":
            text = str(repository.load_document("evidence", names[wanted])["evidence"])
            edited = text.replace('"expected":"2xx"', '"expected":"any"', 1)
            assert edited != text
            repository.save_document("evidence", {"evidence": edited})
        elif how == "cut off":
            documents = load_all(repository)
            first = next(i for i, one in enumerate(documents) if one.id == wanted)
            for one in documents[first + 1 :]:
                storage.remove("evidence", names[one.id])
    path = storage.path("evidence", names[wanted])
    if how == "damaged":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(content)
    else:
        path.unlink()
    config = tmp_path / "safetake.toml"
    config.write_text(stage.site.config.read_text().replace(f'"{place}"', f'"{copy}"'))
    done = stage.run("evidence", "verify", code=1, config=config)
    told = [line for line in done.stderr.splitlines() if wanted[:8] in line]
    assert told, done.stderr
    if how == "damaged":
        assert any(names[wanted][:8] in line for line in done.stderr.splitlines())
    stage.said.append((f"the evidence {how}", scenario, told[0]))


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    ("suffix", "old", "new", "told"),
    [
        (".json", '"expected":"2xx"', '"expected":"any"', 'expected: "2xx", not "any"'),
        (".json", '"verdict":"passed"', '"verdict":"failed"', 'verdict: "passed", not "failed"'),
        (".html", "all of", "none of", "instead of"),
        (".md", "all of", "none of", "instead of"),
    ],
)
def test_an_exported_document_was_edited(
    stage: Stage, tmp_path: Path, suffix: str, old: str, new: str, told: str, scenario: str
) -> None:
    wanted = stage.green[scenario]["id"]
    file = tmp_path / f"exported{suffix}"
    stage.run("evidence", "export", wanted[:8], "--output", str(file), code=0)
    stage.run("evidence", "verify", str(file), code=0)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    done = stage.run("evidence", "verify", str(file), code=1)
    (line,) = done.stderr.splitlines()
    assert f"evidence {wanted[:8]}" in line
    assert told in line
    stage.said.append((f"an exported {suffix} edited", scenario, line.removeprefix("problem: ")))
