"""Takes one snapshot after the other of files that come and go, until its input ends.

    python -m tests.support.backing_up FOLDER DATA SEED

The contents are always the same few, so that much of what a prune finds unused is used again.
Prints the id of each snapshot, with the words that it holds, once it is durable.
"""

from __future__ import annotations

import json
import random
import select
import shutil
import sys
from pathlib import Path

from safetake.repository.cache import IndexCache
from tests.support.repositories import files_source, open_repository, snapshot

WORDS = [f"word{number:02}" for number in range(16)]


def content_of(word: str) -> bytes:
    """What a file of that name holds, always."""
    chance = random.Random(word)
    return chance.randbytes(chance.randrange(10_000, 90_000))


def main(arguments: list[str]) -> int:
    """Until the standard input is closed."""
    folder, data, seed = Path(arguments[0]), Path(arguments[1]), arguments[2]
    chance = random.Random(seed)
    repository = open_repository(folder)
    while not select.select([sys.stdin], [], [], 0)[0]:
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        words = sorted(chance.sample(WORDS, chance.randrange(1, 5)))
        for word in words:
            (data / word).write_bytes(content_of(word))
        if chance.random() < 0.3:  # else with all that is known from the last time
            repository = open_repository(folder)
            repository.cache = IndexCache(data.parent / "caches", repository.id, repository.key)
        repository.lock_wait = 120
        report = snapshot(repository, files_source("scripts", data))
        print(json.dumps([report.id, words]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
