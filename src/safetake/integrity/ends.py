"""One side of a reference, at one of three places: live, restored into a folder, in a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetake.config import ChromaConfig, FilesConfig, RedisConfig, SqliteConfig
from safetake.errors import ConfigError, DamagedError, SourceError
from safetake.ids import IdReader

if TYPE_CHECKING:
    from safetake.config import Config, SourceConfig
    from safetake.configjobs import ReferenceEnd
    from safetake.model import Node, Reader


class Place(Protocol):
    """Where the sides of references are read."""

    moving: bool
    """Somebody may write while it is read."""

    def reader(self, config: Config, end: ReferenceEnd, scratch: Path) -> IdReader:
        """The ids of one side. Raises SafetakeError when it is not there."""


class Live:
    """The live stores."""

    moving = True

    def reader(self, config: Config, end: ReferenceEnd, scratch: Path) -> IdReader:
        source = config.sources[end.source]
        if isinstance(source, SqliteConfig):
            from safetake.sources.sqlite.ids import live_ids as rows

            return rows(source, end.sql or "")
        if isinstance(source, ChromaConfig):
            if source.path is None:
                from safetake.sources.chroma.rest_ids import ServerIds

                return ServerIds(source, end.collection or "", end.field)
            from safetake.sources.chroma.ids import live_ids as records
            from safetake.sources.chroma.source import require_folder

            require_folder(source.path)
            return records(source.path, end.collection or "", end.field)
        if isinstance(source, RedisConfig):
            from safetake.sources.redis.ids import LiveKeys

            return LiveKeys(source, end.keys or "", end.db)
        from safetake.sources.files.ids import FolderPaths

        return FolderPaths(source, end.files or "")


@dataclass(frozen=True, slots=True)
class Staged:
    """Restored beside the live data, as `restore --to` lays it out: `folder/SOURCE/…`."""

    folder: Path
    at_ms: int | None = None
    """When it was the live state: keys that had expired by then are not there."""
    moving = False

    def reader(self, config: Config, end: ReferenceEnd, scratch: Path) -> IdReader:
        source, folder = config.sources[end.source], self.folder / end.source
        if not folder.is_dir():
            raise SourceError(f"{end.source} is not in {self.folder}", hint="restore it there, too")
        if isinstance(source, SqliteConfig):
            from safetake.sources.sqlite.ids import staged_ids as rows

            return rows(folder / source.path.name, end.sql or "")
        if isinstance(source, ChromaConfig):
            from safetake.sources.chroma.export import EXPORT
            from safetake.sources.chroma.ids import staged_ids as records
            from safetake.sources.chroma.rest_ids import ExportIds

            if (folder / EXPORT).is_file():
                return ExportIds(folder, end.collection or "", end.field)
            return records(folder, end.collection or "", end.field)
        if isinstance(source, RedisConfig):
            return _dump(folder / "dump.rdb", folder, end, self.at_ms)
        return _folder(source, folder, end)


class Stored:
    """In a snapshot, nothing restored (but Redis's dump, into scratch): both sides are of one
    moment when the snapshot is."""

    moving = False

    def __init__(
        self, reader: Reader, nodes: Mapping[str, Node], manifest: Mapping[str, Any], time_ns: int
    ) -> None:
        self._reader = reader
        self._nodes = nodes
        self._entries: Mapping[str, Any] = manifest["sources"]
        self._at_ms = time_ns // 1_000_000

    def reader(self, config: Config, end: ReferenceEnd, scratch: Path) -> IdReader:
        name, node = end.source, self._nodes.get(end.source)
        entry = self._entries.get(name)
        if node is None or entry is None:
            raise SourceError(
                f"{name} is not in the snapshot",
                hint="take both sides of a reference in one job, so that they are of one moment",
            )
        source, reader = config.sources[name], self._reader
        if entry.get("type") != source.type:
            raise SourceError(
                f"{name} is of type {entry.get('type')} in the snapshot, not {source.type}"
            )
        if end.sql is not None:
            from safetake.sources.sqlite.ids import stored_ids as rows

            return rows(reader, node, end.sql)
        if end.collection is not None:
            from safetake.sources.chroma.export import METHOD
            from safetake.sources.chroma.ids import stored_ids as records
            from safetake.sources.chroma.rest_ids import ExportIds

            if entry.get("method") == METHOD:
                return ExportIds((reader, node), end.collection, end.field)
            return records(reader, node, end.collection, end.field)
        if end.keys is not None:
            from safetake.sources.redis.store import materialise

            entries = {inner.name: inner for inner in reader.tree(node.subtree or b"")}
            if "dump.rdb" not in entries:
                raise DamagedError(f"the snapshot of {name} has no dump.rdb")
            if entry["facts"].get("form") == "aof":
                raise _appended(name)
            path = scratch / f"{name}.rdb"
            if not path.exists():
                materialise(entries["dump.rdb"], reader, path)
            return _dump(path, None, end, self._at_ms)
        from safetake.sources.files.ids import StoredPaths

        return StoredPaths(reader, node, end.files or "")


def _dump(path: Path, folder: Path | None, end: ReferenceEnd, at_ms: int | None) -> IdReader:
    from safetake.sources.redis import aof
    from safetake.sources.redis.ids import DumpKeys

    if folder is not None and ((folder / aof.DIRECTORY).exists() or (folder / aof.SINGLE).exists()):
        raise _appended(end.source)
    if not path.is_file():
        raise SourceError(f"{path} is not there", hint="restore the source again")
    return DumpKeys(path, end.keys or "", end.db, at_ms)


def _appended(name: str) -> SourceError:
    return SourceError(
        f"{name} was stored in append-only form: its keys are not known without a server",
        hint="install a Redis server where backups run; it folds the last commands into the dump",
    )


def _folder(source: SourceConfig, folder: Path, end: ReferenceEnd) -> IdReader:
    from safetake.sources.files.ids import FolderPaths

    if not isinstance(source, FilesConfig):
        raise ConfigError(f"{end.source} is of an unknown type")
    return FolderPaths(source.model_copy(update={"path": folder}), end.files or "")
