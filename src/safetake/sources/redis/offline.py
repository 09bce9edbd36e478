"""A stopped server's files exchanged, by the rules of its append-only file.

A server with `appendonly yes` reads its append-only file and never dump.rdb, and starts empty when
it has none (Redis 7). So where there is an append-only file, or it cannot be known whether the
server will look for one, it is replaced by one whose base is the backup; dump.rdb is replaced in
any case. What is moved aside is whole in `work` until the restore is committed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetake.config import RedisConfig
from safetake.errors import DamagedError, RefusedError, RestoreError, SafetakeError
from safetake.model import Check, Loss, RestoreOutline, RestoreWork
from safetake.openers import openers
from safetake.sources.redis import aof
from safetake.sources.redis.rdb import RdbFile
from safetake.sources.redis.scratch import ScratchError, fitting, fold, link_or_copy
from safetake.sources.redis.server import Server, parse_version
from safetake.sources.redis.settings import live_config
from safetake.sources.redis.wire import Address, Connection, ServerGoneError
from safetake.swap import Move, Swap, plan_move, sync_folder

DUMP = "dump.rdb"
READY = "ready"
"""In `work`: the files as they will lie in the server's folder."""


def folder_of(name: str, config: RedisConfig) -> Path:
    """The server's folder. Raises RefusedError."""
    if config.data is None:
        raise RefusedError(
            f"{name}: the folder of the stopped server is not known",
            hint=f'add data = "/var/lib/redis" (its `dir`) to [sources.{name}]',
        )
    if not config.data.is_dir():
        raise RefusedError(
            f"{name}: {config.data} is not a folder",
            hint="`data` must name the server's `dir`, on this machine",
        )
    return config.data


def outline(
    name: str, config: RedisConfig, entry: Mapping[str, Any], connection: Connection | None
) -> RestoreOutline:
    """What would be exchanged. `connection`: the server still runs. Raises RefusedError."""
    folder = folder_of(name, config)
    if connection is not None:
        _refuse_other_names(connection, folder)
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"{folder} is on a read-only file system",
            hint="mount it read-write, or restore beside it with `--to DIR`",
        )
    if not os.access(folder, os.W_OK):
        raise RefusedError(
            f"{folder} may not be written", hint="run as root, or as the server's user"
        )
    there = sorted(path.name for path in _persisted(folder))
    others = _other_files(folder)
    if others and (not there or any(name.startswith(aof.DIRECTORY) for name in others)):
        raise RefusedError(
            f"{folder} holds {', '.join(others[:3])}: a server that is set up for such names would"
            f" not read the {DUMP} and {aof.SINGLE} that are put there",
            hint="start the server and restore it online; or restore with `--to DIR` and put the"
            " files there by hand, under the names of its configuration",
        )
    size = sum(p.stat().st_size for path in _persisted(folder) for p in _files(path))
    warnings = []
    if others:
        warnings.append(
            f"{folder} also holds {', '.join(others[:3])}: a server that is set up to read it"
            " would not see what is restored"
        )
    if not there:
        warnings.append(
            f"{folder} holds neither a dump nor an append-only file: both are put there, so that"
            " the server starts with the data whichever it is set up to read"
        )
    needed = int(entry.get("bytes") or 0) * (3 if _wants_aof(folder) else 2)
    return RestoreOutline(
        mode="offline",
        target=f"{folder} ({', '.join(there) or 'empty'})",
        space={folder: needed + size},
        losses=[Loss("keys", unknown="the server is not asked when its files are exchanged")],
        warnings=warnings,
        absent=not there,
        damaged="" if not there else "a stopped server is saved as its files",
    )


def _refuse_other_names(connection: Connection, folder: Path) -> None:
    """A server that still runs can say where its files are."""
    for setting, usual in (
        ("dbfilename", DUMP),
        ("appendfilename", aof.SINGLE),
        ("appenddirname", aof.DIRECTORY),
    ):
        found = live_config(connection, setting)
        if found is not None and found != usual:
            raise RefusedError(
                f"{connection.address} calls its file {found!r} ({setting}), not {usual!r}",
                hint="restore it online, or put the files there by hand after `restore --to`",
            )
    found = live_config(connection, "dir")
    if found is not None and Path(found).exists() and not Path(found).samefile(folder):
        raise RefusedError(
            f"{connection.address} keeps its files in {found}, and `data` names {folder}",
            hint="correct `data` in the configuration",
        )


def _other_files(folder: Path) -> list[str]:
    """What a server reads that has other names in its settings: a stopped one cannot be asked."""
    mine = (DUMP, aof.SINGLE, aof.DIRECTORY)
    found = [f"{aof.DIRECTORY}/{path.name}" for path in (folder / aof.DIRECTORY).glob("*.manifest")]
    found = [name for name in found if name != f"{aof.DIRECTORY}/{aof.MANIFEST}"]
    for path in sorted(folder.iterdir()):
        if path.name not in mine and not path.name.startswith("temp-") and _is_servers(path):
            found.append(path.name)
    return found


def _is_servers(path: Path) -> bool:
    try:
        if path.is_dir():
            return any(path.glob("*.aof.manifest"))
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return path.suffix == ".aof" or file.read(5) in (b"REDIS", b"VALKE")
    except OSError:
        return False  # not ours to read


def quiet(name: str, config: RedisConfig) -> None:
    """Raises RefusedError when a server answers, or a process has the files open."""
    folder = folder_of(name, config)
    address = Address.of(config)
    try:
        Connection(address).close()
    except ServerGoneError:
        pass
    except SafetakeError as error:
        raise _runs(f"{address} answers", folder) from error
    else:
        raise _runs(f"{address} answers", folder)
    found = openers([p for path in _persisted(folder) for p in _files(path)])
    if found.found:
        raise _runs(f"{found.sentence()} has files of {folder} open", folder)
    if pids := list(_working_in(folder)):
        raise _runs(f"process {pids[0]} works in {folder}", folder)


def _runs(what: str, folder: Path) -> RefusedError:
    return RefusedError(
        f"{what}: a running server would overwrite what is put into {folder}",
        hint="stop the server, or list it as a service that is stopped for the restore",
    )


def _working_in(folder: Path) -> Iterator[int]:
    """A server's current folder is its `dir`, also while it has no file open."""
    identity = folder.stat()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # ended, or another user's
            here = (entry / "cwd").stat()
            program = (entry / "comm").read_text().strip()
            if (here.st_dev, here.st_ino) == (identity.st_dev, identity.st_ino) and (
                "redis" in program or "valkey" in program
            ):
                yield int(entry.name)


def switch(config: RedisConfig, work: RestoreWork) -> None:
    """Exchange the files. Raises RestoreError, RefusedError."""
    swap = Swap(work.work)
    if not swap.planned:
        folder = folder_of("redis", config)
        try:
            swap.plan(_prepare(folder, work))
        except OSError as error:
            raise RestoreError(
                f"cannot prepare {error.filename or work.work}: {error.strerror or error}",
                hint="nothing was exchanged yet; free space, or run as the server's user",
            ) from error
    swap.forward()


def switch_back(work: RestoreWork) -> None:
    """The files from before. Raises RestoreError."""
    swap = Swap(work.work)
    if swap.planned:
        swap.backward()


def touched(work: RestoreWork) -> bool:
    """Whether the exchange was decided on."""
    return Swap(work.work).planned


def _prepare(folder: Path, work: RestoreWork) -> list[Move]:
    """Lay the new files out beside, durable, with the owner of the old; returns the moves."""
    ready = work.work / READY
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir(mode=0o700)
    if work.entry["facts"].get("raw"):
        for path in _persisted(work.staged):
            if path.is_dir():
                shutil.copytree(path, ready / path.name)
            else:
                link_or_copy(path, ready / path.name)
    else:
        _lay_out(folder, work, ready)
    owner = _owner(folder)
    for path in [*ready.rglob("*")]:
        _own(path, owner)
    for path in [*ready.rglob("*"), ready]:
        _sync(path)
    names = {path.name for path in [*_persisted(ready), *_persisted(folder)]}
    moves = []
    for name in sorted(names):
        new = ready / name
        moves.append(plan_move(folder / name, new if new.exists() else None))
    return moves


def _lay_out(folder: Path, work: RestoreWork, ready: Path) -> None:
    facts = work.entry["facts"]
    base = work.staged / DUMP
    several = work.staged / aof.DIRECTORY / aof.INCREMENT
    tail: Path | None = several if several.is_file() else None
    if facts.get("form") == "aof":
        base = _folded(facts, work)
        tail = None
    shutil.copyfile(base, ready / DUMP)  # the staged bytes stay as they were proven
    if not _wants_aof(folder):
        return
    empty = work.work / "empty.aof"
    empty.write_bytes(b"")
    if (folder / aof.SINGLE).exists() and not (folder / aof.DIRECTORY).exists():
        aof.lay_out(ready, base, tail or empty, multipart=False)
        return
    aof.lay_out(ready, base, tail or empty, multipart=True)
    unlinked = ready / aof.DIRECTORY / aof.BASE
    unlinked.unlink()
    shutil.copyfile(base, unlinked)
    if not (folder / aof.DIRECTORY).exists() and not (folder / DUMP).exists():
        aof.lay_out(ready, base, tail or empty, multipart=False)


def _folded(facts: Mapping[str, Any], work: RestoreWork) -> Path:
    """base and tail as one file, by a private server. Raises RestoreError."""
    said = "no fitting server program is installed here"
    for binary in fitting(str(facts["family"]), parse_version(str(facts["version"]))):
        place = work.work / "fold"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        if (work.staged / aof.DIRECTORY).is_dir():
            shutil.copytree(work.staged / aof.DIRECTORY, place / aof.DIRECTORY)
        else:
            shutil.copyfile(work.staged / aof.SINGLE, place / aof.SINGLE)
        try:
            return fold(binary, place, databases=1024)
        except (ScratchError, SafetakeError) as error:
            said = str(error)
    raise RestoreError(
        f"the snapshot is in append-only form and could not be folded into one file: {said}",
        hint="install the server's program here; README.txt in the restored folder tells more",
    )


def confirm(config: RedisConfig, work: RestoreWork) -> list[Check]:
    """The files are in place, and are what was staged; a server that runs again holds keys."""
    facts = work.entry["facts"]
    checks = []
    for move in Swap(work.work).moves():
        live = Path(move.live)
        there = live.exists()
        checks.append(Check(f"{live.name} is in its place", there == (move.new is not None)))
    if not facts.get("raw") and facts.get("form") != "aof":
        live = folder_of("redis", config) / DUMP
        try:
            with live.open("rb") as file:
                file.seek(-8, os.SEEK_END)
                found = file.read()[::-1].hex()
        except OSError as error:
            return [*checks, Check("dump.rdb is the restored one", False, detail=str(error))]
        name = "dump.rdb is the restored one (CRC64)"
        checks.append(Check(name, found == facts["crc64"], facts["crc64"], found))
    with contextlib.suppress(SafetakeError), Connection(Address.of(config)) as connection:
        server = Server.ask(connection)
        count = sum(db["keys"] for db in server.keyspace.values())
        if facts.get("keys"):
            checks.append(Check("the server that runs again has keys", bool(count), ">0", count))
    return checks or [Check("nothing was there and nothing is", True)]


def check_raw(work: RestoreWork) -> list[Check]:
    """Raw files are only looked at: whether a server will read them was not known before."""
    checks = []
    for path in _persisted(work.staged):
        if path.suffix == ".rdb" and path.is_file():
            try:
                with RdbFile(path) as file:
                    found = f"{file.magic}{file.version}"
                checks.append(Check(f"{path.name} is an RDB", True, found=found))
            except (DamagedError, OSError) as error:
                checks.append(Check(f"{path.name} as it was (damaged)", True, found=str(error)))
    return checks or [Check("files as they were", True)]


# -- files -----------------------------------------------------------------------------------


def _persisted(folder: Path) -> list[Path]:
    """What a server reads at its start, of what is there."""
    return [folder / n for n in (DUMP, aof.SINGLE, aof.DIRECTORY) if (folder / n).exists()]


def _wants_aof(folder: Path) -> bool:
    """There is one; or nothing at all, and then it cannot be known."""
    has = (folder / aof.SINGLE).exists() or (folder / aof.DIRECTORY).exists()
    return has or not (folder / DUMP).exists()


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def _owner(folder: Path) -> os.stat_result:
    there = _persisted(folder)
    return (there[0] if there else folder).stat()


def _own(path: Path, owner: os.stat_result) -> None:
    """As the server's own files. Raises RestoreError when the server could not read it."""
    here = path.lstat()
    mode = stat.S_IMODE(owner.st_mode)
    readable = mode & 0o666 if not stat.S_ISDIR(owner.st_mode) else 0o640
    if stat.S_ISDIR(here.st_mode):
        path.chmod(0o700 | (readable & 0o444) >> 2 | (readable & 0o444))
    else:
        path.chmod(readable | 0o600)
    if (here.st_uid, here.st_gid) == (owner.st_uid, owner.st_gid):
        return
    try:
        os.chown(path, owner.st_uid, owner.st_gid)
    except PermissionError as error:
        raise RestoreError(
            f"the new files cannot be given to the server's user (uid {owner.st_uid})",
            hint="run the restore as root, or as that user",
        ) from error


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
