"""The JSON of ordinary files, written and read as text: a third of the work of dictionaries.

Most entries of a tree are files with a plain name and no attributes, and an increment reads and
writes those of every folder in which one file changed. Both functions give None for what is not
ordinary; `tree` then takes its general way, which says the same of each entry.
"""

from __future__ import annotations

import re
from functools import lru_cache

from safetake.clock import go_time, parse_go_time
from safetake.model import Node

# Printable, the same in JSON and in Go, and in the order of its bytes; with European letters and
# Korean syllables.
_TEXT = r"[ !#-%'-;=?-\[\]-~\u00c0-\u024f\uac00-\ud7a3]"
_PLAIN = re.compile(_TEXT + "+")
_NUMBER = "(0|[1-9][0-9]{0,18})"
_ENTRY = re.compile(
    rf'\{{"name":"({_TEXT}+)","type":"file"(?:,"mode":{_NUMBER})?'
    r',"mtime":"([^"\\]{1,40})","atime":"([^"\\]{1,40})","ctime":"([^"\\]{1,40})"'
    rf',"uid":{_NUMBER},"gid":{_NUMBER}'
    rf'(?:,"user":"({_TEXT}+)")?(?:,"group":"({_TEXT}+)")?'
    rf'(?:,"inode":{_NUMBER})?(?:,"device_id":{_NUMBER})?(?:,"size":{_NUMBER})?'
    rf'(?:,"links":{_NUMBER})?,"content":\[([^\]]*)\]\}}'
)
_ID_CHARS = 66
"""A blob id in its quotation marks."""


@lru_cache(maxsize=64)
def _plain(text: str) -> bool:
    return not text or _PLAIN.fullmatch(text) is not None


def encode_ordinary(node: Node, go_mode: int) -> str | None:
    """The JSON of one node with that Go mode, or None when it is not ordinary.

    The caller has seen that the name is one path component.
    """
    if (
        node.type != "file"
        or node.content is None
        or node.subtree is not None
        or node.xattrs
        or node.linktarget
        or node.device
        or _PLAIN.fullmatch(node.name) is None
        or not _plain(node.user)
        or not _plain(node.group)
    ):
        return None
    mtime = go_time(node.mtime_ns)
    atime = mtime if node.atime_ns == node.mtime_ns else go_time(node.atime_ns)
    content = '","'.join([blob_id.hex() for blob_id in node.content])
    return (
        f'{{"name":"{node.name}","type":"file"'
        + (f',"mode":{go_mode}' if go_mode else "")
        + f',"mtime":"{mtime}","atime":"{atime}","ctime":"{go_time(node.ctime_ns)}"'
        f',"uid":{node.uid},"gid":{node.gid}'
        + (f',"user":"{node.user}"' if node.user else "")
        + (f',"group":"{node.group}"' if node.group else "")
        + (f',"inode":{node.inode}' if node.inode else "")
        + (f',"device_id":{node.device_id}' if node.device_id else "")
        + (f',"size":{node.size}' if node.size else "")
        + (f',"links":{node.links}' if node.links else "")
        + (f',"content":["{content}"]}}' if content else ',"content":[]}')
    )


def decode_ordinary(text: str, at: int) -> tuple[Node, int, int] | None:
    """The node at `at`, its Go mode for the caller to translate, and where it ends; or None.

    Raises ValueError for a time or an id that is none.
    """
    found = _ENTRY.match(text, at)
    if found is None:
        return None
    (name, mode, mtime, atime, ctime, uid, gid, user, group, inode, device, size, links, ids) = (
        found.groups()
    )
    content = []
    if ids:
        for one in ids.split(","):
            blob_id = bytes.fromhex(one[1:-1])
            if len(one) != _ID_CHARS or one[0] != '"' or one[-1] != '"' or len(blob_id) != 32:
                return None
            content.append(blob_id)
    mtime_ns = parse_go_time(mtime)
    node = Node(
        name,
        "file",
        0,
        mtime_ns,
        mtime_ns if atime == mtime else parse_go_time(atime),
        parse_go_time(ctime),
        int(uid),
        int(gid),
        user or "",
        group or "",
        int(inode or 0),
        int(device or 0),
        int(size or 0),
        int(links or 0),
        "",
        0,
        {},
        content,
    )
    return node, int(mode or 0), found.end()
