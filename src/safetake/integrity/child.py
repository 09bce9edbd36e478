"""The process in which a live store is questioned: `python -m safetake.integrity.child ANSWERS`.

A damaged store can crash or hang the library that opens it, and whoever closes a descriptor of a
database drops its process's locks on it: so none is opened in the parent. The question comes as
JSON on standard input; the answer goes to the file ANSWERS. Core dumps are off.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from safetake.config import SourceConfig
from safetake.findings import Asking
from safetake.sources import ask_live


def main(answers: str) -> int:
    """Ask, and write the answer."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    question = json.load(sys.stdin)
    section: SourceConfig = TypeAdapter(SourceConfig).validate_python(question["section"])
    options = question["asking"]
    options["scratch"] = Path(options["scratch"])
    asked = ask_live(section, Asking(**options))
    Path(answers).write_text(json.dumps(asdict(asked), default=str), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
