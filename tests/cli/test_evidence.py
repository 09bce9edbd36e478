"""What a proof found, listed, handed on and checked."""

from __future__ import annotations

import json
import shutil
from typing import get_args

import click

from safetake.cli.evidence import list_
from safetake.evidence import Draft
from tests.cli.conftest import Workplace


def test_every_kind_of_evidence_can_be_asked_for() -> None:
    (kind,) = (one.type for one in list_.params if one.name == "kind")
    assert isinstance(kind, click.Choice)
    assert set(kind.choices) == set(get_args(Draft.model_fields["kind"].annotation))


def test_from_a_proof_to_a_report(workplace: Workplace) -> None:
    assert workplace.json("evidence", "list") == []
    assert "no evidence" in workplace.run("evidence", "list").stdout
    verified = workplace.json("verify")
    (listed,) = workplace.json("evidence", "list")
    assert listed["id"] == verified["evidence"]
    assert listed["verdict"] == "passed"
    asked = {(check["source"], check["name"]) for check in listed["checks"]}
    assert {
        (name, check["name"])
        for name, source in verified["sources"].items()
        for check in source["checks"]
    } == asked
    assert workplace.json("evidence", "show", listed["id"][:10]) == listed
    assert "passed" in workplace.run("evidence", "show").stdout
    workplace.run("evidence", "export", "--output", "proof.json")
    workplace.run("evidence", "export", "--output", "proof.html")
    workplace.run("evidence", "export", "--output", "proof.md")
    page = (workplace.folder / "proof.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert listed["id"] in page
    assert workplace.json("evidence", "verify", "proof.json")["ok"]


def test_what_was_edited_is_refused(workplace: Workplace) -> None:
    workplace.run("verify")
    workplace.run("evidence", "export", "--output", "proof.json")
    file = workplace.folder / "proof.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    found_id = workplace.json("evidence", "list")[0]["id"]
    found["host"] = "another"
    file.write_text(json.dumps(found, sort_keys=True, separators=(",", ":")), encoding="utf-8")
    told = workplace.json("evidence", "verify", "proof.json", code=1)
    (problem,) = told["problems"]
    assert f"evidence {found_id[:8]} has another host" in problem
    assert 'not "another"' in problem
    found["host"] = workplace.json("evidence", "show")["host"]
    found["verdict"] = "failed"
    file.write_text(json.dumps(found, sort_keys=True, separators=(",", ":")), encoding="utf-8")
    told = workplace.json("evidence", "verify", "proof.json", code=1)
    assert 'another verdict: "passed", not "failed"' in told["problems"][0]


def test_mistakes(workplace: Workplace) -> None:
    message, hint = workplace.error("evidence", "show", code=2)
    assert (message, "leave some" in hint) == ("there is no evidence yet", True)
    assert "'nosuch'" in workplace.error("evidence", "list", "--kind", "nosuch", code=2)[0]
    workplace.run("verify")
    assert "no document" in workplace.error("evidence", "show", "abc", code=2)[0]
    said = workplace.run("evidence", "list", "--failed").stdout
    assert said == "none of 1 document is like that\n"
    for words in (["evidence", "export"], ["kit"]):
        message, hint = workplace.error(*words, "--output", "nosuch/x.md", code=2)
        assert message == "nosuch/x.md cannot be written: No such file or directory"
        assert hint == "name a file in a folder that is there and may be written"
    assert "ends in none of" in workplace.error("evidence", "export", "--output", "x", code=2)[0]
    workplace.run("evidence", "export", "--output", "x.md")
    again = workplace.error("evidence", "export", "--output", "x.md", code=2)
    assert "exists already" in again[0]


def test_a_cut_end_is_missed_by_the_proof_that_names_it(workplace: Workplace) -> None:
    """As on a copy, which has the proofs and not the history."""
    document = workplace.json("verify")["evidence"]
    for kind in ("evidence", "history"):
        for one in (workplace.folder / "repo" / kind).iterdir():
            one.unlink()
    shutil.rmtree(workplace.folder.parent / ".local" / "state" / "safetake" / "history")
    (problem,) = workplace.json("evidence", "verify", code=1)["problems"]
    assert problem == f"evidence {document[:8]} is missing: a proof names it"


def test_what_cannot_be_read_is_not_passed_over(workplace: Workplace) -> None:
    workplace.run("verify")
    (file,) = (workplace.folder / "repo" / "evidence").iterdir()
    file.chmod(0o600)
    file.write_bytes(b"x" + file.read_bytes()[1:])
    listed = workplace.run("evidence", "list")
    assert listed.stdout == ""
    assert f"not listed: evidence/{file.name} is damaged" in listed.stderr.replace("\n  ", " ")
    assert "no document of evidence can be read" in workplace.error("evidence", "show", code=1)[0]
