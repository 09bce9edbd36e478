"""What a REST export looks like, and the questions to a restored one.

    export.json                        version of this layout, Chroma's version, tenant, databases
    COLLECTION-ID/collection.json      all that the server says about it: name, metadata,
                                       configuration_json, schema, dimension, database, tenant
    COLLECTION-ID/records.jsonl        one line per record: id, document, metadata, uri
    COLLECTION-ID/embeddings.f32       the vectors in the same order: little-endian float32, one
                                       after the other, `dimension` numbers each

Everything that a new collection needs is in there, except its id, which Chroma gives anew. An
export is no moment: records of one collection may be from before a write and others from after it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetake.model import Check

VERSION = 1
METHOD = "rest"
EXPORT = "export.json"
COLLECTION = "collection.json"
RECORDS = "records.jsonl"
EMBEDDINGS = "embeddings.f32"


def questions(staged: Path, entry: Mapping[str, Any]) -> list[Check]:
    """Question a restored export against its manifest entry. Never raises for what it finds."""
    checks: list[Check] = []
    facts = entry["facts"]
    try:
        checks.append(_bytes(staged / EXPORT, facts["file"]))
        for key, known in facts["collections"].items():
            for name, expected in known["files"].items():
                checks.append(_bytes(staged / key / name, expected))
            checks.extend(_records(staged / key, known))
    except (OSError, ValueError, KeyError, TypeError) as error:
        checks.append(Check("export", False, None, None, f"{type(error).__name__}: {error}"))
    return checks


def _bytes(path: Path, expected: Mapping[str, Any]) -> Check:
    name = f"{path.parent.name}/{path.name}"
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
                size += len(data)
    except OSError as error:
        return Check(name, False, dict(expected), None, str(error))
    found = {"size": size, "sha256": digest.hexdigest()}
    return Check(name, found == dict(expected), dict(expected), found)


def _records(folder: Path, known: Mapping[str, Any]) -> Iterator[Check]:
    ids: set[str] = set()
    count = 0
    with (folder / RECORDS).open("rb") as file:
        for line in file:
            record = json.loads(line)
            ids.add(record["id"])
            count += 1
    expected = known["records"]
    yield Check(f"{known['name']}: records", count == expected, expected, count)
    yield Check(f"{known['name']}: ids", len(ids) == expected, expected, len(ids))
    size = (folder / EMBEDDINGS).stat().st_size
    needed = 4 * expected * (known["dimension"] or 0)
    yield Check(f"{known['name']}: vectors", size == needed, needed, size)
