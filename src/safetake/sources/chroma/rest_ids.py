"""The ids of a collection's records, or the values of one key of their metadata, of a Chroma server
over its REST API, or of an export of one in a snapshot.

A small collection is asked for at once, at one instant. A large one is paged by offset, which
misses records while others are deleted; then it is read again, until a pass gave as many as the
server counts or three are done. A record that was missed is asked for by its id before it is called
missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from safetake.config import ChromaConfig
from safetake.errors import DamagedError, SourceError
from safetake.ids import as_text, unicode_only
from safetake.model import Node, Reader
from safetake.sources.chroma.export import COLLECTION, RECORDS
from safetake.sources.chroma.ids import ID, only
from safetake.sources.chroma.rest import Server
from safetake.sources.sqlite.vfs import BlobFile

AT_ONCE = 50_000
"""Records up to which a collection is asked for in one answer (some megabytes)."""
_PAGE = 5000
_ASKED = 500
_PASSES = 3


class ServerIds:
    """`safetake.ids.IdReader` over one collection of a server. Raises SourceError."""

    def __init__(
        self, config: ChromaConfig, collection: str, field: str = ID, *, at_once: int = AT_ONCE
    ) -> None:
        self._config = config
        self._collection = collection
        self._field = field
        self._at_once = at_once

    def ids(self) -> Iterator[str]:
        with Server(self._config) as server:
            found = _find(server, self._collection)
            count = server.count(found)
            if count <= self._at_once:
                yield from self._texts(server.page(found, self._include, None, 0))
                return
            for _ in range(_PASSES):
                given = offset = 0
                while True:
                    page = server.page(found, self._include, _PAGE, offset)
                    yield from self._texts(page)
                    given += len(page["ids"])
                    if len(page["ids"]) < _PAGE:
                        break
                    offset += _PAGE
                before, count = count, server.count(found)
                if given == before == count:
                    return

    def among(self, wanted: Set[str]) -> set[str]:
        if self._field != ID:
            return {one for one in self.ids() if one in wanted}
        asked, there = unicode_only(wanted), set[str]()
        with Server(self._config) as server:
            found = _find(server, self._collection)
            for at in range(0, len(asked), _ASKED):
                there.update(server.present(found, asked[at : at + _ASKED]))
        return there & wanted

    @property
    def _include(self) -> list[str]:
        return [] if self._field == ID else ["metadatas"]

    def _texts(self, page: dict[str, Any]) -> Iterator[str]:
        if self._field == ID:
            yield from map(str, page["ids"])
            return
        for metadata in page.get("metadatas") or ():
            yield from _values(metadata, self._field)


class ExportIds:
    """`safetake.ids.IdReader` over an export: of a restored folder, or of a snapshot's tree.

    Raises DamagedError, SourceError.
    """

    def __init__(self, place: Path | tuple[Reader, Node], collection: str, field: str = ID) -> None:
        self._place = place
        self._collection = collection
        self._field = field

    def ids(self) -> Iterator[str]:
        there: list[tuple[str, str, str]] = []
        for key, about in self._abouts():
            there.append((key, str(about.get("name")), str(about.get("database"))))
        chosen = only(self._collection, there)
        for line in self._lines(chosen):
            try:
                record = json.loads(line)
                one, metadata = str(record["id"]), record.get("metadata")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DamagedError(f"{chosen}/{RECORDS} has a line that is no record") from error
            if self._field == ID:
                yield one
            else:
                yield from _values(metadata, self._field)

    def among(self, wanted: Set[str]) -> set[str]:
        return {one for one in self.ids() if one in wanted}

    def _abouts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self._folders():
            text = b"".join(self._bytes(key, COLLECTION))
            try:
                about = json.loads(text)
            except ValueError as error:
                raise DamagedError(f"{key}/{COLLECTION} is no JSON") from error
            yield key, about if isinstance(about, dict) else {}

    def _folders(self) -> list[str]:
        if isinstance(self._place, Path):
            return sorted(path.name for path in self._place.iterdir() if path.is_dir())
        reader, node = self._place
        entries = reader.tree(node.subtree) if node.subtree is not None else []
        return [entry.name for entry in entries if entry.subtree is not None]

    def _bytes(self, key: str, name: str) -> Iterator[bytes]:
        if isinstance(self._place, Path):
            try:
                with (self._place / key / name).open("rb") as raw:
                    while data := raw.read(1 << 20):
                        yield data
            except OSError as error:
                raise DamagedError(f"{key}/{name} cannot be read: {error.strerror}") from error
            return
        reader, node = self._place
        entries = {entry.name: entry for entry in reader.tree(node.subtree or b"")}
        files = {entry.name: entry for entry in reader.tree(entries[key].subtree or b"")}
        if name not in files:
            raise DamagedError(f"{key}/{name} is missing in the snapshot")
        file = BlobFile(reader, files[name].content or [], files[name].size)
        for at in range(0, file.size, 1 << 20):
            yield file.read(1 << 20, at)

    def _lines(self, key: str) -> Iterator[bytes]:
        rest = b""
        for data in self._bytes(key, RECORDS):
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
        if rest:
            yield rest


def _find(server: Server, name: str) -> dict[str, Any]:
    tenant, databases = server.databases()
    there = {
        str(known["id"]): known | {"tenant": tenant, "database": database}
        for database in databases
        for known in server.collections(tenant, database)
    }
    listed = [(key, str(known["name"]), str(known["database"])) for key, known in there.items()]
    try:
        return there[only(name, listed)]
    except SourceError as error:
        raise SourceError(f"{server.where}: {error}", hint=error.hint) from None


def _values(metadata: object, field: str) -> Iterator[str]:
    if not isinstance(metadata, dict):
        return
    value = metadata.get(field)
    for each in value if isinstance(value, list) else [value]:
        text = as_text(each)
        if text is not None:
            yield text
