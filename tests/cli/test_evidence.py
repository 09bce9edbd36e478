"""What a proof found, listed, handed on and checked."""

from __future__ import annotations

import json

from tests.cli.conftest import Workplace


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
