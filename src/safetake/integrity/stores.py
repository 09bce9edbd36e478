"""Each live store by itself: asked in a process of its own, that can crash, hang and be ended.

Folders of files are asked here, since what they are compared with comes out of the repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.findings import Asked, Asking, Finding
from safetake.sources import ask_live

if TYPE_CHECKING:
    from safetake.config import SourceConfig

_NOT_SENT = {"parent"}
_CRASHED = (
    "restore the store from the last proven snapshot; a damaged one crashes its application, too"
)
_HANGS = "raise `timeout` in [integrity] where the store is only large; a damaged one may hang"


def ask_store(section: SourceConfig, asking: Asking, timeout: float) -> Asked:
    """Every question to one store. A crash, a hang or no answer is a finding; raises OSError only
    when no process can be started."""
    if section.type == "files":
        return ask_live(section, asking)
    name = asking.name
    with (asking.scratch / "output").open("wb") as output:
        question = asking.scratch / "question.json"
        question.write_text(json.dumps(_question(section, asking)), encoding="utf-8")
        (inner := asking.scratch / "scratch").mkdir(mode=0o700)
        answers = asking.scratch / "answers.json"
        with question.open("rb") as given:
            process = subprocess.Popen(
                [sys.executable, "-m", "safetake.integrity.child", answers],
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # a session would lose the low priority of a drill
                cwd=inner,
            )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            detail = f"it hangs: no answer within {timeout:.0f} s"
            return Asked([Finding(name, "answers", False, "error", detail, [], _HANGS)])
        finally:
            with contextlib.suppress(ProcessLookupError):  # whatever it started goes with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0:
        try:
            return _answer(answers)
        except (OSError, ValueError, TypeError, KeyError) as error:
            detail = f"it gave no answer: {error}"
            return Asked([Finding(name, "answers", False, "error", detail, [], _CRASHED)])
    said = (asking.scratch / "output").read_text(encoding="utf-8", errors="replace")[-2000:]
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    last = (said.strip().splitlines() or [""])[-1][:300]
    detail = f"what opened it {how}" + (f": {last}" if last else "")
    return Asked([Finding(name, "answers", False, "error", detail, [], _CRASHED)])


def _question(section: SourceConfig, asking: Asking) -> dict[str, Any]:
    options = {
        field.name: getattr(asking, field.name)
        for field in fields(Asking)
        if field.name not in _NOT_SENT
    }
    options["scratch"] = str(asking.scratch / "scratch")
    return {"section": section.model_dump(mode="json"), "asking": options}


def _answer(path: Path) -> Asked:
    found = json.loads(path.read_text(encoding="utf-8"))
    return Asked([Finding(**each) for each in found["findings"]], found["facts"])
