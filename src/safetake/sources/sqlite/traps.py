"""What can go wrong with a restore of one database, found before anything is touched.

Nothing here writes. What rules a restore out is raised as RefusedError with what to do instead;
what the user ought to know is a warning.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from safetake.errors import BarrierTimeoutError, RefusedError, SourceError
from safetake.model import Node, Reader
from safetake.openers import Openers
from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.header import HEADER_BYTES, Header, parse_header
from safetake.sources.sqlite.vfs import open_snapshot

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "afs", "lustre", "glusterfs")
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone")
_JOURNAL = bytes.fromhex("d9d505f920a163d7")
_LITESTREAM_TABLES = ("_litestream_seq", "_litestream_lock")
_OFFLINE = "stop the applications that use it, and restore without `--online`"


@dataclass(slots=True)
class Look:
    """The live database as it was found."""

    path: Path
    """Its real path."""
    state: os.stat_result | None
    """None: there is none."""
    header: Header | None = None
    """None where the file is no database that could be opened."""
    damaged: str = ""
    bytes: int = 0
    encoding: str = ""
    reserved: int = 0
    tables: list[str] = field(default_factory=list)
    hot: bool = False
    """An application died in a transaction, and nobody has opened the database since."""


def look(path: Path, busy_timeout: float, *, in_use: bool = True) -> Look:
    """Open the live database and ask it the least. Raises RefusedError when it is no file.

    Opening one whose last transaction was cut off changes it, as the application's next start does:
    unless it is `in_use` that is left to the safety snapshot.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return Look(path, None)
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be reached: {error.strerror}",
            hint="give this user access to the file and to the folders above it",
        ) from error
    if not stat.S_ISREG(state.st_mode):
        raise RefusedError(
            f"{path} is not a regular file", hint="set `path` of the source to the database file"
        )
    _refuse_read_only(path)
    if not os.access(path, os.R_OK | os.W_OK):
        raise RefusedError(
            f"{path} cannot be read and written by this user",
            hint="run the restore as the owner of the database, or as root",
        )
    seen = Look(path, state)
    try:
        with rawfile.opened(path) as raw:
            head = rawfile.read(raw, 4096, 0)
            if not head:
                raise SourceError(f"{path} is empty (0 bytes)")
            header = parse_header(head, str(path), state.st_size)
            seen.hot = not in_use and _hot(path)
            if not seen.hot:
                _ask(seen, header, busy_timeout)
            seen.header, seen.reserved = header, head[20]
    except BarrierTimeoutError as error:
        raise RefusedError(str(error), hint=error.hint) from error
    except SourceError as error:
        seen.damaged = str(error)
    return seen


def _hot(path: Path) -> bool:
    """Whether a journal with a valid head lies beside the database."""
    try:
        with path.with_name(path.name + "-journal").open("rb") as journal:
            return journal.read(len(_JOURNAL)) == _JOURNAL
    except OSError:
        return False


def _ask(seen: Look, header: Header, busy_timeout: float) -> None:
    path = seen.path
    connection = live.connect(path, header, busy_timeout)
    try:
        with live.explained(path):
            rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            seen.tables = [str(row[0]) for row in rows.fetchall()]
            seen.encoding = str(connection.pragma("encoding"))
            pages = int(connection.pragma("page_count"))
        size = path.stat().st_size
        log = live.wal_path(path)
        logged = log.stat().st_size if header.wal and log.exists() else 0
        seen.bytes = max(pages * header.page_size, size)
        if pages * header.page_size > size and not logged:
            raise SourceError(f"{path} is cut short: {size} bytes of {pages * header.page_size}")
    finally:
        connection.close()


def _refuse_read_only(place: Path) -> None:
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"{place} is on a read-only file system",
            hint="mount it read-write, or restore beside it with `--to DIR`",
        )


def refuse_place(seen: Look, mode: str) -> list[str]:
    """The folder, the owner, the file system. Returns warnings."""
    folder, path = seen.path.parent, seen.path
    if not folder.is_dir():
        raise RefusedError(
            f"{folder}, the folder of the database, does not exist",
            hint="make it, or mount its volume; or restore with `--to`",
        )
    _refuse_read_only(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RefusedError(
            f"{folder} is read-only for this user: the restored database cannot be put there",
            hint="run the restore as the owner of the folder, or as root",
        )
    warnings = []
    if seen.state is not None:
        if mode != "online" and os.geteuid() not in (0, seen.state.st_uid):
            raise RefusedError(
                f"{path} belongs to user {seen.state.st_uid}, and this is user {os.geteuid()}:"
                " the restored file could not be given to its owner",
                hint="run the restore as the owner of the database, or as root",
            )
        if seen.state.st_nlink > 1:
            names = f"{path} has {seen.state.st_nlink} names (hard links)"
            if mode == "online":  # https://sqlite.org/howtocorrupt.html, 2.5
                raise RefusedError(
                    f"{names}: who opened it under another one has a journal or log of its own,"
                    " and both would be written into one file",
                    hint=f"remove the others, or {_OFFLINE}",
                )
            if mode == "offline":
                warnings.append(f"{names}: the others keep the old data")
    kind, mounted = _mount(path)
    if mode == "offline" and mounted:
        raise RefusedError(
            f"{path} is mounted by itself: it cannot be replaced by another file",
            hint="mount its folder instead (a volume without subPath), or restore with `--online`",
        )
    if kind in _NETWORK or kind in _NETWORK_FUSE:
        if mode == "online":
            raise RefusedError(
                f"{path} is on a network file system ({kind}): its locks cannot be relied on",
                hint=_OFFLINE,
            )
        warnings.append(
            f"{path} is on a network file system ({kind}): whether another host has it open"
            " cannot be seen"
        )
    return warnings


def refuse_online(seen: Look, reader: Reader, node: Node) -> None:
    """What the backup API, or the applications that stay connected, cannot take."""
    path = seen.path
    if seen.header is None:
        raise RefusedError(
            f"it cannot be restored under its applications: {seen.damaged or f'no {path}'}",
            hint=_OFFLINE,
        )
    header, encoding, reserved = stored_header(reader, node)
    if seen.header.wal and header.page_size != seen.header.page_size:
        raise RefusedError(
            f"{path} has pages of {seen.header.page_size} bytes, the snapshot of"
            f" {header.page_size}: a database in WAL mode cannot change that while it is open",
            hint=_OFFLINE,
        )
    if header.page_size == seen.header.page_size and reserved != seen.reserved:
        raise RefusedError(
            f"{path} keeps {seen.reserved} bytes of each page for an extension, the snapshot"
            f" {reserved}",
            hint=_OFFLINE,
        )
    if encoding != seen.encoding:
        raise RefusedError(
            f"{path} is in {seen.encoding}, the snapshot in {encoding}: connections that stay open"
            " would fail",
            hint=_OFFLINE,
        )


def stored_header(reader: Reader, node: Node) -> tuple[Header, str, int]:
    """(header, encoding, reserved bytes of a page) of the database in the snapshot."""
    connection = open_snapshot(reader, node)
    try:
        head = connection.source.read(HEADER_BYTES, 0)
        encoding = str(connection.pragma("encoding"))
        return parse_header(head, "the snapshot", connection.source.size), encoding, head[20]
    except (apsw.Error, SourceError) as error:
        raise RefusedError(
            f"the database in the snapshot cannot be read: {error}",
            hint="run `safetake verify` on it, and take another one",
        ) from error
    finally:
        connection.close(force=True)


def litestream(seen: Look, users: Openers, mode: str) -> list[str]:
    """Litestream loses track of a database that changes under it. Returns warnings."""
    path = seen.path
    running = [user for user in users.found if "litestream" in user.command]
    folder = path.with_name(f".{path.name}-litestream")
    traces = folder.exists() or any(name in seen.tables for name in _LITESTREAM_TABLES)
    if mode == "beside" or not (running or traces):
        return []
    if mode == "online":
        raise RefusedError(
            f"{path} is replicated by Litestream"
            + (f" ({running[0]})" if running else f" ({folder.name} is there)")
            + ": it breaks when the content changes under it",
            hint="stop Litestream and the applications, and restore without `--online`; then start"
            " both",
        )
    return [
        f"{path} is replicated by Litestream: stop it, too, before the restore, and start it after"
        " it; it then begins with a new copy of everything"
    ]


def _mount(path: Path) -> tuple[str, bool]:
    """(type of the file system, whether the file itself is a mount point)."""
    best, kind = "", ""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return "", False
    wanted = os.fspath(path)
    for line in lines:
        fields = line.split(" ")
        place = _unescaped(fields[4])
        inside = wanted == place or wanted.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, fields[fields.index("-") + 1]
    return kind, best == wanted


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def short(facts: Any) -> str:
    """Why a snapshot's entry cannot be one of a database; empty when it can."""
    for key in ("file", "page_size", "page_count", "content", "chunk", "schema_sha256"):
        if key not in facts:
            return f"its manifest says nothing about {key}"
    return "" if facts["page_count"] > 0 else "it is empty"
