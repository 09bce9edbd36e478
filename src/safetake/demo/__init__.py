"""`safetake demo`: the whole story on a throw-away sample application, with real stores.

It promises that what it prints was measured in that run, by the same commands a user types, and
that it leaves nothing behind (unless asked to keep the folder).
"""

from __future__ import annotations

from safetake.demo.report import DemoReport
from safetake.demo.story import run_demo

__all__ = ["DemoReport", "run_demo"]
