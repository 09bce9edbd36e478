"""What stands above every rule: proofs, restores, tags, other people's snapshots, damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.config import Config
from safetake.configjobs import RetentionConfig
from safetake.errors import RestoreError
from safetake.operate.retention import pins
from safetake.operate.retention.decide import Group, decide
from safetake.recovery import journal
from safetake.snapshots import FAILED, OPENED, READ_BACK, STORED, Rung, SnapshotInfo

DAY = 86400 * 10**9
START = 1_699_920_000 * 10**9
UTC = ZoneInfo("UTC")


def made(
    day: float,
    *sources: str,
    rung: str = STORED,
    job: str = "nightly",
    tag: str = "backup",
    **more: Any,
) -> SnapshotInfo:
    """A snapshot so many days after the start; its id says which."""
    names = sources or ("projects",)
    document: dict[str, Any] = {
        "hostname": "h",
        "tags": ["safetake", f"job={job}", tag],
        "paths": [f"/{name}" for name in names],
        **more,
    }
    ns = START + round(day * DAY)
    return SnapshotInfo(f"{tag}-{job}-{day}", ns, document, Rung(rung, ns))


def judged(
    snapshots: list[SnapshotInfo], now: float = 1000, **rules: Any
) -> tuple[list[str], list[str], list[Group]]:
    """(days that stay, days that go, groups)."""
    retention = RetentionConfig(**{"daily": "2d", "floor": 0, **rules})
    now_ns = START + round(now * DAY)
    sources = pins.by_source(snapshots, now_ns)
    pinned = pins.merged(pins.proven(sources), pins.tagged(snapshots, retention.keep_tags))
    groups = decide(snapshots, retention, UTC, now_ns, pinned)
    found: dict[bool, list[str]] = {True: [], False: []}
    for group in groups:
        for one in group.decisions:
            assert one.reasons
            found[one.keep].append(one.snapshot.id.rpartition("-")[2])
    return found[True], found[False], groups


def why(groups: list[Group], day: str) -> list[str]:
    (one,) = [d for g in groups for d in g.decisions if d.snapshot.id.endswith(f"-{day}")]
    return one.reasons


def test_the_newest_on_the_highest_rung_stays() -> None:
    rungs = [OPENED, OPENED, READ_BACK, READ_BACK, STORED, STORED, STORED]
    stays, goes, groups = judged([made(n, rung=rung) for n, rung in enumerate(rungs)])
    assert (stays, goes) == (["1", "5", "6"], ["0", "2", "3", "4"])
    assert why(groups, "1") == ["pinned: last opened of projects"]
    assert "pinned: last of projects" in why(groups, "6")


def test_each_source_has_its_own_last_proven() -> None:
    snapshots = [
        made(0, "projects", "vectors", rung=OPENED),
        made(1, "projects", rung=OPENED, job="sqlite"),
        *(made(n, "vectors", job="chroma") for n in (2, 3, 4, 5)),
        *(made(n, "projects", job="sqlite") for n in (6, 7, 8, 9)),
    ]
    _stays, goes, groups = judged(snapshots)
    assert goes == ["2", "3", "6", "7"]
    assert why(groups, "0") == ["daily 2023-11-14", "pinned: last opened of vectors"]
    assert why(groups, "1") == ["pinned: last opened of projects"]


def test_the_last_of_a_source_that_is_configured_no_longer_stays() -> None:
    # a later snapshot of the same job without it makes another group; a group's newest stays, too
    snapshots = [made(0, "old", "projects"), *(made(n) for n in range(1, 9))]
    stays, _, groups = judged(snapshots)
    assert stays == ["0", "7", "8"]
    assert "pinned: last of old" in why(groups, "0")


def test_a_damaged_snapshot_takes_no_place_of_a_sound_one() -> None:
    snapshots = [made(0.1), made(0.5, rung=FAILED), made(1), made(1.5), made(2)]
    stays, goes, groups = judged(snapshots, daily="30d")
    assert (stays, goes) == (["0.1", "0.5", "1.5", "2"], ["1"])
    assert not any(group.held for group in groups)


def test_nothing_goes_while_the_newest_of_a_source_is_damaged() -> None:
    snapshots = [*(made(n) for n in range(8)), made(8, rung=FAILED)]
    snapshots += [made(n, "vectors", job="chroma") for n in range(8)]
    _stays, goes, groups = judged(snapshots)
    assert goes == [str(n) for n in range(6)]  # of the other job
    (held,) = [group for group in groups if group.job == "nightly"]
    assert held.held == "nothing is removed: the newest of projects, backup-n, is damaged"
    assert [one.reasons for one in held.decisions][:2] == [["held"]] * 2


def test_the_last_of_a_source_stays_even_when_each_is_damaged() -> None:
    snapshots = [made(n, rung=FAILED) for n in range(4)]
    sources = pins.by_source(snapshots, START + 100 * DAY)
    assert pins.proven(sources) == {snapshots[-1].id: ["last of projects, and damaged"]}


def test_a_later_incomplete_one_does_not_replace_the_last_complete() -> None:
    snapshots = [made(n) for n in range(4)]
    unread = {snapshots[3].id: ["/a"], snapshots[2].id: ["/b"]}

    def manifest(one: SnapshotInfo) -> dict[str, Any]:
        return {"sources": {"projects": {"unread": unread.get(one.id, [])}}}

    sources = pins.by_source(snapshots, START + 100 * DAY)
    assert pins.complete(sources, manifest) == {snapshots[1].id: ["last complete of projects"]}


def test_snapshots_of_others_are_left_alone() -> None:
    foreign = [made(n) for n in range(6)]
    for one in foreign:
        one.document["tags"] = ["nightly"]
    stays, goes, groups = judged(foreign)
    assert (len(stays), goes) == (6, [])
    assert [group.kind for group in groups] == ["foreign"]


def test_a_tag_keeps_a_snapshot() -> None:
    snapshots = [made(n) for n in range(6)]
    snapshots[0].document["tags"].append("keep")
    stays, _goes, groups = judged(snapshots)
    assert stays == ["0", "4", "5"]
    assert why(groups, "0") == ["pinned: tagged keep"]
    assert judged(snapshots, keep_tags=[])[0] == ["4", "5"]


def test_a_safety_snapshot_has_a_span_of_its_own_and_proves_no_source() -> None:
    snapshots = [made(n) for n in range(60)]
    snapshots += [made(n, tag="safety", job="", rung=OPENED) for n in (1.5, 45.5)]
    _stays, goes, groups = judged(snapshots)
    assert "1.5" in goes
    assert why(groups, "1.5") == ["what a restore replaced: older than safety 30d"]
    assert why(groups, "45.5") == ["what a restore replaced: safety 30d"]
    assert judged(snapshots, safety="12h")[1].count("45.5") == 1


def test_safety_snapshots_stay_where_nothing_else_holds_the_source() -> None:
    snapshots = [made(n) for n in range(60)]
    snapshots.append(made(1.5, "other", tag="safety", job=""))
    assert why(judged(snapshots)[2], "1.5") == ["pinned: last of other"]


def test_nothing_younger_than_the_floor_goes() -> None:
    snapshots = [made(n / 24) for n in range(6)]
    _stays, goes, groups = judged(snapshots, now=0.25, floor=3 * 3600)
    assert goes == [one.id.rpartition("-")[2] for one in snapshots[:4]]
    assert why(groups, str(4 / 24)) == ["younger than 3 h 00 m"]
    # and nothing at all where the clock was set back: everything is later than now
    assert judged(snapshots, now=-100)[1] == []


def test_without_a_rule_nothing_goes() -> None:
    snapshots = [*(made(n) for n in range(60)), made(1.5, tag="safety", job="")]
    assert judged(snapshots, daily=None)[1] == []


def test_rules_of_a_job_replace_the_others() -> None:
    snapshots = [made(n, job=job) for n in range(6) for job in ("often", "rarely")]
    _stays, goes, _ = judged(snapshots, jobs={"often": {"within": "1d"}, "rarely": {}})
    assert sorted(goes) == ["0", "1", "2", "3", "4"]


SNAPSHOTS = st.lists(
    st.builds(
        made,
        st.integers(0, 400).map(lambda n: n / 7),
        st.sampled_from(["projects", "vectors"]),
        rung=st.sampled_from([STORED, READ_BACK, OPENED, FAILED]),
        job=st.sampled_from(["nightly", "hourly"]),
        tag=st.sampled_from(["backup", "backup", "safety"]),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda one: one.id,
)


@given(SNAPSHOTS, st.integers(0, 70), st.sampled_from(["1d", "7d", "12w"]))
def test_pinned_ones_never_go_and_twice_is_once(
    snapshots: list[SnapshotInfo], now: int, daily: str
) -> None:
    now_ns = START + now * DAY
    retention = RetentionConfig(daily=daily)
    pinned = pins.proven(pins.by_source(snapshots, now_ns))
    groups = decide(snapshots, retention, UTC, now_ns, pinned)
    stays = [one.snapshot for group in groups for one in group.decisions if one.keep]
    assert {one.id for one in stays} >= set(pinned)
    assert all(s in stays for s in snapshots if s.time_ns > now_ns - 3600 * 10**9)
    again = pins.proven(pins.by_source(stays, now_ns))
    assert again == pinned
    for group in decide(stays, retention, UTC, now_ns, again):
        assert all(one.keep for one in group.decisions)
    for source in ("projects", "vectors"):
        before = [one for one in snapshots if source in one.sources and one.time_ns <= now_ns]
        assert bool(before) == any(source in s.sources and s.time_ns <= now_ns for s in stays)


# -------------------------------------------------------------------------------------- restores


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate(
        {"repository": {"location": "/r"}, "restore": {"state": str(tmp_path / "state")}}
    )


def restored(config: Config, name: str, time: str) -> journal.Journal:
    assert config.restore.state is not None
    folder = config.restore.state / "restores"
    folder.mkdir(parents=True, exist_ok=True)
    plan = {"time": time, "snapshot": f"of-{name}", "sources": {"projects": {}}}
    return journal.create(folder, name * 16, plan)


def test_what_an_open_restore_and_an_undo_need_stays(config: Config) -> None:
    assert pins.needed(config, []) == {}
    for name, time in (("a", "2026-01-01"), ("b", "2026-02-01")):
        done = restored(config, name, time)
        done.finish("safety:projects", snapshot=f"saved-{name}", time_ns=1)
        assert set(pins.needed(config, [])) == {f"of-{name}", f"saved-{name}"} | (
            {"saved-a"} if name == "b" else set()
        )
        done.decide(journal.COMMIT)
        done.end("committed")
    assert pins.needed(config, []) == {"saved-b": ["`restore --undo` of bbbbbbbb needs it"]}
    renamed = made(1, original="saved-b")
    assert renamed.id in pins.needed(config, [renamed])


def test_what_was_saved_when_a_restore_was_cut_off_stays_with_it(config: Config) -> None:
    older = restored(config, "b", "2999-01-01")  # the clock was set back since
    older.finish("safety:projects", snapshot="old", time_ns=1)
    done = restored(config, "a", "2026-01-01")
    for snapshot, names in (("first", ("queue", "projects")), ("since", ("projects",))):
        for name in names:
            done.finish(f"safety:{name}", snapshot=snapshot, time_ns=1)
    for journal_ in (older, done):
        journal_.decide(journal.COMMIT)
        journal_.end("committed")
    assert pins.needed(config, []) == {
        "first": ["`restore --undo` of aaaaaaaa needs it"],
        "since": ["saved while restore aaaaaaaa was cut off"],
    }


def test_a_torn_journal_is_read_and_not_mended(config: Config) -> None:
    open_one = restored(config, "a", "2026-01-01")
    path = open_one.folder / "journal"
    path.write_bytes(path.read_bytes() + b"0000")
    before = path.read_bytes()
    assert pins.needed(config, []) == {"of-a": ["the open restore aaaaaaaa needs it"]}
    assert path.read_bytes() == before


def test_records_that_were_cut_off_need_their_snapshot(config: Config) -> None:
    assert config.restore.state is not None
    folder = config.restore.state / "records"
    folder.mkdir(parents=True)
    begin = json.dumps({"begin": {"snapshot": "s1", "source": "vectors"}}) + "\n"
    (folder / "1.jsonl").write_text(begin + '{"bat')
    (folder / "2.jsonl").write_text(begin.replace("s1", "s2") + '{"done": {}}\n')
    assert pins.needed(config, []) == {"s1": ["a restore of records that was cut off needs it"]}


def test_a_record_of_a_restore_that_cannot_be_read_forbids_it(config: Config) -> None:
    one = restored(config, "a", "2026-01-01")
    (one.folder / "plan.json").write_text("{}")
    with pytest.raises(RestoreError, match="nothing was removed"):
        pins.needed(config, [])
