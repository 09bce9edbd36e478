"""All values of a moment, from the configuration, the history and the repository.

The history is looked at once, and so is the repository where it is open. What cannot be read is
left out or told as a value (`safetake_repository_reachable`); nothing here raises SafetakeError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetake import __version__
from safetake.operate import objectives
from safetake.operate.metrics import places
from safetake.operate.metrics.deliveries import PUSHGATEWAY, TEXTFILE, Deliveries
from safetake.operate.metrics.families import LEVELS, Samples, word
from safetake.operate.metrics.jobs import collect_jobs
from safetake.operate.past import View, view
from safetake.snapshots import RUNGS, STORED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from safetake.config import Config
    from safetake.operate.history import History, Record
    from safetake.snapshots import SnapshotInfo

SYSTEM = "system"
"""All sources together: as old as the oldest, and back when the last is."""
MAIN = "main"
"""What the repository is called beside the names of copies."""
FAILED_CHECKS = 50
"""Of one source; more are only counted."""
_LABEL_LENGTH = 120


def collect(config: Config, history: History, deliveries: Deliveries) -> Samples:
    """Everything but what only the daemon knows."""
    samples = Samples()
    now_ns = history.now_ns()
    seen = view(history)
    records = seen.records
    snapshots = places.read_snapshots(history.repository)
    samples.put("safetake_build_info", 1, version=__version__)
    samples.seconds("safetake_metrics_timestamp_seconds", now_ns)
    begin_ns = seen.begin_ns or now_ns
    samples.seconds("safetake_history_begin_timestamp_seconds", begin_ns)
    collect_jobs(samples, config, seen)
    _due(samples, config, records, now_ns)
    _sources(samples, config, records, snapshots)
    _repositories(samples, config, seen, now_ns)
    _work(samples, config, records)
    _integrity(samples, config, records)
    _notifications(samples, config)
    collect_deliveries(samples, config, deliveries)
    return samples


def _due(samples: Samples, config: Config, records: Sequence[Record], now_ns: int) -> None:
    for name, job in config.jobs.items():
        found = objectives.due(name, job, records, now_ns)
        if found is not None:
            labels = {"job_name": name, "kind": job.kind}
            samples.seconds("safetake_job_next_scheduled_timestamp_seconds", found.at_ns, **labels)
            samples.seconds("safetake_job_overdue_timestamp_seconds", found.overdue_ns, **labels)


def _sources(
    samples: Samples,
    config: Config,
    records: Sequence[Record],
    snapshots: Iterable[SnapshotInfo] | None,
) -> None:
    states = objectives.source_states(config, records, snapshots)
    for name, state in states.items():
        for rung, at_ns in state.newest_ns.items():
            if snapshots is not None or rung == STORED:
                samples.seconds(
                    "safetake_source_snapshot_timestamp_seconds",
                    at_ns,
                    source=name,
                    rung=word(rung),
                )
        if snapshots is not None:
            samples.put("safetake_source_damaged", state.damaged, source=name)
        for metric, value in (
            ("safetake_source_bytes", state.bytes),
            ("safetake_source_rpo_seconds", state.rpo_s),
            ("safetake_source_rto_seconds", state.rto_s),
            ("safetake_source_partial_rto_seconds", state.partial_rto_s),
            ("safetake_source_restore_measured_seconds", state.measured_s),
            ("safetake_source_partial_restore_measured_seconds", state.partial_measured_s),
            ("safetake_source_restore_predicted_seconds", state.predicted_s),
        ):
            samples.put(metric, value, source=name)
    system = config.objectives.get(SYSTEM)
    if system is None or SYSTEM in states or not states:
        return
    for rung in RUNGS if snapshots is not None else RUNGS[:1]:
        oldest_ns = min(state.newest_ns[rung] for state in states.values())
        samples.seconds(
            "safetake_source_snapshot_timestamp_seconds", oldest_ns, source=SYSTEM, rung=word(rung)
        )
    samples.put("safetake_source_rpo_seconds", system.rpo, source=SYSTEM)
    samples.put("safetake_source_rto_seconds", system.rto, source=SYSTEM)
    sizes = [state.bytes for state in states.values() if state.bytes is not None]
    if len(sizes) == len(states):
        predicted = objectives.predicted_s(sum(sizes), objectives.restore_rate(records))
        samples.put("safetake_source_restore_predicted_seconds", predicted, source=SYSTEM)


def _repositories(samples: Samples, config: Config, seen: View, now_ns: int) -> None:
    main = places.look(config.repository)
    copies = {name: places.look(copy) for name, copy in config.copies.items()}
    for name, place in {**copies, MAIN: main}.items():
        for metric, value in (
            ("safetake_repository_reachable", place.reachable),
            ("safetake_repository_bytes", place.bytes),
            ("safetake_repository_snapshots", place.snapshots),
            ("safetake_repository_filesystem_free_bytes", place.free_bytes),
            ("safetake_repository_filesystem_size_bytes", place.size_bytes),
        ):
            samples.put(metric, value, repository=name)
    growth = objectives.growth(seen.growing, now_ns)
    samples.put("safetake_repository_growth_bytes_per_second", growth)
    if main.free_bytes is not None:
        full_ns = objectives.full_ns(main.free_bytes, growth, now_ns)
        samples.seconds("safetake_repository_full_timestamp_seconds", full_ns)


def _work(samples: Samples, config: Config, records: Sequence[Record]) -> None:
    """Checks, proofs, prunes, drills: the newest of each."""
    check = _newest(records, "check")
    samples.seconds("safetake_check_last_timestamp_seconds", check.ended_ns if check else 0)
    samples.put("safetake_check_errors", _count(check, "errors"))
    proof = _newest(records, "verify")
    samples.seconds("safetake_proof_last_timestamp_seconds", proof.ended_ns if proof else 0)
    samples.put("safetake_proof_problems", _count(proof, "problems"))
    prune = _newest([record for record in records if record.ok], "prune")
    samples.seconds("safetake_prune_last_timestamp_seconds", prune.ended_ns if prune else 0)
    samples.put("safetake_prune_freed_bytes", _count(prune, "freed_bytes"))
    drills = [
        record.ended_ns
        for record in records
        if objectives.is_restore(record) and not objectives.is_part(record)
    ]
    samples.seconds("safetake_drill_last_timestamp_seconds", max(drills, default=0))
    samples.put("safetake_restore_interrupted", places.interrupted_restore(config.restore.state))


def _newest(records: Sequence[Record], kind: str) -> Record | None:
    return next((record for record in reversed(records) if record.kind == kind), None)


def _count(record: Record | None, fact: str) -> int | None:
    """A number, or how many there are in a list."""
    value: Any = None if record is None else record.facts.get(fact)
    if isinstance(value, list):
        return len(value)
    return value if isinstance(value, int) else None


def _integrity(samples: Samples, config: Config, records: Sequence[Record]) -> None:
    for name in config.sources:
        record = next(
            (
                record
                for record in reversed(records)
                if record.kind == "integrity" and name in _strings(record.facts.get("sources"))
            ),
            None,
        )
        samples.seconds(
            "safetake_integrity_last_timestamp_seconds",
            record.ended_ns if record else 0,
            source=name,
        )
        if record is not None:
            _findings(samples, name, record)


def _findings(samples: Samples, name: str, record: Record) -> None:
    counts = dict.fromkeys(LEVELS, 0)
    failed: dict[tuple[str, str], None] = {}
    for finding in record.facts.get("findings") or ():
        if not isinstance(finding, dict) or finding.get("source") != name:
            continue
        level = finding.get("level")
        if level in counts:
            counts[level] += 1
            if level != "not asked":
                failed[_label(str(finding.get("check", ""))), word(level)] = None
    for level, count in counts.items():
        samples.put("safetake_integrity_findings", count, source=name, level=word(level))
    for check, level in list(failed)[:FAILED_CHECKS]:
        samples.put("safetake_integrity_failed_check", 1, source=name, check=check, level=level)


def _strings(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | dict) else []


def _label(text: str) -> str:
    """A value of a label: one line of bounded length that is UTF-8."""
    from safetake.wording import printable

    return printable(text)[:_LABEL_LENGTH]


def _notifications(samples: Samples, config: Config) -> None:
    """How telling people goes, by the scheme of the URL."""
    from safetake.operate.notify import delivery

    found = delivery(config)
    for name, way in found.ways.items():
        samples.put("safetake_notification_success", way.ok, way=name)
        samples.put("safetake_notification_failures_total", way.failures, way=name)
        samples.seconds(
            "safetake_notification_last_delivered_timestamp_seconds", way.delivered_ns, way=name
        )
    samples.put("safetake_notifications_pending", found.pending)
    samples.put("safetake_notifications_dropped_total", found.dropped)


def collect_deliveries(samples: Samples, config: Config, deliveries: Deliveries) -> None:
    """What became of publishing so far, of each way that is configured."""
    for way, wanted in (
        (TEXTFILE, config.metrics.textfile),
        (PUSHGATEWAY, config.metrics.pushgateway),
    ):
        found = deliveries.ways.get(way)
        if wanted is not None and found is not None:
            samples.put("safetake_publish_success", found.ok, way=way)
            samples.put("safetake_publish_failures_total", found.failures, way=way)
