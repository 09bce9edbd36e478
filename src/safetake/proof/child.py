"""The process in which a restored copy is opened and questioned: `python -m safetake.proof.child`.

A damaged store can crash or hang the library that opens it, so nothing is opened in the parent. The
copy is private and may be modified; answers go to a file as JSON. Core dumps are off.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path

from safetake.errors import SafetakeError
from safetake.model import Check
from safetake.sources import opener


def main(arguments: list[str]) -> int:
    """TYPE STAGED-FOLDER ENTRY.json ANSWERS.json"""
    kind, staged, entry_file, answers = arguments
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    entry = json.loads(Path(entry_file).read_text(encoding="utf-8"))
    try:
        checks = opener(kind)(Path(staged), entry)
    except SafetakeError as error:
        checks = [Check("opened", ok=False, found=str(error), detail=error.hint)]
    text = json.dumps([asdict(check) for check in checks], ensure_ascii=False, default=str)
    Path(answers).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
