"""Every command, as a user types it, on a real repository."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace


def ids(place: Workplace) -> list[str]:
    return [snapshot["id"] for snapshot in place.json("snapshots")]


def restic(place: Workplace, *words: str) -> str:
    """Stock restic on the same repository."""
    done = subprocess.run(
        ["restic", "-r", "repo", "--password-file", "safetake.password", *words],
        cwd=place.folder,
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_backup_reports_the_snapshot(workplace: Workplace) -> None:
    found = workplace.json("backup")
    assert found["id"] == ids(workplace)[-1]
    assert set(found["sources"]) == {"projects", "scripts"}
    assert found["sources"]["projects"]["type"] == "sqlite"
    assert found["sources"]["projects"]["rung"] == "stored"
    assert found["barrier_ms"] > 0
    assert found["skew_ms"] == 0
    text = workplace.run("backup").stdout
    assert ids(workplace)[-1][:8] in text
    quiet = workplace.run("backup", "--quiet")
    assert quiet.stdout == quiet.stderr == ""


def test_backup_of_a_job_or_of_sources(workplace: Workplace) -> None:
    assert list(workplace.json("backup", "nightly")["sources"]) == ["projects"]
    assert workplace.json("snapshots")[-1]["job"] == "nightly"
    assert list(workplace.json("backup", "scripts")["sources"]) == ["scripts"]
    message, _ = workplace.error("backup", "nighly", code=2)
    assert "did you mean 'nightly'?" in message
    message, _ = workplace.error("backup", "nightly", "scripts", code=2)
    assert "stands alone" in message


def test_backup_of_a_missing_source_fails(workplace: Workplace) -> None:
    (workplace.folder / "projects.db").unlink()
    message, _ = workplace.error("backup", code=1)
    assert "projects.db" in message
    assert len(ids(workplace)) == 1


def test_snapshots_and_show(workplace: Workplace) -> None:
    (snapshot,) = workplace.json("snapshots")
    assert snapshot["rung"] == "stored"
    assert snapshot["id"][:8] in workplace.run("snapshots").stdout
    shown = workplace.json("show", "latest")
    assert shown["id"] == snapshot["id"]
    assert shown["manifest"]["sources"]["projects"]["facts"]["rows"] == {"projects": 100}
    text = workplace.run("show", snapshot["id"][:6]).stdout
    assert snapshot["id"] in text
    assert "projects (sqlite)" in text
    message, hint = workplace.error("show", "ffffffffff", code=1)
    assert "ffffffffff" in message
    assert "safetake snapshots" in hint


def test_verify_climbs_and_check_agrees(workplace: Workplace) -> None:
    read = workplace.json("verify", "latest", "--level", "read")
    assert (read["ok"], read["rung"]) == (True, "read back")
    assert workplace.json("snapshots")[0]["rung"] == "read back"
    opened = workplace.json("verify")
    assert opened["rung"] == "opened"
    assert all(source["ok"] for source in opened["sources"].values())
    assert "opened" in workplace.run("snapshots").stdout
    found = workplace.json("check", "--read-data")
    assert found["ok"]
    assert found["bytes_read"] > 0
    assert "no errors were found" in workplace.run("check").stdout


def test_damage_is_found_and_named(workplace: Workplace) -> None:
    packs = [path for path in (workplace.folder / "repo" / "data").glob("*/*") if path.is_file()]
    for pack in packs:
        content = bytearray(pack.read_bytes())
        for at in range(0, len(content), 40):  # every blob, whichever pack and place it is in
            content[at] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(content)
    found = workplace.json("check", "--read-data", code=1)
    assert not found["ok"]
    assert found["errors"]
    assert workplace.run("check", "--read-data", code=1).stderr.startswith("damaged: ")
    verified = workplace.json("verify", "--level", "read", code=1)
    assert verified["rung"] == "failed"
    assert verified["problems"]
    assert workplace.json("snapshots", code=1)["error"]["exit_code"] == 1  # the manifest, too


def test_restore_is_byte_identical(workplace: Workplace) -> None:
    found = workplace.json("restore", "latest", "--to", "out")
    assert set(found["sources"]) == {"projects", "scripts"}
    out = workplace.folder / "out"
    assert (out / "scripts" / "odd\nname").read_text() == "x"
    one = Path("scripts", "one.txt")
    assert (out / one).read_bytes() == (workplace.folder / one).read_bytes()
    with sqlite3.connect(out / "projects" / "projects.db") as db:
        assert db.execute("SELECT count(*) FROM projects").fetchone() == (100,)
    message, hint = workplace.error("restore", "latest", "--to", "out", code=2)
    assert "not empty" in message
    assert "--overwrite" in hint
    workplace.run("restore", "latest", "scripts", "--to", "out", "--overwrite")
    message, _ = workplace.error("restore", "latest", "script", "--to", "other", code=2)
    assert "script" in message
    assert "--to" in workplace.error("restore", "latest", code=2)[0]


def test_query_in_three_forms(workplace: Workplace) -> None:
    sql = "SELECT id, name, id * 1.5, NULL, x'ff', id FROM projects WHERE id = 2"
    found = workplace.json("query", "latest", "projects", sql)
    assert found["rows"] == [[2, "프로젝트 1", 3.0, None, "ff", 2]]
    assert len(found["columns"]) == 6
    rows = list(
        csv.reader(io.StringIO(workplace.run("query", "latest", "projects", sql, "--csv").stdout))
    )
    assert rows[1] == ["2", "프로젝트 1", "3.0", "", "ff", "2"]
    assert "프로젝트 1" in workplace.run("query", "latest", "projects", sql).stdout
    limited = workplace.json(
        "query", "latest", "projects", "SELECT * FROM projects", "--limit", "3"
    )
    assert len(limited["rows"]) == 3
    assert limited["truncated"]
    assert workplace.json("query", "latest", "projects", "SELECT 9e999")["rows"] == [["inf"]]
    said = workplace.run("query", "latest", "projects", 'SELECT 1 AS "\x1b[2J"').stdout
    assert said == "\\x1b[2J\n1\n"


COUNTED = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n{}) "


@pytest.mark.parametrize("rows", [0, 1, 2, 20_000])
def test_query_as_json_has_one_form_however_long(workplace: Workplace, rows: int) -> None:
    sql = COUNTED.format(" LIMIT 20000") + f"SELECT i, 'a\n\"é' FROM n WHERE i <= {rows}"
    said = workplace.run("--json", "query", "latest", "projects", sql).stdout
    found = json.loads(said)
    assert said == json.dumps(found, indent=2) + "\n"
    assert found["rows"] == [[i, 'a\n"é'] for i in range(1, rows + 1)]
    assert list(found) == ["columns", "rows", "truncated"]


def test_query_as_json_comes_as_it_is_found(workplace: Workplace) -> None:
    """An answer without an end, in bounded memory."""
    sql = COUNTED.format("") + "SELECT i FROM n"
    process = subprocess.Popen(
        workplace.command("--json", "query", "latest", "projects", sql),
        cwd=workplace.folder,
        env=workplace.environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None

    def peak() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    assert len(process.stdout.read(1 << 20)) == 1 << 20
    first = peak()
    assert len(process.stdout.read(8 << 20)) == 8 << 20  # 300,000 rows
    assert peak() - first < 4 << 10
    process.stdout.close()
    assert process.wait(60) == 141


@pytest.mark.parametrize(("row", "out"), [(10, False), (100_000, True)])
def test_query_as_json_that_fails_on_its_way(workplace: Workplace, row: int, out: bool) -> None:
    sql = COUNTED.format("") + f"SELECT abs(iif(i = {row}, -9223372036854775807 - 1, i)) FROM n"
    done = workplace.run("--json", "query", "latest", "projects", sql, code=2)
    if not out:
        assert "integer overflow" in json.loads(done.stdout)["error"]["message"]
        assert done.stderr == ""
        return
    assert "integer overflow" in done.stderr
    with pytest.raises(ValueError):
        json.loads(done.stdout)  # not even by its first lines: nobody takes it for the answer


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["projects", "DELETE FROM projects"], "read-only"),
        (["projects", "SELECT 1; SELECT 2"], "more than one statement"),
        (["projects", "SELECT * FROM project"], "no such table"),
        (["scripts", "SELECT 1"], "not one database"),
        (["nothing", "SELECT 1"], "no source 'nothing'"),
        (["projects", "SELECT 1", "--csv"], "exclude each other"),
    ],
)
def test_query_mistakes(workplace: Workplace, words: list[str], said: str) -> None:
    assert said in workplace.json("query", "latest", *words, code=2)["error"]["message"]


def test_doctor(workplace: Workplace) -> None:
    found = workplace.json("doctor")
    assert found["ok"]
    states = {finding["what"]: finding["state"] for finding in found["findings"]}
    assert states["repository"] == states["source projects"] == "ok"
    # everything of this test lies on one file system
    text = workplace.run("doctor").stdout
    assert "keep the repository on another volume" in text
    (workplace.folder / "safetake.password").chmod(0o644)
    (workplace.folder / "projects.db").write_bytes(b"")
    found = workplace.json("doctor", code=1)
    bad = {f["what"]: f for f in found["findings"] if f["state"] in ("problem", "warning")}
    assert "0644" in bad["password"]["text"]
    assert bad["source projects"]["state"] == "problem"
    assert "FAIL" in workplace.run("doctor", code=1).stdout


def test_doctor_names_a_state_folder_that_no_restore_could_use(workplace: Workplace) -> None:
    config = workplace.folder / "safetake.toml"
    config.write_text(config.read_text() + '[restore]\nstate = "safetake.password/state"\n')
    (found,) = [
        one for one in workplace.json("doctor", code=1)["findings"] if one["state"] == "problem"
    ]
    assert found["what"] == "state folder"
    assert "safetake.password/state cannot be written" in found["text"]
    refused = workplace.json("restore", "latest", "--in-place", "--yes", code=1)["error"]
    assert "cannot make the folder" in refused["message"]
    assert refused["hint"] == found["hint"]


def test_doctor_without_a_configuration(empty: Workplace) -> None:
    found = empty.json("doctor", code=1)
    assert found["findings"][0]["what"] == "configuration"
    assert "safetake init" in found["findings"][0]["hint"]


def test_a_repository_that_must_stay_as_it_is(workplace: Workplace) -> None:
    """As evidence of an attack: everything can be asked, and what is written lies elsewhere."""
    config = workplace.folder / "safetake.toml"
    config.write_text(config.read_text().replace("lock_wait", 'overlay = "changes"\nlock_wait'))

    def content() -> dict[str, bytes]:
        files = (workplace.folder / "repo").rglob("*")
        return {str(path): path.read_bytes() for path in files if path.is_file()}

    before = content()
    for words in (["check", "--read-data"], ["verify"], ["evidence", "verify"], ["backup"]):
        workplace.run(*words)
    workplace.run("restore", "latest", "--to", "out")
    assert content() == before
    assert workplace.json("snapshots")[0]["rung"] == "opened"


def test_keys(workplace: Workplace) -> None:
    (first,) = workplace.json("key", "list")
    new = workplace.folder / "new-password"
    new.write_text("second password\n")
    added = workplace.json("key", "add", "--new-password-file", str(new))["id"]
    assert {key["id"] for key in workplace.json("key", "list")} == {first["id"], added}
    config = workplace.folder / "safetake.toml"
    config.write_text(config.read_text().replace("safetake.password", "new-password"))
    assert workplace.json("key", "remove", first["id"][:8])["id"] == first["id"]
    (left,) = workplace.json("key", "list")
    assert left["current"]
    message, _ = workplace.error("key", "remove", added[:8], code=1)
    assert "in use" in message
    message, hint = workplace.error("key", "add", code=2)
    assert "terminal" in message
    assert "--new-password-file" in hint


def test_init_is_complete_and_can_be_repeated(empty: Workplace) -> None:
    made = empty.json(
        "init", "--repository", "repo", "--sqlite", "projects.db", "--files", "all=scripts"
    )
    assert made["config_written"]
    assert made["password_made"]
    assert made["repository_made"]
    config = empty.folder / "safetake.toml"
    text = config.read_text()
    assert (empty.folder / "safetake.password").stat().st_mode & 0o777 == 0o600
    assert set(empty.json("backup")["sources"]) == {"projects", "all"}
    again = empty.json("init")
    assert not any(again[what] for what in ("config_written", "password_made", "repository_made"))
    assert again["repository"] == made["repository"]
    assert config.read_text() == text
    message, hint = empty.error("init", "--repository", "other", code=2)
    assert "never overwritten" in message
    (empty.folder / "safetake.password").unlink()
    message, hint = empty.error("init", code=2)
    assert "password file" in message
    assert "new one can not open it" in hint


def test_init_names_what_is_missing_or_ambiguous(empty: Workplace) -> None:
    message, hint = empty.error("init", code=2)
    assert "where shall the repository be" in message
    assert "--repository" in hint
    message, hint = empty.error(
        "init", "--repository", "r", "--sqlite", "a", "--files", "a", code=2
    )
    assert "'a'" in message
    message, _ = empty.error("init", "--repository", "r", "--files", "..=x", "--files", "", code=2)
    assert not (empty.folder / "safetake.toml").exists()


def test_init_writes_odd_names_as_toml(empty: Workplace) -> None:
    odd = 'q"uo\\te\x7f한'
    shutil.copytree(empty.folder / "scripts", empty.folder / odd)
    empty.run("init", "--repository", "r", "--files", f"a.b={odd}", "--redis", "redis://h:1/?a=b")
    empty.run("backup", "a.b")
    (empty.folder / "my scripts").mkdir()
    other = empty.json("--config", "o.toml", "init", "--repository", "o", "--files", "my scripts")
    assert "[sources.my-scripts]" in Path(other["config"]).read_text()
    config = (empty.folder / "safetake.toml").read_text()
    assert 'url = "redis://h:1/?a=b"' in config


def test_what_the_recovery_kit_says_works_with_restic_alone(workplace: Workplace) -> None:
    if shutil.which("restic") is None:
        pytest.fail("restic is not installed: ./dev test installs it")
    kit = workplace.json("init")["restic"]
    script = "\n".join(["set -e", *kit]).replace("DIR", "restored")
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=workplace.folder,
        env=workplace.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    restored = workplace.folder / "restored"
    assert (restored / "scripts" / "one.txt").exists()
    with sqlite3.connect(restored / "projects" / "projects.db") as db:
        assert db.execute("SELECT count(*) FROM projects").fetchone() == (100,)


def test_snapshots_of_stock_restic_are_listed(workplace: Workplace) -> None:
    restic(workplace, "backup", "scripts")
    assert len(ids(workplace)) == 2
    assert "not safetake's" in workplace.run("snapshots").stdout
    assert "not made by safetake" in workplace.run("show", "latest").stdout


def test_manifest_of_show_is_the_stored_one(workplace: Workplace) -> None:
    workplace.run("backup")
    manifest = workplace.json("show", "latest")["manifest"]
    assert json.loads(restic(workplace, "dump", "latest", "/.safetake/manifest.json")) == manifest
