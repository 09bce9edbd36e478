"""Trees as restic's Go encoder writes them, so that equal folders are equal blobs for both.

Sorted by the raw bytes of the name, names quoted as strconv.Quote does without the outer quotes,
HTML characters escaped as encoding/json does, a newline at the end. The reader accepts any field
order and ignores fields that it does not know; it refuses names that are no single path component.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from safetake.clock import go_time, parse_go_time
from safetake.errors import DamagedError
from safetake.model import Node
from safetake.repository.ordinary import decode_ordinary, encode_ordinary

_GO_BITS = (
    (stat.S_ISUID, 1 << 23),
    (stat.S_ISGID, 1 << 22),
    (stat.S_ISVTX, 1 << 20),
)
_GO_TYPE = {
    "file": 0,
    "dir": 1 << 31,
    "symlink": 1 << 27,
    "dev": 1 << 26,
    "chardev": (1 << 26) | (1 << 21),
    "fifo": 1 << 25,
    "socket": 1 << 24,
}
_POSIX_TYPE = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "dev": stat.S_IFBLK,
    "chardev": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
            "\v": "\\v", "\\": "\\\\", '"': '\\"'}  # fmt: skip
_UNESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
              "\\": "\\", '"': '"', "'": "'"}  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")
_IMPOSSIBLE = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # what os.fsdecode never gives
_GO = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    | {chr(byte): "\\ufffd" for byte in range(0xDC80, 0xDD00)}  # bytes that are no UTF-8
)


def quote(name: str) -> str:
    """Go's strconv.Quote without the quotation marks; `name` as of os.fsdecode."""
    if name.isascii() and name.isprintable() and '"' not in name and "\\" not in name:
        return name
    parts = []
    for char in name:
        code = ord(char)
        if char in _ESCAPES:
            parts.append(_ESCAPES[char])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            parts.append(char)
        elif code < 0x80:
            parts.append(f"\\x{code:02x}")
        elif code < 0x10000:
            parts.append(f"\\u{code:04x}")
        else:
            parts.append(f"\\U{code:08x}")
    return "".join(parts)


def unquote(text: str) -> str:
    """The inverse; the result is as of os.fsdecode. Raises ValueError."""
    if "\\" not in text and '"' not in text and "\n" not in text:
        return text
    raw = bytearray()
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char in '"\n':
            raise ValueError("an unquoted quotation mark or newline")
        if char != "\\":
            raw += char.encode("utf-8", "surrogateescape")
            continue
        if at >= len(text):
            raise ValueError("a lone backslash")
        kind = text[at]
        at += 1
        if kind in _UNESCAPES:
            raw += _UNESCAPES[kind].encode()
        elif kind in "xuU":
            width = {"x": 2, "u": 4, "U": 8}[kind]
            digits = text[at : at + width]
            if len(digits) != width or not all(d in "0123456789abcdefABCDEF" for d in digits):
                raise ValueError("a cut escape")
            at += width
            code = int(digits, 16)
            raw += bytes([code]) if kind == "x" else chr(code).encode("utf-8")
        elif kind in "01234567":
            digits = text[at - 1 : at + 2]
            if len(digits) != 3 or not all(d in "01234567" for d in digits):
                raise ValueError("a cut octal escape")
            at += 2
            raw.append(int(digits, 8))
        else:
            raise ValueError(f"an unknown escape \\{kind}")
    return os.fsdecode(bytes(raw))


@lru_cache(maxsize=4096)
def _go_mode(posix: int, kind: str) -> int:
    mode = (posix & 0o777) | _GO_TYPE.get(kind, 0)
    for bit, go in _GO_BITS:
        if posix & bit:
            mode |= go
    return mode


@lru_cache(maxsize=4096)
def _posix_mode(go: int, kind: str) -> int:
    mode = (go & 0o777) | _POSIX_TYPE.get(kind, 0)
    for posix, bit in _GO_BITS:
        if go & bit:
            mode |= posix
    return mode


def _encode_node(node: Node) -> dict[str, Any]:
    document: dict[str, Any] = {"name": quote(node.name), "type": node.type}
    if mode := _go_mode(node.mode, node.type):
        document["mode"] = mode
    document["mtime"] = go_time(node.mtime_ns)
    document["atime"] = go_time(node.atime_ns)
    document["ctime"] = go_time(node.ctime_ns)
    document["uid"] = node.uid
    document["gid"] = node.gid
    for field, value in (
        ("user", node.user),
        ("group", node.group),
        ("inode", node.inode),
        ("device_id", node.device_id),
        ("size", node.size),
        ("links", node.links),
    ):
        if value:
            document[field] = value
    if node.linktarget:
        document["linktarget"] = node.linktarget
        if _SURROGATE.search(node.linktarget):
            raw = os.fsencode(node.linktarget)
            document["linktarget_raw"] = base64.b64encode(raw).decode()
    if node.xattrs:
        document["extended_attributes"] = [
            {"name": name, "value": base64.b64encode(value).decode()}
            for name, value in node.xattrs.items()  # as listed, like restic
        ]
    if node.device:
        document["device"] = node.device
    document["content"] = None if node.content is None else [i.hex() for i in node.content]
    if node.subtree is not None:
        document["subtree"] = node.subtree.hex()
    return document


def encode_tree(nodes: Iterable[Node]) -> bytes:
    """The blob of a directory. Raises ValueError for duplicate or impossible names."""
    entries = list(nodes)
    names: set[str] = set()
    for node in entries:
        if not _is_component(node.name):
            raise ValueError(f"not a file name: {node.name!r}")
        if node.name in names:
            raise ValueError(f"two entries are named {node.name!r}")
        names.add(node.name)
    ordered = sorted(entries, key=lambda node: os.fsencode(node.name))
    text = ",".join([_entry_text(node) for node in ordered])
    return f'{{"nodes":[{text}]}}\n'.encode()


def _entry_text(node: Node) -> str:
    text = encode_ordinary(node, _go_mode(node.mode, node.type))
    if text is None:
        dumped = json.dumps(_encode_node(node), ensure_ascii=False, separators=(",", ":"))
        text = dumped.translate(_GO)
    return text


def _is_component(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and _is_raw(name)


def _is_raw(text: str) -> bool:
    """Whether the system can take it as a name or link target."""
    return _IMPOSSIBLE.search(text) is None


@lru_cache(maxsize=8192)
def _time(text: str) -> int:
    return parse_go_time(text)


_NUMBERS = ("mode", "uid", "gid", "inode", "device_id", "size", "links", "device")


def _decode_node(document: dict[str, Any]) -> Node:
    name = unquote(document["name"])
    if not _is_component(name):
        raise ValueError(f"impossible file name {name[:40]!r}")
    get = document.get
    kind = str(get("type", ""))
    numbers = [get(field, 0) for field in _NUMBERS]
    for number in numbers:
        if type(number) is not int or not 0 <= number < 1 << 64:
            raise ValueError(f"impossible number {number!r:.40}")
    mode, uid, gid, inode, device_id, size, links, device = numbers
    node = Node(
        name,
        kind,
        mode=_posix_mode(mode, kind),
        mtime_ns=_time(document["mtime"]),
        atime_ns=_time(document["atime"]),
        ctime_ns=_time(document["ctime"]),
        uid=uid,
        gid=gid,
        user=str(get("user", "")),
        group=str(get("group", "")),
        inode=inode,
        device_id=device_id,
        size=size,
        links=links,
        device=device,
    )
    if target := get("linktarget"):
        node.linktarget = str(target)
        if raw := get("linktarget_raw"):
            node.linktarget = os.fsdecode(base64.b64decode(raw, validate=True))
        if not _is_raw(node.linktarget):
            raise ValueError("impossible link target")
    for pair in get("extended_attributes") or ():
        node.xattrs[str(pair["name"])] = base64.b64decode(pair.get("value") or "", validate=True)
    if kind == "file":
        node.content = [_blob_id(text) for text in get("content") or ()]
    if kind == "dir":
        node.subtree = _blob_id(document["subtree"])
    return node


def _blob_id(text: str) -> bytes:
    blob_id = bytes.fromhex(text)
    if len(blob_id) != 32:
        raise ValueError("impossible blob id")
    return blob_id


# A quotation mark inside a JSON string is escaped, so these match only where a field begins.
_CONTENT = re.compile(rb'"content":\s*\[([^\]]*)\]')
_SUBTREE = re.compile(rb'"subtree":\s*"([0-9a-f]{64})"')
_ID = re.compile(rb'"([0-9a-f]{64})"')


def tree_references(blob: bytes | bytearray) -> tuple[list[bytes], list[bytes]]:
    """(subtrees, data blobs) that a tree names, found in its JSON as text."""
    fromhex = bytes.fromhex
    subtrees = [fromhex(found.decode()) for found in _SUBTREE.findall(blob)]
    data = [fromhex(found.decode()) for ids in _CONTENT.findall(blob) for found in _ID.findall(ids)]
    return subtrees, data


def decode_tree(blob: bytes, what: str) -> list[Node]:
    """The entries of a directory. Raises DamagedError naming `what`."""
    nodes = _decode_ours(blob)
    if nodes is None:
        try:
            document = json.loads(blob)
            nodes = [_decode_node(item) for item in document["nodes"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{what} is damaged: not a tree ({error})") from error
    if len({node.name for node in nodes}) != len(nodes):
        raise DamagedError(f"{what} is damaged: two entries have one name")
    return nodes


_HEAD = '{"nodes":['


def _decode_ours(blob: bytes) -> list[Node] | None:
    """The entries of a tree that is written as `encode_tree` does; None for any other."""
    nodes = []
    at = len(_HEAD)
    try:
        text = blob.decode()
        if not text.startswith(_HEAD):
            return None
        while True:
            ordinary = decode_ordinary(text, at)
            if ordinary is not None:
                node, mode, at = ordinary
                if not _is_component(node.name):
                    return None
                node.mode = _posix_mode(mode, "file")
            else:
                document, at = _JSON.raw_decode(text, at)
                node = _decode_node(document)
            nodes.append(node)
            if text[at : at + 1] != ",":
                break
            at += 1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # the general way says what is wrong with it
    return nodes if text[at:] in ("]}\n", "]}") else None


_JSON = json.JSONDecoder()
