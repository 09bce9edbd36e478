"""What stands in the way of a restore is said before anything is changed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.errors import RefusedError
from safetake.openers import Opener, Openers
from safetake.sources.sqlite import inuse, traps
from tests.sources.sqlite.restores import content, is_old, opened, prepared, steps_for
from tests.sources.sqlite.support import capture, database
from tests.support.memory_writer import MemoryRepository
from tests.support.restoring import Steps, well


@pytest.fixture
def repository() -> Iterator[MemoryRepository]:
    with MemoryRepository() as made:
        yield made


def test_no_table_is_overlooked_for_its_name(tmp_path: Path, repository: MemoryRepository) -> None:
    path = tmp_path / "projects.db"
    with opened(path) as connection:
        connection.execute(
            "CREATE VIRTUAL TABLE docs USING fts5(words); INSERT INTO docs VALUES ('a');"
            "CREATE TABLE docs_archive(id INTEGER PRIMARY KEY, a)"
        ).fetchall()
    captured = capture(path, repository)
    with opened(path) as connection:
        connection.execute(
            "INSERT INTO docs VALUES ('b'); INSERT INTO docs_archive VALUES (1, 'x')"
        ).fetchall()
    losses = steps_for(path, repository, captured).outline().losses
    assert [(loss.what, loss.newer) for loss in losses] == [("rows of docs_archive", 1)]


@pytest.fixture
def steps(tmp_path: Path, repository: MemoryRepository) -> Steps:
    return prepared(tmp_path, repository)


def test_losses_are_counted_row_by_row(steps: Steps) -> None:
    losses = {loss.what: loss for loss in steps.outline().losses}
    assert set(losses) == {"rows of projects"}
    found = losses["rows of projects"]
    assert (found.newer, found.changed, found.missing, found.unknown) == (20, 10, 10, "")
    assert len(found.examples) == 10
    assert found.examples[0] == "301: new 0"


def test_losses_of_whole_tables_and_of_what_cannot_be_compared(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    path = tmp_path / "projects.db"
    with opened(path) as connection:
        connection.execute(
            "CREATE TABLE gone(a); INSERT INTO gone VALUES (1), (2);"
            "CREATE TABLE keyed(a TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO keyed VALUES ('k');"
            "CREATE TABLE wider(a); INSERT INTO wider VALUES (1);"
            "CREATE TABLE hides(rowid, _rowid_, oid); INSERT INTO hides VALUES (1, 2, 3);"
            "CREATE TABLE broken(t TEXT); INSERT INTO broken VALUES (CAST(x'ff00' AS TEXT));"
            "CREATE VIRTUAL TABLE found USING fts5(words); INSERT INTO found VALUES ('hello')"
        ).fetchall()
    captured = capture(path, repository)
    with opened(path) as connection:
        connection.execute(
            "DROP TABLE gone; ALTER TABLE wider ADD COLUMN b; CREATE TABLE fresh(a);"
            "INSERT INTO fresh VALUES (1), (2), (3);"
            "INSERT INTO broken VALUES (CAST(x'fe' AS TEXT)); INSERT INTO keyed VALUES ('l');"
            "INSERT INTO found VALUES ('world')"
        ).fetchall()
    losses = {loss.what: loss for loss in steps_for(path, repository, captured).outline().losses}
    assert losses["rows of fresh"].newer == 3
    assert losses["rows of gone"].missing == 2
    assert losses["rows of broken"].newer == 1
    assert losses["rows of keyed"].unknown == "no row number: 2 rows now, 1 in the snapshot"
    assert "columns changed" in losses["rows of wider"].unknown
    assert "no row number" in losses["rows of hides"].unknown
    assert not any("found" in what for what in losses)


def test_a_row_that_has_another_number_now_is_the_same_row(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    """VACUUM gives other numbers, and so does bringing a row back: nothing would be lost."""
    path = tmp_path / "projects.db"
    with opened(path) as connection:
        connection.execute(
            "CREATE TABLE keyed(id TEXT PRIMARY KEY NOT NULL, title TEXT);"
            "INSERT INTO keyed VALUES ('a', 'A'), ('b', 'B'), ('c', 'C'), ('d', 'D');"
            "CREATE TABLE plain(a); INSERT INTO plain VALUES (1), (2), (2), (3)"
        ).fetchall()
    captured = capture(path, repository)
    with opened(path) as connection:
        connection.execute(
            "DELETE FROM keyed WHERE id = 'a'; INSERT INTO keyed VALUES ('a', 'A');"
            "DELETE FROM plain WHERE a = 1; INSERT INTO plain VALUES (1)"
        ).fetchall()
    assert steps_for(path, repository, captured).outline().losses == []
    with opened(path) as connection:
        connection.execute(
            "DELETE FROM keyed WHERE id = 'b'; INSERT INTO keyed VALUES ('e', 'E');"
            "UPDATE keyed SET title = 'other' WHERE id = 'c';"
            "DELETE FROM plain WHERE a = 3; INSERT INTO plain VALUES (2), (4)"
        ).fetchall()
    found = {
        loss.what: (loss.newer, loss.changed, loss.missing)
        for loss in steps_for(path, repository, captured).outline().losses
    }
    assert found == {"rows of keyed": (1, 1, 1), "rows of plain": (2, 0, 1)}


def test_large_tables_are_counted(
    tmp_path: Path, repository: MemoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetake.sources.sqlite import losses as module

    monkeypatch.setattr(module, "ROWS_COMPARED", 200)
    steps = prepared(tmp_path, repository)
    (found, other) = sorted(steps.outline().losses, key=lambda loss: loss.what, reverse=True)
    assert found.unknown == (
        "not compared row by row: 310 rows now, 300 in the snapshot, 20 of now with a higher number"
    )
    assert other.what == "rows of episodes"


def test_space_and_warnings_of_each_mode(steps: Steps, tmp_path: Path) -> None:
    size = steps.captured.bytes
    need = {mode: steps.outline(mode).space[tmp_path] for mode in ("offline", "online", "beside")}
    assert need["offline"] == need["beside"] == pytest.approx(size, abs=2 << 20)
    assert need["online"] >= 3 * size
    assert any("way back" in warning for warning in steps.outline("online").warnings)


@pytest.mark.parametrize("sign", ["folder", "table", "process"])
def test_litestream_is_noticed(
    steps: Steps, tmp_path: Path, sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "projects.db"
    if sign == "folder":
        (tmp_path / ".projects.db-litestream").mkdir()
    elif sign == "table":
        with opened(path) as connection:
            connection.execute("CREATE TABLE _litestream_seq(id INTEGER)").fetchall()
    else:
        # the real one is not among the test tools; its process is told by its name
        from safetake.sources.sqlite import restore

        found = Openers([Opener(1, "litestream", str(path))])
        monkeypatch.setattr(restore, "users_of", lambda _: found)
    with pytest.raises(RefusedError, match="replicated by Litestream") as refused:
        steps.outline("online")
    assert "stop Litestream" in refused.value.hint
    assert any("Litestream" in w for w in steps.outline("offline", can_stop=True).warnings)
    assert not any("Litestream" in w for w in steps.outline("beside").warnings)


def test_a_real_process_of_that_name_is_noticed(steps: Steps, tmp_path: Path) -> None:
    program = tmp_path / "litestream"
    program.symlink_to(sys.executable)
    script = "import sys; f = open(sys.argv[1], 'rb'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [program, "-c", script, tmp_path / "projects.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RefusedError, match=rf"Litestream \(process {process.pid}"):
            steps.outline("online")
        process.communicate()


def test_a_descriptor_that_proc_does_not_show_is_noticed_by_the_lease(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "projects.db"
    monkeypatch.setattr(inuse, "openers", lambda paths: Openers())  # another container's
    well(steps.stage("offline"))
    steps.restorer.quiet(steps.work)
    with path.open("rb"), pytest.raises(RefusedError, match="cannot be seen from here"):
        steps.restorer.quiet(steps.work)
    steps.restorer.quiet(steps.work)


def test_who_opens_the_file_under_the_lease_does_not_kill_us(tmp_path: Path) -> None:
    path = tmp_path / "projects.db"
    path.write_bytes(b"x")
    opens = "import sys\nwhile True: open(sys.argv[1], 'rb').close()"
    asks = (
        "import sys; from pathlib import Path; from safetake.sources.sqlite import inuse;"
        "print(len({inuse._lease(Path(sys.argv[1])) for _ in range(20000)}))"
    )
    with subprocess.Popen([sys.executable, "-c", opens, path]) as opener:
        done = subprocess.run(
            [sys.executable, "-c", asks, path], capture_output=True, text=True, check=False
        )
        opener.kill()
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_who_comes_in_late_is_noticed_by_locks(
    tmp_path: Path, repository: MemoryRepository, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = prepared(tmp_path, repository, mode)
    path = tmp_path / "projects.db"
    well(steps.stage("offline"))
    steps.restorer.quiet(steps.work)
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN'); c.execute('SELECT 1 FROM projects').fetchall();"
        "print(flush=True); sys.stdin.read()"
    )
    monkeypatch.setattr(inuse, "openers", lambda paths: Openers())  # another container's
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RefusedError, match="is locked by a process"), steps.saved():
            steps.restorer.switch(steps.work)
        process.communicate()
    steps.restorer.switch_back(steps.work)
    assert is_old(content(path))


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_locks_of_a_process_that_proc_does_not_show_are_noticed(
    tmp_path: Path, repository: MemoryRepository, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = prepared(tmp_path, repository, mode)
    path = tmp_path / "projects.db"
    monkeypatch.setattr(inuse, "openers", lambda paths: Openers())
    monkeypatch.setattr(inuse, "_lease", lambda path: None)  # a file system without leases
    well(steps.stage("offline"))
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RefusedError, match="is locked by a process"):
            steps.restorer.quiet(steps.work)
        process.communicate()
    steps.restorer.quiet(steps.work)


def test_processes_that_hide_are_not_trusted(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inuse, "openers", lambda paths: Openers(blind=3))
    monkeypatch.setattr(inuse, "_lease", lambda path: None)
    well(steps.stage("offline"))
    with pytest.raises(RefusedError, match="3 processes do not show") as refused:
        steps.restorer.quiet(steps.work)
    assert "as root" in refused.value.hint


def test_what_was_written_after_the_safety_snapshot_is_not_replaced(
    steps: Steps, tmp_path: Path
) -> None:
    path = tmp_path / "projects.db"
    well(steps.stage("offline"))
    steps.restorer.quiet(steps.work)
    steps.work.safety_ns = path.stat().st_mtime_ns - 1
    with pytest.raises(RefusedError, match="written after the safety snapshot"):
        steps.restorer.switch(steps.work)
    assert not steps.restorer.touched(steps.work)


def test_a_folder_that_is_missing_and_a_place_that_is_no_file(
    steps: Steps, tmp_path: Path, repository: MemoryRepository
) -> None:
    nowhere = steps_for(tmp_path / "no" / "projects.db", repository, steps.captured)
    with pytest.raises(RefusedError, match="does not exist"):
        nowhere.outline()
    (tmp_path / "folder.db").mkdir()
    folder = steps_for(tmp_path / "folder.db", repository, steps.captured)
    with pytest.raises(RefusedError, match="not a regular file"):
        folder.outline()


def test_an_entry_without_facts_and_an_empty_one(steps: Steps) -> None:
    del steps.entry["facts"]["chunk"]
    with pytest.raises(RefusedError, match="nothing about chunk"):
        steps.outline()
    steps.entry["facts"] |= {"chunk": 1, "page_count": 0}
    with pytest.raises(RefusedError, match="it is empty"):
        steps.outline()


def test_a_safety_copy_of_raw_files_goes_offline_only(steps: Steps) -> None:
    steps.entry = {"bytes": 1, "facts": {"raw": True}}
    assert steps.outline().mode == "offline"
    for mode in ("online", "beside"):
        with pytest.raises(RefusedError, match="raw files"):
            steps.outline(mode)


def test_a_new_name_that_is_taken_is_not_overwritten(steps: Steps, tmp_path: Path) -> None:
    well(steps.stage("beside"))
    taken = tmp_path / "projects.01234567.db"
    taken.write_bytes(b"mine")
    with pytest.raises(RefusedError, match="is there already"):
        steps.restorer.switch(steps.work)
    steps.restorer.switch_back(steps.work)
    assert taken.read_bytes() == b"mine"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users can look into; pytest's own are private."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


OTHER_USER = """
import os, sys
from pathlib import Path
from safetake.errors import RefusedError
from safetake.sources.sqlite import traps
os.setgroups([]); os.setgid(2345); os.setuid(1234)
path, mode = Path(sys.argv[1]), sys.argv[2]
try:
    traps.refuse_place(traps.look(path, 1.0), mode)
except RefusedError as error:
    print(error, "|", error.hint)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
@pytest.mark.parametrize(
    ("file", "folder", "said"),
    [
        (0o666, 0o777, "belongs to user 0, and this is user 1234"),
        (0o600, 0o777, "cannot be read and written by this user"),
        (0o666, 0o755, "is read-only for this user"),
    ],
)
def test_wrong_owner_and_read_only_folder(public: Path, file: int, folder: int, said: str) -> None:
    place = public / "data"
    place.mkdir()
    path = database(place / "projects.db", "delete", 3)
    path.chmod(file)
    place.chmod(folder)
    done = subprocess.run(
        [sys.executable, "-c", OTHER_USER, path, "offline"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_file_that_is_mounted_by_itself_and_a_read_only_mount(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "delete", 3)
    answers = in_mounts(
        f"mount --bind {path} {path}", f"traps.refuse_place(traps.look({path!r}, 1.0), 'offline')"
    )
    assert "mounted by itself" in answers
    answers = in_mounts(
        f"mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path}",
        f"traps.refuse_place(traps.Look({path!r}, {path!r}.stat()), 'online')",
    )
    assert "is on a read-only file system" in answers


def in_mounts(command: str, expression: str) -> str:
    """What a trap says in a mount namespace of its own."""
    script = (
        "from pathlib import Path, PosixPath\n"
        "from safetake.errors import RefusedError\n"
        "from safetake.sources.sqlite import traps\n"
        f"try: print({expression})\n"
        "except RefusedError as error: print(error)\n"
    )
    inner = f"{command} && exec {sys.executable} -c '{script.replace(chr(39), chr(34))}'"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inner], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr[:80]}")
    return done.stdout + done.stderr


def test_network_file_systems(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traps, "_mount", lambda path: ("nfs4", False))
    with pytest.raises(RefusedError, match="network file system"):
        steps.outline("online")
    assert any("another host" in warning for warning in steps.outline("offline").warnings)


def test_a_hard_link_is_told(steps: Steps, tmp_path: Path) -> None:
    (tmp_path / "second").hardlink_to(tmp_path / "projects.db")
    assert any("2 names" in warning for warning in steps.outline("offline").warnings)
    with pytest.raises(RefusedError, match="2 names"):
        steps.outline("online")


def test_a_database_that_stays_locked_is_not_taken_for_a_damaged_one(
    steps: Steps, tmp_path: Path, repository: MemoryRepository
) -> None:
    path = database(tmp_path / "locked.db", "delete", 3)
    locked: Any = steps_for(path, repository, steps.captured, busy_timeout=0.05)
    with opened(path) as application:
        application.execute("BEGIN EXCLUSIVE").fetchall()
        with pytest.raises(RefusedError, match="is locked by another connection"):
            locked.outline()
        application.execute("ROLLBACK").fetchall()


def test_the_layout_of_locks_is_the_kernel_s() -> None:
    class Flock(ctypes.Structure):
        _fields_ = [
            ("l_type", ctypes.c_short),
            ("l_whence", ctypes.c_short),
            ("l_start", ctypes.c_longlong),
            ("l_len", ctypes.c_longlong),
            ("l_pid", ctypes.c_int),
        ]

    assert inuse._FLOCK.size == ctypes.sizeof(Flock)
