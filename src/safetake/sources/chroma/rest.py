"""A Chroma server by URL: a logical export over its REST API, marked as not one moment.

For servers whose folder is out of reach. The ids of a collection are asked first, all at once, and
the records then by id: paging by offset under writes misses records (161 of 5,600 when measured).
What is written meanwhile is in the export or not, record by record. The layout is that of
`export.py`; memory holds one batch of records and the ids of one collection.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from safetake.config import ChromaConfig
from safetake.errors import ConfigError, SourceError
from safetake.model import (
    MAX_BLOB_BYTES,
    BlobId,
    CaptureContext,
    Captured,
    Cut,
    Node,
    Pending,
    SourceState,
)
from safetake.sources.chroma.export import COLLECTION, EMBEDDINGS, EXPORT, METHOD, RECORDS, VERSION

_BATCH = 256
_PAGE = 1000
_TIMEOUT = 120.0
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")


class Server:
    """The few calls of the v2 API that an export needs. Errors are SourceErrors with hints."""

    def __init__(self, config: ChromaConfig) -> None:
        import httpx

        self._config = config
        try:
            url = httpx.URL(config.url or "")
            self.where = f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")
            self._http = httpx.Client(
                base_url=url, headers=_headers(config), timeout=_TIMEOUT, follow_redirects=False
            )
        except httpx.InvalidURL as error:
            raise ConfigError(
                "the `url` of a Chroma source is not a URL", hint='write "http://host:8000"'
            ) from error

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def version(self) -> str:
        """The server's version; makes sure that it is a Chroma server with the v2 API."""
        beat = self._call("GET", "heartbeat")
        if not isinstance(beat, dict) or "nanosecond heartbeat" not in beat:
            raise self._not_chroma()
        return str(self._call("GET", "version"))

    def databases(self) -> tuple[str, list[str]]:
        """The tenant and its databases that are to be exported."""
        tenant = self._config.tenant
        if tenant is None:
            identity = self._call("GET", "auth/identity")
            found = identity.get("tenant") if isinstance(identity, dict) else None
            tenant = (
                found if isinstance(found, str) and found not in ("", "*") else "default_tenant"
            )
        place = f"tenants/{quoted(tenant)}/databases"
        if (database := self._config.database) is not None:
            # the server lists no collections, and no error, for a database that is not there
            self._call("GET", f"{place}/{quoted(database)}")
            return tenant, [database]
        pages = self._pages(place)
        return tenant, [str(entry["name"]) for entry in pages]

    def collections(self, tenant: str, database: str) -> list[dict[str, Any]]:
        """Everything the server says about each collection of a database."""
        path = f"tenants/{quoted(tenant)}/databases/{quoted(database)}/collections"
        return list(self._pages(path))

    def ids(self, collection: dict[str, Any]) -> list[str]:
        """All ids of a collection at one instant."""
        return [str(one) for one in self._get(collection, {"include": []})["ids"]]

    def page(
        self, collection: dict[str, Any], include: list[str], limit: int | None, offset: int
    ) -> dict[str, Any]:
        """Records of one stretch (without a limit: all, at one instant), with what is included."""
        body: dict[str, Any] = {"include": include}
        if limit is not None:
            body |= {"limit": limit, "offset": offset}
        return self._get(collection, body)

    def present(self, collection: dict[str, Any], ids: list[str]) -> list[str]:
        """Those of the ids that are there."""
        return [str(one) for one in self._get(collection, {"ids": ids, "include": []})["ids"]]

    def count(self, collection: dict[str, Any]) -> int:
        """How many records a collection has now."""
        answer = self._call("GET", f"{_place(collection)}/count")
        if not isinstance(answer, int):
            raise self._not_chroma()
        return answer

    def records(self, collection: dict[str, Any], ids: list[str]) -> dict[str, Any]:
        """The records that are still there, as columns."""
        include = ["documents", "embeddings", "metadatas", "uris"]
        return self._get(collection, {"ids": ids, "include": include})

    def _get(self, collection: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        answer = self._call("POST", f"{_place(collection)}/get", body)
        if not isinstance(answer, dict) or not isinstance(answer.get("ids"), list):
            raise self._not_chroma()
        return answer

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._call("GET", f"{path}?limit={_PAGE}&offset={offset}")
            if not isinstance(page, list):
                raise self._not_chroma()
            yield from page
            if len(page) < _PAGE:
                return
            offset += len(page)

    def _call(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        import httpx

        try:
            answer = self._http.request(verb, f"api/v2/{path}", json=body)
        except httpx.TimeoutException as error:
            raise SourceError(
                f"the Chroma server at {self.where} did not answer within {_TIMEOUT:g} s",
                hint="look at the server's load and logs",
            ) from error
        except httpx.HTTPError as error:
            raise SourceError(
                f"the Chroma server at {self.where} cannot be reached: {error}",
                hint="check `url`, and that the server runs and is reachable from here",
            ) from error
        if answer.status_code in (401, 403):
            raise SourceError(
                f"the Chroma server at {self.where} refuses us ({answer.status_code})",
                hint="set `headers_env` of the source, for example"
                ' { Authorization = "CHROMA_TOKEN" } with "Bearer …" in that variable',
            )
        if answer.status_code == 404 and path == "heartbeat":
            raise self._not_chroma()
        if answer.status_code >= 300:
            raise SourceError(
                f"the Chroma server at {self.where} answers {answer.status_code}"
                f" to {path.partition('?')[0]}: {answer.text[:200]}",
                hint="check `tenant` and `database` of the source, and the server's log",
            )
        try:
            return answer.json()
        except (ValueError, RecursionError) as error:
            raise self._not_chroma() from error

    def _not_chroma(self) -> SourceError:
        return SourceError(
            f"what answers at {self.where} is not a Chroma server with the v2 API",
            hint="check `url`; servers before 0.6 have no v2 API: give the `path` of their folder",
        )


class RestSession:
    """`model.Session` of an export. Everything happens in `prepare`: no writer is held."""

    def __init__(self, name: str, config: ChromaConfig, context: CaptureContext) -> None:
        self._name = name
        self._context = context
        self._server = Server(config)
        self._now = time.time_ns()
        self._children: list[Node] = []
        self._facts: dict[str, Any] = {}
        self._bytes = 0
        self._notes: list[str] = []

    def prepare(self) -> None:
        server = self._server
        facts: dict[str, Any] = {"version": VERSION, "chroma": server.version()}
        tenant, databases = server.databases()
        facts |= {"tenant": tenant, "databases": databases, "collections": {}}
        for database in databases:
            for collection in server.collections(tenant, database):
                known = collection | {"tenant": tenant, "database": database}
                facts["collections"][str(collection["id"])] = self._export(known)
        text = _json({key: facts[key] for key in ("version", "chroma", "tenant", "databases")})
        node, facts["file"] = self._file(EXPORT, [text])
        self._children.append(node)
        self._facts = facts

    def hold(self, timeout: float) -> Cut:
        now = time.monotonic_ns()
        return Cut(now, now)

    def release(self) -> None:
        """Nothing is held."""

    def capture(self) -> Captured:
        writer = self._context.writer
        return Captured(
            node=_folder(self._name, self._now, writer.save_tree(self._children)),
            bytes=self._bytes,
            facts=self._facts,
            one_moment=False,
            method=METHOD,
            notes=self._notes,
        )

    def close(self) -> None:
        self._server.close()

    def _export(self, collection: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        name, writer = str(collection["name"]), self._context.writer
        ids = self._server.ids(collection)
        dimension = collection.get("dimension")
        records, vectors = _Stream(), _Stream()
        count = 0
        for first in range(0, len(ids), _BATCH):
            got = self._server.records(collection, ids[first : first + _BATCH])
            if not got["ids"]:
                continue  # all of them were deleted meanwhile
            matrix = np.asarray(got["embeddings"], "<f4")
            if matrix.ndim != 2 or len(matrix) != len(got["ids"]):
                raise SourceError(
                    f"collection {name}: the server gave {len(got['ids'])} ids and"
                    f" vectors of shape {matrix.shape}",
                    hint="check the collection with a query; its vectors may be damaged",
                )
            if len(matrix):
                dimension = matrix.shape[1]
            lines = [
                _json({"id": one, "document": text, "metadata": meta, "uri": uri})
                for one, text, meta, uri in zip(
                    got["ids"],
                    got.get("documents") or [None] * len(matrix),
                    got.get("metadatas") or [None] * len(matrix),
                    got.get("uris") or [None] * len(matrix),
                    strict=True,
                )
            ]
            records.add(writer.store, b"".join(lines))
            vectors.add(writer.store, matrix.tobytes())
            count += len(matrix)
            self._context.progress(name, first + len(matrix), len(ids))
        if count < len(ids):
            gone = len(ids) - count
            self._notes.append(f"collection {name}: {gone} records were deleted during the export")
        about = _json({key: value for key, value in collection.items() if key != "log_position"})
        facts: dict[str, Any] = {
            "name": name,
            "database": collection["database"],
            "dimension": dimension,
            "records": count,
            "files": {},
        }
        nodes = []
        for file, stream in ((RECORDS, records), (EMBEDDINGS, vectors)):
            nodes.append(_node(file, self._now, stream.size, stream.ids()))
            facts["files"][file] = {"size": stream.size, "sha256": stream.digest.hexdigest()}
            self._bytes += stream.size
        node, facts["files"][COLLECTION] = self._file(COLLECTION, [about])
        folder = str(collection["id"])
        if "/" in folder or folder in ("", ".", ".."):
            raise SourceError(
                f"collection {name} has the id {folder!r}, which is no file name",
                hint="this is not a Chroma server that we know",
            )
        self._children.append(_folder(folder, self._now, writer.save_tree([*nodes, node])))
        return facts

    def _file(self, name: str, pieces: list[bytes]) -> tuple[Node, dict[str, Any]]:
        stream = _Stream()
        for piece in pieces:
            stream.add(self._context.writer.store, piece)
        self._bytes += stream.size
        node = _node(name, self._now, stream.size, stream.ids())
        return node, {"size": stream.size, "sha256": stream.digest.hexdigest()}


class _Stream:
    """A file that grows by blobs."""

    def __init__(self) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._pending: list[Pending] = []

    def add(self, store: Any, data: bytes) -> None:
        for at in range(0, len(data), MAX_BLOB_BYTES):
            piece = data[at : at + MAX_BLOB_BYTES]
            self._pending.append(store(piece))
            self.digest.update(piece)
            self.size += len(piece)

    def ids(self) -> list[BlobId]:
        return [blob_id for pending in self._pending for blob_id in pending.result()]


def inspect_server(config: ChromaConfig) -> SourceState:
    """A look at a server for status and doctor. Raises SourceError, ConfigError."""
    with Server(config) as server:
        version = server.version()
        tenant, databases = server.databases()
        names = [entry["name"] for name in databases for entry in server.collections(tenant, name)]
    problems = [
        (
            "taken over the REST API: not one moment with the other sources",
            "give the `path` of the server's folder instead of its `url`",
        )
    ]
    if config.tenant is None:
        problems.append(
            (
                f"only the tenant {tenant} is saved: a server does not tell which others it has",
                "set `tenant`, and make a source for each other tenant",
            )
        )
    return SourceState(
        ok=True,
        summary=f"Chroma {version}, {len(names)} collections",
        details={"version": version, "tenant": tenant, "collections": names},
        problems=problems,
    )


def _place(collection: dict[str, Any]) -> str:
    return (
        f"tenants/{quoted(collection['tenant'])}/databases/{quoted(collection['database'])}"
        f"/collections/{quoted(collection['id'])}"
    )


def _headers(config: ChromaConfig) -> dict[str, str]:
    headers = dict(config.headers)
    for name, variable in config.headers_env.items():
        value = os.environ.get(variable, "").rstrip("\r\n")  # as a mounted secret ends
        if not value:
            raise ConfigError(
                f"the environment variable {variable} for the header {name} is not set",
                hint=f"export {variable} before the backup",
            )
        headers[name] = value
    for name, value in headers.items():  # httpx would tell the value in its error
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(
                f"the header {name!r} of a Chroma source has a name or a value that no header may"
                " have",
                hint="ASCII only, no line breaks, no blanks at the ends",
            )
    return headers


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace") + b"\n"


def quoted(name: Any) -> str:
    """A name as one part of a path."""
    from urllib.parse import quote

    return quote(str(name), safe="")


def _node(name: str, now: int, size: int, content: list[BlobId]) -> Node:
    return Node(
        name,
        "file",
        stat.S_IFREG | 0o600,
        now,
        now,
        now,
        os.getuid(),
        os.getgid(),
        size=size,
        links=1,
        content=content,
    )


def _folder(name: str, now: int, subtree: BlobId) -> Node:
    return Node(
        name, "dir", stat.S_IFDIR | 0o700, now, now, now, os.getuid(), os.getgid(), subtree=subtree
    )
