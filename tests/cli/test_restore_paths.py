"""`safetake restore ID SOURCE --in-place --path PATTERN`: only what is named is staged."""

from __future__ import annotations

import os

from tests.cli.conftest import Workplace


def test_one_file_of_a_large_folder_needs_the_room_and_time_of_one_file(
    workplace: Workplace,
) -> None:
    scripts = workplace.folder / "scripts"
    (scripts / "films" / "one").mkdir(parents=True)
    (scripts / "films" / "one" / "film").write_bytes(os.urandom(9 << 20))
    (scripts / "films" / "one" / "title").write_text("a title")
    os.link(scripts / "films" / "one" / "title", scripts / "linked")
    os.utime(scripts / "films" / "one", (10**9, 10**9))
    workplace.run("backup", "scripts")
    (scripts / "films" / "one" / "title").unlink()
    (scripts / "linked").unlink()
    (scripts / "films" / "one" / "film").write_bytes(b"newer")

    restore = ["restore", "latest", "scripts", "--in-place", "--path", "films/*/title"]
    plan = workplace.json(*restore, "--dry-run")["sources"]["scripts"]
    assert plan["bytes"] == len("a title")
    assert list(plan["space"].values()) == [len("a title")]
    done = workplace.json(*restore, "--yes")
    assert done["ended"] == "committed"
    assert (scripts / "films" / "one" / "title").read_text() == "a title"
    assert (scripts / "films" / "one" / "film").read_bytes() == b"newer"
    assert not (scripts / "linked").exists()
    record = workplace.json("history", "--kind", "restore")["records"][-1]
    assert record["facts"]["bytes"] == len("a title")

    workplace.run("restore", "--undo", "--yes")
    assert not (scripts / "films" / "one" / "title").exists()
    assert (scripts / "films" / "one" / "film").read_bytes() == b"newer"


def test_a_named_folder_comes_back_with_all_that_is_in_it(workplace: Workplace) -> None:
    scripts = workplace.folder / "scripts"
    for name in ("kept/a/1", "kept/a/b/2", "kept/empty/", "other/3"):
        (scripts / name).parent.mkdir(parents=True, exist_ok=True)
        (scripts / name).mkdir() if name.endswith("/") else (scripts / name).write_text(name)
    (scripts / "kept" / "link").symlink_to("a/1")
    workplace.run("backup", "scripts")
    workplace.run("restore", "latest", "scripts", "--to", "whole")
    for name in ("kept/a/1", "kept/a/b/2", "kept/link", "other/3"):
        (scripts / name).unlink()
    for name in ("kept/empty", "kept/a/b", "kept/a", "kept", "other"):
        (scripts / name).rmdir()
    workplace.run("restore", "latest", "scripts", "--in-place", "--path", "/kept", "--yes")
    found = {path.relative_to(scripts) for path in (scripts / "kept").rglob("*")}
    whole = workplace.folder / "whole" / "scripts"
    assert found == {path.relative_to(whole) for path in (whole / "kept").rglob("*")}
    assert not (scripts / "other").exists()


def test_a_path_of_a_folder_that_is_gone_altogether_must_be_in_the_snapshot(
    workplace: Workplace,
) -> None:
    scripts = workplace.folder / "scripts"
    scripts.rename(workplace.folder / "gone")
    restore = ["restore", "latest", "scripts", "--in-place", "--yes", "--path"]
    message, _ = workplace.error(*restore, "nothing.txt", code=1)
    assert "is named by nothing.txt" in message
    workplace.run(*restore, "one.txt")
    assert [path.name for path in scripts.iterdir()] == ["one.txt"]
