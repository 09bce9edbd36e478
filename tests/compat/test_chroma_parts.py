"""A real Chroma folder, taken by us, restored by stock restic, joined by the carried script."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.config import ChromaConfig
from safetake.restore.beside import restore_to
from safetake.snapshots import find_snapshot
from safetake.sources.chroma.source import ChromaSource
from tests.support.repositories import (
    memory_folder,
    new_repository,
    open_repository,
    restic,
    snapshot,
)

BUILD = """
import random, sys, chromadb
chance = random.Random(3)
client = chromadb.PersistentClient(sys.argv[1])
collection = client.get_or_create_collection(
    "scripts", metadata={"hnsw:sync_threshold": 500, "hnsw:batch_size": 100}
)
first, last = int(sys.argv[2]), int(sys.argv[3])
for start in range(first, last, 500):
    names = [str(n) for n in range(start, start + 500)]
    collection.add(ids=names, embeddings=[[chance.random() for _ in range(64)] for _ in names])
"""


@pytest.fixture
def base() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def grow(folder: Path, first: int, last: int) -> None:
    """Add vectors with the real library, in a process that then is gone."""
    command: list[str | Path] = [sys.executable, "-c", BUILD, folder, str(first), str(last)]
    subprocess.run(command, check=True, capture_output=True)


def hnsw_files(folder: Path) -> dict[str, bytes]:
    """Everything but the database: what is stored in columns and around them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("chroma.sqlite3")
    }


def test_a_plain_restore_and_the_script_give_every_byte_back(base: Path) -> None:
    repository = new_repository(base / "repository")
    source = ChromaSource("vectors", ChromaConfig(type="chroma", path=base / "chroma"))
    for number in range(2):
        grow(base / "chroma", number * 4000, number * 4000 + 4000)
        assert snapshot(repository, source).exit_code == 0
        truth = hnsw_files(base / "chroma")
        assert any(name.endswith("data_level0.bin") for name in truth)
        theirs, ours = base / f"theirs-{number}", base / f"ours-{number}"
        restic(base / "repository", "restore", "latest", "--target", theirs)
        assert list(theirs.rglob("*.parts"))
        script = theirs / ".safetake" / "join.py"
        subprocess.run([sys.executable, "-I", "-S", script, theirs], check=True, cwd="/")
        assert not list(theirs.rglob("*.parts"))
        assert hnsw_files(theirs / "vectors") == truth
        again = open_repository(base / "repository")
        restore_to(again, find_snapshot(again, "latest"), [], ours)
        assert hnsw_files(ours / "vectors") == truth
        database = "vectors/chroma.sqlite3"
        assert (ours / database).read_bytes() == (theirs / database).read_bytes()
    assert "no errors were found" in restic(base / "repository", "check", "--read-data")
