"""A process that has imported everything already and forks for each run: 20 ms instead of 500.

    python -m tests.support.zygote

Reads one JSON document per line (`function`, `arguments`, `folder`, `environment`, and
those of `ptrace.trace`) and answers with one: what `trace` observed, and what the run printed.
Runs are watched, so each can be counted, or killed at its n-th call. What a run that ended by
itself had to import is imported here, for the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.ptrace import Call, Observed, StuckError, trace

ROOT = Path(__file__).parents[2]
COMMAND = "safetake.cli.app:run"
NEVER = ("chromadb", "numpy.f2py")
"""Starts threads when it is imported, and a fork has only one."""


@dataclass(slots=True)
class Run:
    """One run that was watched."""

    seen: Observed
    said: str
    """Standard output and error together."""

    @property
    def code(self) -> int | None:
        return self.seen.code


class Zygote:
    """The parent of many runs. Use as a context."""

    def __init__(self) -> None:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "HOME": os.environ.get("HOME", "/"),
            "LC_ALL": "C.UTF-8",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
            text=True,
        )

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def run(
        self,
        *arguments: str | Path,
        function: str = COMMAND,
        folder: Path = ROOT,
        environment: dict[str, str] | None = None,
        kill_at: int | None = None,
        alone: bool = False,
        ignore: str = "",
        seconds: float = 60,
    ) -> Run:
        """`function([arguments])`, a `module:name` that returns an exit code, in a forked process.

        Raises StuckError when it took longer than `seconds`.
        """
        wanted: dict[str, Any] = {
            "function": function,
            "arguments": [str(word) for word in arguments],
            "folder": str(folder),
            "environment": environment or {},
            "kill_at": kill_at,
            "alone": alone,
            "ignore": ignore,
            "seconds": seconds,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the zygote died"
        got: dict[str, Any] = json.loads(answer)
        if "stuck" in got:
            raise StuckError(f"{got['stuck']}: {' '.join(wanted['arguments'])}\n{got['said']}")
        seen = got["seen"]
        calls = [Call(**call) for call in seen.pop("calls")]
        return Run(Observed(calls=calls, **seen), got["said"])


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints by accident is seen, and harms nobody
    gc.disable()  # a fork copies what a collection touches
    gc.freeze()
    for line in sys.stdin:
        wanted = json.loads(line)
        used, told = os.pipe()
        with open(used) as learned, tempfile.TemporaryFile() as output:  # noqa: PTH123
            answer: dict[str, Any]
            try:
                seen = trace(
                    functools.partial(_one, wanted, output.fileno(), told),
                    kill_at=wanted["kill_at"],
                    alone=wanted["alone"],
                    ignore=wanted["ignore"],
                    seconds=wanted["seconds"],
                )
                answer = {"seen": dataclasses.asdict(seen)}
            except StuckError as error:
                answer = {"stuck": str(error)}
            output.seek(0)
            answer["said"] = output.read().decode(errors="replace")
            os.close(told)
            names = learned.read().split()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        _import(names)
        gc.freeze()


def _import(names: list[str]) -> None:
    for name in names:
        if not name.startswith(NEVER):
            with contextlib.suppress(Exception):  # a run imports it again, and says what is wrong
                importlib.import_module(name)


def _one(wanted: dict[str, Any], output: int, told: int) -> int:
    known = set(sys.modules)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for here, there in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(here, there)
    gc.enable()
    os.chdir(wanted["folder"])
    os.environ.update(wanted["environment"])
    tempfile.tempdir = None
    module, name = wanted["function"].split(":")
    try:
        code = getattr(importlib.import_module(module), name)(wanted["arguments"])
    except SystemExit as end:
        code = end.code
    os.write(told, "\n".join(set(sys.modules) - known).encode())
    return int(code or 0)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        _serve()
