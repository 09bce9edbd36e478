"""Every object, in the order in which a cluster wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetake import __version__
from safetake.configkube import VolumeConfig
from safetake.drill import isolation
from safetake.operate.kubernetes import network
from safetake.operate.kubernetes.plan import Job, Plan, selector
from safetake.operate.kubernetes.pod import pod
from safetake.services import rbac

Piece = dict[str, Any]

JOB_STAYS = 7 * 86400
"""Seconds that a Job which was made by hand is kept after its end."""
ANSWERS = [1, 2, 3, 10, 11, 12]
"""Exit codes with which safetake ended by itself; it has retried already."""
LOST_PODS = 2
"""How often a job's pod is made again that was lost without an answer (killed, out of memory)."""
RULES = "safetake.rules.yml"


def objects(plan: Plan) -> list[Piece]:
    """What the plan's mode needs; of `job` only the Job, since the rest is there already."""
    if plan.mode == "job":
        return [_by_hand(plan)]
    found = [*claims(plan), _account(plan), *_rights(plan), _configuration(plan)]
    if plan.config.kubernetes.network_policy:
        found.append(_network(plan))
        if policy := drill_policy(plan):
            found.append(_network_of_drills(plan, policy))
    if plan.mode == "daemon":
        found.append(_daemon(plan))
    found += [_cronjob(plan, job) for job in plan.jobs]
    if plan.config.kubernetes.monitoring:
        if plan.mode == "daemon":
            found.append(_pod_monitor(plan))
        found.append(_alerts(plan))
    return found


def metadata(plan: Plan, name: str, **more: Any) -> Piece:
    """Name, namespace and labels of an object."""
    labels = {
        **plan.config.kubernetes.labels,
        **selector(plan.name),
        "app.kubernetes.io/version": __version__,
        "app.kubernetes.io/managed-by": "safetake",
    }
    return {"name": name, "namespace": plan.namespace, "labels": labels, **more}


def made(plan: Plan) -> list[VolumeConfig]:
    """The claims that are made here: those with a size, each once."""
    found: dict[str, VolumeConfig] = {}
    for volume in plan.config.kubernetes.volumes.values():
        if volume.size is not None:
            found.setdefault(volume.claim, volume)
    return list(found.values())


def claims(plan: Plan) -> list[Piece]:
    """PersistentVolumeClaims."""
    found = []
    for volume in made(plan):
        spec: Piece = {
            "accessModes": [volume.access_mode],
            "resources": {"requests": {"storage": volume.size}},
        }
        if volume.storage_class is not None:
            spec["storageClassName"] = volume.storage_class
        found.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": metadata(plan, volume.claim),
                "spec": spec,
            }
        )
    return found


def _account(plan: Plan) -> Piece:
    more: Piece = {}
    if plan.config.kubernetes.account_annotations:
        more["annotations"] = dict(plan.config.kubernetes.account_annotations)
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(plan, plan.name, **more),
        "automountServiceAccountToken": False,
    }


def roles(plan: Plan) -> dict[str, list[Piece]]:
    """By namespace: the rules that services and drills need there, and nothing more."""
    config = plan.config
    documents = rbac.manifests(config.services, plan.namespace, plan.name, config.drill)
    return {
        each["metadata"]["namespace"]: each["rules"] for each in documents if each["kind"] == "Role"
    }


def _rights(plan: Plan) -> list[Piece]:
    found = []
    for namespace, rules in roles(plan).items():
        where = {**metadata(plan, f"{plan.name}-services"), "namespace": namespace}
        found += [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": where,
                "rules": rules,
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": where,
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "Role",
                    "name": where["name"],
                },
                "subjects": [
                    {"kind": "ServiceAccount", "name": plan.name, "namespace": plan.namespace}
                ],
            },
        ]
    return found


def _configuration(plan: Plan) -> Piece:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(plan, plan.name),
        "data": {"safetake.toml": plan.text},
    }


def ingress(plan: Plan) -> list[Piece]:
    """Who may connect to the pods: whoever reads /metrics, and Redis servers where that is set."""
    found: list[Piece] = []
    if plan.port is not None:
        where = plan.config.kubernetes.metrics_from
        choice = {"matchLabels": dict(where)} if where else {}
        found.append(
            {
                "from": [{"namespaceSelector": choice}],
                "ports": [{"protocol": "TCP", "port": plan.port}],
            }
        )
    if plan.redis_peers:
        found.append({"from": plan.redis_peers})
    return found


def _network(plan: Plan) -> Piece:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan, plan.name),
        "spec": {
            "podSelector": {"matchLabels": selector(plan.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress(plan),
            "egress": plan.egress,
        },
    }


def drill_policy(plan: Plan) -> Piece:
    """Namespace and spec of the policy for drills' pods; empty where they make none."""
    section = network.drills(plan.config)
    if section is None:
        return {}
    spec = isolation.network_policy(section, plan.namespace)
    return {"namespace": section.namespace, "spec": spec}


def _network_of_drills(plan: Plan, policy: Piece) -> Piece:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {**metadata(plan, f"{plan.name}-drill"), "namespace": policy["namespace"]},
        "spec": policy["spec"],
    }


def _daemon(plan: Plan) -> Piece:
    chosen = {**selector(plan.name), "app.kubernetes.io/component": "daemon"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(plan, plan.name),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": chosen},
            "template": pod(plan, ["run", *(["--listen", plan.listen] if plan.listen else [])]),
        },
    }


def job_spec(plan: Plan, arguments: list[str], seconds: int | None) -> Piece:
    """`spec` of a Job: an answer of safetake is final, a lost pod is made again."""
    return {
        "backoffLimit": LOST_PODS,
        **({} if seconds is None else {"activeDeadlineSeconds": seconds}),
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "safetake",
                        "operator": "In",
                        "values": ANSWERS,
                    },
                },
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            ]
        },
        "template": pod(plan, arguments),
    }


def _cronjob(plan: Plan, job: Job) -> Piece:
    section = plan.config.kubernetes
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata(plan, job.name),
        "spec": {
            "schedule": job.schedule,
            "timeZone": job.zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": job.starting_deadline,
            "successfulJobsHistoryLimit": section.history_successful,
            "failedJobsHistoryLimit": section.history_failed,
            "jobTemplate": {"spec": job_spec(plan, ["run", job.job], job.active_deadline)},
        },
    }


def _by_hand(plan: Plan) -> Piece:
    """A Job with a name of its own each time: `kubectl create`, not `apply`."""
    described = metadata(plan, "")
    del described["name"]
    spec = job_spec(plan, plan.arguments, None)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"{plan.name}-by-hand-", **described},
        "spec": {"ttlSecondsAfterFinished": JOB_STAYS, **spec, "backoffLimit": 0},
    }


def _pod_monitor(plan: Plan) -> Piece:
    chosen = {**selector(plan.name), "app.kubernetes.io/component": "daemon"}
    described = metadata(plan, plan.name)
    described["labels"] |= plan.config.kubernetes.monitoring_labels
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": described,
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "selector": {"matchLabels": chosen},
            # backup_job_success{job="…"}: our label `job` stays, that of the scrape gives way
            "podMetricsEndpoints": [{"port": "metrics", "interval": "30s", "honorLabels": True}],
        },
    }


def alert_rules() -> Piece:
    """The alerts that are delivered with safetake, as a PrometheusRule has them."""
    import yaml

    here = Path(__file__)
    for place in (here.parent, here.parents[4] / "deploy" / "prometheus"):
        if (place / RULES).is_file():
            found: Piece = yaml.safe_load((place / RULES).read_text(encoding="utf-8"))
            return found
    raise FileNotFoundError(RULES)


def _alerts(plan: Plan) -> Piece:
    described = metadata(plan, plan.name)
    described["labels"] |= plan.config.kubernetes.monitoring_labels
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": described,
        "spec": alert_rules(),
    }
