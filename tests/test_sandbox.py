"""What a confined process can not do, tried for real."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from safetake.sandbox import Confinement, abi, command

needs = pytest.mark.skipif(abi() < 6, reason="this kernel enforces less")


def tried(code: str, writable: Path, ports: list[int] | None = None) -> str:
    """What the code printed, run confined."""
    words = command([sys.executable, "-c", code], [writable], ports)
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return ran.stdout.strip() or ran.stderr.strip().splitlines()[-1]


@needs
@pytest.mark.parametrize(
    "code",
    [
        "open(r'{outside}/file', 'a')",
        "open(r'{outside}/new', 'w')",
        "os.truncate(r'{outside}/file', 0)",
        "os.unlink(r'{outside}/file')",
        "os.rename(r'{outside}/file', r'{inside}/file')",
        "os.rename(r'{inside}/own', r'{outside}/own')",
        "os.mkdir(r'{outside}/folder')",
        "os.symlink('x', r'{outside}/link')",
        "os.link(r'{inside}/own', r'{outside}/hard')",
        "subprocess.run(['rm', '-f', r'{outside}/file'], check=True)",
    ],
)
def test_nothing_outside_is_changed(tmp_path: Path, code: str) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "file").write_text("kept", encoding="utf-8")
    (inside / "own").write_text("own", encoding="utf-8")
    code = "import os, subprocess\n" + code.format(inside=inside, outside=outside)
    last = tried(code, inside)
    assert "PermissionError" in last or "OSError" in last or "CalledProcessError" in last, last
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text(encoding="utf-8") == "kept"


@needs
def test_its_own_folder_is_free(tmp_path: Path) -> None:
    code = (
        f"import os; os.chdir(r'{tmp_path}'); os.mkdir('a'); open('a/b', 'w').write('x')\n"
        "os.rename('a/b', 'c'); os.unlink('c'); os.rmdir('a'); open('/dev/null', 'w').write('x')\n"
        "print(open('/etc/hostname').read() != '')"
    )
    assert tried(code, tmp_path) == "True"


@needs
def test_only_its_own_ports_and_processes(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as ours,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        allowed, forbidden = ours.getsockname()[1], other.getsockname()[1]
        connect = "import socket; socket.create_connection(('127.0.0.1', {})); print('connected')"
        assert tried(connect.format(allowed), tmp_path, [allowed]) == "connected"
        assert "PermissionError" in tried(connect.format(forbidden), tmp_path, [allowed])
        assert tried(connect.format(forbidden), tmp_path, None) == "connected"
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        kill = f"import os; os.kill({bystander.pid}, {int(signal.SIGKILL)})"
        assert "PermissionError" in tried(kill, tmp_path)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_what_is_not_enforced_is_said() -> None:
    assert len(Confinement().missing()) == 3
    assert Confinement(True, True, True).missing() == []


@needs
def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "is not there" in tried("print(1)", tmp_path / "absent")


@needs
def test_what_is_hidden_is_not_read_and_all_else_is(tmp_path: Path) -> None:
    for name in ("repo/data", "beside", "own"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("repo/config", "repo/data/pack", "beside/file", "own/file", "password"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / "beside" / "link").symlink_to("../repo/config")
    code = (
        "import os, subprocess; from pathlib import Path; from safetake.sandbox import hide\n"
        f"os.chdir(r'{tmp_path}'); hide([Path('repo'), Path('password'), Path('no/thing')])\n"
        "def read(name):\n"
        "    try:\n        return Path(name).read_text()\n"
        "    except PermissionError:\n        return 'refused'\n"
        "print(*map(read, ['repo/config', 'repo/data/pack', 'beside/link', 'password']),\n"
        "      *map(read, ['beside/file', 'own/file']),\n"
        "      subprocess.run(['cat', 'repo/config'], capture_output=True).returncode,\n"
        "      os.rename('own/file', 'beside/moved'), Path('beside/moved').read_text(),\n"
        "      Path('beside/new').write_text('1'), Path('/etc/hostname').read_text() != '')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == [
        *["refused"] * 4, "x", "x", "1", "None", "x", "1", "True",
    ], done.stderr  # fmt: skip
