"""Metrics of one-shot jobs: a file that the real node_exporter reads, the real Pushgateway."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.config import Config
from safetake.errors import SafetakeError
from safetake.operate.history import History
from safetake.operate.metrics import deliveries, publish, publishing, render
from safetake.operate.metrics.publishing import write_textfile
from tests.operate.metrics.support import (
    SECOND,
    START_NS,
    TOML,
    Clock,
    configured,
    promtool,
    ran,
    value,
    values,
)
from tests.support.ports import free_port
from tests.support.prometheus import fetch, node_exporter, pushgateway, until

JOB = "sqlite-backup"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETAKE_HOST", "host/ä")  # no name that a URL can hold as it is


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pushgateway(tmp_path_factory.mktemp("pushgateway")) as url:
        yield url


@pytest.fixture
def empty(gateway: str) -> str:
    for group in pushed(gateway):
        labels = group["labels"]
        fetch(gateway + publishing.group_path(labels["job"], labels["instance"]), method="DELETE")
    until(lambda: not pushed(gateway), "groups stay")
    return gateway


def pushed(url: str) -> list[dict[str, dict[str, str]]]:
    groups: list[dict[str, dict[str, str]]] = json.loads(fetch(url + "/api/v1/metrics"))["data"]
    return groups


def publish_to(folder: Path, clock: Clock, more: str) -> Config:
    config = configured(folder, f"[metrics]\n{more}\n")
    publish(config, History(config, now_ns=clock))
    return config


def failure(folder: Path, clock: Clock, more: str) -> SafetakeError:
    with pytest.raises(SafetakeError) as caught:
        publish_to(folder, clock, more)
    assert caught.value.hint
    return caught.value


def test_nothing_is_asked_for_nothing_is_done(tmp_path: Path, clock: Clock) -> None:
    config = configured(tmp_path)
    publish(config, History(config, now_ns=clock))
    assert not (tmp_path / "state").exists()


def test_node_exporter_reads_the_file(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "collector"
    folder.mkdir()
    config = configured(tmp_path, '[metrics]\ntextfile = "collector/safetake.prom"\n')
    ran(config, clock, "backup", JOB, facts={"added_bytes": 5})
    publish(config, History(config, now_ns=clock))
    path = folder / "safetake.prom"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in folder.iterdir()] == ["safetake.prom"]
    assert promtool("check", "metrics", given=path.read_bytes()) == ""
    # what another process stopped half way is no file that is read
    (folder / ".safetake.prom.half.new").write_text("backup_job_success{")
    with node_exporter(tmp_path / "exporter", folder) as url:
        found = values(fetch(url + "/metrics"))
    assert found["node_textfile_scrape_error"] == {(): 0}
    assert value(found, "backup_job_success", job=JOB) == 1
    assert value(found, "backup_last_success_timestamp", job=JOB) == START_NS / SECOND
    assert value(found, "safetake_publish_success", way="textfile") == 1


def test_the_file_is_whole_at_every_moment(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "safetake.prom"
    bodies = [bytes([65 + n]) * 200_000 for n in range(8)]
    write_textfile(path, bodies[0])
    seen: list[bytes] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for body in bodies * 5:
        write_textfile(path, body)
    done.set()
    reader.join()
    assert set(seen) <= set(bodies)
    assert seen


def test_a_file_that_can_not_be_written_is_told_and_counted(tmp_path: Path, clock: Clock) -> None:
    way = 'textfile = "nowhere/safetake.prom"'
    for count in (1, 2):
        error = failure(tmp_path, clock, way)
        assert "No such file or directory" in str(error)
        config = configured(tmp_path, f"[metrics]\n{way}\n")
        found = values(render(config, History(config, now_ns=clock)))
        assert value(found, "safetake_publish_success", way="textfile") == 0
        assert value(found, "safetake_publish_failures_total", way="textfile") == count
    (tmp_path / "nowhere").mkdir()
    publish_to(tmp_path, clock, way)
    found = values((tmp_path / "nowhere" / "safetake.prom").read_bytes())
    assert value(found, "safetake_publish_success", way="textfile") == 1
    assert value(found, "safetake_publish_failures_total", way="textfile") == 2


def test_the_gateway_has_the_documents_names_exactly(
    tmp_path: Path, clock: Clock, empty: str
) -> None:
    config = configured(tmp_path, f'[metrics]\npushgateway = "{empty}/"\n')
    ran(config, clock, "backup", JOB, exit_code=1, error="broken")
    publish(config, History(config, now_ns=clock))
    found = values(fetch(empty + "/metrics"))
    here = {"instance": "host/ä"}
    assert value(found, "backup_job_success", job=JOB, **here) == 0
    assert value(found, "backup_last_success_timestamp", job="by-hand", **here) == 0
    failures = {"job": "safetake", "job_name": JOB, "kind": "backup", **here}
    assert value(found, "safetake_job_consecutive_failures", **failures) == 1
    assert {group["labels"]["job"] for group in pushed(empty)} == {JOB, "by-hand", "safetake"}

    ran(config, clock, "backup", JOB)
    publish(config, History(config, now_ns=clock))
    found = values(fetch(empty + "/metrics"))
    assert value(found, "backup_job_success", job=JOB, **here) == 1


def test_what_is_not_configured_any_more_leaves_the_gateway(
    tmp_path: Path, clock: Clock, empty: str
) -> None:
    more = f'pushgateway = "{empty}"'
    publish_to(tmp_path, clock, more)
    assert {group["labels"]["job"] for group in pushed(empty)} == {JOB, "by-hand", "safetake"}
    from safetake import configfile

    text = TOML.replace('[jobs.by-hand]\nkind = "backup"\n', "") + f"[metrics]\n{more}\n"
    config = configfile.parse(text, tmp_path / "safetake.toml")
    publish(config, History(config, now_ns=clock))
    assert {group["labels"]["job"] for group in pushed(empty)} == {JOB, "safetake"}
    # and a job may be called as the group of everything else is
    text = text.replace("[jobs.sqlite-backup]", "[jobs.safetake]")
    config = configfile.parse(text, tmp_path / "safetake.toml")
    publish(config, History(config, now_ns=clock))
    found = values(fetch(empty + "/metrics"))
    place = {"job": "safetake", "instance": "host/ä"}
    assert value(found, "backup_last_success_timestamp", **place) == 0
    assert found["safetake_build_info"]


def test_a_gateway_that_is_gone_keeps_nothing_else_from_being_published(
    tmp_path: Path, clock: Clock
) -> None:
    more = f'textfile = "safetake.prom"\npushgateway = "http://127.0.0.1:{free_port()}"'
    error = failure(tmp_path, clock, more)
    assert "cannot be reached" in str(error)
    found = values((tmp_path / "safetake.prom").read_bytes())
    assert value(found, "safetake_publish_success", way="pushgateway") == 0
    assert value(found, "safetake_publish_failures_total", way="pushgateway") == 1
    assert value(found, "safetake_publish_success", way="textfile") == 1


def test_what_is_no_gateway_is_told(tmp_path: Path, clock: Clock, empty: str) -> None:
    error = failure(tmp_path, clock, f'pushgateway = "{empty}/elsewhere"')
    assert "status 404" in str(error)


def test_a_gateway_that_does_not_answer_costs_a_bounded_time(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = failure(tmp_path, clock, f'pushgateway = "http://127.0.0.1:{port}"')
    assert "does not answer within" in str(error)
    assert str(error).count("does not answer") == 1, "not one wait for each group"


def test_what_is_remembered_may_be_lost(tmp_path: Path, clock: Clock) -> None:
    config = publish_to(tmp_path, clock, 'textfile = "safetake.prom"')
    path = deliveries.folder(config) / "deliveries.json"
    for damage in (b"", b"{", b"[]", b'{"ways": 3, "groups": []}', b'{"ways": {}}'):
        path.write_bytes(damage)
        assert deliveries.load(config) == deliveries.Deliveries()
        publish_to(tmp_path, clock, 'textfile = "safetake.prom"')
        assert deliveries.load(config).way("textfile").ok


def test_a_hung_publisher_does_not_stop_others(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "_WAIT_S", 0.1)
    config = configured(tmp_path)
    with deliveries.one_at_a_time(config):
        publish_to(tmp_path, clock, 'textfile = "safetake.prom"')
    assert (tmp_path / "safetake.prom").exists()
