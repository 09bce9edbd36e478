"""What the history says of jobs: the document's two names, and ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.operate.past import Counts

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import Record
    from safetake.operate.metrics.families import Samples
    from safetake.operate.past import View


def collect_jobs(samples: Samples, config: Config, seen: View) -> None:
    """Every configured job. A job that has never run has no exit code, and has never succeeded."""
    last: dict[str, Record] = {}
    good: dict[str, Record] = {}
    missed: dict[str, Record] = {}
    for record in seen.records:
        if record.kind == "missed":
            missed[record.job] = record
            continue
        last[record.job] = record
        if record.ok:
            good[record.job] = record
    for name, job in config.jobs.items():
        counts = seen.counts.get(name, Counts())
        labels = {"job_name": name, "kind": job.kind}
        run, success = last.get(name), good.get(name)
        succeeded_ns = success.ended_ns if success else 0
        missed_ns = missed[name].ended_ns if name in missed else 0
        if job.kind == "backup":
            samples.put("backup_job_success", None if run is None else run.ok, job=name)
            samples.seconds("backup_last_success_timestamp", succeeded_ns, job=name)
        if run is not None:
            samples.seconds("safetake_job_last_run_timestamp_seconds", run.ended_ns, **labels)
            samples.put("safetake_job_last_duration_seconds", run.seconds, **labels)
            samples.put("safetake_job_last_exit_code", run.exit_code, **labels)
        samples.seconds("safetake_job_last_success_timestamp_seconds", succeeded_ns, **labels)
        samples.put("safetake_job_consecutive_failures", counts.in_a_row, **labels)
        samples.put("safetake_job_runs_total", counts.runs, **labels)
        samples.put("safetake_job_failures_total", counts.failures, **labels)
        samples.put("safetake_job_missed_total", counts.missed, **labels)
        samples.seconds("safetake_job_last_missed_timestamp_seconds", missed_ns, **labels)
        if job.kind == "backup" and success is not None:
            _backup(samples, name, success)


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
