"""How much a live store holds now, counted as a snapshot's facts count it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from safetake.config import ChromaConfig, RedisConfig, SqliteConfig
from safetake.counts import Counts, keys, records, rows
from safetake.errors import SourceError

if TYPE_CHECKING:
    from safetake.config import FilesConfig, SourceConfig


def live_counts(config: SourceConfig) -> Counts:
    """Reads only; each count is a question of its own, so that nobody waits for all of them.

    Raises SafetakeError when the store cannot be asked.
    """
    if isinstance(config, SqliteConfig):
        return _sqlite(config)
    if isinstance(config, ChromaConfig):
        return _chroma_server(config) if config.url is not None else _chroma_folder(config)
    if isinstance(config, RedisConfig):
        return _redis(config)
    return _files(config)


def _sqlite(config: SqliteConfig) -> Counts:
    from safetake.sources.sqlite import facts, live
    from safetake.sources.sqlite.header import read_header
    from safetake.sources.sqlite.reading import reading

    header = read_header(config.path)
    with reading(config.path, header, config.busy_timeout) as connection:
        with live.explained(config.path):
            tables = {name: facts.count_rows(connection, name) for name in facts.tables(connection)}
            return rows(tables, facts.virtual_tables(connection))


def _chroma_folder(config: ChromaConfig) -> Counts:
    from safetake.sources.chroma import catalogue
    from safetake.sources.chroma.database import BUSY_SECONDS, NAME
    from safetake.sources.chroma.source import require_folder
    from safetake.sources.sqlite import live
    from safetake.sources.sqlite.header import read_header
    from safetake.sources.sqlite.reading import reading

    if config.path is None:
        raise SourceError("a Chroma source without a path")
    require_folder(config.path)
    path = config.path / NAME
    with reading(path, read_header(path), BUSY_SECONDS) as connection, live.explained(path):
        if missing := catalogue.missing_tables(connection):
            raise SourceError(f"{path} has no table {', '.join(missing)}: no Chroma store")
        found = catalogue.describe(connection)
        return records(found["collections"], found["databases"])


def _chroma_server(config: ChromaConfig) -> Counts:
    from safetake.sources.chroma.rest import Server

    collections = {}
    with Server(config) as server:
        tenant, databases = server.databases()
        for database in databases:
            for known in server.collections(tenant, database):
                place = known | {"tenant": tenant, "database": database}
                collections[str(known["id"])] = place | {"records": server.count(place)}
    return records(collections, ())


def _redis(config: RedisConfig) -> Counts:
    from safetake.sources.redis.server import Server
    from safetake.sources.redis.wire import Address, Connection

    with Connection(Address.of(config)) as connection:
        return keys(Server.ask(connection).keyspace)


def _files(config: FilesConfig) -> Counts:
    from safetake.sources.files import walk
    from safetake.sources.files.exclude import Exclusions

    exclusions = Exclusions(config.exclude)
    files = size = 0

    def count(folder: int, path: str, depth: int) -> None:
        nonlocal files, size
        for name, status in walk.look(folder, path, exclusions).entries:
            if stat.S_ISREG(status.st_mode):
                files, size = files + 1, size + status.st_size
            elif stat.S_ISDIR(status.st_mode) and depth < walk.MAX_DEPTH:
                if config.one_file_system and status.st_dev != device:
                    continue
                try:
                    with walk.opened_folder(folder, name) as inner:
                        count(inner, walk.join(path, name), depth + 1)
                except FileNotFoundError:
                    continue  # gone since it was listed

    try:
        root = walk.open_root(os.fspath(config.path))
        try:
            device = os.fstat(root).st_dev
            count(root, "", 0)
        finally:
            os.close(root)
    except OSError as error:
        raise SourceError(
            f"{error.filename or config.path} cannot be looked at: {error.strerror}",
            hint="let the user that runs safetake read it, and check that it is mounted",
        ) from error
    return Counts("files", files, bytes=size)
