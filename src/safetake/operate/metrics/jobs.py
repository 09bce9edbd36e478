"""What the history says of jobs: the document's two names, and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from safetake.config import Config
    from safetake.operate.history import Record
    from safetake.operate.metrics.families import Samples


@dataclass(slots=True)
class JobRuns:
    """The runs of one job."""

    last: Record | None = None
    last_good: Record | None = None
    runs: int = 0
    failures: int = 0
    in_a_row: int = 0
    """Failures since the last success."""
    missed: int = 0
    missed_ns: int = 0

    def take(self, record: Record) -> None:
        """The next record, in order."""
        if record.kind == "missed":
            count = record.facts.get("count", 1)
            self.missed += count if isinstance(count, int) and count > 0 else 1
            self.missed_ns = record.ended_ns
            return
        self.last = record
        self.runs += 1
        if record.ok:
            self.last_good, self.in_a_row = record, 0
        else:
            self.failures += 1
            self.in_a_row += 1


def runs_by_job(records: Iterable[Record]) -> dict[str, JobRuns]:
    """What is on record of each job, also of those that are not configured any more."""
    found: dict[str, JobRuns] = {}
    for record in records:
        if record.job:
            found.setdefault(record.job, JobRuns()).take(record)
    return found


def collect_jobs(samples: Samples, config: Config, records: list[Record]) -> None:
    """Every configured job. A job that has never run has no exit code, and has never succeeded."""
    by_job = runs_by_job(records)
    for name, job in config.jobs.items():
        runs = by_job.get(name, JobRuns())
        labels = {"job_name": name, "kind": job.kind}
        last, good = runs.last, runs.last_good
        if job.kind == "backup":
            samples.put("backup_job_success", None if last is None else last.ok, job=name)
            samples.seconds("backup_last_success_timestamp", good.ended_ns if good else 0, job=name)
        if last is not None:
            samples.seconds("safetake_job_last_run_timestamp_seconds", last.ended_ns, **labels)
            samples.put("safetake_job_last_duration_seconds", last.seconds, **labels)
            samples.put("safetake_job_last_exit_code", last.exit_code, **labels)
        samples.seconds(
            "safetake_job_last_success_timestamp_seconds", good.ended_ns if good else 0, **labels
        )
        samples.put("safetake_job_consecutive_failures", runs.in_a_row, **labels)
        samples.put("safetake_job_runs_total", runs.runs, **labels)
        samples.put("safetake_job_failures_total", runs.failures, **labels)
        samples.put("safetake_job_missed_total", runs.missed, **labels)
        samples.seconds("safetake_job_last_missed_timestamp_seconds", runs.missed_ns, **labels)
        if job.kind == "backup" and good is not None:
            _backup(samples, name, good)


def _backup(samples: Samples, name: str, record: Record) -> None:
    facts = record.facts
    for metric, fact, share in (
        ("safetake_backup_barrier_seconds", "barrier_ms", 1e-3),
        ("safetake_backup_skew_seconds", "skew_ms", 1e-3),
        ("safetake_backup_added_bytes", "added_bytes", 1),
    ):
        value = facts.get(fact)
        if isinstance(value, int | float):
            samples.put(metric, value * share, job_name=name)
