"""`safetake restore ID SOURCE --keys PATTERN --in-place`, against a real server; and all of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.cli.common import Settings
from safetake.cli.restore_keys import take_back_keys
from safetake.errors import RefusedError
from tests.cli.conftest import Workplace
from tests.support.redis_server import VERSIONS, TestServer, running, wait_ready

ONE = "redis-7.0" if "redis-7.0" in VERSIONS else VERSIONS[0]


@pytest.fixture
def server(workplace: Workplace, tmp_path: Path) -> Iterator[TestServer]:
    with running(ONE, tmp_path / "redis") as found:
        found.client().mset({"a:1": "1", "a:2": "2", "b": "3"})
        found.client(4).set("four", "x")
        with (workplace.folder / "safetake.toml").open("a") as file:
            file.write(
                f'[sources.queue]\ntype = "redis"\nurl = "{found.url}"\n'
                '[restore]\nstate = "state"\n'
            )
        workplace.run("backup", "queue")
        yield found


def test_keys(
    workplace: Workplace,
    server: TestServer,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    client = server.client()
    client.delete("a:1", "b")
    client.set("a:2", "changed")
    restore = ["restore", "latest", "queue", "--in-place", "--keys", "a:*"]
    looked = workplace.run(*restore, "--dry-run").stdout
    assert "nothing was changed" in looked
    assert client.get("a:1") is None
    assert "nobody to ask" in workplace.run(*restore, code=2, input="").stderr
    assert client.get("a:1") is None
    wrong = ["restore", "latest", "queue", "--in-place", "--keys", "A:*"]
    for words in (["--dry-run"], ["--yes"]):
        assert "has no key named by A:*" in workplace.run(*wrong, *words, code=1).stderr
    done = workplace.json(*restore, "--yes")
    assert (done["report"]["missing"], done["report"]["changed"]) == (1, 1)
    assert client.mget("a:1", "a:2", "b") == [b"1", b"changed", None]
    assert "nobody to ask" in workplace.run("restore", "--undo", code=2, input="").stderr
    done = workplace.json(*restore, "--changed", "--yes")
    assert client.get("a:2") == b"2"
    assert Path(done["undo_file"]).is_file()
    again = workplace.json(*restore, "--changed", "--yes")
    assert again["undo_file"] is None
    everywhere = ["restore", "latest", "queue", "--in-place", "--db", "4", "--yes"]
    server.client(4).flushdb()
    workplace.run(*everywhere)
    assert server.client(4).get("four") == b"x"
    assert client.get("b") is None

    monkeypatch.chdir(workplace.folder)
    settings = Settings(json=True)
    assert take_back_keys(settings) == 0
    assert json.loads(capsysbinary.readouterr().out)["undone"]["removed"] == 1
    assert server.client(4).get("four") is None
    assert take_back_keys(settings) == 0
    assert client.get("a:2") == b"changed"
    assert take_back_keys(settings) == 0
    assert client.get("a:1") is None
    with pytest.raises(RefusedError, match="no restore of keys"):
        take_back_keys(settings)


def test_a_name_with_a_line_end_is_no_line(workplace: Workplace, server: TestServer) -> None:
    server.client().set("odd\nerror: \x1b[31mfaked", 1)
    workplace.run("backup", "queue")
    server.client().flushall()
    restore = ["restore", "latest", "queue", "--in-place", "--dry-run", "--keys", "odd*"]
    said = workplace.run(*restore).stdout
    assert "such as odd\\nerror: \\x1b[31mfaked\n" in said


def test_functions_are_no_keys_and_that_is_said(workplace: Workplace, server: TestServer) -> None:
    client = server.client()
    client.function_load("#!lua name=lib\nredis.register_function('f', function() return 1 end)")
    workplace.run("backup", "queue")
    client.flushall()
    restore = ["restore", "latest", "queue", "--in-place", "--yes", "--keys"]
    assert "functions" not in workplace.run(*restore, "a:*").stderr
    assert "the functions of the snapshot are no keys" in workplace.run(*restore, "*").stderr


def test_all_of_it_and_back(workplace: Workplace, server: TestServer) -> None:
    client = server.client()
    client.delete("b")
    client.set("new", "1")
    plan = workplace.json("restore", "latest", "queue", "--in-place", "--dry-run")
    loss = plan["sources"]["queue"]["losses"][0]
    assert (loss["newer"], loss["missing"], loss["examples"]) == (1, 1, ["new"])
    workplace.run("restore", "latest", "queue", "--in-place", "--yes")
    assert sorted(client.keys()) == [b"a:1", b"a:2", b"b"]
    workplace.run("restore", "--undo", "--yes")
    assert sorted(client.keys()) == [b"a:1", b"a:2", b"new"]


def points_to(workplace: Workplace, url: str) -> None:
    file = workplace.folder / "safetake.toml"
    file.write_text(re.sub(r'"redis://[^"]*"', f'"{url}"', file.read_text()))


def test_keys_are_not_taken_back_in_a_server_that_they_were_not_restored_into(
    workplace: Workplace, server: TestServer, tmp_path: Path
) -> None:
    """The same values in both: what is in the undo file fits, and would go where it never was."""
    server.client().delete("b")
    workplace.run("restore", "latest", "queue", "--in-place", "--keys", "b", "--yes")
    undo = ["restore", "--undo", "--yes"]
    with running(ONE, tmp_path / "other") as other:
        other.client().set("b", "3")
        points_to(workplace, other.url)
        message, hint = workplace.error(*undo, code=1)
        assert f"were restored into {server.url}, and {other.url} is not known to be" in message
        assert "--other-server" in hint
        assert other.client().get("b") == b"3"
        assert server.client().get("b") == b"3"
        assert workplace.json(*undo, "--other-server")["undone"]["removed"] == 1
        assert other.client().get("b") is None
        assert server.client().get("b") == b"3"


def test_keys_are_taken_back_after_a_restart(
    workplace: Workplace, tmp_path: Path, server: TestServer
) -> None:
    """Under the same address, whatever its ids are: without an RDB they are all new."""
    server.client().delete("b")
    workplace.run("restore", "latest", "queue", "--in-place", "--keys", "b", "--yes")
    server.kill()
    options = ("--port", str(server.port))
    with running(ONE, tmp_path / "redis", *options, wait=False) as again:
        again.port = server.port
        wait_ready(again)
        again.client().set("b", "3")
        assert workplace.json("restore", "--undo", "--yes")["undone"]["removed"] == 1
        assert again.client().get("b") is None


def test_keys_are_taken_back_in_the_replica_that_took_over(
    workplace: Workplace, tmp_path: Path, server: TestServer
) -> None:
    server.client().delete("b")
    workplace.run("restore", "latest", "queue", "--in-place", "--keys", "b", "--yes")
    with running(ONE, tmp_path / "heir", "--replicaof", f"127.0.0.1 {server.port}") as heir:
        client = heir.client()
        deadline = time.monotonic() + 60
        while client.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.kill()
        client.replicaof("NO", "ONE")
        points_to(workplace, heir.url)
        assert workplace.json("restore", "--undo", "--yes")["undone"]["removed"] == 1
        assert client.get("b") is None


def test_another_server_is_about_keys(workplace: Workplace) -> None:
    assert (
        "does not go with --in-place"
        in workplace.error("restore", "latest", "--in-place", "--other-server", code=2)[0]
    )
    assert (
        "is about keys of Redis"
        in workplace.error("restore", "--undo", "--other-server", "--yes", code=2)[0]
    )
