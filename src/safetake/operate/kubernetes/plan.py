"""From a configuration to what its pods need: plain data, from which both the manifests and the
values of the Helm chart are written. Nothing here is read from the environment.

Raises ConfigError with everything that stands in the way.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetake.config import Config
from safetake.errors import ConfigError
from safetake.operate.kubernetes import network, outside
from safetake.operate.kubernetes.cron import kubernetes_schedule, shortest_gap
from safetake.operate.kubernetes.names import CRONJOB, object_name
from safetake.operate.serve import address
from safetake.wording import nearest

Mode = Literal["cronjobs", "daemon", "job"]
Piece = dict[str, Any]

LATE = 300
"""Seconds that a job without `catch_up` may start late, at most."""
BEGIN = 900
"""Seconds for pulling the image and for writing the history, beside the job's own timeouts."""
COMPONENTS: dict[Mode, str] = {"cronjobs": "job", "daemon": "daemon", "job": "job"}
MARGIN = 30
"""Seconds beside the configured grace, for all that is not the runs themselves."""
MOST_TEXT = 1_000_000
"""Bytes; a ConfigMap ends at 1 MiB, with all that is in it."""
HELP = "docs/how-to/kubernetes.md shows a whole configuration"
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Job:
    """A scheduled job."""

    name: str
    job: str
    schedule: str
    zone: str
    starting_deadline: int
    active_deadline: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rendered; pieces are in Kubernetes' own words."""

    mode: Mode
    config: Config
    text: str
    image: str
    jobs: list[Job]
    arguments: list[str]
    port: int | None
    """Of the daemon's probes and metrics."""
    listen: str
    """Where the daemon listens, when it is not where the configuration says."""
    variables: list[outside.Reference]
    folders: dict[str, list[outside.Reference]]
    """By folder of the pod: the files below it that come out of Secrets."""
    state_on_volume: bool
    affinity: Piece
    egress: list[Piece]
    redis_peers: list[Piece]
    """Who may connect to the pods, at any port: those of scratch servers are not known before."""
    api: bool
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What all names begin with."""
        return self.config.kubernetes.name

    @property
    def seconds_to_end(self) -> int:
        """From SIGTERM to SIGKILL: runs are interrupted, let the stores go, release their locks."""
        return int(min(self.config.daemon.grace, 86400)) + MARGIN

    @property
    def namespace(self) -> str:
        """Where everything is."""
        return self.config.kubernetes.namespace


def make_plan(
    text: str,
    path: Path,
    mode: Mode = "cronjobs",
    *,
    image: str | None = None,
    unpinned: bool = False,
    affinity: bool = True,
    arguments: list[str] | None = None,
) -> Plan:
    """The plan of the configuration `text`, which was read from `path`. Raises ConfigError.

    `affinity=False`: the pods that use the volumes are gone, and nothing is to wait for them.
    """
    from safetake import configfile

    try:
        config = configfile.parse(text, Path(outside.CONFIG))
    except ConfigError as error:
        message = str(error).replace(outside.CONFIG, str(path))
        raise ConfigError(message, hint=error.hint) from None
    found = outside.look(config, tomllib.loads(text))
    problems = [*found.problems, *_network_problems(config)]
    jobs = _jobs(config, problems)
    if mode != "job" and not jobs and not any("schedule" in line for line in problems):
        problems.append("jobs: none has a schedule, so that nothing would run")
    problems += _secret_urls(config)
    if len(text.encode()) > MOST_TEXT:
        problems.append(f"more than {MOST_TEXT} bytes: a ConfigMap can not hold it")
    port, listen = _listen(config, problems) if mode == "daemon" else (None, "")
    image = image or config.kubernetes.image
    problems += _image_problems(image, unpinned)
    if problems:
        raise ConfigError("\n".join(f"{path}: {line}" for line in problems), hint=HELP)
    assert image is not None
    return Plan(
        mode=mode,
        config=config,
        text=text,
        image=image,
        jobs=jobs if mode == "cronjobs" else [],
        arguments=arguments or [],
        port=port,
        listen=listen,
        variables=found.variables,
        folders=_folders(found.files),
        state_on_volume=found.state_on_volume,
        affinity=_affinity(config, affinity),
        egress=network.egress(config),
        redis_peers=[
            *(network.redis_peers(config) if config.kubernetes.redis_restores else []),
            *network.drill_peers(config),
        ],
        api=network.needs_api(config),
        warnings=found.warnings,
    )


def _folders(files: list[outside.Reference]) -> dict[str, list[outside.Reference]]:
    """Files by the folder that is mounted: nothing can be mounted inside of another one."""
    home = str(Path(outside.CONFIG).parent)
    wanted = sorted({home, *(str(Path(each.name).parent) for each in files)}, key=len)
    tops: list[str] = []
    for folder in wanted:
        if not any(folder.startswith(top + "/") for top in tops):
            tops.append(folder)
    tops.sort(key=lambda folder: folder != home)  # the configuration's first, else as they came
    return {top: [each for each in files if each.name.startswith(top + "/")] for top in tops}


def _jobs(config: Config, problems: list[str]) -> list[Job]:
    found = []
    for name, job in config.jobs.items():
        if job.schedule is None:
            continue
        try:
            schedule = kubernetes_schedule(job.schedule)
        except ValueError as error:
            problems.append(f"jobs.{name}.schedule: {error}")
            continue
        gap = shortest_gap(job.schedule)
        tries = job.retries + 1
        waits = sum(min(job.retry_delay * 2**n, job.timeout) for n in range(min(job.retries, 64)))
        seconds = tries * job.timeout + waits + job.jitter + BEGIN
        if seconds > 2**31:
            problems.append(f"jobs.{name}: timeout and retries together are more than 68 years")
            continue
        found.append(
            Job(
                name=object_name(config.kubernetes.name, name, CRONJOB),
                job=name,
                schedule=schedule,
                zone=job.timezone,
                starting_deadline=gap if job.catch_up else min(gap, LATE),
                active_deadline=int(seconds),
            )
        )
    return found


def _network_problems(config: Config) -> list[str]:
    found = []
    try:
        endpoints = network.endpoints(config)
    except ValueError as error:
        return [str(error)]
    for each in endpoints:
        if each.in_the_pod:
            found.append(f"{each.where}: {each.host} is the pod itself: name the Service")
    hosts = {each.host for each in endpoints} | {network.API_SERVER}
    for host, peer in config.kubernetes.peers.items():
        if host not in hosts and not peer.ports:
            found.append(
                f"kubernetes.peers.{host}: the configuration names no such host"
                + nearest(host, hosts)
                + "; with ports it is let through anyway"
            )
    return found


def _image_problems(image: str | None, unpinned: bool) -> list[str]:
    if image is None:
        return ["kubernetes.image: is missing: the image with its digest (deploy/Containerfile)"]
    if not unpinned and _DIGEST.search(image) is None:
        return [
            "kubernetes.image: has no digest, so that another image could run tomorrow: write "
            "IMAGE@sha256:…, or render with --allow-unpinned-image"
        ]
    return []


def _secret_urls(config: Config) -> list[str]:
    """URLs of Apprise that hold a token: a ConfigMap is no place for one."""
    if not config.notify.urls:
        return []
    from apprise import Apprise

    found = []
    for number, url in enumerate(config.notify.urls):
        service: Any = Apprise.instantiate(url)
        if service is None or service.url(privacy=True) != service.url(privacy=False):
            found.append(
                f"notify.urls.{number}: holds a secret, or is none of Apprise's: a ConfigMap is no "
                "place for one, use urls_env or urls_file"
            )
    return found


def _listen(config: Config, problems: list[str]) -> tuple[int | None, str]:
    """Port of the probes, and `--listen` where the configured address is not reached by them."""
    try:
        host, port = address(config.daemon.listen or "")
    except ConfigError:
        host, port = "", 0
    if port == 0:
        problems.append('daemon.listen: the probes need one: listen = "0.0.0.0:9760"')
        return None, ""
    inside = host == "localhost" or host.startswith("127.") or host == "::1"
    return port, f"0.0.0.0:{port}" if inside else ""


def _affinity(config: Config, wanted: bool) -> Piece:
    """Beside the pods that use the volumes; and beside each other, where claims are mounted."""
    section = config.kubernetes
    if not section.volumes:
        return {}
    found: Piece = {}
    terms: list[Piece] = []
    for volume in section.volumes.values():
        term = _beside(volume.used_by)
        if volume.used_by and term not in terms:
            terms.append(term)
    soft = [{"weight": 10, "podAffinityTerm": _beside(selector(section.name))}]
    if wanted and terms and section.same_node == "required":
        found["requiredDuringSchedulingIgnoredDuringExecution"] = terms
    elif wanted:
        soft = [*({"weight": 100, "podAffinityTerm": term} for term in terms), *soft]
    found["preferredDuringSchedulingIgnoredDuringExecution"] = soft
    return {"podAffinity": found}


def _beside(labels: dict[str, str]) -> Piece:
    return {
        "labelSelector": {"matchLabels": dict(labels)},
        "topologyKey": "kubernetes.io/hostname",
    }


def selector(name: str) -> dict[str, str]:
    """The labels by which our pods are found."""
    return {"app.kubernetes.io/name": "safetake", "app.kubernetes.io/instance": name}
