"""Hands the files of a capture to the repository in content-defined chunks of about 16 KiB."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from pathlib import Path

from safetake.model import BATCH_BYTES, BlobId, Node, Pending, Progress, Reader, Writer

AVERAGE = 16 << 10
SMALLEST = 4 << 10
LARGEST = 64 << 10


def store_file(
    path: Path, name: str, writer: Writer, progress: Progress, mtime_ns: int, mode: int = 0o600
) -> Node:
    """Store a file; equal stretches of an earlier one are stored once. Raises OSError."""
    from pyfastcdc import FastCDC

    cutter = FastCDC(AVERAGE - SMALLEST, min_size=SMALLEST, max_size=LARGEST)
    size = path.stat().st_size
    pending: list[Pending] = []
    done = 0
    rest = b""
    with path.open("rb", buffering=0) as file:
        while done < size:
            buffer = writer.buffer()
            filled = len(rest)
            buffer[:filled] = rest
            view = memoryview(buffer)
            while filled < BATCH_BYTES and (n := file.readinto(view[filled:])):
                filled += n
            with view[:filled] as window:
                sizes = [chunk.length for chunk in cutter.cut_buf(window)]
            last = done + filled >= size
            if not last and len(sizes) > 1:
                sizes.pop()  # cut by the end of the buffer, not by the content
            used = sum(sizes)
            rest = bytes(view[used:filled])
            view.release()
            if not used:
                writer.discard(buffer)
                break
            pending.append(writer.submit(buffer, sizes))
            done += used
            progress(name, done, size)
    content = [blob for part in pending for blob in part.result()]
    return file_node(name, content, done, mtime_ns, mode)


def store_text(name: str, data: bytes, writer: Writer, mtime_ns: int) -> Node:
    """Store a small file from memory."""
    return file_node(name, writer.store(data).result(), len(data), mtime_ns, 0o600)


def file_node(name: str, content: list[BlobId], size: int, mtime_ns: int, mode: int) -> Node:
    """A file's entry."""
    return Node(
        name,
        "file",
        stat.S_IFREG | mode,
        mtime_ns,
        mtime_ns,
        mtime_ns,
        size=size,
        links=1,
        content=content,
    )


def folder_node(name: str, nodes: Iterable[Node], writer: Writer, mtime_ns: int) -> Node:
    """Store a directory and give its entry."""
    return Node(
        name,
        "dir",
        stat.S_IFDIR | 0o700,
        mtime_ns,
        mtime_ns,
        mtime_ns,
        links=1,
        subtree=writer.save_tree(nodes),
    )


def digest(content: Iterable[BlobId]) -> str:
    """SHA-256 over the ids of the blobs: two files with the same one are equal."""
    return hashlib.sha256(b"".join(content)).hexdigest()


def materialise(node: Node, reader: Reader, target: Path) -> None:
    """Write a stored file back to disk. Raises DamagedError, OSError."""
    with target.open("wb") as out:
        for blob in node.content or []:
            out.write(reader.blob(blob))
