"""Jobs save different sources: a restore of all of a snapshot tells which sources it has not."""

from __future__ import annotations

from tests.cli.conftest import Workplace


def test_what_the_newest_snapshot_lacks_is_told(workplace: Workplace) -> None:
    whole = workplace.json("snapshots")[-1]["short_id"]
    newest = workplace.json("backup", "scripts")["id"][:8]
    told = f"projects is not in snapshot {newest}; the newest that has it is {whole} of 20"
    for way in (("--to", "out"), ("--in-place", "--dry-run")):
        said = workplace.run("restore", "latest", *way).stderr
        assert told in said
        assert f"`safetake restore {whole} projects" in said
    for named in (["latest", "scripts"], ["latest", "projects"], [whole]):
        said = workplace.run("restore", *named, "--to", "-".join(named)).stderr
        assert "is not in snapshot" not in said


def test_a_damaged_snapshot_keeps_nobody_from_another(workplace: Workplace) -> None:
    newest = workplace.json("backup", "scripts")["id"]
    for path in (workplace.folder / "repo" / "snapshots").iterdir():
        if path.name != newest:
            path.chmod(0o600)
            path.write_bytes(bytes(path.stat().st_size))
    said = workplace.run("restore", newest, "--to", "out").stderr
    assert f"projects: not in snapshot {newest[:8]}, and not looked for" in said
    assert (workplace.folder / "out" / "scripts" / "one.txt").exists()
