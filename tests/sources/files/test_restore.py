"""Folders restored in place: real trees, exchanged, put back, and interrupted at every call."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetake.config import FilesConfig
from safetake.errors import RefusedError, RestoreError
from safetake.model import RestoreWork
from safetake.sources.files import FilesSource, losses
from safetake.sources.files.restore import FilesRestorer
from safetake.swap import Swap
from tests.sources.files.support import take
from tests.support.memory_writer import MemoryRepository
from tests.support.restoring import Steps, well, work_of

assert losses  # imported here, while it can be: one test gives up its rights


def state(root: Path) -> dict[bytes, Any]:
    """Everything that can be put back: also of folders, and which names are one file."""
    found: dict[bytes, Any] = {}
    files: dict[int, list[bytes]] = {}
    base = os.fsencode(root)
    waiting = [base]
    while waiting:
        path = waiting.pop()
        status = os.lstat(path)
        content: Any = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)  # noqa: PTH115 - bytes
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:  # noqa: PTH123 - bytes
                content = file.read()
            if status.st_nlink > 1:
                files.setdefault(status.st_ino, []).append(path)
        elif stat.S_ISDIR(status.st_mode):
            waiting += [os.path.join(path, name) for name in os.listdir(path)]  # noqa: PTH118, PTH208
        names = sorted(os.listxattr(path, follow_symlinks=False))
        found[os.path.relpath(path, base)] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            content,
            [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names],
        )
    for paths in files.values():
        if len(paths) > 1:  # the other name may be the copy that is kept in `work`
            for path in paths:
                found[os.path.relpath(path, base)] += (sorted(paths),)
    return found


def make(root: Path) -> None:
    """A tree with everything odd."""
    for name in ("a/deep/deeper", "b", "empty", "read-only", "odd \n\x1b[31m", "gone folder"):
        (root / name).mkdir(parents=True)
    for path, text in {
        "same": "same",
        "changed": "old",
        "a/changed": "old, and longer",
        "a/touched": "its time only",
        "a/mode": "its mode only",
        "a/deep/deeper/gone": "comes back",
        "b/becomes a folder": "a file",
        "read-only/x": "old",
        "odd \n\x1b[31m/ü": "odd",
        "gone folder/1": "1",
        "gone folder/2": "2",
    }.items():
        (root / path).write_text(text)
    (root / "b" / "becomes a file").mkdir()
    (root / "b" / "becomes a file" / "inner").write_text("x")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_text("no UTF-8")
    (root / "link").symlink_to("same")
    (root / "outside").symlink_to("/etc/hostname")
    (root / "becomes a link").mkdir()
    (root / "becomes a link" / "y").write_text("y")
    os.mkfifo(root / "fifo")
    os.link(root / "same", root / "b" / "second name of same")
    (root / "linked").write_text("linked")
    os.link(root / "linked", root / "b" / "linked")
    (root / "split").write_text("split")
    os.link(root / "split", root / "b" / "split")
    os.setxattr(root / "a", "user.colour", b"red")
    os.setxattr(root / "changed", "user.colour", b"blue")
    (root / "read-only").chmod(0o555)
    (root / "a").chmod(0o2750)
    for number, place in enumerate(sorted(root.rglob("*"), key=lambda p: (-len(p.parts), p))):
        os.utime(place, (10**9, 10**9 + number), follow_symlinks=False)
    os.utime(root, (10**9, 10**9))


def change(root: Path) -> None:
    """What happens after the snapshot."""
    (root / "changed").write_text("new")
    (root / "a" / "changed").unlink()
    (root / "a" / "changed").write_text("newer")
    os.utime(root / "a" / "touched")
    (root / "a" / "mode").chmod(0o600)
    shutil.rmtree(root / "a" / "deep" / "deeper")
    shutil.rmtree(root / "gone folder")
    (root / "b" / "becomes a folder").unlink()
    (root / "b" / "becomes a folder").mkdir()
    (root / "b" / "becomes a folder" / "z").write_text("z")
    shutil.rmtree(root / "b" / "becomes a file")
    (root / "b" / "becomes a file").write_text("a file")
    shutil.rmtree(root / "becomes a link")
    (root / "becomes a link").symlink_to("/etc")
    (root / "read-only").chmod(0o755)
    (root / "read-only" / "x").write_text("new")
    (root / "read-only").chmod(0o555)
    (root / "link").unlink()
    (root / "link").symlink_to("/etc/passwd")
    (root / "outside").unlink()
    (root / "fifo").unlink()
    (root / "fifo").write_text("no fifo")
    (root / "split").unlink()
    (root / "split").write_text("split")
    (root / "linked").unlink()
    os.link(root / "same", root / "linked")
    os.setxattr(root / "a", "user.colour", b"green")
    os.setxattr(root / "a", "user.more", b"x")
    (root / "a").chmod(0o700)
    root.chmod(0o750)


def extra(root: Path) -> None:
    """Entries that the snapshot does not have."""
    (root / "new folder" / "in it").mkdir(parents=True)
    (root / "new folder" / "in it" / "file").write_text("kept")
    (root / "b" / "new").write_text("kept")
    (root / "empty" / "new link").symlink_to("/")


class Case:
    """One tree, its snapshot, and what became of it."""

    def __init__(self, base: Path, **config: Any) -> None:
        self.live = base / "live"
        self.live.mkdir(parents=True)
        self.config = FilesConfig(type="files", path=self.live, **config)
        self.repository = MemoryRepository()
        self.steps: Steps
        self.was: dict[bytes, Any] = {}

    def snapshot(self) -> None:
        self.was = state(self.live)
        options = self.config.model_dump(exclude={"type", "path"})
        captured = take(self.live, self.repository, **options).captured
        source = FilesSource("scripts", self.config)
        restorer = FilesRestorer("scripts", self.config)
        self.steps = Steps(restorer, source, captured, self.repository)

    @property
    def work(self) -> RestoreWork:
        return self.steps.work

    def again(self) -> tuple[FilesRestorer, RestoreWork]:
        """As another process finds it."""
        work = self.work
        found = work_of(work.work, "scripts", work.entry, work.mode, **dict(work.options))
        found.safety_ns = work.safety_ns
        return FilesRestorer("scripts", self.config), found


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    case = Case(tmp_path)
    make(case.live)
    case.snapshot()
    yield case
    case.repository.close()


def old_enough() -> None:
    """Longer than the margin of the safety copy's clock; `quiet` does the same."""
    time.sleep(0.05)


# ------------------------------------------------------------------------ there and back


def test_the_tree_of_the_snapshot_and_back(case: Case) -> None:
    change(case.live)
    before = state(case.live)
    case.steps.run()
    assert state(case.live) == case.was
    case.steps.restorer.switch_back(case.work)
    assert state(case.live) == before
    restorer, work = case.again()
    restorer.switch(work)
    assert state(case.live) == case.was
    well(restorer.confirm(work))
    restorer.finish(work, committed=True)
    shutil.rmtree(work.work)


def test_what_the_snapshot_does_not_have_is_kept_and_told(case: Case) -> None:
    change(case.live)
    extra(case.live)
    outline = case.steps.run()
    now = state(case.live)
    assert {k: v for k, v in now.items() if k in case.was} == case.was
    kept = sorted(set(now) - set(case.was))
    inner = [b"new folder", b"new folder/in it", b"new folder/in it/file"]
    assert kept == [b"b/new", b"empty/new link", *inner]
    (kept_line,) = outline.warnings
    assert kept_line.startswith("4 files are not in the snapshot and kept: b/")


def test_what_the_snapshot_does_not_have_goes_when_asked_for_and_comes_back(case: Case) -> None:
    change(case.live)
    extra(case.live)
    before = state(case.live)
    outline = case.steps.run(delete_extra=True)
    assert outline.losses[0].newer == 4
    assert "b/new" in outline.losses[0].examples
    assert state(case.live) == case.was
    case.steps.restorer.switch_back(case.work)
    assert state(case.live) == before


def test_the_losses_are_counted(case: Case) -> None:
    change(case.live)
    (loss,) = case.steps.outline().losses
    # by content: a file whose time or mode alone differs is no loss
    changed = {"changed", "a/changed", "link", "fifo", "read-only/x", "linked"}
    changed |= {"b/becomes a folder", "b/becomes a file", "becomes a link"}
    assert loss.changed == len(changed)
    missing = {"a/deep/deeper/gone", "gone folder/1", "gone folder/2", "outside"}
    inside = {"becomes a link/y", "b/becomes a file/inner"}
    assert loss.missing in (len(missing), len(missing | inside))
    assert state(case.live) != case.was


def test_equal_files_are_not_touched(case: Case) -> None:
    change(case.live)
    names = ["same", "odd \n\x1b[31m/ü", "b/second name of same"]
    before = [(case.live / name).stat() for name in names]
    case.steps.run()
    for name, status in zip(names, before, strict=True):
        now = (case.live / name).stat()
        assert now.st_ino == status.st_ino, name


def test_a_folder_that_is_not_there_comes_back_as_a_whole(case: Case) -> None:
    shutil.rmtree(case.live)
    case.steps.source = None  # nothing to save first
    outline = case.steps.run()
    assert outline.absent
    assert state(case.live) == case.was
    case.steps.restorer.switch_back(case.work)
    assert not case.live.exists()


@pytest.mark.parametrize("lost", [False, True])
def test_only_what_is_named_comes_back(case: Case, lost: bool) -> None:
    if lost:
        shutil.rmtree(case.live / "a")
    else:
        change(case.live)
    (case.live / "a").mkdir(exist_ok=True)
    (case.live / "a" / "new").write_text("kept: another name")
    before = state(case.live)
    case.steps.run(paths=[f"{case.live}/a/deep", "a/chang*"], delete_extra=True)
    now = state(case.live)
    named = {b"a/deep", b"a/deep/deeper", b"a/deep/deeper/gone", b"a/changed"}
    assert {k: now[k] for k in named} == {k: case.was[k] for k in named}
    rest = {k: v for k, v in before.items() if k not in named | {b"a", b"a/deep"}}
    assert {k: now[k] for k in rest} == rest
    assert now.keys() == before.keys() | named
    case.steps.restorer.switch_back(case.work)
    assert state(case.live) == before


def test_a_named_file_that_the_snapshot_does_not_have_goes_when_asked_for(case: Case) -> None:
    """What the undo of a restore of some paths is: exactly they go, what is newer stays."""
    extra(case.live)
    (case.live / "new folder" / "in it" / "other").write_text("kept")
    before = state(case.live)
    named = ["/new folder/in it/file", "b/new"]
    assert case.steps.outline(paths=named, delete_extra=True).losses[0].newer == 2
    case.steps.run(paths=named, delete_extra=True)
    gone = {b"new folder/in it/file", b"b/new"}
    assert state(case.live).keys() == before.keys() - gone
    case.steps.restorer.switch_back(case.work)
    assert state(case.live) == before


def test_names_that_are_nowhere_are_refused(case: Case) -> None:
    with pytest.raises(RefusedError, match=r"nothing in the snapshot of .* is named by"):
        case.steps.outline(paths=["*.nothing"])
    with pytest.raises(RefusedError, match=r"nothing in the snapshot of .* is named by"):
        case.steps.outline(paths=["/etc/passwd"])
    for everything in (str(case.live), f"{case.live}/"):
        assert case.steps.outline(paths=[everything]).losses == case.steps.outline().losses
    with pytest.raises(RefusedError, match="--beside is for databases"):
        case.steps.outline("beside")


def test_what_is_excluded_is_never_touched(tmp_path: Path) -> None:
    case = Case(tmp_path, exclude=["*.tmp", "/cache/"])
    (case.live / "d").mkdir()
    (case.live / "d" / "file").write_text("x")
    case.snapshot()
    shutil.rmtree(case.live / "d")
    (case.live / "d" / "e").mkdir(parents=True)
    (case.live / "d" / "e" / "a.tmp").write_text("ours")
    (case.live / "d" / "e" / "new").write_text("goes")
    (case.live / "cache").mkdir()
    (case.live / "cache" / "z").write_text("ours")
    outline = case.steps.run(delete_extra=True)
    assert outline.losses[0].newer == 1
    names = {os.fsdecode(name) for name in state(case.live)}
    assert names == {".", "d", "d/file", "d/e", "d/e/a.tmp", "cache", "cache/z"}


def test_what_is_excluded_by_now_does_not_come_back_with_the_folder_that_it_was_in(
    tmp_path: Path,
) -> None:
    case = Case(tmp_path)
    (case.live / "a" / "cache").mkdir(parents=True)
    (case.live / "a" / "cache" / "1").write_text("then no one excluded it")
    (case.live / "a" / "kept").write_text("x")
    case.snapshot()
    shutil.rmtree(case.live / "a")
    (case.live / "other").write_text("x")
    config = case.config.model_copy(update={"exclude": ["cache/"]})
    case.steps.restorer = FilesRestorer("scripts", config)
    case.steps.run()
    assert {path.name for path in case.live.rglob("*")} == {"a", "kept", "other"}
    case.steps.restorer.switch_back(case.work)
    assert {path.name for path in case.live.rglob("*")} == {"other"}
    case.repository.close()


def test_a_folder_with_excluded_entries_does_not_give_way_to_a_file(tmp_path: Path) -> None:
    case = Case(tmp_path, exclude=["*.tmp"])
    (case.live / "x").write_text("a file")
    case.snapshot()
    (case.live / "x").unlink()
    (case.live / "x").mkdir()
    (case.live / "x" / "a.tmp").write_text("ours")
    (case.live / "y").write_text("y")
    before = state(case.live)
    with pytest.raises(RefusedError, match="excluded entries"):
        case.steps.outline()
    case.steps.stage("offline")
    with pytest.raises(RefusedError, match="excluded entries"):
        case.steps.switch()
    case.steps.restorer.switch_back(case.work)
    assert state(case.live) == before


# ------------------------------------------------------------------------ written meanwhile


def test_what_was_written_after_the_safety_copy_is_refused_before_anything_moves(
    case: Case,
) -> None:
    change(case.live)
    case.steps.stage("offline")
    old_enough()
    with case.steps.saved():
        old_enough()
        (case.live / "changed").write_text("written now")
        before = state(case.live)
        with pytest.raises(RefusedError, match="changed was written after the safety copy"):
            case.steps.restorer.switch(case.work)
    assert not Swap(case.work.work).planned
    case.steps.restorer.switch_back(case.work)
    assert state(case.live) == before


def test_what_is_written_while_it_moves_is_found_and_put_back(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(case.live)
    case.steps.stage("offline")
    case.steps.restorer.quiet(case.work)
    plan = Swap.plan

    def late(swap: Swap, moves: Any) -> None:
        plan(swap, moves)
        with (case.live / "changed").open("a") as file:
            file.write(" and now")

    monkeypatch.setattr(Swap, "plan", late)
    with case.steps.saved(), pytest.raises(RefusedError, match="while it was replaced"):
        case.steps.restorer.switch(case.work)
    case.steps.restorer.switch_back(case.work)
    assert (case.live / "changed").read_text() == "new and now"


def test_a_new_file_meanwhile_is_kept(case: Case) -> None:
    change(case.live)
    case.steps.stage("offline")
    case.steps.restorer.quiet(case.work)
    with case.steps.saved():
        (case.live / "meanwhile").write_text("kept")
        case.steps.restorer.switch(case.work)
    assert (case.live / "meanwhile").read_text() == "kept"
    case.steps.restorer.switch_back(case.work)
    assert (case.live / "meanwhile").read_text() == "kept"


# ------------------------------------------------------------------------ traps


def test_a_folder_without_its_parent_is_a_missing_volume(case: Case) -> None:
    shutil.rmtree(case.live.parent)
    with pytest.raises(RefusedError, match="its volume is not there"):
        case.steps.outline()


def test_a_file_in_the_folder_s_place_is_refused(case: Case) -> None:
    shutil.rmtree(case.live)
    case.live.write_text("")
    with pytest.raises(RefusedError, match="is no folder"):
        case.steps.outline()


def test_a_link_to_the_folder_is_followed_once(tmp_path: Path) -> None:
    case = Case(tmp_path / "real")
    make(case.live)
    (tmp_path / "link").symlink_to(case.live)
    case.config = FilesConfig(type="files", path=tmp_path / "link")
    case.snapshot()
    change(case.live)
    case.steps.run()
    assert state(case.live) == case.was
    assert (tmp_path / "link").is_symlink()
    assert case.work.work.parent == tmp_path / "real"


def test_work_inside_of_a_mount_point_is_not_part_of_the_data(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(case.live))
    change(case.live)
    before = state(case.live)
    outline = case.steps.run(delete_extra=True)
    assert "is a mount point" in outline.warnings[0]
    assert case.work.work.parent == case.live
    assert case.steps.safety is not None
    taken = {node.name for node in case.repository.tree(case.steps.safety.node.subtree or b"")}
    assert not any(name.startswith(".safetake") for name in taken)
    case.steps.restorer.switch_back(case.work)
    shutil.rmtree(case.work.work)
    os.utime(case.live, ns=(0, before[b"."][3]))
    assert state(case.live) == before


def test_what_is_too_deep_to_be_saved_is_not_put_away(tmp_path: Path) -> None:
    case = Case(tmp_path)
    (case.live / "file").write_text("x")
    case.snapshot()
    deep = Path(f"{case.live}/{'d/' * 1500}file")
    subprocess.run(["mkdir", "-p", str(deep)], check=True)
    (case.live / "d" / "new").write_text("goes")
    assert case.steps.outline(delete_extra=True).losses[0].newer == 1
    well(case.steps.stage("offline", delete_extra=True))
    case.steps.restorer.switch(case.work)
    assert deep.is_dir()
    assert not (case.live / "d" / "new").exists()
    case.steps.restorer.switch_back(case.work)
    assert (case.live / "d" / "new").exists()
    subprocess.run(["rm", "-rf", f"{case.live}/d"], check=True)


def test_a_socket_is_nobody_s_data(case: Case) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(case.live)  # its name may have 108 bytes
        server.bind("s")
        os.chdir(here)
    case.steps.run(delete_extra=True)
    assert stat.S_ISSOCK((case.live / "s").lstat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up its rights")
def test_without_the_rights_of_root_read_only_folders_are_opened_and_closed_again() -> None:
    base = Path(tempfile.mkdtemp())
    base.chmod(0o777)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            tempfile.tempdir = None
            os.environ["TMPDIR"] = str(base)
            case = Case(base / "mine")
            make(case.live)
            (case.live / "gone folder").chmod(0o555)
            case.live.chmod(0o555)
            case.snapshot()
            case.live.chmod(0o755)
            (case.live / "gone folder").chmod(0o755)
            change(case.live)
            extra(case.live)
            (case.live / "new folder").chmod(0o500)
            case.live.chmod(0o500)
            before = state(case.live)
            case.steps.outline(delete_extra=True)
            well(case.steps.stage("offline", delete_extra=True))
            well(case.steps.switch())
            assert state(case.live) == case.was
            case.steps.restorer.switch_back(case.work)
            assert state(case.live) == before
            case.steps.restorer.finish(case.work, committed=False)
            shutil.rmtree(case.work.work)
        except BaseException as error:  # noqa: BLE001 - told to the parent
            print(repr(error), file=sys.stderr)
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    shutil.rmtree(base)
    assert status == 0


# ------------------------------------------------------------------------ interrupted anywhere


class Killed(BaseException):
    """Nothing catches this."""


CALLS = ("link", "rename", "unlink", "fsync", "fchmod", "utime", "chmod", "mkdir", "open", "lstat")


def killed_at(
    monkeypatch: pytest.MonkeyPatch,
    when: int,
    step: Callable[[RestoreWork], None],
    work: RestoreWork,
) -> bool:
    """Run it, and raise before its `when`-th call; whether it got that far."""
    counter = itertools.count()

    def raising(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if next(counter) == when:
                raise Killed
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, raising(getattr(os, name)))
        try:
            step(work)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("way", ["on", "back"])
def test_killed_at_any_call_it_goes_on_or_back(
    case: Case, monkeypatch: pytest.MonkeyPatch, way: str, tmp_path: Path
) -> None:
    """Both ways, each killed itself once at another call before it is let through."""
    change(case.live)
    extra(case.live)
    before = state(case.live)
    case.steps.stage("offline", delete_extra=True)
    case.steps.restorer.quiet(case.work)
    case.work.safety_ns = time.time_ns()
    count = 0
    for when in itertools.count(0, 7 if way == "on" else 5):
        restorer, work = case.again()
        if not killed_at(monkeypatch, when, restorer.switch, work):
            break
        count += 1
        if way == "back":
            restorer, work = case.again()
            killed_at(monkeypatch, (when * 31) % 97, restorer.switch_back, work)
        else:
            restorer, work = case.again()
            killed_at(monkeypatch, (when * 31) % 97, restorer.switch, work)
            restorer, work = case.again()
            restorer.switch(work)
            well(restorer.confirm(work))
            assert state(case.live) == case.was, when
        restorer, work = case.again()
        restorer.switch_back(work)
        assert state(case.live) == before, when
    assert count > 20
    restorer, work = case.again()
    restorer.switch(work)
    assert state(case.live) == case.was


TREE = st.dictionaries(
    st.sampled_from(["a", "b", "a/x", "a/y", "b/x", "b/y", "b/x/z", "\udcff", "c"]),
    st.sampled_from(["folder", "1", "2", "link", "hard"]),
    max_size=7,
)


def grow(root: Path, tree: dict[str, str]) -> None:
    first: Path | None = None
    for name, what in sorted(tree.items()):
        place = root / name
        if not place.parent.is_dir() or place.parent.is_symlink():
            continue
        if what == "folder":
            place.mkdir()
        elif what == "link":
            place.symlink_to("a")
        elif what == "hard" and first is not None:
            os.link(first, place)
        else:
            place.write_text(what)
            first = first or place
    for number, place in enumerate(sorted(root.rglob("*"), key=lambda p: (-len(p.parts), p))):
        os.utime(place, (10**9, 10**9 + number % 2), follow_symlinks=False)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(old=TREE, new=TREE, when=st.integers(0, 200), back=st.booleans())
def test_any_tree_to_any_other_and_back(
    old: dict[str, str],
    new: dict[str, str],
    when: int,
    back: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as base:
        case = Case(Path(base), may_be_empty=True)
        grow(case.live, old)
        case.snapshot()
        shutil.rmtree(case.live)
        case.live.mkdir()
        grow(case.live, new)
        before = copy.deepcopy(state(case.live))
        case.steps.stage("offline", delete_extra=True)
        case.work.safety_ns = 0
        killed_at(monkeypatch, when, case.steps.restorer.switch, case.work)
        restorer, work = case.again()
        if back:
            restorer.switch_back(work)
            assert state(case.live) == before
        else:
            restorer.switch(work)
            well(restorer.confirm(work))
            assert state(case.live) == case.was
        case.repository.close()


def test_a_failing_disk_is_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    change(case.live)
    before = state(case.live)
    case.steps.stage("offline")
    real = os.rename

    def full(source: Any, target: Any) -> None:
        if str(target) == str(case.live / "changed"):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", full)
        with pytest.raises(RestoreError, match="No space left on device") as error:
            case.steps.restorer.switch(case.work)
    assert "--rollback" in error.value.hint
    case.steps.restorer.switch_back(case.work)
    assert state(case.live) == before


# ------------------------------------------------------------------------ mounts


@contextmanager
def mounted(*command: str, at: Path) -> Iterator[None]:
    done = subprocess.run(["mount", *command, str(at)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_a_bind_mount_is_restored_inside_of_itself(case: Case) -> None:
    """Its device number is its parent's, and yet nothing can be renamed out of it."""
    with mounted("--bind", str(case.live), at=case.live):
        change(case.live)
        case.steps.run(delete_extra=True)
        assert case.work.work.parent == case.live
        shutil.rmtree(case.work.work)
        os.utime(case.live, ns=(0, case.was[b"."][3]))
        assert state(case.live) == case.was


def test_another_file_system_inside_is_refused_before_anything(tmp_path: Path) -> None:
    case = Case(tmp_path)
    (case.live / "inner").mkdir()
    (case.live / "inner" / "x").write_text("x")
    case.snapshot()
    with mounted("-t", "tmpfs", "none", at=case.live / "inner"):
        with pytest.raises(RefusedError, match="inner is another file system"):
            case.steps.outline()
    case = Case(tmp_path / "two", one_file_system=True, may_be_empty=True)
    (case.live / "inner").mkdir()
    (case.live / "file").write_text("x")
    with mounted("-t", "tmpfs", "none", at=case.live / "inner"):
        (case.live / "inner" / "y").write_text("not ours")
        case.snapshot()
        (case.live / "file").unlink()
        case.steps.run(delete_extra=True)
        assert (case.live / "file").read_text() == "x"
        assert (case.live / "inner" / "y").read_text() == "not ours"


def test_a_read_only_file_system_is_refused(case: Case) -> None:
    with mounted("--bind", str(case.live), at=case.live):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(case.live)], check=True)
        with pytest.raises(RefusedError, match="on a read-only file system"):
            case.steps.outline()
