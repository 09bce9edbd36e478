"""What a snapshot promises about each segment's files, and the digests that prove it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from safetake.columns import Layout
from safetake.errors import DamagedError
from safetake.model import BlobId, CaptureContext
from safetake.sources.chroma import hnsw
from safetake.sources.chroma.catalogue import Segment
from safetake.sources.chroma.neighbours import answers, sample
from safetake.sources.chroma.parent import ParentSegments
from safetake.sources.chroma.pieces import blob_rows
from safetake.sources.chroma.segments import SegmentCopy


def content_digest(ids: Sequence[BlobId]) -> str:
    """SHA-256 over the ids of a part in order: names its exact bytes, given how it is cut."""
    return hashlib.sha256(b"".join(ids)).hexdigest()


def segment_facts(
    segment: Segment,
    copy: SegmentCopy,
    stored: dict[str, dict[str, list[BlobId]]],
    chroma: dict[str, Any],
    context: CaptureContext,
    parent: ParentSegments,
) -> dict[str, Any]:
    """The manifest's entry of one segment; what was taken over unread keeps its parent's facts.

    `stored` has the ids of each part of each file that was read.
    """
    before = parent.facts(segment.id)
    files: dict[str, Any] = {}
    for name, file in copy.files.items():
        if file.reused is not None:
            files[name] = before.get("files", {}).get(name)
            continue
        files[name] = {"size": file.key[1]}
        if file.layout is not None:
            files[name]["record"] = file.layout.record
            files[name]["widths"] = [column.width for column in file.layout.columns]
        files[name]["parts"] = {part: content_digest(ids) for part, ids in stored[name].items()}
    collection = chroma["collections"].get(segment.collection, {})
    found: dict[str, Any] = {
        "collection": segment.collection,
        "type": segment.type,
        "persisted": copy.persisted,
        "recorded": segment.max_seq_id,
        "copied_at": copy.max_seq_id,
        "files": files,
        "samples": None,
    }
    if hnsw.DATA in stored and copy.persisted:
        layout = copy.files[hnsw.DATA].layout
        header = hnsw.parse_header(_header(copy, context))
        if layout is not None and header is not None and context.reader is not None:
            found["samples"] = _samples(
                segment.id, layout, header.count, stored[hnsw.DATA], collection["space"], context
            )
    elif hnsw.DATA in copy.files:
        found["samples"] = before.get("samples")
    return found


def _header(copy: SegmentCopy, context: CaptureContext) -> bytes:
    file = copy.files[hnsw.HEADER]
    if file.head:
        return file.head
    content = file.reused[0].content if file.reused else None
    return context.reader.blob(content[0]) if context.reader is not None and content else b""


def _samples(
    segment: str,
    layout: Layout,
    count: int,
    parts: dict[str, list[BlobId]],
    space: str,
    context: CaptureContext,
) -> list[dict[str, Any]] | None:
    reader = context.reader

    def read(number: int, first: int, rows: int) -> bytes:
        column = layout.columns[number]
        each = blob_rows(column.width)
        if reader is None:
            raise DamagedError("nothing to read with")
        blob = reader.blob(parts[column.file][first // each])
        start = first % each * column.width
        return blob[start : start + rows * column.width]

    return answers(sample(segment, layout, count, read), space)
