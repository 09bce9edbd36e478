"""The vectors of a stored segment by id, read from the repository without restoring the files.

Reads the header, the ids, the column of labels, and of the vectors' column only the blobs that hold
what is asked for. In a cosine space the lengths come with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safetake.columns import LAYOUT_NAME, PARTS_SUFFIX, load_layout
from safetake.errors import DamagedError
from safetake.model import Node, Reader
from safetake.sources.chroma import hnsw
from safetake.sources.chroma.labels import labels_of
from safetake.sources.sqlite.vfs import BlobFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_VECTORS, _LABELS = 1, 2


class StoredVectors:
    """One segment's. Made by reading header and ids; raises DamagedError, also later."""

    def __init__(self, reader: Reader, folder: Node) -> None:
        self._reader = reader
        self._name = folder.name
        self._files = {node.name: node for node in _entries(reader, folder)}
        self.row_of: dict[str, int] = {}
        """id to its record's number"""
        pickle = self._files.get(hnsw.PICKLE)
        if pickle is None:
            return
        labels = labels_of(self._bytes(pickle), f"{folder.name}/{hnsw.PICKLE}")
        if not labels:
            return
        header = hnsw.parse_header(self._bytes(self._file(hnsw.HEADER)))
        if header is None:
            raise self._damaged(f"{hnsw.HEADER} is of an unknown version")
        self._header = header
        self._open_data()
        row_of_label = self._rows()
        try:
            self.row_of = {one: row_of_label[label] for one, label in labels.items()}
        except KeyError as error:
            raise self._damaged(f"label {error} has no vector") from error

    def read(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of ids that `row_of` has, as they are kept, one a row."""
        import numpy as np

        width = 4 * self._header.dimension
        data = bytearray()
        for one in ids:
            piece = self._vectors.read(width, self._at(self.row_of[one], _VECTORS))
            if len(piece) != width:
                raise self._damaged(f"{hnsw.DATA} ends before its records do")
            data += piece
        return np.frombuffer(bytes(data), "<f4").reshape(len(ids), -1)

    def lengths(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Their lengths, for a cosine space."""
        import numpy as np

        node = self._file(hnsw.LENGTH)
        file = BlobFile(self._reader, node.content or [], node.size)
        data = b"".join(file.read(4, 4 * self.row_of[one]) for one in ids)
        if len(data) != 4 * len(ids):
            raise self._damaged(f"{hnsw.LENGTH} ends before its records do")
        return np.frombuffer(data, "<f4")

    def _open_data(self) -> None:
        parts = self._files.get(hnsw.DATA + PARTS_SUFFIX)
        if parts is None:  # too few or too long to be stored in columns
            node = self._file(hnsw.DATA)
            self._labels = self._vectors = BlobFile(self._reader, node.content or [], node.size)
            self._split = False
            return
        files = {node.name: node for node in _entries(self._reader, parts)}
        layout = load_layout(self._bytes(self._named(files, LAYOUT_NAME)))
        widths = [column.width for column in layout.columns]
        if widths != [width for _, width in self._header.widths]:
            raise self._damaged(f"the columns of {hnsw.DATA} are not those of its header")
        opened = []
        for number in (_VECTORS, _LABELS):
            node = self._named(files, layout.columns[number].file)
            opened.append(BlobFile(self._reader, node.content or [], node.size))
        self._vectors, self._labels = opened
        self._split = True

    def _at(self, row: int, column: int) -> int:
        if self._split:
            return row * self._header.widths[column][1]
        offset = {_VECTORS: self._header.data_offset, _LABELS: self._header.label_offset}[column]
        return row * self._header.record + offset

    def _rows(self) -> dict[int, int]:
        if self._split:
            data = self._labels.read(hnsw.LABEL_BYTES * self._header.count, 0)
            cells = [data[at : at + 8] for at in range(0, len(data), hnsw.LABEL_BYTES)]
        else:
            cells = [
                self._labels.read(hnsw.LABEL_BYTES, self._at(row, _LABELS))
                for row in range(self._header.count)
            ]
        return {int.from_bytes(cell, "little"): row for row, cell in enumerate(cells)}

    def _file(self, name: str) -> Node:
        return self._named(self._files, name)

    def _named(self, files: dict[str, Node], name: str) -> Node:
        if name not in files:
            raise self._damaged(f"{name} is missing")
        return files[name]

    def _bytes(self, node: Node) -> bytes:
        return b"".join(self._reader.blob(blob) for blob in node.content or [])

    def _damaged(self, what: str) -> DamagedError:
        return DamagedError(
            f"segment {self._name} in the snapshot: {what}",
            hint="run `safetake verify` on the snapshot, and take an older one",
        )


def _entries(reader: Reader, folder: Node) -> list[Node]:
    return reader.tree(folder.subtree) if folder.subtree is not None else []
