"""Telling people, with real receivers: once, again after a while, and never a secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.config import Config
from safetake.errors import ConfigError
from safetake.operate import notify
from safetake.operate.history import History, Record
from safetake.operate.history.record import make
from safetake.operate.notify import deliver, judge, state
from safetake.operate.notify.state import Known
from safetake.operate.notify.targets import target
from safetake.operate.notify.words import Message
from tests.cli.conftest import Workplace, environment
from tests.operate.notify.receivers import Received, proxy_to_slack, silent, webhook

S = 10**9
HOUR, DAY = 3600 * S, 86400 * S
NOON = 1_795_435_200 * S
"""2026-11-23 12:00 UTC, a Monday."""


@pytest.fixture
def hook() -> Iterator[Received]:
    with webhook() as received:
        yield received


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """A configuration that tells these URLs."""

    def make_config(*urls: str, **more: Any) -> Config:
        monkeypatch.setenv("NOTIFY_URLS", "\n".join(urls))
        return Config.model_validate(
            {
                "repository": {"location": str(tmp_path / "backup")},
                "sources": {"projects": {"type": "sqlite", "path": "/data/projects.db"}},
                "jobs": {"nightly": {"kind": "backup", "schedule": "0 2 * * *"}},
                "objectives": more.pop("objectives", {}),
                "restore": {"state": str(tmp_path / "state")},
                "notify": {"urls_env": "NOTIFY_URLS" if urls else None, **more},
            }
        )

    return make_config


def ran(at: int, error: str = "", *, job: str = "nightly", **more: Any) -> Record:
    return make(
        [],
        **{
            "kind": "backup",
            "job": job,
            "started_ns": at - 60 * S,
            "ended_ns": at,
            "host": "web-1",
            "user": "u",
            "exit_code": 1 if error else 0,
            "trigger": "daemon",
            "error": error,
            **more,
        },
    )


def told(config: Config, record: Record, at: int | None = None) -> None:
    at = record.ended_ns if at is None else at
    notify.tell(config, History(config, now_ns=lambda: at), record)


def test_a_failure_says_what_where_when_why_and_what_next(
    hook: Received, configured: Callable[..., Config], tmp_path: Path
) -> None:
    config = configured(hook.url())
    error = "the disk under redis://:hunter2@h/0 is full\x1b[2J; password=hunter3 <b>&"
    told(config, ran(NOON, error, hint="free space, then try again"))
    (found,) = hook.documents
    assert found["title"] == "safetake: backup nightly failed on web-1"
    assert found["type"] == "failure"
    assert found["message"].splitlines() == [
        r"the disk under redis://***@h/0 is full\x1b[2J; password=*** <b>&",
        "",
        f"Where: web-1, repository {tmp_path / 'backup'}",
        "When: 2026-11-23 11:59 UTC, for 1 m 00 s",
        "Hint: free space, then try again",
        "Next: `safetake run nightly`, then `safetake status`",
    ]
    kept = "".join(path.read_text() for path in tmp_path.rglob("state.json"))
    assert "hunter" not in kept
    assert "geheim" not in kept
    assert str(hook.port) not in kept


def test_a_failure_that_lasts_is_told_again_after_a_while_and_its_end_once(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url(), remind="1d", timezone="Asia/Seoul")
    for hours in (0, 6, 12, 18, 24, 30):
        told(config, ran(NOON + hours * HOUR, "broken"))
    assert hook.titles == [
        "safetake: backup nightly failed on web-1",
        "safetake: backup nightly failed again on web-1",
    ]
    assert "Since: 2026-11-23 20:59 KST, 5 runs in a row" in hook.documents[1]["message"]
    assert notify.delivery(config).problems == {"backup:nightly": NOON - 60 * S}
    told(config, ran(NOON + 36 * HOUR))
    told(config, ran(NOON + 42 * HOUR))
    assert hook.titles[2:] == ["safetake: backup nightly works again on web-1"]
    assert hook.documents[2]["type"] == "success"
    assert "6 runs had failed since" in hook.documents[2]["message"]
    assert notify.delivery(config).problems == {}
    told(config, ran(NOON + 48 * HOUR, "broken"))
    assert len(hook.titles) == 4


def test_what_nobody_wants_to_hear_is_not_told(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url(), on=["recovery"])
    told(config, ran(NOON, "broken"))
    told(config, ran(NOON + HOUR))
    config = configured(hook.url())
    told(config, ran(NOON, "stopped", exit_code=130))
    told(config, ran(NOON, "somebody saw it", job="", trigger="hand"))
    told(config, ran(NOON, "and this", job="", kind="restore", trigger="daemon"))
    assert hook.titles == []
    told(config, ran(NOON, "not read: a", exit_code=3))
    assert hook.titles == ["safetake: backup nightly is incomplete on web-1"]
    assert hook.documents[0]["type"] == "warning"


def test_what_was_not_delivered_is_sent_later_and_shown(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url())
    hook.answers += [500, 503]
    with pytest.raises(
        notify.NotDeliveredError, match="not delivered: json: HTTP status 500"
    ) as at:
        told(config, ran(NOON, "broken"))
    assert "tried again" in at.value.hint
    found = notify.delivery(config)
    assert (found.pending, found.failures, found.last_ns) == (1, 1, 0)
    assert found.errors == {"json": "HTTP status 500"}
    told(config, ran(NOON + 10 * S, job="other"))  # too early to try again
    with pytest.raises(notify.NotDeliveredError, match="503"):
        told(config, ran(NOON + 61 * S, job="other"))
    told(config, ran(NOON + 100 * S, job="other"))  # the pause has doubled
    assert hook.titles == []
    told(config, ran(NOON + 200 * S, job="other"))
    assert hook.titles == ["safetake: backup nightly failed on web-1"]
    found = notify.delivery(config)
    assert (found.pending, found.failures, found.errors) == (0, 2, {})
    assert found.last_ns == NOON + 200 * S


def test_the_pauses_grow_to_an_hour_and_a_week_is_the_end(
    configured: Callable[..., Config],
) -> None:
    assert [deliver.backoff_ns(n) // S for n in (1, 2, 3, 6, 7, 500)] == [60, 120, 240, 1920] + [
        3600
    ] * 2
    config = configured("json://127.0.0.1:9/closed")
    with pytest.raises(notify.NotDeliveredError, match="json: no connection"):
        told(config, ran(NOON, "broken"))
    with pytest.raises(notify.NotDeliveredError):
        told(config, ran(NOON + 6 * DAY, job="other"))
    told(config, ran(NOON + 8 * DAY, job="other"))
    found = notify.delivery(config)
    assert (found.pending, found.dropped) == (0, 1)


@pytest.mark.slow
def test_a_receiver_that_hangs_keeps_nobody_from_hearing(
    hook: Received, configured: Callable[..., Config]
) -> None:
    with silent() as port:
        config = configured(f"json://127.0.0.1:{port}/x?rto=60&cto=60", hook.url())
        message = Message("failure", "backup:x", "failure", "title", "body")
        errors = deliver.tell_all(config, lambda _: [message], NOON, timeout=15.0)
    assert errors == ["json: no answer in time"]
    assert hook.titles == ["title"]
    (waiting,) = state.load(config).waiting
    assert waiting.to == [target(f"json://127.0.0.1:{port}/x?rto=60&cto=60").key]


def test_killed_while_it_sent_it_is_sent_by_a_later_run(
    hook: Received, configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(hook.url())

    def killed(*_: object) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deliver, "send", killed)
        with pytest.raises(KeyboardInterrupt):
            told(config, ran(NOON, "broken"))
    told(config, ran(NOON + 60 * S, job="other"))  # it might still be at work
    assert hook.titles == []
    told(config, ran(NOON + 121 * S, job="other"))
    assert hook.titles == ["safetake: backup nightly failed on web-1"]


def test_runs_that_end_together_are_each_told_once(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: told(config, ran(NOON, "broken", job=f"job{n}")), range(4)))
    assert sorted(hook.titles) == [f"safetake: backup job{n} failed on web-1" for n in range(4)]
    assert notify.delivery(config).pending == 0


def test_urls_that_cannot_be_found_are_a_failure_and_their_message_waits(
    hook: Received, configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(hook.url())
    monkeypatch.setenv("NOTIFY_URLS", "")
    with pytest.raises(notify.NotDeliveredError, match="NOTIFY_URLS is not set"):
        told(config, ran(NOON, "broken"))
    assert notify.delivery(config).pending == 1
    monkeypatch.setenv("NOTIFY_URLS", hook.url())
    told(config, ran(NOON + HOUR, job="other"))
    assert hook.titles == ["safetake: backup nightly failed on web-1"]


def test_a_damaged_state_is_forgotten(hook: Received, configured: Callable[..., Config]) -> None:
    config = configured(hook.url())
    told(config, ran(NOON, "broken"))
    (state.folder(config) / "state.json").write_text('{"problems": 3}')
    told(config, ran(NOON + HOUR, "broken"))
    assert len(hook.titles) == 2


def test_a_state_folder_that_is_not_one_does_not_silence_it(
    hook: Received, configured: Callable[..., Config], tmp_path: Path
) -> None:
    config = configured(hook.url())
    (tmp_path / "state").write_text("")
    with pytest.raises(Exception, match="cannot make the folder"):
        told(config, ran(NOON, "broken"))
    assert hook.titles == ["safetake: backup nightly failed on web-1"]


# ------------------------------------------------------------------------------------------ slack


def test_slack_gets_what_slack_understands(
    configured: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with proxy_to_slack(tmp_path) as slack:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{slack.port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{slack.port}")
        url = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7/?verify=no"
        told(configured(url), ran(NOON, "row <3> & co", hint="see `safetake check`"))
        native = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7"
        told(configured(native + "?verify=no"), ran(NOON, "broken", job="other"))
    assert slack.hosts == ["hooks.slack.com"] * 2
    assert slack.paths == ["/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7"] * 2
    text = json.dumps(slack.documents[0])
    assert "safetake: backup nightly failed on web-1" in text
    assert "row &lt;3&gt; &amp; co" in text  # as Slack wants plain text
    assert "see `safetake check`" in text
    assert r"\nNext: `safetake run nightly`, then `safetake status`" in text


def test_of_a_url_only_its_scheme_is_ever_shown() -> None:
    secret = "TIiajkdnlazkcOXrIdevi7"
    for url, way in (
        (f"slack://T1/A1/{secret}", "slack"),
        (f"https://hooks.slack.com/services/T1/A1/{secret}", "slack"),
        (f"https://example.org/{secret}", "https"),
        (secret, "unknown"),
        (f"https://[{secret}", "unknown"),
    ):
        found = target(url)
        assert found.way == way
        assert secret not in repr(found) + found.key


# ------------------------------------------------------------------------------------------ pings


def test_a_dead_mans_switch_hears_start_success_and_failure(
    hook: Received, configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(ping_env={"nightly": "PING"})
    monkeypatch.setenv("PING", f"http://127.0.0.1:{hook.port}/uuid?create=1")
    notify.ping_start(config, "nightly", NOON)
    notify.ping_start(config, "unknown", NOON)
    told(config, ran(NOON))
    told(config, ran(NOON, "broken password=x"))
    told(config, ran(NOON, "stopped", exit_code=130))
    assert hook.paths == ["/uuid/start?create=1", "/uuid?create=1", "/uuid/fail?create=1"]
    assert hook.bodies == [b"", b"", b"broken password=***"]
    assert notify.delivery(config).ways["ping"].delivered == 3


def test_a_ping_is_tried_once_more_and_its_failure_is_known(
    hook: Received, configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(ping_env={"nightly": "PING"})
    monkeypatch.setenv("PING", f"http://127.0.0.1:{hook.port}/uuid")
    hook.answers.append(502)
    told(config, ran(NOON))
    assert hook.paths == ["/uuid"]
    hook.answers += [404]
    with pytest.raises(notify.NotDeliveredError, match="ping of nightly: HTTP status 404"):
        told(config, ran(NOON))
    assert notify.delivery(config).errors == {"ping": "nightly: HTTP status 404"}
    monkeypatch.delenv("PING")
    with pytest.raises(notify.NotDeliveredError, match="PING is not set"):
        told(config, ran(NOON))


def test_pings_are_of_jobs(configured: Callable[..., Config]) -> None:
    with pytest.raises(ValueError, match=r"there is no job 'nightli' .did you mean 'nightly'"):
        configured(ping_env={"nightli": "PING"})


# ---------------------------------------------------------------------------------------- overdue


def later(config: Config, at: int, records: list[Record] | None = None) -> None:
    class Fixed(History):
        def records(self, *, since_ns: int = 0) -> list[Record]:
            return [one for one in records or [] if one.ended_ns >= since_ns]

    notify.tell_overdue(config, Fixed(config, now_ns=lambda: at))


def test_what_does_not_run_is_told_once_and_when_it_runs_again(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url(), objectives={"projects": {"rpo": "24h"}})
    sources = {"snapshot": "ab", "sources": {"projects": {"bytes": 1}}}
    past = [ran(NOON - 10 * HOUR, facts=sources)]
    later(config, NOON, past)
    assert hook.titles == []
    for at in (NOON + 16 * HOUR, NOON + 17 * HOUR):
        later(config, at, past)
    both = sorted(hook.documents, key=lambda one: str(one["title"]))  # they are sent at once
    assert [one["title"].partition(" on ")[0] for one in both] == [
        "safetake: nightly is overdue",
        "safetake: projects is overdue",
    ]
    first, second = (one["message"].splitlines()[0] for one in both)
    assert first == "The job nightly was due 2026-11-24 02:00 UTC, and has not run."
    assert second == "The newest snapshot of projects is 1 d 2 h old; at most 1 d 0 h may be lost."
    fresh = ran(NOON + 18 * HOUR, facts=sources)
    told(config, fresh)
    later(config, NOON + 18 * HOUR, [*past, fresh])
    assert hook.titles[2:] == [
        "safetake: backup nightly works again on web-1",
        both[1]["title"].replace("is overdue", "is on time again"),
    ]


def test_nothing_is_overdue_right_after_it_was_configured(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url(), objectives={"projects": {"rpo": "24h"}})
    later(config, NOON)
    later(config, NOON + 13 * HOUR)
    assert hook.titles == []
    later(config, NOON + 25 * HOUR)
    assert len(hook.titles) == 2


def test_missed_runs_are_told_until_one_runs(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url())
    text = "3 runs of job nightly missed, the first at 2026-11-20T02:00:00Z"
    told(config, ran(NOON, text, kind="missed"))
    told(config, ran(NOON + HOUR, text, kind="missed"))
    later(config, NOON + HOUR, [ran(NOON, text, kind="missed")])
    told(config, ran(NOON + 2 * HOUR))
    assert hook.titles == [
        "safetake: nightly was not run on time on web-1",
        "safetake: backup nightly works again on web-1",
    ]


# ----------------------------------------------------------------------------------------- digest


def test_the_digest_comes_when_its_time_has_come(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url(), on=["digest"], digest="0 8 * * 1", timezone="Asia/Seoul")
    facts = {"added_bytes": 5 << 20}
    records = [ran(NOON + n * DAY, "broken" if n == 3 else "", facts=facts) for n in range(7)]
    records.append(ran(NOON + DAY, job="", kind="restore", trigger="hand"))
    later(config, NOON)
    for n in range(1, 7):
        later(config, NOON + n * DAY, records)
    assert hook.titles == []
    monday = NOON + 6 * DAY + 11 * HOUR  # 23:00 UTC on Sunday is 08:00 on Monday in Seoul
    later(config, monday - S, records)
    assert hook.titles == []
    for _ in range(3):
        later(config, monday, records)
    (found,) = hook.documents
    assert found["title"].startswith("safetake: digest of ")
    assert found["message"].splitlines() == [
        "2026-11-23 21:00 KST to 2026-11-30 08:00 KST",
        "",
        "backup nightly: 6 good, 1 failed, the last 2026-11-29 21:00 KST",
        "restores: 1",
        "35.0 MiB added, 0 B freed",
    ]


def test_a_digest_by_itself_names_what_is_open(
    hook: Received, configured: Callable[..., Config]
) -> None:
    config = configured(hook.url())
    told(config, ran(NOON, "broken"))
    notify.digest(config, History(config, now_ns=lambda: NOON + DAY))
    found = hook.documents[1]
    assert found["title"].endswith(", 1 open")
    assert "- backup nightly, since 2026-11-23 11:59 UTC" in found["message"]


def test_a_digest_needs_a_real_schedule(configured: Callable[..., Config]) -> None:
    with pytest.raises(ValueError, match="no cron expression"):
        configured(digest="every monday")


# ------------------------------------------------------------------------------- what always holds

EVENTS = st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=30)


@given(EVENTS)
def test_failures_and_their_ends_alternate(events: list[tuple[bool, int]]) -> None:
    config = Config.model_validate({"repository": {"location": "/r"}, "notify": {"remind": "24h"}})
    known = Known()
    now, since, last = NOON, 0, 0
    for good, hours in events:
        now += hours * HOUR
        messages = judge.run_ended(config, known, ran(now, "" if good else "broken"), now)
        if good:
            assert [one.event for one in messages] == (["recovery"] if since else [])
            since = 0
        else:
            wanted = not since or now - last >= DAY
            assert [one.event for one in messages] == (["failure"] if wanted else [])
            since = since or now
            last = now if wanted else last
        assert bool(known.problems) == bool(since)


# ------------------------------------------------------------------------------------ the command


def test_the_command_tries_it_and_shows_how_it_goes(hook: Received, tmp_path: Path) -> None:
    (tmp_path / "safetake.toml").write_text(
        '[repository]\nlocation = "repo"\npassword_env = "NOBODY"\n'
        '[restore]\nstate = "state"\n[notify]\nurls_file = "urls"\n'
    )
    place = Workplace(tmp_path, environment(tmp_path))
    message, hint = place.error("notify", "test", code=1)
    assert message.endswith("urls cannot be read: No such file or directory")
    assert hint
    (tmp_path / "urls").write_text(f"# who\n{hook.url()}\n\nnonsense://geheim@x\n")
    done = place.run("notify", "test", code=1)
    assert done.stdout == "json: delivered\n"
    assert done.stderr == "nonsense: not delivered: it is no URL that Apprise knows\n"
    assert hook.titles[0].startswith("safetake: test from ")
    found = place.json("notify", "status")
    assert found["targets"] == ["json", "nonsense"]
    assert found["ways"]["json"]["delivered"] == 1
    assert found["ways"]["nonsense"]["failures"] == 1
    shown = place.run("notify", "status").stdout
    assert "told by" in shown
    assert "nonsense: the last attempt failed: it is no URL that Apprise knows" in shown
    assert "geheim" not in shown + json.dumps(found) + done.stdout + done.stderr
    assert place.json("notify", "test", code=1)["targets"][0] == {
        "way": "json",
        "ok": True,
        "error": "",
    }


def test_nobody_to_tell_is_said(tmp_path: Path) -> None:
    (tmp_path / "safetake.toml").write_text('[repository]\nlocation = "repo"\n')
    place = Workplace(tmp_path, environment(tmp_path))
    message, hint = place.error("notify", "test", code=1)
    assert message == "nobody is to be told"
    assert "slack://" in hint


def test_a_wrong_configuration_does_not_repeat_urls(tmp_path: Path) -> None:
    from safetake import configfile

    text = '[repository]\nlocation = "r"\n[notify]\nurls = ["slack://A/B/geheim"]\non = ["x"]\n'
    with pytest.raises(ConfigError) as at:
        configfile.parse(text, tmp_path / "safetake.toml")
    assert "geheim" not in str(at.value)


def test_a_job_that_fails_is_told_by_the_job_itself(hook: Received, tmp_path: Path) -> None:
    """The whole way: a store vanishes, comes back, and people hear of both."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    (tmp_path / "urls").write_text(hook.url())
    (tmp_path / "safetake.toml").write_text(
        '[sources.scripts]\ntype = "files"\npath = "data"\n'
        '[jobs.nightly]\nkind = "backup"\nretries = 0\n'
        '[restore]\nstate = "state"\n[notify]\nurls_file = "urls"\n'
        '[notify.ping_env]\nnightly = "PING"\n'
        '[repository]\nlocation = "repo"\npassword_file = "password"\n'
    )
    ping = f"http://127.0.0.1:{hook.port}/ping"
    place = Workplace(tmp_path, {**environment(tmp_path), "PING": ping})
    place.run("init")
    (tmp_path / "data").rename(tmp_path / "gone")
    place.run("run", "nightly", code=1)
    place.run("run", "nightly", code=1)
    (tmp_path / "gone").rename(tmp_path / "data")
    place.run("run", "nightly")
    told = [json.loads(b) for p, b in zip(hook.paths, hook.bodies, strict=True) if p == "/hook"]
    assert [one["title"].partition(" on ")[0] for one in told] == [
        "safetake: backup nightly failed",
        "safetake: backup nightly works again",
    ]
    assert str(tmp_path / "data") in told[0]["message"]
    pings = [path for path in hook.paths if path.startswith("/ping")]
    assert pings == ["/ping/start", "/ping/fail"] * 2 + ["/ping/start", "/ping"]
