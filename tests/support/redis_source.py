"""Captures with the Redis source and brings them back: what its tests share."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetake.config import RedisConfig
from safetake.model import CaptureContext, Captured, Check, Node, Parent
from safetake.sources.redis import RedisSession, RedisSource, questions
from tests.support.memory_writer import MemoryRepository
from tests.support.redis_server import TestServer, running

_numbers = itertools.count()


def config(url: str, **more: Any) -> RedisConfig:
    return RedisConfig.model_validate({"type": "redis", "url": url, **more})


def session(
    settings: RedisConfig, repository: MemoryRepository, folder: Path, parent: Parent | None = None
) -> RedisSession:
    scratch = folder / f"scratch{next(_numbers)}"
    scratch.mkdir(mode=0o700, parents=True)
    context = CaptureContext(repository, parent, scratch, reader=repository)
    return RedisSource("queue", settings).session(context)


def capture(
    settings: RedisConfig,
    repository: MemoryRepository,
    folder: Path,
    *,
    parent: Parent | None = None,
    prepared: Callable[[], object] = lambda: None,
    held: Callable[[], object] = lambda: None,
    released: Callable[[], object] = lambda: None,
) -> Captured:
    """One capture, with calls between its phases."""
    one = session(settings, repository, folder, parent)
    try:
        one.prepare()
        prepared()
        one.hold(10.0)
        try:
            held()
        finally:
            one.release()
        released()
        return one.capture()
    finally:
        one.close()


def wait_past(moment: float) -> None:
    """Until what expired by the clock at that time is gone."""
    time.sleep(max(0.0, moment + 0.1 - time.time()))


def entry(captured: Captured) -> dict[str, Any]:
    """What the manifest keeps, through JSON as there."""
    kept: dict[str, Any] = json.loads(
        json.dumps({"facts": captured.facts, "fingerprint": captured.fingerprint})
    )
    return kept


def parent_of(captured: Captured, repository: MemoryRepository) -> Parent:
    return Parent(entry(captured), captured.node, repository)


def restore(node: Node, repository: MemoryRepository, target: Path) -> Path:
    """Write a captured folder to `target`."""
    target.mkdir(parents=True)
    assert node.subtree is not None
    for inner in repository.tree(node.subtree):
        if inner.type == "dir":
            restore(inner, repository, target / inner.name)
        else:
            data = b"".join(map(repository.blob, inner.content or []))
            assert len(data) == inner.size
            (target / inner.name).write_bytes(data)
    return target


def failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if not check.ok]


def proven(captured: Captured, repository: MemoryRepository, folder: Path) -> Path:
    """Restore and ask every question; returns the restored folder."""
    target = restore(captured.node, repository, folder / f"restored{next(_numbers)}")
    checks = questions(target, entry(captured))
    assert not failed(checks), failed(checks)
    return target


def debug_digest(server: TestServer) -> str:
    """The server's own digest over all databases, keys, values and expiries."""
    with server.client() as client:
        answer: bytes = client.execute_command("DEBUG", "DIGEST")
    return str(answer)


def debug_options(version: str) -> list[str]:
    return [] if version == "redis-6.2" else ["--enable-debug-command", "local"]


def digest_after_restore(version: str, restored: Path, *options: str) -> str:
    """The digest of a fresh server of that version on the restored folder."""
    with running(version, restored, *debug_options(version), *options) as server:
        return debug_digest(server)
