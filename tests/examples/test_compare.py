"""The judge of restores: right states pass, every planted difference is found and named."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from script_generator import jobs
from script_generator.compare import Comparison, Cut, compare, judge
from script_generator.journal import Record, read_journal
from script_generator.load import Driver, Stores
from script_generator.restored import Restored, read_restored
from script_generator.settings import Settings
from script_generator.writing import expected_script

from tests.support.sample_application import Running, running_load

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
NOW = time.time_ns()


def ideal(records: list[Record], moments: dict[str, int]) -> Restored:
    """What a perfect cut holds: `moments` says when each store's cut was.

    An item's writes are in the middle of its request and acknowledgement, in the promised order.
    """
    held = Restored(marker=jobs.MARKER_VALUE, loaded_ns=NOW)
    for record in records:
        name, data = record.id, record.data
        done = record.acknowledged_ns or record.requested_ns + 5
        if record.kind != "script":
            table = held.projects if record.kind == "project" else held.episodes
            if done - 1 <= moments["rows"]:
                table[name] = dict(data)
            continue
        text, vector = expected_script(name, data["title"], data["synopsis"])
        file = f"{data['project_id']}/{name}.txt"
        if done - 3 <= moments["vectors"]:
            held.vectors[name] = (vector, text)
        if done - 2 <= moments["files"]:
            held.files[file] = text.encode()
        if done - 1 <= moments["keys"]:
            held.queue.append(json.dumps({"episode_id": name, "file": file}))
            held.jobs[name] = {
                "project_id": data["project_id"],
                "file": file,
                "state": "queued",
            }
            expires = record.requested_ns + data["cache_seconds"] * SECOND
            if expires > NOW:
                held.cache[name] = (text, expires)
    return held


def history(start: int, scripts: int = 6) -> list[Record]:
    """One worker: a project, then episode and script in turn, ten nanoseconds each; the last script
    is never acknowledged."""
    records: list[Record] = []
    at = start

    def ask(kind: Any, name: str, data: dict[str, Any], acknowledged: bool = True) -> None:
        nonlocal at
        records.append(
            Record(len(records) + 1, kind, name, data, at, at + 5 if acknowledged else None)
        )
        at += 10

    ask("project", "p", {"id": "p", "title": "One"})
    for number in range(scripts):
        row = {"id": f"e{number}", "project_id": "p", "title": "T", "synopsis": "S"}
        ask("episode", f"e{number}", row)
        ask("script", f"e{number}", {**row, "cache_seconds": 86_400}, number < scripts - 1)
    return records


def everywhere(moment: int) -> dict[str, int]:
    return dict.fromkeys(("rows", "vectors", "files", "keys"), moment)


@given(st.integers(0, 140), st.integers(0, 30), st.integers(0, 30))
def test_judge_given_one_moment_finds_it_right(at: int, before: int, after: int) -> None:
    records, moment = history(NOW), NOW + at
    found = ideal(records, everywhere(moment))
    verdict = judge(records, found, Cut(moment - before, moment + after))
    assert verdict.ok, verdict.problems()
    items = sum(result.found + result.in_flight for result in verdict.stores.values())
    rows = len(found.projects) + len(found.episodes)
    assert items == rows + len(found.vectors) + len(found.files) + 3 * len(found.jobs)


@given(st.integers(0, 140), st.data())
def test_judge_given_an_earlier_item_dropped_finds_it_missing_and_torn(
    at: int, data: st.DataObject
) -> None:
    records, moment = history(NOW), NOW + at
    found = ideal(records, everywhere(moment))
    acknowledged = [r for r in records if r.acknowledged_ns and r.acknowledged_ns <= moment]
    if not acknowledged:
        return
    dropped = data.draw(st.sampled_from(acknowledged))
    drop(found, dropped)

    verdict = judge(records, found, Cut(moment, moment))
    assert any("missing" in problem and dropped.id in problem for problem in verdict.problems())

    # without any cut times: something that was requested later is there
    verdict = judge(records, found, Cut(0, NOW + DAY))
    later = [r for r in records if is_there(found, r) and r.seq > dropped.seq]
    assert bool(later) == bool(verdict.torn)


def drop(found: Restored, record: Record) -> None:
    if record.kind == "project":
        del found.projects[record.id]
    elif record.kind == "episode":
        del found.episodes[record.id]
    else:
        del found.vectors[record.id]


def is_there(found: Restored, record: Record) -> bool:
    if record.kind == "script":
        return record.id in found.vectors
    return record.id in (found.projects if record.kind == "project" else found.episodes)


Plant = Callable[[Restored], object]


def flip_a_bit(found: Restored) -> None:
    vector, text = found.vectors["e2"]
    found.vectors["e2"] = (bytes([vector[0] ^ 1]) + vector[1:], text)


def break_index(found: Restored) -> None:
    found.sampled, found.not_found = 6, ["e1", "e2"]


def twin(found: Restored, table: str) -> None:
    rows = getattr(found, table)
    rows["ghost"] = next(iter(rows.values())) | {"id": "ghost"}


def drop_script(found: Restored, *stores: str) -> None:
    """A cut of the first stores that is older than that of the others."""
    for store in stores:
        held = getattr(found, store)
        for name in [name for name in held if Path(name).stem == "e3"]:
            del held[name]


PLANTED: dict[str, tuple[Plant, str]] = {
    "row missing": (lambda f: f.episodes.pop("e2"), "rows: missing: episode e2"),
    "project missing": (lambda f: f.projects.pop("p"), "its project has none"),
    "row changed": (lambda f: f.episodes["e1"].update(title="X"), "rows: wrong: episode e1: title"),
    "row phantom": (lambda f: twin(f, "episodes"), "rows: phantom: episode ghost"),
    "vector missing": (lambda f: f.vectors.pop("e2"), "vectors: missing: e2"),
    "vector flipped": (flip_a_bit, "vectors: wrong: e2: the vector differs"),
    "document changed": (
        lambda f: f.vectors.update(e2=(f.vectors["e2"][0], "other")),
        "vectors: wrong: e2: the document differs",
    ),
    "vector phantom": (lambda f: f.vectors.update(ghost=(b"", "")), "vectors: phantom: ghost"),
    "index broken": (break_index, "vectors: wrong: a search misses 2 of 6 vectors"),
    "file missing": (lambda f: f.files.pop("p/e2.txt"), "files: missing: p/e2.txt"),
    "file cut off": (
        lambda f: f.files.update({"p/e2.txt": f.files["p/e2.txt"][:-1]}),
        "files: wrong: p/e2.txt: the content differs",
    ),
    "file phantom": (lambda f: f.files.update({"p/g.txt": b""}), "files: phantom: p/g.txt"),
    "job missing": (lambda f: f.jobs.pop("e2"), "keys: missing: script-generator:job:e2"),
    "job changed": (lambda f: f.jobs["e2"].update(state="done"), "keys: wrong: script-generator:j"),
    "queue entry missing": (lambda f: f.queue.pop(0), "keys: missing: script-generator:queue[e0]"),
    "queued twice": (lambda f: f.queue.append(f.queue[0]), "queued 2 times"),
    "cache missing": (lambda f: f.cache.pop("e2"), "keys: missing: script-generator:cache:e2"),
    "cache without expiry": (
        lambda f: f.cache.update(e2=(f.cache["e2"][0], None)),
        "cache:e2: its expiry is gone",
    ),
    "cache expires late": (
        lambda f: f.cache.update(e2=(f.cache["e2"][0], NOW + 2 * DAY)),
        "cache:e2: its expiry differs by +86400.0 s",
    ),
    "cache changed": (
        lambda f: f.cache.update(e2=("other", f.cache["e2"][1])),
        "cache:e2: the script differs",
    ),
    "marker missing": (lambda f: setattr(f, "marker", None), "keys: missing: script-generator:sch"),
    "foreign key": (lambda f: f.other_keys.append("x"), "keys: phantom: x"),
    "unreadable": (lambda f: f.unreadable.update(files="gone"), "files: cannot be read: gone"),
    "rows older": (lambda f: drop_script(f, "episodes"), "order: e3 has a vector but no row"),
    "vectors older": (lambda f: drop_script(f, "vectors"), "order: e3 has a file but no vector"),
    "files older": (lambda f: drop_script(f, "files"), "order: e3 has a queue entry but no file"),
    "half a transaction": (lambda f: f.queue.pop(3), "e3 has a job but no queue entry"),
}


@pytest.mark.parametrize("plant", PLANTED)
def test_judge_given_a_planted_difference_names_it(plant: str) -> None:
    records = history(NOW)
    moment = NOW + DAY
    found = ideal(records, everywhere(moment))
    assert judge(records, found, Cut(moment, moment)).ok
    change, words = PLANTED[plant]
    change(found)
    verdict = judge(records, found, Cut(moment, moment))
    assert not verdict.ok
    assert any(words in problem for problem in verdict.problems()), verdict.problems()
    assert json.loads(json.dumps(verdict.as_dict()))["ok"] is False


def test_judge_given_what_was_requested_after_the_cut_calls_it_a_phantom() -> None:
    records = history(NOW)
    verdict = judge(records, ideal(records, everywhere(NOW + DAY)), Cut(NOW + 50, NOW + 60))
    assert "e3, which was requested after the cut" in "".join(verdict.stores["vectors"].phantom)
    assert "e0" not in "".join(verdict.stores["vectors"].phantom)


def test_judge_given_acknowledgements_after_the_cut_counts_what_a_disaster_loses() -> None:
    records = history(NOW)
    moment = NOW + 61
    verdict = judge(records, ideal(records, everywhere(moment)), Cut(moment, moment))
    assert verdict.ok, verdict.problems()
    lost = [r for r in records if r.acknowledged_ns and r.acknowledged_ns > moment]
    assert verdict.lost_items == len(lost) == 6
    assert verdict.lost_seconds == pytest.approx(54e-9)
    assert verdict.stores["vectors"].after == sum(r.kind == "script" for r in lost)


def test_judge_given_expired_cache_keys_expects_them_gone() -> None:
    records = history(NOW - 2 * DAY)
    found = ideal(records, everywhere(NOW))
    assert found.cache == {}
    verdict = judge(records, found, Cut(NOW, NOW))
    assert verdict.ok, verdict.problems()


@pytest.fixture
def loaded(settings: Settings, tmp_path: Path, redis_server: Any) -> tuple[Path, Path]:
    """(a folder as `restore --to` lays it out, the journal), of real stores."""
    journal = tmp_path / "journal"
    Driver(Stores(settings), journal, workers=3, count=50).run()
    redis_server.client.save()
    restored = tmp_path / "restored"
    (restored / "projects").mkdir(parents=True)
    (restored / "queue").mkdir()
    with closing(sqlite3.connect(settings.database_path)) as db:
        db.execute("VACUUM INTO ?", (str(restored / "projects" / "projects.db"),))
    shutil.copytree(settings.chroma_path, restored / "vectors")
    shutil.copytree(settings.scripts_dir, restored / "scripts")
    shutil.copy(redis_server.folder / "dump.rdb", restored / "queue")
    return restored, journal


def now(restored: Path, journal: Path) -> Comparison:
    end = time.time_ns()
    return compare(restored, journal, Cut(end, end))


def test_compare_given_real_stores_finds_planted_damage(loaded: tuple[Path, Path]) -> None:
    restored, journal = loaded
    before = contents(restored)
    verdict = now(restored, journal)
    assert verdict.ok, verdict.problems()
    assert {store: result.found for store, result in verdict.stores.items()} == {
        "rows": len([r for r in read_journal(journal) if r.kind != "script"]),
        "vectors": 50,
        "files": 50,
        "keys": 150,
    }
    assert contents(restored) == before, "reading a restored folder must not change it"

    whole = read_restored(restored)
    victim = sorted(whole.episodes)[7]
    with closing(sqlite3.connect(restored / "projects" / "projects.db")) as db:
        db.execute("DELETE FROM episodes WHERE id = ?", (victim,))
        db.commit()
    file = restored / "scripts" / sorted(whole.files)[3]
    file.write_bytes(file.read_bytes()[:-1])
    (restored / "scripts" / "phantom.txt").write_text("nobody wrote this")
    (restored / "scripts" / ".temporary.of.a.write").write_text("half")
    index = max(restored.glob("vectors/*/data_level0.bin"))
    index.write_bytes(index.read_bytes().replace(whole.vectors[victim][0], bytes(4 * 128), 1))
    dump = restored / "queue" / "dump.rdb"
    dump.write_bytes(dump.read_bytes().replace(b"queued", b"faster", 1)[:-8] + bytes(8))

    verdict = now(restored, journal)
    problems = "\n".join(verdict.problems())
    assert f"rows: missing: episode {victim}" in problems
    assert f"files: wrong: {file.relative_to(restored / 'scripts')}" in problems
    assert "files: phantom: phantom.txt" in problems
    assert f"vectors: wrong: {victim}: the vector differs" in problems
    assert verdict.stores["keys"].wrong or verdict.stores["keys"].missing
    assert "temporary" not in problems


def test_compare_given_stores_copied_one_after_the_other_finds_that_it_is_not_one_moment(
    services: Running, redis_server: Any, tmp_path: Path
) -> None:
    """What scripts do: each store for itself, properly, under load. The control for snapshots."""
    settings, restored = services.settings, tmp_path / "restored"
    (restored / "projects").mkdir(parents=True)
    (restored / "queue").mkdir()
    with running_load(services, tmp_path / "journal") as load:
        load.wait_for(100)
        begun = time.time_ns()
        with closing(sqlite3.connect(settings.database_path)) as db:
            db.execute("VACUUM INTO ?", (str(restored / "projects" / "projects.db"),))
        load.wait_for(load.lines() + 60)
        redis_server.client.save()
        shutil.copy(redis_server.folder / "dump.rdb", restored / "queue")
        shutil.copytree(settings.scripts_dir, restored / "scripts")
        ended = time.time_ns()
        services.kill()
        load.end()
    shutil.copytree(settings.chroma_path, restored / "vectors")

    verdict = compare(restored, tmp_path / "journal", Cut(begun, ended))

    assert verdict.order, "a vector without its row"
    assert any("rows lacks" in torn for torn in verdict.torn)
    assert not verdict.ok


def test_compare_given_stores_that_are_gone_or_unreadable_says_which(
    loaded: tuple[Path, Path],
) -> None:
    restored, journal = loaded
    shutil.rmtree(restored / "vectors")
    (restored / "vectors").mkdir()
    (restored / "projects" / "projects.db").write_bytes(b"")
    dump = restored / "queue" / "dump.rdb"
    dump.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2])
    (restored / "scripts" / ".script-generator").unlink()
    before = contents(restored)

    verdict = now(restored, journal)

    assert not verdict.ok
    assert set(verdict.unreadable) == {"rows", "vectors", "keys", "files"}
    assert "does not load" in verdict.unreadable["keys"]
    assert contents(restored) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
