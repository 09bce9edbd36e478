"""`restore --undo` after kills: a restore is one, however often it was cut off and went on, and so
is its undo. Each brings back all that was there before it, of one moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from safetake.recovery.journal import Journal, open_restore
from tests.faults.matrix import DONE, World
from tests.faults.stores import Chroma
from tests.faults.test_crash_matrix import whole_system
from tests.support.states import difference
from tests.support.zygote import Zygote


def killed_after(arguments: Sequence[str]) -> int:
    """The command, killed as soon as its journal says that a step is done."""
    from safetake.cli.app import run

    step, *words = arguments
    real = Journal._add

    def add(self: Journal, record: dict[str, Any]) -> None:
        real(self, record)
        if record.get("done") == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal._add = add  # type: ignore[method-assign]  # this process does nothing else
    return run(words)


class Tidy(Chroma):
    """Without the files that chromadb left of a deleted collection: no snapshot holds them."""

    def change(self, home: Path) -> None:
        super().change(home)
        with contextlib.closing(sqlite3.connect(home / self.name / "chroma.sqlite3")) as database:
            known = {name for (name,) in database.execute("SELECT id FROM segments")}
        for folder in (home / self.name).iterdir():
            if folder.is_dir() and folder.name not in known:
                shutil.rmtree(folder)


@pytest.fixture(scope="module")
def built() -> Iterator[World]:
    """All kinds of stores, switched in the order queue, scripts, vectors, projects."""
    with Zygote() as zygote, whole_system(zygote) as world:
        world.stores = [Tidy() if type(s) is Chroma else s for s in world.stores]
        world.build()
        yield world


@pytest.fixture
def world(built: World) -> World:
    built.reset()
    return built


def cut_off(world: World, step: str, *words: str) -> None:
    """Run `restore WORDS`, and see it killed when that step was done."""
    run = world.zygote.run(
        step,
        "restore",
        *words,
        function=f"{__name__}:{killed_after.__name__}",
        folder=world.home,
        environment={"TMPDIR": str(world.home / "tmp"), "HOME": str(world.home)},
        seconds=120,
    )
    world.supervisor.settle()
    assert run.seen.code == -signal.SIGKILL, run.said
    journal = open_restore(world.restores)
    assert journal is not None
    assert list(journal.done)[-1] == step


def ended(world: World, *words: str) -> Any:
    return json.loads(said(world, "--json", "restore", *words))


def said(world: World, *words: str) -> str:
    run = world.safetake(*words)
    assert run.code in DONE, run.said
    return run.said


def holds(world: World, state: dict[str, Any]) -> None:
    world.whole()
    assert difference(world.state(), state) == []


RESTORE = ("--in-place", "--yes", "--delete-extra")
UNDO = ("--undo", "--yes")


def test_one_undo_brings_back_what_a_restore_of_many_kills_replaced(world: World) -> None:
    cut_off(world, "switch:queue", world.snapshot, *RESTORE)
    cut_off(world, "switch:vectors", "--resume")
    restored = ended(world, "--resume")
    holds(world, world.new)
    assert set(restored["safety"]) == set(world.new)
    (saved,) = set(restored["safety"].values())
    plan = ended(world, "--undo", "--dry-run")
    assert (plan["snapshot"], plan["undo_of"]) == (saved, restored["restore"])
    assert set(plan["sources"]) == set(world.new)
    undone = ended(world, *UNDO)
    assert undone["snapshot"] == saved
    holds(world, world.old)
    ended(world, *UNDO)
    holds(world, world.new)
    listed = ended(world, "--list")
    assert [one["undo_of"] for one in listed] == ["", restored["restore"], undone["restore"]]


def test_an_undo_of_many_kills_is_one_undo(world: World) -> None:
    restored = ended(world, world.snapshot, *RESTORE)["restore"]
    cut_off(world, "switch:queue", *UNDO)
    refused = world.safetake("restore", *UNDO, code=1).said
    assert f", the undo of {restored[:8]}, of queue, scripts, vectors, projects" in refused
    assert f"--resume` ends it with what was there before {restored[:8]}" in refused
    cut_off(world, "switch:scripts", "--resume")
    undone = ended(world, "--resume")
    holds(world, world.old)
    ended(world, *UNDO)
    holds(world, world.new)
    assert [one["undo_of"] for one in ended(world, "--list")] == ["", restored, undone["restore"]]
    ended(world, "--undo", restored, "--yes")
    holds(world, world.old)


def test_what_was_written_between_a_kill_and_the_resume_is_kept_and_told(world: World) -> None:
    cut_off(world, "switch:queue", world.snapshot, *RESTORE)
    (world.home / "scripts" / "meanwhile.md").write_text("written while it was cut off\n")
    text = said(world, "restore", "--resume")
    holds(world, world.new)
    first, since = re.findall(r"snapshot ([0-9a-f]{8})", " ".join(text.split()))[1:3]
    told = (
        "anything that was written to scripts, vectors, projects while the restore was cut off is "
        f"in snapshot {since}, and is not brought back: `safetake restore {since} --to DIR`"
    )
    assert told in " ".join(text.split())
    assert told in ended(world, "--undo", "--dry-run")["warnings"]
    assert f"snapshot {first}, in place" in said(world, "restore", *UNDO)
    holds(world, world.old)
    said(world, "restore", since, "scripts", "--to", "beside")
    found = world.home / "beside" / "scripts" / "meanwhile.md"
    assert found.read_text() == "written while it was cut off\n"


def test_what_was_written_before_anything_was_replaced_comes_back(world: World) -> None:
    """The first safety snapshot is of no use then: everything is saved again."""
    cut_off(world, "safety", world.snapshot, *RESTORE)
    (world.home / "scripts" / "meanwhile.md").write_text("written while it was cut off\n")
    before = world.state()
    ended(world, "--resume")
    holds(world, world.new)
    plan = ended(world, "--undo", "--dry-run")
    assert plan["warnings"] == []
    ended(world, *UNDO)
    holds(world, before)
