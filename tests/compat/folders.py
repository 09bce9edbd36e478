"""A folder with everything in it that a file system allows and a backup may get wrong."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

ODD_NAMES = [
    b'quo"te', b"new\nline", b"back\\slash", b"\xff\xfe not utf-8", b"<html>&amp;", b"tab\tbell\a",
    "line\u2028separator\u2029".encode(), "장면 é 😀".encode(), b"l" * 255, b" space ", b"-dash",
    b"\x01\x1f\x7f", "\u00a0\u00ad\ufeff\ufffd\U000e0001".encode(), b"*?[glob]", b"'", b"%s\\x00",
]  # fmt: skip


def fill(folder: Path) -> None:
    """Every kind of entry and every odd name, with modes, times, owners, links and attributes."""
    folder.mkdir()
    raw = os.fsencode(folder)
    chance = random.Random(11)
    for number, name in enumerate(ODD_NAMES):
        path = raw + b"/" + name
        file = Path(os.fsdecode(path))
        file.write_bytes(chance.randbytes(number * 100))
        file.chmod(0o400 + number)
        os.utime(path, ns=(5, 1_000_000_007 * (number + 1)))
    (folder / "empty").touch()
    (folder / "empty folder").mkdir(mode=0o711)
    (folder / "big.bin").write_bytes(chance.randbytes(18 << 20))
    with (folder / "sparse.bin").open("wb") as sparse:
        sparse.truncate(9 << 20)
        sparse.seek(4 << 20)
        sparse.write(b"island")
    (folder / "first link").write_text("linked")
    (folder / "a").mkdir()
    os.link(folder / "first link", folder / "a" / "second link")
    (folder / "symlink").symlink_to("장면/<nowhere>")
    (folder / "dangling").symlink_to("/does/not/exist")
    os.mkfifo(folder / "fifo", 0o620)
    (folder / "a" / "suid").write_text("x")
    (folder / "a" / "suid").chmod(0o6755)
    (folder / "a" / "sticky").mkdir()
    (folder / "a" / "sticky").chmod(0o1777)
    if os.geteuid() == 0:
        os.chown(folder / "a" / "suid", 12345, 54321)
        (folder / "a" / "suid").chmod(0o6755)
        os.lchown(folder / "symlink", 7, 8)
    with contextlib.suppress(OSError):  # a file system without attributes: compare the rest
        os.setxattr(folder / "empty", "user.comment", b"\x00\xffbytes")
        os.setxattr(folder / "a", "user.note", "메모".encode())
    os.utime(folder / "a", ns=(0, -1_500_000_000))
    os.utime(folder, ns=(0, 4_102_444_800_123_456_789))
