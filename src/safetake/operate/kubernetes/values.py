"""The plan as values of the Helm chart in deploy/helm/safetake, which has the same shapes.

All that has to be worked out of the configuration stands in the values; the chart works out
nothing, so that what it renders and what `safetake kubernetes` renders can not drift apart.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from safetake.operate.kubernetes.names import object_name
from safetake.operate.kubernetes.objects import drill_policy, made, roles
from safetake.operate.kubernetes.plan import Plan
from safetake.operate.kubernetes.pod import tolerations

Piece = dict[str, Any]


def chart_values(plan: Plan, *, unpinned: bool = False) -> Piece:
    """`values.yaml` of the plan; the namespace is Helm's (`--namespace`)."""
    section = plan.config.kubernetes
    return {
        "fullnameOverride": plan.name,
        "mode": plan.mode,
        "config": plan.text,
        "image": {
            "reference": plan.image,
            "allowUnpinned": unpinned,
            "pullSecrets": list(section.pull_secrets),
        },
        "jobs": [
            {
                "name": job.name,
                "job": job.job,
                "schedule": job.schedule,
                "timeZone": job.zone,
                "startingDeadlineSeconds": job.starting_deadline,
                "activeDeadlineSeconds": job.active_deadline,
            }
            for job in plan.jobs
        ],
        "history": {"successful": section.history_successful, "failed": section.history_failed},
        "daemon": {"port": plan.port or 9760, "listen": plan.listen},
        "terminationGracePeriodSeconds": plan.seconds_to_end,
        "secrets": {
            "variables": [
                {"name": each.name, "secret": each.secret, "key": each.key}
                for each in plan.variables
            ],
            "folders": [
                {
                    "path": folder,
                    "files": [
                        {
                            "path": str(PurePosixPath(each.name).relative_to(folder)),
                            "secret": each.secret,
                            "key": each.key,
                        }
                        for each in files
                    ],
                }
                for folder, files in plan.folders.items()
            ],
        },
        "volumes": [
            {
                "name": object_name("claim", volume.claim),
                "claim": volume.claim,
                "mount": volume.mount,
                "subPath": volume.sub_path or "",
                "readOnly": volume.read_only,
            }
            for volume in section.volumes.values()
        ],
        "claims": [
            {
                "name": volume.claim,
                "size": volume.size,
                "storageClass": volume.storage_class or "",
                "accessMode": volume.access_mode,
            }
            for volume in made(plan)
        ],
        "state": {"onVolume": plan.state_on_volume},
        "scratch": section.scratch,
        "user": section.user,
        "group": section.group,
        "fsGroup": section.fs_group or section.group,
        "resources": {"requests": dict(section.requests), "limits": dict(section.limits)},
        "affinity": plan.affinity,
        "nodeSelector": dict(section.node_selector),
        "tolerations": tolerations(plan),
        "priorityClassName": section.priority_class or "",
        "labels": dict(section.labels),
        "podAnnotations": dict(section.pod_annotations),
        "serviceAccount": {"annotations": dict(section.account_annotations)},
        "api": plan.api,
        "roles": [
            {"namespace": namespace, "rules": rules} for namespace, rules in roles(plan).items()
        ],
        "networkPolicy": {
            "enabled": section.network_policy,
            "egress": plan.egress,
            "metricsFrom": dict(section.metrics_from),
            "redis": plan.redis_peers,
            "drills": drill_policy(plan),
        },
        "monitoring": {
            "enabled": section.monitoring,
            "labels": dict(section.monitoring_labels),
        },
    }
