"""Trees and names: round trips, Go's bytes, and refusal of what no folder can hold."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.errors import DamagedError
from safetake.model import Node
from safetake.repository import tree
from safetake.repository.ordinary import encode_ordinary
from safetake.repository.tree import decode_tree, encode_tree, quote, unquote

raw_names = st.binary(min_size=1, max_size=40).filter(
    lambda raw: b"/" not in raw and b"\0" not in raw and raw not in (b".", b"..")
)
names = raw_names.map(os.fsdecode)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
times = st.integers(-62135596800 * 10**9, 253402300799 * 10**9)
counts = st.integers(0, (1 << 64) - 1)
ids = st.binary(min_size=32, max_size=32)
PERMISSIONS = st.integers(0, 0o7777)
KINDS = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "dev": stat.S_IFBLK,
    "chardev": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}


@st.composite
def nodes(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(sorted(KINDS))) -> Node:
    kind = draw(st.sampled_from(kinds))
    return Node(
        draw(names),
        kind,
        mode=draw(PERMISSIONS) | KINDS[kind],
        mtime_ns=draw(times),
        atime_ns=draw(times),
        ctime_ns=draw(times),
        uid=draw(st.integers(0, (1 << 32) - 1)),
        gid=draw(st.integers(0, (1 << 32) - 1)),
        user=draw(texts),
        group=draw(texts),
        inode=draw(counts),
        device_id=draw(counts),
        size=draw(counts),
        links=draw(counts),
        linktarget=draw(names) if kind == "symlink" else "",
        device=draw(counts),
        xattrs=draw(st.dictionaries(texts, st.binary(max_size=30), max_size=3)),
        content=draw(st.lists(ids, max_size=4)) if kind == "file" else None,
        subtree=draw(ids) if kind == "dir" else None,
    )


@st.composite
def ordinary_files(draw: st.DrawFn) -> Node:
    """Files as most are, and some that are almost so."""
    node = draw(nodes(("file",)))
    odd = draw(st.sampled_from(["", "name", "user", "xattrs", "device"]))
    if odd != "name":
        node.name = draw(st.from_regex(r"[a-zA-Z0-9 _\u00e9\uac00'#-]{1,12}", fullmatch=True))
    if odd != "user":
        node.user = node.group = draw(st.sampled_from(["", "root", "장면", "a b"]))
    if odd != "xattrs":
        node.xattrs = {}
    if odd != "device":
        node.device = 0
    return node


@given(st.lists(nodes(), max_size=6, unique_by=lambda node: node.name))
def test_a_tree_comes_back_as_it_went(entries: list[Node]) -> None:
    blob = encode_tree(entries)
    found = decode_tree(blob, "tree")
    assert found == sorted(entries, key=lambda node: os.fsencode(node.name))
    assert encode_tree(found) == blob
    assert blob.endswith(b"]}\n")
    json.loads(blob)


def generally(blob: bytes) -> list[Node]:
    """A tree by the general way alone."""
    return [tree._decode_node(item) for item in json.loads(blob)["nodes"]]


@given(st.lists(ordinary_files(), max_size=4, unique_by=lambda node: node.name))
def test_ordinary_files_are_written_and_read_as_in_the_general_way(entries: list[Node]) -> None:
    for node in entries:
        text = encode_ordinary(node, tree._go_mode(node.mode, node.type))
        dumped = json.dumps(tree._encode_node(node), ensure_ascii=False, separators=(",", ":"))
        assert text in (None, dumped.translate(tree._GO))
    blob = encode_tree(entries)
    assert decode_tree(blob, "tree") == generally(blob)


@given(st.data())
def test_a_changed_tree_is_never_read_otherwise_than_in_the_general_way(
    data: st.DataObject,
) -> None:
    entry = Node("a-1.md", "file", 0o100644, 1_700_000_000_123_000_000, 1, 2, 3, 4, "root", "wheel",
                 5, 6, 7, 8, content=[bytes(32), b"x" * 32])  # fmt: skip
    text = encode_tree([entry, replace(entry, name="b")]).decode()
    at = data.draw(st.integers(0, len(text)))
    gone = data.draw(st.integers(0, 3))
    come = data.draw(st.text('0aA"\\,:[]{} \n\u20ac\u0085', max_size=3))
    blob = (text[:at] + come + text[at + gone :]).encode()
    found = tree._decode_ours(blob)
    assert found is None or found == generally(blob)


@given(raw_names)
def test_a_quoted_name_comes_back(raw: bytes) -> None:
    quoted = quote(os.fsdecode(raw))
    quoted.encode()  # no surrogate is left
    assert os.fsencode(unquote(quoted)) == raw


@pytest.mark.parametrize(
    ("name", "quoted"),
    [  # what Go's strconv.Quote gives (documented, and checked against restic in tests/compat)
        (b"plain name", "plain name"),
        (b'a"b', 'a\\"b'),
        (b"a\\b", "a\\\\b"),
        (b"\a\b\f\n\r\t\v", "\\a\\b\\f\\n\\r\\t\\v"),
        (b"\x00\x01\x1f"[1:], "\\x01\\x1f"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("장면 é €".encode(), "장면 é €"),
        ("\u00a0\u00ad\u200b".encode(), "\\u00a0\\u00ad\\u200b"),
        ("\u2028\ufeff\ue000".encode(), "\\u2028\\ufeff\\ue000"),
        ("\U0001f600\U000e0001".encode(), "\U0001f600\\U000e0001"),
        ("\ufffd".encode(), "\ufffd"),
        (b"'single'", "'single'"),
    ],
)
def test_names_are_quoted_as_go_does(name: bytes, quoted: str) -> None:
    assert quote(os.fsdecode(name)) == quoted
    assert os.fsencode(unquote(quoted)) == name


@given(st.text(max_size=30))
def test_any_text_is_unquoted_or_refused(text: str) -> None:
    try:
        found = unquote(text)
    except ValueError:
        return
    assert isinstance(found, str)


@pytest.mark.parametrize(
    "text", ['"', "\n", "\\", "\\q", "\\x4", "\\xzz", "\\u12", "\\ud800", "\\U00110000", "\\400",
             "\\08"]
)  # fmt: skip
def test_what_go_does_not_unquote_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        unquote(text)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "/etc", "../x", "a\0b", "\ud800"])
def test_what_is_no_file_name_is_not_stored(name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        encode_tree([Node(name, "fifo")])


def test_two_entries_of_one_name_are_not_stored() -> None:
    with pytest.raises(ValueError, match="two entries"):
        encode_tree([Node("a", "fifo"), Node("a", "file", content=[])])


def document(**more: object) -> dict[str, object]:
    """An entry as restic has it, with something else in it."""
    when = "2026-01-02T03:04:05.6Z"
    base = {"name": "a", "type": "file", "mode": 0o644, "mtime": when, "atime": when, "ctime": when,
            "uid": 0, "gid": 0, "content": None}  # fmt: skip
    return {**base, **more}


def test_fields_of_any_order_and_of_the_future_are_read() -> None:
    entry = dict(reversed(document(future={"deep": [1]}, error="x").items()))
    (node,) = decode_tree(json.dumps({"later": 1, "nodes": [entry]}).encode(), "tree")
    assert (node.name, node.content, node.mtime_ns % 10**9) == ("a", [], 600_000_000)
    assert decode_tree(b'{"nodes":[]}', "tree") == []


def test_times_with_a_zone_are_read() -> None:
    blob = json.dumps({"nodes": [document(mtime="1970-01-01T09:00:00.000000001+09:00")]}).encode()
    assert decode_tree(blob, "tree")[0].mtime_ns == 1


@pytest.mark.parametrize(
    "entry",
    [
        document(name=name)
        for name in ("", ".", "..", "a/b", "/etc/passwd", "../../x", "a\\x00b", "\ud800", "a\\", 5)
    ]
    + [
        document(type="symlink", linktarget="a\0b"),
        document(type="symlink", linktarget="\ud800"),
        document(type="symlink", linktarget="x", linktarget_raw="AA=="),
        document(type="symlink", linktarget="x", linktarget_raw="not base64!"),
        document(type="dir"),
        document(type="dir", subtree="00"),
        document(type="dir", subtree="zz" * 32),
        document(content=["00"]),
        document(content=[5]),
        document(content=5),
        document(size=-1),
        document(size=1 << 64),
        document(size=1.5),
        document(mode="x"),
        document(mtime="yesterday"),
        document(mtime="2026-13-01T00:00:00Z"),
        document(mtime=5),
        document(extended_attributes=[{"value": "AA=="}]),
        document(extended_attributes=[{"name": "a", "value": "!"}]),
        document(extended_attributes=5),
        {"name": "a"},
        [],
        5,
        None,
    ],
    ids=repr,
)
def test_an_impossible_entry_is_damage(entry: object) -> None:
    with pytest.raises(DamagedError, match="tree of the test is damaged"):
        decode_tree(json.dumps({"nodes": [entry]}).encode(), "tree of the test")


@pytest.mark.parametrize(
    "blob",
    [b"", b"{", b"[]", b"5", b"null", b'{"nodes":5}', b'{"nodes":null}', b"\xff\xfe", b"{}",
     b"[" * 100_000, b'{"nodes":' * 50_000, b'{"nodes":[' + b"9" * 5000 + b"]}"],
    ids=lambda blob: blob[:12],
)  # fmt: skip
def test_what_is_no_tree_is_damage(blob: bytes) -> None:
    with pytest.raises(DamagedError, match="damaged"):
        decode_tree(blob, "tree")


def test_two_entries_of_one_name_are_damage() -> None:
    blob = json.dumps({"nodes": [document(name="\\x61"), document(name="a")]}).encode()
    with pytest.raises(DamagedError, match="one name"):
        decode_tree(blob, "tree")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_tree_or_damage(blob: bytes) -> None:
    with contextlib.suppress(DamagedError):
        decode_tree(blob, "tree")


@given(st.data())
def test_a_tree_with_changed_bytes_is_a_tree_or_damage(data: st.DataObject) -> None:
    entries = data.draw(st.lists(nodes(), min_size=1, max_size=3, unique_by=lambda n: n.name))
    blob = bytearray(encode_tree(entries))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] = data.draw(st.integers(0, 255))
    try:
        found = decode_tree(bytes(blob), "tree")
    except DamagedError:
        return
    for node in found:
        assert b"/" not in os.fsencode(node.name)
        os.fsencode(node.linktarget)
