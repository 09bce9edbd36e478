"""Files of a stopped server exchanged, by the rules of its append-only file."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.errors import RefusedError
from safetake.sources.redis import aof
from tests.sources.redis.test_restore_online import Story, story
from tests.support import redis_restoring, redis_source
from tests.support.redis_restoring import good, open_plan, switch, switch_back
from tests.support.redis_server import VERSIONS, running

ONE = "redis-7.0" if "redis-7.0" in VERSIONS else VERSIONS[0]


def stopped(version: str, folder: Path, appendonly: str) -> Story:
    """A server that was captured, went on, saved, and ended."""
    with story(version, folder, "--appendonly", appendonly) as one:
        if appendonly == "no":
            client = one.server.client()
            while client.info("persistence")["rdb_bgsave_in_progress"]:
                time.sleep(0.01)  # the capture's child
            client.save()
        one.server.client().shutdown(nosave=True)
        one.server.process.wait()
    return one


def starts_with(one: Story, appendonly: str) -> str:
    """The digest of the server when it is started on a copy of its folder."""
    copy = one.folder / "started"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(one.server.folder, copy)
    options = ["--appendonly", appendonly]
    return redis_source.digest_after_restore(one.server.version, copy, *options)


@pytest.mark.parametrize(
    ("version", "appendonly"), [*((version, "yes") for version in VERSIONS), (ONE, "no")]
)
def test_exact_and_back(version: str, appendonly: str, tmp_path: Path) -> None:
    one = stopped(version, tmp_path, appendonly)
    assert starts_with(one, appendonly) == one.old
    before = picture(one.server.folder)
    plan = one.plan("offline")
    outline = one.outline(plan, "offline")
    assert outline.damaged
    assert not outline.absent
    restorer, work = open_plan(plan)
    assert restorer.place() is None
    restorer.outline(work.entry, "", {}, one.repository, one.captured.node)
    assert restorer.place() == one.server.folder  # nobody answers
    good(restorer.check_staged(work))
    restorer.quiet(work)
    switch(plan)
    assert starts_with(one, appendonly) == one.new
    switch(plan)
    switch_back(plan)
    assert picture(one.server.folder) == before
    assert starts_with(one, appendonly) == one.old


def picture(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "log"
    }


@pytest.mark.parametrize("version", ["redis-6.2", ONE])
def test_the_naive_ways_bring_nothing_back(version: str, tmp_path: Path) -> None:
    one = stopped(version, tmp_path, "yes")
    dump = one.plan("offline").parent / "new" / "queue" / "dump.rdb"
    shutil.copyfile(dump, one.server.folder / "dump.rdb")
    assert starts_with(one, "yes") == one.old  # the append-only file wins
    shutil.rmtree(one.server.folder / aof.DIRECTORY, ignore_errors=True)
    (one.server.folder / aof.SINGLE).unlink(missing_ok=True)
    assert starts_with(one, "yes") == "b'" + "0" * 40 + "'"  # an empty server


@pytest.mark.parametrize("version", ["redis-6.2", ONE])
def test_an_empty_folder_is_filled_for_either_setting(version: str, tmp_path: Path) -> None:
    one = stopped(version, tmp_path, "yes")
    for path in one.server.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    plan = one.plan("offline")
    outline = one.outline(plan)
    assert outline.absent
    assert "whichever it is set up to read" in outline.warnings[0]
    switch(plan)
    for appendonly in ("yes", "no"):
        assert starts_with(one, appendonly) == one.new
    switch_back(plan)
    assert not picture(one.server.folder)


def test_a_raw_safety_copy_goes_back_byte_for_byte(tmp_path: Path) -> None:
    one = stopped(ONE, tmp_path, "yes")
    damaged = one.server.folder / aof.DIRECTORY
    next(damaged.glob("*.rdb")).write_bytes(b"not an RDB at all")
    before = picture(one.server.folder)
    restorer, _ = open_plan(one.plan("offline"))
    assert restorer.raw_files() == [one.server.folder]
    raw = tmp_path / "raw"
    shutil.copytree(one.server.folder, raw)
    switch(one.plan("offline"))
    assert starts_with(one, "yes") == one.new
    plan = one.plan("offline")
    shutil.rmtree(plan.parent / "new" / "queue")
    shutil.copytree(raw, plan.parent / "new" / "queue")
    told = json.loads(plan.read_text())
    told["entry"] = {"type": "raw", "bytes": 1, "facts": {"raw": True}}
    plan.write_text(json.dumps(told))
    assert one.outline(plan).mode == "offline"
    restorer, work = open_plan(plan)
    good(restorer.check_staged(work))
    switch(plan)
    assert picture(one.server.folder) == before


def test_a_server_that_runs_is_refused(tmp_path: Path) -> None:
    with story(ONE, tmp_path) as one:
        plan = one.plan("offline")
        restorer, work = open_plan(plan)
        with pytest.raises(RefusedError, match="answers"):
            restorer.quiet(work)
        told = json.loads(plan.read_text())
        plan.write_text(json.dumps({**told, "url": "redis://127.0.0.1:1"}))
        restorer, work = open_plan(plan)
        with pytest.raises(RefusedError, match=r"works in|open"):
            restorer.quiet(work)
    restorer.quiet(work)


def test_other_names_and_folders_are_refused(tmp_path: Path) -> None:
    with story(ONE, tmp_path, "--dbfilename", "other.rdb") as one:
        with pytest.raises(RefusedError, match=r"other\.rdb"):
            one.outline(one.plan("offline"), "offline")
    with story(ONE, tmp_path / "second") as one:
        one.outline(one.plan("offline"), "offline")
        plan = one.plan("offline")
        told = json.loads(plan.read_text())
        plan.write_text(json.dumps({**told, "config": {"data": str(tmp_path)}}))
        with pytest.raises(RefusedError, match="keeps its files in"):
            one.outline(plan, "offline")
        plan.write_text(json.dumps({**told, "config": {}}))
        with pytest.raises(RefusedError, match="is not known"):
            one.outline(plan, "offline")


def test_files_under_names_that_a_stopped_server_may_have_in_its_settings(tmp_path: Path) -> None:
    one = stopped(ONE, tmp_path, "no")
    dump = one.server.folder / "dump.rdb"
    plan = one.plan("offline")
    (one.server.folder / "temp-12.rdb").write_bytes(dump.read_bytes())  # of a crashed BGSAVE
    assert one.outline(plan).warnings == []
    shutil.copyfile(dump, one.server.folder / "queue.db")
    assert "queue.db" in one.outline(plan).warnings[0]
    dump.unlink()
    with pytest.raises(RefusedError, match=r"queue\.db") as error:
        one.outline(plan)
    assert "online" in error.value.hint
    dump.write_bytes((one.server.folder / "queue.db").read_bytes())
    (one.server.folder / aof.DIRECTORY).mkdir()
    (one.server.folder / aof.DIRECTORY / "mine.aof.manifest").touch()
    with pytest.raises(RefusedError, match=r"mine\.aof\.manifest"):
        one.outline(plan)


class Cut(BaseException):
    """The process ends here."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Calls that change a folder end the process when `left[0]` has run down."""
    left = [-1]

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **more: Any) -> Any:
            if left[0] == 0:
                raise Cut
            left[0] -= 1
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, call)

    for name in ("rename", "link", "unlink", "mkdir", "fsync", "open", "chown"):
        counted(os, name)
    yield left
    left[0] = -1


@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_cut_off_anywhere_ends_in_one_of_two_states(
    appendonly: str, tmp_path: Path, calls: list[int]
) -> None:
    one = stopped(ONE, tmp_path, appendonly)
    first, old, new = one.plan("offline"), picture(one.server.folder), None
    for number in range(appendonly == "yes", 300, 3):
        plan = redis_restoring.again(first)
        restorer, work = open_plan(plan)
        calls[0] = number
        try:
            restorer.switch(work)
        except Cut:
            calls[0] = -1
        else:
            break
        if number % 2:
            switch(plan)
            new = new or picture(one.server.folder)
            assert picture(one.server.folder) == new, number
        switch_back(plan)
        assert picture(one.server.folder) == old, number
    calls[0] = -1
    assert number > 15
    calls[0] = -1
    assert picture(one.server.folder) == new
    assert starts_with(one, appendonly) == one.new


def test_it_runs_again_with_the_restored_keys(tmp_path: Path) -> None:
    one = stopped(ONE, tmp_path, "yes")
    plan = one.plan("offline")
    switch(plan)
    with running(ONE, one.server.folder, "--appendonly", "yes") as server:
        told = json.loads(plan.read_text())
        plan.write_text(json.dumps({**told, "url": server.url}))
        restorer, work = open_plan(plan)
        checks = restorer.confirm(work)
        good(checks)
        assert checks[-1].found == sum(
            db["keys"] for db in one.captured.facts["databases"].values()
        )
