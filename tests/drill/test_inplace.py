"""Drills on production: what is there before is there after, and nothing that is written is lost.

The stores are real, and so is the application: a process that has the database open, writes when it
is told to, and notes outside what was acknowledged.
"""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Workplace, in_a_terminal
from tests.e2e.test_recovery import Site, site
from tests.examples.conftest import redis_server
from tests.support import ctl
from tests.support.ports import free_port
from tests.support.redis_server import TestServer, running
from tests.support.sample_application import running_load
from tests.support.states import difference, files_state, redis_state, sqlite_state

__all__ = ["redis_server", "site"]

APPLICATION = """
import http.server, pathlib, sqlite3, sys, threading, time

folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
db = sqlite3.connect(folder / "projects.db", timeout=30)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if (folder / "sick").exists() else 200)
        self.end_headers()
        self.wfile.write(b"well")
    def log_message(self, *words):
        pass

server = http.server.HTTPServer(("127.0.0.1", port), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
db.execute("SELECT count(*) FROM projects").fetchall()
with (folder / "acknowledged").open("a", buffering=1) as journal:
    while True:
        if (folder / "write").exists():
            name = f"written {time.time_ns()}"
            with db:
                db.execute("INSERT INTO projects (name) VALUES (?)", (name,))
            (folder / "scripts" / f"{name}.txt").write_text(name)
            journal.write(name + "\\n")
        time.sleep(0.005)
"""


class Production:
    """A database, files and Redis, one snapshot, and an application that uses them."""

    def __init__(self, place: Workplace, server: TestServer) -> None:
        self.place, self.server = place, server
        self.folder = place.folder
        self.control = place.folder / "control"
        self.control.mkdir()
        program = self.control / "application.py"
        program.write_text(APPLICATION)
        self.port = free_port()
        command = [sys.executable, str(program), str(self.folder), str(self.port)]
        (self.control / "app.json").write_text(json.dumps({"command": command, "environment": {}}))
        words = [sys.executable, ctl.__file__, str(self.control)]
        self.configure(
            f'[sources.queue]\ntype = "redis"\nurl = "redis://127.0.0.1:{server.port}"\n'
            f'[restore]\nstate = "{place.folder.parent / "state"}"\n[services.app]\n'
            + "".join(f"{v} = {json.dumps([*words, v, 'app'])}\n" for v in VERBS)
            + f'health = {{url = "http://127.0.0.1:{self.port}/", interval = 0.05, timeout = 60}}\n'
        )
        place.run("backup")
        self.start()

    def configure(self, toml: str) -> None:
        with (self.folder / "safetake.toml").open("a") as file:
            file.write(toml)

    def impatient(self) -> None:
        """For a health that never comes."""
        config = self.folder / "safetake.toml"
        config.write_text(config.read_text().replace("timeout = 60", "timeout = 1"))

    def start(self) -> None:
        assert ctl.main(self.control, "start", "app") == 0
        until(lambda: self.answers() == 200)

    def answers(self) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
                return int(answer.status)
        except OSError as error:
            return int(getattr(error, "code", 0))

    @property
    def pid(self) -> int:
        return ctl.running(self.control / "app.pid")

    def confirm(self, *sources: str) -> list[str]:
        return ["--in-place", "--confirm", self.phrase(*sources)]

    def phrase(self, *sources: str) -> str:
        names = " ".join(sources or ("projects", "scripts", "queue"))
        return f"drill {names} in place on {socket.gethostname()}"

    def state(self) -> dict[str, Any]:
        with self.server.client() as client:
            return {
                "projects": sqlite_state(self.folder / "projects.db"),
                "scripts": files_state(self.folder / "scripts"),
                "queue": redis_state(client),
            }

    def open_restores(self) -> list[Any]:
        return [one for one in self.place.json("restore", "--list") if one["ended"] == "open"]


VERBS = ("stop", "start", "running")


def until(done: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def production(workplace: Workplace, tmp_path: Path) -> Iterator[Production]:
    with running("redis-7.0", tmp_path / "redis") as server:
        with server.client() as client:
            client.set("session", "1", ex=3600)
            client.hset("job", mapping={"a": 1})
        made = Production(workplace, server)
        try:
            yield made
        finally:
            ctl.main(made.control, "stop", "app")


def rung(place: Workplace, document: dict[str, Any]) -> str:
    """Of the drill's own snapshot."""
    (found,) = [one for one in place.json("snapshots") if one["id"] == document["snapshot"]]
    return str(found["rung"])


def checks(document: dict[str, Any]) -> dict[tuple[str, str], bool]:
    return {(check["source"], check["name"]): check["ok"] for check in document["checks"]}


def test_production_is_what_it_was(production: Production) -> None:
    before, process = production.state(), production.pid
    document = production.place.json("drill", "total-loss", *production.confirm())
    assert document["problems"] == []
    assert document["verdict"] == "passed"
    assert difference(before, production.state()) == []
    assert production.pid not in (0, process), "the application was not stopped and started"
    asked = checks(document)
    for name in ("projects", "scripts", "queue"):
        assert asked[name, "the live store holds what it held before"]
        assert asked[name, "nobody wrote between the snapshot and the switch"]
    assert asked["", "app is well after the recovery"]
    assert document["name"] == "total-loss (in place)"
    assert 0 < document["measured"]["rto_seconds"] < 60
    steps = [step["name"] for step in document["steps"]]
    assert steps[:3] == ["stop:app", "snapshot", "plan"]
    assert steps[-3:] == ["start:app", "health", "integrity"]
    assert rung(production.place, document) == "app-checked"
    assert production.place.json("evidence", "verify")["documents"] == 1
    assert production.place.json("history", "--kind", "drill")["records"][0]["exit_code"] == 0


@pytest.mark.slow
def test_what_is_acknowledged_is_there(production: Production) -> None:
    """The application writes all the time, until it is stopped and as soon as it runs again."""
    (production.folder / "write").touch()
    journal = production.folder / "acknowledged"
    until(lambda: journal.stat().st_size > 500)
    production.place.run("drill", "total-loss", *production.confirm("projects", "scripts"),
                         "projects", "scripts")  # fmt: skip
    after = journal.stat().st_size
    until(lambda: journal.stat().st_size > after + 500)
    ctl.main(production.control, "stop", "app")
    acknowledged = set(journal.read_text().splitlines())
    db = sqlite3.connect(production.folder / "projects.db")
    there = {name for (name,) in db.execute("SELECT name FROM projects")}
    db.close()
    assert acknowledged <= there
    files = {path.stem for path in (production.folder / "scripts").glob("written *.txt")}
    assert acknowledged <= files


def test_nothing_without_the_words(production: Production) -> None:
    place, process = production.place, production.pid
    number = len(place.json("snapshots"))

    def refused(*words: str) -> str:
        error: dict[str, str] = place.json("drill", *words, code=2)["error"]
        return f"{error['message']} hint: {error['hint']}"

    wanted = f"drill projects scripts queue in place on {socket.gethostname()}"
    said = refused("total-loss", "--in-place")
    assert "must be confirmed" in said
    assert wanted in said
    said = refused("total-loss", *production.confirm("projects"))
    assert "nothing was changed" in said
    assert wanted in said
    assert "--yes" in refused("total-loss", "--in-place", "--yes")
    for scenario in ("partial-loss", "own"):
        said = refused(scenario, *production.confirm())
        assert f"{scenario} can not be rehearsed in place" in said
        assert "isolated copies" in said
    assert "no source" in refused("total-loss", "x", "--in-place")
    assert "go with --in-place" in refused("total-loss", "--no-writers")
    words = ("total-loss", *production.confirm())
    assert "--snapshot" in refused(*words, "--snapshot", "latest2")
    place.environment["SAFETAKE_TRIGGER"] = "timer"
    assert "never runs by itself" in refused(*words)
    del place.environment["SAFETAKE_TRIGGER"]
    assert production.pid == process
    assert len(place.json("snapshots")) == number
    assert place.json("history", "--kind", "drill")["records"] == []


def test_no_job_is_in_place(workplace: Workplace) -> None:
    config = workplace.folder / "safetake.toml"
    config.write_text(config.read_text() + '[jobs.d]\nkind = "drill"\nin_place = true\n')
    message, _ = workplace.error("status", code=2)
    assert "a drill in place is never a job" in message


@pytest.mark.slow
def test_a_person_types_them(production: Production) -> None:
    process = production.pid
    seen = in_a_terminal(production.place, "drill", "total-loss", "--in-place", "--quiet",
                         typed="yes\n")  # fmt: skip
    assert "nothing was changed" in seen
    assert production.pid == process
    seen = in_a_terminal(production.place, "drill", "total-loss", "--in-place",
                         typed=production.phrase() + "\n")  # fmt: skip
    assert "stops and starts: app" in seen
    assert "safetake restore --rollback" in seen
    assert "drill total-loss (in place) passed" in seen


@pytest.mark.slow
def test_writers_that_nobody_stops(workplace: Workplace) -> None:
    words = ["drill", "total-loss", "--in-place", "--confirm",
             f"drill projects scripts in place on {socket.gethostname()}"]  # fmt: skip
    message, hint = workplace.error(*words, code=1)
    assert "nobody stops what writes to projects, scripts" in message
    assert "--no-writers" in hint
    db = sqlite3.connect(workplace.folder / "projects.db")
    db.execute("SELECT count(*) FROM projects").fetchall()
    assert "is in use" in workplace.error(*words, "--no-writers", code=1)[0]
    db.close()
    before = sqlite_state(workplace.folder / "projects.db")
    document = workplace.json(*words, "--no-writers")
    assert document["verdict"] == "passed"
    assert any("writers not stopped" in note for note in document["notes"])
    assert sqlite_state(workplace.folder / "projects.db") == before
    assert rung(workplace, document) == "restored"


@pytest.mark.slow
def test_a_system_that_is_not_well_is_left_alone(production: Production) -> None:
    process = production.pid
    (production.folder / "sick").touch()
    production.impatient()
    message, _ = production.place.error("drill", "total-loss", *production.confirm(), code=1)
    assert "not well before the drill: app" in message
    assert production.pid == process
    (production.folder / "sick").unlink()
    ctl.main(production.control, "stop", "app")
    message, _ = production.place.error("drill", "total-loss", *production.confirm(), code=1)
    assert "app does not run now" in message
    assert production.pid == 0


SABOTEUR = """
import os, signal, sqlite3, sys
from pathlib import Path
from safetake.cli import main
from safetake.recovery.rehearsed import RehearsedEngine as Engine

folder, real = Path(FOLDER), Engine._step

def spoilt(self, name, *words, **more):
    if name == STEP:
        CODE
    return real(self, name, *words, **more)

Engine._step = spoilt
main()
"""


def sabotaged(production: Production, step: str, code: str) -> None:
    """Something happens right before a step of the drill."""
    program = production.folder.parent / "saboteur.py"
    text = SABOTEUR.replace("FOLDER", repr(str(production.folder))).replace("STEP", repr(step))
    program.write_text(text.replace("CODE", code))
    production.place.program = [str(program)]


def failed(production: Production) -> dict[str, Any]:
    document: dict[str, Any] = production.place.json(
        "drill", "total-loss", *production.confirm(), code=1
    )
    production.place.program = ["-m", "safetake"]
    assert document["verdict"] == "failed"
    assert production.open_restores() == []
    assert rung(production.place, document) == "stored"
    assert production.place.json("history", "--kind", "drill")["records"][0]["exit_code"] == 1
    return document


def test_health_that_never_comes(production: Production) -> None:
    before = production.state()
    code = (
        '(folder / "sick").touch(); self._config.services["app"].health.__dict__["timeout"] = 1.0; '
    )
    sabotaged(production, "start:app", code)
    document = failed(production)
    assert "not well: app" in document["problems"][0]
    assert "The data is exactly as it was before" in document["problems"][0]
    asked = checks(document)
    assert asked["", "app is well after the recovery"] is False
    assert asked["projects", "the data from before is back"]
    assert [step["ok"] for step in document["steps"] if step["name"] == "health"] == [False]
    assert difference(before, production.state()) == []
    (production.folder / "sick").unlink()
    until(lambda: production.answers() == 200)


@pytest.mark.slow
def test_what_was_written_before_the_health_failed_stays(production: Production) -> None:
    queue = production.state()["queue"]
    code = (
        '(folder / "sick").touch(); (folder / "write").touch(); '
        'self._config.services["app"].health.__dict__["timeout"] = 3.0'
    )
    sabotaged(production, "start:app", code)
    document = failed(production)
    assert "scripts, projects also holds what was written since" in document["problems"][0]
    ctl.main(production.control, "stop", "app")
    acknowledged = (production.folder / "acknowledged").read_text().splitlines()
    assert acknowledged
    now = production.state()
    assert now["queue"] == queue
    names = {row[2][1].decode() for row in now["projects"]["projects"]}
    assert set(acknowledged) <= names
    assert len(names) >= 100 + len(acknowledged)


WRITE = 'db = sqlite3.connect(folder / "projects.db"); db.execute({!r}); db.commit(); db.close()'


@pytest.mark.parametrize(
    ("step", "code", "told"),
    [
        pytest.param(
            "check:projects",
            WRITE.format("INSERT INTO projects (name) VALUES ('late')"),
            "projects was written after the drill's snapshot was taken",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "check:queue",
            "from safetake.sources.redis.wire import Address, Connection; "
            "Connection(Address('127.0.0.1', PORT, '', False, None, None)).call('SET', 'late', 1)",
            "queue was written after the drill's snapshot was taken",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "check:scripts",
            '(folder / "scripts" / "late.txt").touch()',
            "scripts was written after the drill's snapshot was taken",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "switch:projects",
            WRITE.format("INSERT INTO projects (name) VALUES ('late')"),
            "was written after the safety snapshot",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "compare:projects",
            WRITE.format("UPDATE projects SET name = 'x' WHERE id = 7"),
            "projects: the live store does not hold what the snapshot holds",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_somebody_writes_all_the_same(
    production: Production, step: str, code: str, told: str
) -> None:
    process = production.pid
    sabotaged(production, step, code.replace("PORT", str(production.server.port)))
    document = failed(production)
    assert told in document["problems"][0]
    assert production.pid not in (0, process)
    if step.startswith("c") and step != "compare:projects":  # what was written is there
        assert "late" in repr(production.state())


@pytest.mark.slow
def test_a_key_that_expires_meanwhile_is_no_writer(production: Production) -> None:
    with production.server.client() as client:
        client.set("soon", "1", ex=3600)
        code = (
            "from safetake.sources.redis.wire import Address, Connection; "
            f"Connection(Address('127.0.0.1', {production.server.port}, '', False, None, None))"
            ".call('DEL', 'soon')"
        )
        sabotaged(production, "check:queue", code)
        assert "queue was written" in failed(production)["problems"][0]
        client.set("soon", "1", px=1500)
        sabotaged(production, "check:queue", "import time; time.sleep(1.6)")
        document = production.place.json("drill", "total-loss", *production.confirm())
        assert document["verdict"] == "passed"
        assert not client.exists("soon")


KILLS = [
    (step, how)
    for step in ("snapshot", "plan", "stage:scripts", "same:scripts", "switch:projects",
                 "compare:queue", "start:app", "health")
    for how in ("rollback", "resume")
]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "how"),
    [
        kill if kill == ("switch:projects", "rollback")
        else pytest.param(*kill, marks=pytest.mark.slow)
        for kill in KILLS
    ],
)  # fmt: skip
def test_killed(production: Production, step: str, how: str) -> None:
    before = production.state()
    sabotaged(production, step, "os.kill(os.getpid(), signal.SIGKILL)")
    words = ("drill", "total-loss", *production.confirm())
    production.place.run(*words, code=-signal.SIGKILL)
    production.place.program = ["-m", "safetake"]
    assert len(production.open_restores()) == 1, "it was not killed in between"
    message, hint = production.place.error(*words, code=1)  # no second one meanwhile
    assert "not ended" in message
    assert "--rollback" in hint
    outcome = production.place.json("restore", f"--{how}")
    taken = step not in ("snapshot", "plan")
    assert outcome["ended"] == ("committed" if how == "resume" and taken else "rolled back")
    assert production.open_restores() == []
    until(lambda: production.answers() == 200)
    assert difference(before, production.state()) == []
    assert production.place.json("drill", "total-loss", *production.confirm())["problems"] == []


@pytest.mark.slow
def test_the_sample_application_under_load(site: Site, tmp_path: Path) -> None:
    """All four stores, two services; whatever was acknowledged, before or after, is there."""
    journal = tmp_path / "journal.jsonl"
    names = "projects vectors queue scripts"
    with running_load(site.services, journal, "--workers", "2") as load:
        load.wait_for(150)
        site.safetake("backup")
        load.wait_for(load.lines() + 60)
        document = site.safetake("drill", "total-loss", "--in-place", "--confirm",
                                 f"drill {names} in place on {socket.gethostname()}")  # fmt: skip
        load.wait_for(load.lines() + 60)
        load.end()
    print({step["name"]: step["seconds"] for step in document["steps"]}, document["measured"])
    assert [check for check in document["checks"] if not check["ok"]] == []
    assert document["problems"] == []
    assert document["verdict"] == "passed"
    assert document["targets"]["rto_seconds"] == 3600
    site.service("stop")
    verdict = site.judge(journal, 2**62, "judged")
    assert verdict["lost_items"] == 0
    # each worker tried one project again and again, with other titles, while nobody answered
    wrong = set(verdict["problems"])
    assert len(wrong) <= 2, wrong
    assert all(problem.endswith("title differ") for problem in wrong), wrong
