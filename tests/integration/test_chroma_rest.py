"""The export of a real server over its REST API, and what the errors say."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from safetake.config import ChromaConfig
from safetake.errors import ConfigError, SafetakeError, SourceError
from safetake.model import CaptureContext, Captured
from safetake.sources.chroma.proof import questions
from safetake.sources.chroma.source import ChromaSource
from tests.support.chroma_live import server
from tests.support.memory_writer import MemoryRepository, entry_of, materialise
from tests.support.ports import free_port


def export(url: str, place: Path, **more: Any) -> tuple[MemoryRepository, Captured]:
    repository = MemoryRepository()
    config = ChromaConfig(type="chroma", url=url, **more)
    context = CaptureContext(repository, None, place, reader=repository)
    session = ChromaSource("vectors", config).session(context)
    try:
        session.prepare()
        session.hold(1)
        session.release()
        return repository, session.capture()
    finally:
        session.close()
        repository.close()


def test_a_server_is_exported_with_exact_vectors(tmp_path: Path) -> None:
    import chromadb
    from chromadb.config import Settings

    folder = tmp_path / "chroma"
    folder.mkdir()
    vectors = np.random.default_rng(5).random((700, 24), dtype=np.float32)
    with server(folder) as address:
        host, port = address.split(":")
        client = chromadb.HttpClient(host, int(port), settings=Settings(anonymized_telemetry=False))
        rows = client.create_collection(
            "texts", embedding_function=None, metadata={"kind": "한국어"}
        )
        for first in range(0, 700, 100):
            part = range(first, first + 100)
            rows.add(
                ids=[f"{n}번" for n in part],
                embeddings=vectors[part.start : part.stop],
                documents=[f"대본 {n}\nline" for n in part],
                metadatas=[{"scene": n, "who": "x"} for n in part],
            )
        client.create_collection("empty", embedding_function=None)
        repository, captured = export(f"http://{address}", tmp_path)
        state = ChromaSource("v", ChromaConfig(type="chroma", url=f"http://{address}/")).inspect()
        assert (state.ok, sorted(state.details["collections"])) == (True, ["empty", "texts"])
        with pytest.raises(SourceError, match="database"):
            export(f"http://{address}", tmp_path, database="nowhere")
    assert (captured.one_moment, captured.method, captured.notes) == (False, "rest", [])
    copy = tmp_path / "copy"
    materialise(repository, captured.node, copy)
    entry = entry_of(captured)
    assert [check for check in questions(copy, entry) if not check.ok] == []
    place = copy / str(rows.id)
    records = [json.loads(line) for line in (place / "records.jsonl").read_bytes().splitlines()]
    stored = np.fromfile(place / "embeddings.f32", "<f4").reshape(-1, 24)
    order = [int(record["id"].removesuffix("번")) for record in records]
    assert sorted(order) == list(range(700))
    assert stored.tobytes() == vectors[order].tobytes()
    assert records[3]["document"] == f"대본 {order[3]}\nline"
    assert records[3]["metadata"] == {"scene": order[3], "who": "x"}
    about = json.loads((place / "collection.json").read_bytes())
    assert (about["name"], about["metadata"]["kind"]) == ("texts", "한국어")
    assert about["configuration_json"]
    for damaged in ("embeddings.f32", "records.jsonl"):
        whole = (place / damaged).read_bytes()
        (place / damaged).write_bytes(whole[:-3])
        assert [check for check in questions(copy, entry) if not check.ok]
        (place / damaged).write_bytes(whole)


class Stub(http.server.BaseHTTPRequestHandler):
    """A server that is no Chroma: what it answers is what the test says."""

    status: ClassVar[int] = 200
    body: ClassVar[bytes] = b"{}"
    seen: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        type(self).seen.append(self.headers.get("Authorization"))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def stub(status: int, body: bytes) -> Iterator[str]:
    handler = type("Handler", (Stub,), {"status": status, "body": body, "seen": Stub.seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "not a Chroma server"),
        (200, b"{}", "not a Chroma server"),
        (200, b"[" * 100_000, "not a Chroma server"),
        (404, b"", "not a Chroma server"),
        (401, b"", "refuses us"),
        (403, b"", "refuses us"),
        (500, b"broken", "answers 500"),
    ],
)
def test_servers_that_are_not_what_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, said: str
) -> None:
    monkeypatch.setenv("TOKEN_OF_TEST", "Bearer hush")
    with stub(status, body) as url, pytest.raises(SafetakeError, match=said) as raised:
        export(url, tmp_path, headers_env={"Authorization": "TOKEN_OF_TEST"})
    assert raised.value.hint
    assert "hush" not in str(raised.value) + raised.value.hint
    assert Stub.seen[-1] == "Bearer hush"


def test_a_server_that_is_gone_and_a_header_that_is_not_set(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SourceError, match="cannot be reached") as raised:
        export(url, tmp_path)
    assert raised.value.hint
    state = ChromaSource("vectors", ChromaConfig(type="chroma", url=url)).inspect()
    assert not state.ok
    with pytest.raises(ConfigError, match="NOT_SET"):
        export(url, tmp_path, headers_env={"Authorization": "NOT_SET"})
