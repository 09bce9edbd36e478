"""Whatever stands in the way of a restore in place is told before anything was changed: a full
disk, a read-only mount, another owner, a service that does not stop, staged data that was damaged,
data that was moved; for each of the four kinds of stores, as they are when their services stopped.

Before and after are compared by what the stores hold, and nothing of the restore is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake import configfile
from safetake.errors import SafetakeError
from safetake.model import Check, RestoreWork
from safetake.recovery.inplace import Telling, restore_in_place, restores_folder
from safetake.recovery.journal import journals
from safetake.recovery.outcome import RolledBackError
from safetake.recovery.plan import Wishes
from safetake.snapshots import find_snapshot, list_snapshots
from safetake.sources import restorer
from tests.faults.stores import Chroma, Files, OfflineRedis, Sqlite, Store
from tests.faults.support import small_disk
from tests.support.repositories import PASSWORD, new_repository, open_repository, picture

NAMES = ("projects", "scripts", "vectors", "queue")


class Place:
    """Four stores in `home`, a snapshot of them, and what came later; nothing runs any more."""

    def __init__(self, base: Path) -> None:
        self.base, self.home = base, base / "home"
        self.home.mkdir(exist_ok=True)
        queue = OfflineRedis(options=("--save", "900 1"))
        self.stores: list[Store] = [Sqlite(), Files(), Chroma(), queue]
        self.told = self.home / "safetake.toml"
        self.told.write_text(
            f'[repository]\nlocation = "{base / "repository"}"\n'
            f'password_file = "{base / "password"}"\n[restore]\nstate = "{base / "state"}"\n'
            + "".join(f"[sources.{store.name}]\n{store.config()}" for store in self.stores)
        )
        (base / "password").write_text(PASSWORD)
        (base / "password").chmod(0o600)
        new_repository(base / "repository")
        queue.place(self.home)
        queue.start()
        try:
            for store in self.stores:
                store.make(self.home)
            self.snapshot = self._backup()
            for store in self.stores:
                store.change(self.home)
        finally:
            queue.stop()
        self.open()
        self.old = self.state()

    def _backup(self) -> str:
        import json

        words = [sys.executable, "-m", "safetake", "--config", str(self.told), "--json", "backup"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return str(json.loads(done.stdout)["id"])

    def open(self) -> None:
        self.config = configfile.load(self.told)
        self.repository = open_repository(self.base / "repository")
        self.safeties = len(list_snapshots(self.repository))

    def state(self) -> dict[str, Any]:
        found = {store.name: store.state(self.home) for store in self.stores[:3]}
        return {**found, "queue": picture(self.home / "queue")}

    def restore(self, *names: str, **wishes: Any) -> tuple[SafetakeError, list[str]]:
        """The error that a restore of them ends with, and the steps that were begun before."""
        steps: list[str] = []
        with pytest.raises(SafetakeError) as told:
            restore_in_place(
                self.repository,
                self.config,
                find_snapshot(self.repository, self.snapshot),
                list(names),
                Wishes(**wishes),
                lambda plan: True,
                Telling(lambda step, text: steps.append(step)),
            )
        assert told.value.hint, f"{names}: no next step after {told.value}"
        return told.value, steps

    def untouched(self) -> None:
        assert self.state() == self.old
        assert not list(self.base.rglob(".safetake-restore-*"))
        assert all(journal.ended for journal in journals(restores_folder(self.config)))
        again = open_repository(self.base / "repository")
        assert len(list_snapshots(again)) == self.safeties, "it came as far as the safety copy"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("template"))


@contextlib.contextmanager
def remounted(folder: Path, *options: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("may not mount")
    try:
        subprocess.run(["mount", "-o", f"remount,bind,{','.join(options)}", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_mount(template: Place, name: str) -> None:
    with remounted(template.home, "ro"):
        error, steps = template.restore(name)
        assert "read-only" in str(error), str(error)
        assert str(template.home) in str(error)
        assert steps == []
    template.untouched()


@pytest.mark.parametrize("name", NAMES)
def test_data_that_was_moved(template: Place, name: str) -> None:
    """The volume is not mounted, or has another name: nothing is written into what is there."""
    template.home.rename(template.base / "elsewhere")
    try:
        error, steps = template.restore(name)
        assert not template.home.exists()
    finally:
        (template.base / "elsewhere").rename(template.home)
    assert str(template.home) in str(error)
    assert steps == []
    template.untouched()


@pytest.mark.parametrize("name", NAMES)
def test_staged_data_that_is_damaged(
    template: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte of the largest staged file, after it was written and before it is looked at."""
    kind = type(restorer(name, template.config.sources[name]))
    check = kind.check_staged

    def damaged(self: Any, work: RestoreWork) -> list[Check]:
        files = [path for path in work.staged.rglob("*") if path.is_file()]
        largest = max(files, key=lambda path: (path.stat().st_size, path))
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
        return check(self, work)

    monkeypatch.setattr(kind, "check_staged", damaged)
    error, steps = template.restore(name)
    assert isinstance(error, RolledBackError)
    assert f"{name}: " in str(error)
    assert "The data is exactly as it was before" in str(error)
    assert not [step for step in steps if step.startswith(("stop", "safety", "switch"))]
    template.untouched()


def test_a_service_that_does_not_stop(template: Place) -> None:
    text = template.told.read_text()
    template.told.write_text(
        text + '[services.app]\nstop = ["true"]\nstart = ["true"]\nrunning = ["true"]\n'
        "stop_timeout = 1\n"
    )
    try:
        template.open()
        error, steps = template.restore()
    finally:
        template.told.write_text(text)
        template.open()
    assert "app still runs" in str(error)
    assert not [step for step in steps if step.startswith(("safety", "switch"))]
    template.untouched()


def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with small_disk(tmp_path / "base" / "home", 64) as home:
        place = Place(tmp_path / "base")
        filler = home / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(home).free - 4096))
        for name in NAMES:
            error, steps = place.restore(name)
            assert " free, and the restore needs " in str(error), str(error)
            assert str(home) in str(error)
            assert steps == []
        filler.unlink()  # SQLite cannot even read its log without room
        place.untouched()


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """The same process, which finds its libraries already loaded."""
    os.setresgid(1234, 1234, 0)
    os.setresuid(1234, 1234, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_owner() -> None:
    """As a user who may read all of it, and to whom it does not belong."""
    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        base.chmod(0o755)
        place = Place(base)
        for path in (base / "repository", base / "state"):
            path.mkdir(exist_ok=True)
            for each in (path, *path.rglob("*")):
                os.chown(each, 1234, 1234)
        for path in (place.home, *place.home.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.is_dir() else 0))
        place.old = place.state()
        for name in NAMES:
            with another_user():
                error, steps = place.restore(name)
            assert str(place.home) in str(error)
            assert steps == []
        place.untouched()
