"""One restore of one Redis server, step by step, also in a process of its own that is killed.

    python redis_restoring.py PLAN NUMBER

runs `switch` on what PLAN (JSON) says and kills itself with SIGKILL at the NUMBER-th thing that it
sends to a server or records in its journal (odd: before it, even: right after it).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetake.config import RedisConfig
from safetake.model import Captured, Check, RestoreWork
from safetake.sources.redis.restore import RedisRestorer
from tests.support import redis_source
from tests.support.memory_writer import MemoryRepository
from tests.support.redis_server import TestServer

_numbers = itertools.count()


def make_plan(
    captured: Captured,
    repository: MemoryRepository,
    folder: Path,
    server: TestServer,
    mode: str = "online",
    **config: Any,
) -> Path:
    """Stage a capture for a restore into `server`; returns the plan."""
    work = folder / f"work{next(_numbers)}"
    work.mkdir(parents=True, mode=0o700)
    redis_source.restore(captured.node, repository, work / "new" / "queue")
    plan = work / "plan.json"
    entry = {**redis_source.entry(captured), "bytes": captured.bytes, "type": "redis"}
    if mode == "offline":
        config["data"] = str(server.folder)
    plan.write_text(
        json.dumps({"entry": entry, "mode": mode, "url": server.url, "config": config, "notes": {}})
    )
    return plan


def open_plan(plan: Path) -> tuple[RedisRestorer, RestoreWork]:
    """The restorer and its work as a process finds them after a crash."""
    told = json.loads(plan.read_text())
    config = RedisConfig.model_validate({"type": "redis", "url": told["url"], **told["config"]})
    notes: dict[str, Any] = told["notes"]

    def note(key: str, value: Any) -> None:
        notes[key] = json.loads(json.dumps(value))
        beside = plan.with_suffix(".new")
        beside.write_text(json.dumps({**told, "notes": notes}))
        beside.rename(plan)

    work = RestoreWork(
        id="0" * 16,
        entry=told["entry"],
        mode=told["mode"],
        work=plan.parent,
        staged=plan.parent / "new" / "queue",
        options={},
        notes=notes,
        note=note,
    )
    return RedisRestorer("queue", config), work


def good(checks: list[Check]) -> None:
    """Every question was answered as it should be."""
    assert checks
    wrong = [check for check in checks if not check.ok]
    assert not wrong, wrong


def switch(plan: Path) -> None:
    """As the engine does it once the safety snapshot is taken."""
    restorer, work = open_plan(plan)
    try:
        restorer.switch(work)
        good(restorer.confirm(work))
    finally:
        restorer.finish(work, committed=True)


def switch_back(plan: Path) -> None:
    """As the engine does it on a failure, and on --rollback."""
    restorer, work = open_plan(plan)
    try:
        restorer.switch_back(work)
    finally:
        restorer.finish(work, committed=False)


def killed_at(plan: Path, number: int) -> bool:
    """Run `switch` in a process that is killed at a step; False when it had no such step."""
    child = subprocess.run(
        [sys.executable, __file__, str(plan), str(number)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(("src", "."))},
        capture_output=True,
        timeout=120,
    )
    if child.returncode == -signal.SIGKILL:
        return True
    assert child.returncode == 0, child.stderr.decode()
    return False


def again(plan: Path) -> Path:
    """The same plan with nothing done yet."""
    target = plan.parent.parent / f"work{next(_numbers)}"
    target.mkdir(mode=0o700)
    shutil.copytree(plan.parent / "new", target / "new")
    told = json.loads(plan.read_text())
    (target / "plan.json").write_text(json.dumps({**told, "notes": {}}))
    return target / "plan.json"


def _die_at(number: int, work: RestoreWork) -> None:
    from safetake.sources.redis.wire import Connection

    count = itertools.count(1)
    send, note = Connection.send, work.note

    def counted(call: Any, *arguments: Any) -> None:
        step = 2 * next(count)
        if step - 1 == number:
            os.kill(os.getpid(), signal.SIGKILL)
        call(*arguments)
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_send(self: Connection, data: bytes) -> None:
        counted(send, self, data)

    Connection.send = counted_send  # type: ignore[method-assign]
    work.note = lambda key, value: counted(note, key, value)


def main() -> None:
    plan, number = Path(sys.argv[1]), int(sys.argv[2])
    restorer, work = open_plan(plan)
    _die_at(number, work)
    restorer.switch(work)
    restorer.confirm(work)


if __name__ == "__main__":
    main()
