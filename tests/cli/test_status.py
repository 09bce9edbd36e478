"""`safetake status` on a real set-up."""

from __future__ import annotations

from tests.cli.conftest import Workplace


def objectives(place: Workplace, text: str) -> None:
    with (place.folder / "safetake.toml").open("a") as file:
        file.write(text)


def test_objectives_decide_the_exit_code(workplace: Workplace) -> None:
    place = workplace
    found = place.json("status")
    assert found["ok"] is True
    assert found["sources"]["projects"]["rto_predicted_seconds"] is None
    assert "nothing is predicted" in place.run("status").stdout
    objectives(place, '[objectives.projects]\nrpo = "1h"\nrto = "15m"\npartial_rto = "5m"\n')
    objectives(place, '[objectives.system]\nrpo = "1d"\nrto = "1h"\n')
    place.run("verify")
    found = place.json("status")
    assert found["sources"]["projects"]["rpo_met"] is True
    assert found["sources"]["projects"]["rto_met"] is True
    assert found["sources"]["projects"]["partial_rto_met"] is None
    assert found["predicted_from"].endswith("measured by 1 opened proof")
    assert found["system"]["rto_met"] is True
    text = (place.folder / "safetake.toml").read_text().replace('"1h"\nrto', '"0.001s"\nrto')
    (place.folder / "safetake.toml").write_text(text)
    found = place.json("status", code=1)
    assert found["ok"] is False
    (broken,) = found["broken"]
    assert broken.startswith("projects: ")
    assert "broken: projects: " in place.run("status", code=1).stderr


def test_a_measured_restore_that_took_too_long(workplace: Workplace) -> None:
    place = workplace
    place.run("restore", "latest", "projects", "--to", "out")
    objectives(place, '[objectives.projects]\nrto = "0.001s"\n')
    found = place.json("status", code=1)
    assert found["sources"]["projects"]["rto_measured_seconds"] > 0
    assert "a restore took " in found["broken"][0]
    assert "expected to take" in found["broken"][0]


def test_without_the_repository_the_history_answers(workplace: Workplace) -> None:
    place = workplace
    place.run("verify")
    whole = place.json("status")
    (place.folder / "repo").rename(place.folder / "away")
    objectives(place, '[objectives.projects]\nrpo = "1h"\n')
    found = place.json("status")
    assert found["repository"]["open"] is False
    assert "there is no repository" in found["repository"]["reason"]
    for name in ("projects", "scripts"):
        for rung in ("stored", "opened"):
            assert found["sources"][name]["newest"][rung] is not None
            assert whole["sources"][name]["newest"][rung] is not None
    text = place.run("status").stdout
    assert "from the history of this machine" in text
    assert "cannot be reached" in text


def test_it_fits_a_page_and_warns_of_one_volume(workplace: Workplace) -> None:
    place = workplace
    objectives(place, '[jobs.a-job-with-quite-a-long-name]\nkind = "integrity"\n')
    objectives(place, 'schedule = "0 4 * * *"\n[objectives.projects]\nrpo = "1d"\nrto = "1h"\n')
    place.run("verify")
    done = place.run("status")
    for line in done.stdout.splitlines():
        assert len(line) <= 80, line
    assert "the repository is on the same volume as projects, scripts" in done.stderr
    assert "there is no second copy" in done.stderr
    found = place.json("status")["jobs"]
    assert found["a-job-with-quite-a-long-name"]["next"] is not None
    assert found["nightly"]["next"] is None
    place.run("backup", "nightly")
    assert place.json("status")["jobs"]["nightly"]["exit_code"] == 0


def test_a_locked_repository_is_no_reason_to_be_silent(workplace: Workplace) -> None:
    place = workplace
    import safetake.repository as repositories
    from safetake.storage import LocalStorage

    repository = repositories.Repository.open(LocalStorage(place.folder / "repo"), "password")
    with repository.lock(exclusive=True):
        assert place.json("status")["repository"]["open"] is True
        assert place.json("history")["repository_open"] is True
