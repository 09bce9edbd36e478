"""How a captured Chroma folder looks in a snapshot's tree."""

from __future__ import annotations

import grp
import os
import pwd
import stat

from safetake.columns import LAYOUT_NAME, PARTS_SUFFIX
from safetake.model import BlobId, Node, Writer
from safetake.sources.chroma.pieces import FileCopy, ids
from safetake.sources.chroma.spool import Spool


def file_node(name: str, state: os.stat_result, size: int, content: list[BlobId]) -> Node:
    """A file with the owner, mode and times of the live one."""
    node = _node(name, "file", stat.S_IFREG | stat.S_IMODE(state.st_mode), state)
    node.size, node.content, node.inode, node.links = size, content, state.st_ino, 1
    return node


def folder_node(name: str, state: os.stat_result, subtree: BlobId) -> Node:
    """A directory."""
    node = _node(name, "dir", stat.S_IFDIR | stat.S_IMODE(state.st_mode), state)
    node.subtree = subtree
    return node


def copy_nodes(
    name: str, copy: FileCopy, spool: Spool, writer: Writer
) -> tuple[Node, dict[str, list[BlobId]]]:
    """The node of a copied file, a folder of parts for columns; and the ids of each part."""
    if copy.layout is None:
        content = ids(copy, "", spool, writer)
        return file_node(name, copy.state, copy.key[1], content), {"": content}
    layout, state = copy.layout, copy.state
    text = layout.dump()
    nodes = [file_node(LAYOUT_NAME, state, len(text), writer.store(text).result())]
    parts = {}
    for part, size in layout.part_sizes().items():
        parts[part] = ids(copy, part, spool, writer)
        nodes.append(file_node(part, state, size, parts[part]))
    node = _node(name + PARTS_SUFFIX, "dir", stat.S_IFDIR | _searchable(state.st_mode), state)
    node.subtree = writer.save_tree(nodes)
    return node, parts


def _searchable(mode: int) -> int:
    """Who may read the file may look into the folder that stands for it."""
    return 0o700 | stat.S_IMODE(mode) & 0o666 | (stat.S_IMODE(mode) & 0o444) >> 2


def _node(name: str, kind: str, mode: int, state: os.stat_result) -> Node:
    try:
        user = pwd.getpwuid(state.st_uid).pw_name
    except KeyError:
        user = ""
    try:
        group = grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        group = ""
    return Node(
        name=name,
        type=kind,
        mode=mode,
        mtime_ns=state.st_mtime_ns,
        atime_ns=state.st_mtime_ns,
        ctime_ns=state.st_ctime_ns,
        uid=state.st_uid,
        gid=state.st_gid,
        user=user,
        group=group,
        inode=state.st_ino if kind == "dir" else 0,
        device_id=state.st_dev,
    )
