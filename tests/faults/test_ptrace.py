"""The tracer of the crash campaigns: it sees the calls it says, and kills exactly before one."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ptrace import StuckError
from tests.support.syscalls import numbers
from tests.support.zygote import Zygote

HERE = "tests.faults.test_ptrace"


def story(arguments: list[str]) -> int:
    """A folder, a file by a thread, a rename, a helper process, and all is removed again."""
    base = Path(arguments[0])
    base.mkdir()

    def by_a_thread() -> None:
        with (base / "a").open("wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())

    thread = threading.Thread(target=by_a_thread)
    thread.start()
    thread.join()
    (base / "a").rename(base / "b")
    subprocess.run(["/bin/sh", "-c", f"echo hi > {base}/c; exec /bin/rm {base}/c"], check=True)
    os.link(base / "b", base / "d")
    (base / "d").unlink()
    (base / "b").unlink()
    base.rmdir()
    return 7


STORY = [
    ("mkdir", "", None),
    ("openat", "a", []),
    ("write", "a", ["a"]),
    ("fsync", "a", ["a"]),
    ("rename", "a -> b", ["a"]),
    ("execve", "", ["b"]),
    ("openat", "c", ["b"]),
    ("execve", "", ["b", "c"]),
    ("unlinkat", "c", ["b", "c"]),
    ("link", "b -> d", ["b"]),
    ("unlink", "d", ["b", "d"]),
    ("unlink", "b", ["b"]),
    ("rmdir", "", []),
]
"""The calls on x86-64, where, and what is in the folder when killed before each."""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


def short(place: str, base: Path) -> str:
    return re.sub(rf"{re.escape(str(base))}/?", "", place) if str(base) in place else ""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="glibc makes other calls elsewhere")
def test_the_calls_of_a_process_its_threads_and_children_are_listed(
    zygote: Zygote, tmp_path: Path
) -> None:
    base = tmp_path / "t"
    run = zygote.run(base, function=f"{HERE}:story")
    assert run.code == 7
    assert not run.seen.killed
    assert run.seen.left == 0
    assert [call.number for call in run.seen.calls] == list(range(1, len(run.seen.calls) + 1))
    made = [(call.name, short(call.place, base)) for call in run.seen.calls]
    assert made == [(name, place) for name, place, _ in STORY]
    by_children = [call.name for call in run.seen.calls if not call.first]
    assert by_children == ["execve", "openat", "execve", "unlinkat"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="glibc makes other calls elsewhere")
@pytest.mark.parametrize("at", range(1, len(STORY) + 1))
def test_killed_at_a_call_it_is_not_carried_out(zygote: Zygote, tmp_path: Path, at: int) -> None:
    base = tmp_path / "t"
    run = zygote.run(base, function=f"{HERE}:story", kill_at=at)
    name, _, inside = STORY[at - 1]
    assert run.seen.killed
    assert [(call.number, call.name) for call in run.seen.calls] == [(at, name)]
    assert run.code == -9
    assert (sorted(os.listdir(base)) if base.exists() else None) == inside  # noqa: PTH208


def test_a_kill_after_the_last_call_is_not_reported_as_one(zygote: Zygote, tmp_path: Path) -> None:
    run = zygote.run(tmp_path / "t", function=f"{HERE}:story", kill_at=1000)
    assert run.code == 7
    assert not run.seen.killed
    assert run.seen.calls == []


def only_reads(_arguments: list[str]) -> int:
    """Nothing that would change anything."""
    Path(__file__).read_bytes()
    print("said")
    reader, writer = os.pipe()
    os.write(writer, b"x")
    os.read(reader, 1)
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        nothing.write("x")
    return 0


def test_reading_pipes_and_output_do_not_count(zygote: Zygote) -> None:
    run = zygote.run(function=f"{HERE}:only_reads")
    assert run.code == 0
    assert [call for call in run.seen.calls if call.place != os.devnull] == []
    assert run.said == "said\n"


def sends(arguments: list[str]) -> int:
    """Two messages to a socket."""
    with socket.create_connection(("127.0.0.1", int(arguments[0]))) as connection:
        connection.sendall(b"one")
        connection.sendall(b"two")
    return 0


def test_messages_to_sockets_count(zygote: Zygote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        for at, received in ((1, None), (2, b""), (3, b"one"), (4, b"onetwo")):
            port = str(server.getsockname()[1])
            run = zygote.run(port, function=f"{HERE}:sends", kill_at=at)
            assert run.seen.killed == (at < 4)
            if received is None:
                continue
            connection, _ = server.accept()
            with connection:
                got = b""
                while part := connection.recv(100):
                    got += part
            assert got == received


def leaves_one(arguments: list[str]) -> int:
    """A helper that outlives us and writes its id."""
    subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {arguments[0]}; exec sleep 60"])
    while not (Path(arguments[0]).exists() and Path(arguments[0]).read_text()):
        time.sleep(0.001)
    return 0


def test_what_is_left_behind_is_told_and_killed(zygote: Zygote, tmp_path: Path) -> None:
    run = zygote.run(tmp_path / "pid", function=f"{HERE}:leaves_one")
    assert run.code == 0
    assert run.seen.left == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def asks_another(arguments: list[str]) -> int:
    """A helper process writes `late`; we would write `mine` after it."""
    base = Path(arguments[0])
    subprocess.run(["/bin/sh", "-c", f"echo x > {base}/early; echo x > {base}/late"], check=True)
    (base / "mine").touch()
    return 0


@pytest.mark.parametrize("alone", [False, True])
def test_killed_alone_what_it_started_goes_on(zygote: Zygote, tmp_path: Path, alone: bool) -> None:
    calls = zygote.run(tmp_path, function=f"{HERE}:asks_another").seen.calls
    at = next(call.number for call in calls if call.place.endswith("early"))
    for path in tmp_path.iterdir():
        path.unlink()
    run = zygote.run(tmp_path, function=f"{HERE}:asks_another", kill_at=at, alone=alone)
    assert run.seen.killed
    assert run.code == -9
    assert run.seen.left == 0
    assert {path.name for path in tmp_path.iterdir()} == ({"early", "late"} if alone else set())


def hangs(arguments: list[str]) -> int:
    """Waits for nothing, as does its child."""
    Path(arguments[0]).write_text("begun")
    subprocess.run(["sleep", "60"], check=True)
    return 0


def test_a_run_that_hangs_is_killed_and_told(zygote: Zygote, tmp_path: Path) -> None:
    with pytest.raises(StuckError, match=r"0\.5 s"):
        zygote.run(tmp_path / "a", function=f"{HERE}:hangs", seconds=0.5)
    assert zygote.run(tmp_path / "t", function=f"{HERE}:story").code == 7


def fails(_arguments: list[str]) -> int:
    """Raises."""
    raise RuntimeError("on purpose")


def test_what_a_run_raised_is_told(zygote: Zygote) -> None:
    run = zygote.run(function=f"{HERE}:fails")
    assert run.code == 120
    assert "RuntimeError: on purpose" in run.said


def test_a_command_runs_as_it_does_alone(zygote: Zygote, tmp_path: Path) -> None:
    run = zygote.run("snapshots", folder=tmp_path)
    alone = subprocess.run(
        [sys.executable, "-m", "safetake", "snapshots"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.code, run.said) == (alone.returncode, alone.stdout + alone.stderr)


def test_the_numbers_are_the_kernels() -> None:
    header = Path(f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the kernel's headers are not here")
    found = re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())
    named = {int(number): name for name, number in found}
    ours = numbers()
    assert {n: name for n, name in ours.items() if n in named} == {
        n: named[n] for n in ours if n in named
    }
