"""Every metric that there is: name, type, labels, help. Nothing can be exported that is not here.

Names end in their base unit (seconds, bytes); times are Unix seconds, and 0 says never. Labels hold
names of the configuration and words of this file, so that there are as many series as the
configuration asks for. `job` is a label of the document's two names only: everywhere else it would
meet the `job` of the scrape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


@dataclass(frozen=True, slots=True)
class Metric:
    """One name."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()


_JOB = ("job_name", "kind")


def _gauge(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, "gauge", help_text, labels)


def _counter(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, "counter", help_text, labels)


DOCUMENT = (
    _gauge("backup_job_success", "Whether the last run of a backup job did everything.", "job"),
    _gauge(
        "backup_last_success_timestamp",
        "When the last run of a backup job that did everything ended, Unix seconds; 0: never.",
        "job",
    ),
)
PROCESS = (
    _gauge("safetake_build_info", "1; the label says which version computed this.", "version"),
    _gauge("safetake_metrics_timestamp_seconds", "When this was computed."),
    _gauge("safetake_history_begin_timestamp_seconds", "When the oldest run on record began."),
    _gauge("safetake_daemon_up", "Whether the daemon's scheduler works; only from /metrics."),
    _gauge("safetake_daemon_leader", "Whether this daemon is the one that runs jobs."),
    _gauge("safetake_daemon_start_timestamp_seconds", "When the daemon was started."),
)
JOBS = (
    _gauge("safetake_job_last_run_timestamp_seconds", "When a job's last run ended.", *_JOB),
    _gauge(
        "safetake_job_last_success_timestamp_seconds",
        "When a job's last run that did everything ended; 0: never.",
        *_JOB,
    ),
    _gauge("safetake_job_last_duration_seconds", "How long a job's last run took.", *_JOB),
    _gauge("safetake_job_last_exit_code", "Exit code of a job's last run, as restic's.", *_JOB),
    _gauge("safetake_job_consecutive_failures", "Failed runs since a job's last success.", *_JOB),
    _counter("safetake_job_runs_total", "Runs of a job on record.", *_JOB),
    _counter("safetake_job_failures_total", "Runs of a job on record that failed.", *_JOB),
    _counter("safetake_job_missed_total", "Scheduled runs of a job that never began.", *_JOB),
    _gauge(
        "safetake_job_last_missed_timestamp_seconds",
        "When it was last noticed that a scheduled run of a job never began; 0: never.",
        *_JOB,
    ),
    _gauge(
        "safetake_job_next_scheduled_timestamp_seconds",
        "When a job is due: the first moment of its schedule after its last run.",
        *_JOB,
    ),
    _gauge(
        "safetake_job_overdue_timestamp_seconds",
        "From when on a job counts as overdue, unless it has run.",
        *_JOB,
    ),
    _gauge("safetake_job_running", "Whether a job runs now; only from /metrics.", *_JOB),
    _gauge("safetake_backup_barrier_seconds", "How long all writers were held.", "job_name"),
    _gauge("safetake_backup_skew_seconds", "Time between the cuts of the stores.", "job_name"),
    _gauge("safetake_backup_added_bytes", "What the last backup added.", "job_name"),
)
SOURCES = (
    _gauge(
        "safetake_source_snapshot_timestamp_seconds",
        "Moment of the newest snapshot of a source that is proven at least so far; 0: none.",
        "source",
        "rung",
    ),
    _gauge("safetake_source_bytes", "Size of a source in its newest snapshot.", "source"),
    _gauge(
        "safetake_source_damaged",
        "Whether the newest proof of a source's newest snapshot found damage.",
        "source",
    ),
    _gauge("safetake_source_rpo_seconds", "Objective: data that may be lost.", "source"),
    _gauge("safetake_source_rto_seconds", "Objective: time until it is back in full.", "source"),
    _gauge(
        "safetake_source_partial_rto_seconds",
        "Objective: time until lost rows, keys or files are back.",
        "source",
    ),
    _gauge(
        "safetake_source_restore_measured_seconds",
        "How long the last restore of a source in full took.",
        "source",
    ),
    _gauge(
        "safetake_source_partial_restore_measured_seconds",
        "How long the last restore of rows, records or keys of a source took.",
        "source",
    ),
    _gauge(
        "safetake_source_restore_predicted_seconds",
        "How long a restore of a source should take, from its size and measured rates.",
        "source",
    ),
)
REPOSITORY = (
    _gauge(
        "safetake_repository_reachable",
        "Whether a repository is there and can be listed; `main`, or the name of a copy.",
        "repository",
    ),
    _gauge("safetake_repository_bytes", "Bytes of all files of a repository.", "repository"),
    _gauge("safetake_repository_snapshots", "Snapshots in a repository.", "repository"),
    _gauge(
        "safetake_repository_filesystem_free_bytes",
        "What may still be written to the file system of a repository.",
        "repository",
    ),
    _gauge(
        "safetake_repository_filesystem_size_bytes",
        "Size of the file system of a repository.",
        "repository",
    ),
    _gauge(
        "safetake_repository_growth_bytes_per_second",
        "How fast the repository has grown of late.",
    ),
    _gauge(
        "safetake_repository_full_timestamp_seconds",
        "When its file system will be full at that rate; absent while it does not grow.",
    ),
    _gauge("safetake_check_last_timestamp_seconds", "When the repository was last checked."),
    _gauge("safetake_check_errors", "Errors that the last check of the repository found."),
    _gauge("safetake_proof_last_timestamp_seconds", "When a snapshot was last verified; 0: never."),
    _gauge("safetake_proof_problems", "Problems that the last verification found."),
    _gauge("safetake_prune_last_timestamp_seconds", "When the last prune ended well; 0: never."),
    _gauge("safetake_prune_freed_bytes", "What the last prune freed."),
    _gauge(
        "safetake_drill_last_timestamp_seconds",
        "When the last drill or restore ended well; 0: never.",
    ),
    _gauge("safetake_restore_interrupted", "Whether a restore in place was cut off and is open."),
)
INTEGRITY = (
    _gauge(
        "safetake_integrity_last_timestamp_seconds",
        "When the live data of a source was last asked; 0: never.",
        "source",
    ),
    _gauge(
        "safetake_integrity_findings",
        "What the last integrity check of a source found, by level.",
        "source",
        "level",
    ),
    _gauge(
        "safetake_integrity_failed_check",
        "1 for each check of the live data that failed last.",
        "source",
        "check",
        "level",
    ),
)
DELIVERY = (
    _gauge(
        "safetake_notification_success",
        "Whether the last attempt to notify went through, by way.",
        "way",
    ),
    _gauge(
        "safetake_notification_last_delivered_timestamp_seconds",
        "When the last notification was delivered, by way; 0: never.",
        "way",
    ),
    _counter(
        "safetake_notification_failures_total", "Attempts to notify that failed, by way.", "way"
    ),
    _gauge("safetake_notifications_pending", "Messages that have not reached everybody."),
    _counter("safetake_notifications_dropped_total", "Messages that were given up."),
    _gauge(
        "safetake_publish_success",
        "Whether the last attempt to publish metrics went through, by way.",
        "way",
    ),
    _counter("safetake_publish_failures_total", "Attempts to publish that failed, by way.", "way"),
)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for group in (DOCUMENT, PROCESS, JOBS, SOURCES, REPOSITORY, INTEGRITY, DELIVERY)
    for metric in group
}
"""In the order in which they are exported."""

LEVELS = ("error", "warning", "not asked")


def word(text: str) -> str:
    """A rung or a level as a label: `read_back`."""
    return text.replace(" ", "_").replace("-", "_")


@dataclass(slots=True)
class Samples:
    """Values to export. Only metrics of this file, with exactly their labels."""

    values: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)

    def put(self, name: str, value: float | bool | None, **labels: str) -> None:
        """One value; None leaves it out. Raises KeyError for what is no metric or label."""
        metric = METRICS[name]
        if set(labels) != set(metric.labels):
            raise KeyError(f"{name} has the labels {metric.labels}, not {tuple(labels)}")
        if value is not None:
            key = tuple(labels[label] for label in metric.labels)
            self.values.setdefault(name, {})[key] = float(value)

    def seconds(self, name: str, ns: int | None, **labels: str) -> None:
        """A moment or a span given in nanoseconds."""
        self.put(name, None if ns is None else ns / 1e9, **labels)

    def take(self, other: Samples) -> None:
        """All values of another."""
        for name, values in other.values.items():
            self.values.setdefault(name, {}).update(values)

    def only(self, names: set[str], **labels: str) -> Samples:
        """The values of some names, those with these labels."""
        chosen = Samples()
        for name in self.values.keys() & names:
            places = METRICS[name].labels
            for key, value in self.values[name].items():
                if all(key[places.index(label)] == want for label, want in labels.items()):
                    chosen.values.setdefault(name, {})[key] = value
        return chosen

    def without(self, names: set[str]) -> Samples:
        """All values but those of some names."""
        return self.only(self.values.keys() - names)

    def text(self) -> bytes:
        """The text format of Prometheus, in the order of METRICS."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Collector(self))
        return generate_latest(registry)


class _Collector:
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> list[Family]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found: list[Family] = []
        for metric in METRICS.values():
            values = self._samples.values.get(metric.name)
            if not values:
                continue
            make = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
            family = make(metric.name, metric.help, labels=metric.labels)
            for key, value in sorted(values.items()):
                family.add_metric(key, value)
            found.append(family)
        return found
