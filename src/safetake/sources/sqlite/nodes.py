"""How a captured database looks in a snapshot's tree: one folder with one file in it."""

from __future__ import annotations

import grp
import os
import pwd
import stat

from safetake.model import BlobId, Node


def database_node(name: str, state: os.stat_result, size: int, content: list[BlobId]) -> Node:
    """The file: owner, mode and times of the live one, `size` of the cut."""
    node = _owned(name, "file", stat.S_IFREG | stat.S_IMODE(state.st_mode), state)
    node.inode, node.device_id, node.links = state.st_ino, state.st_dev, 1
    node.size = size
    node.content = content
    return node


def source_node(name: str, state: os.stat_result, subtree: BlobId) -> Node:
    """The folder, named after the source; searchable by whom the file is readable."""
    mode = stat.S_IMODE(state.st_mode)
    node = _owned(name, "dir", stat.S_IFDIR | 0o700 | mode | (mode & 0o444) >> 2, state)
    node.subtree = subtree
    return node


def _owned(name: str, kind: str, mode: int, state: os.stat_result) -> Node:
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
    )
