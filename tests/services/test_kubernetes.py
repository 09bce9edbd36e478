"""The Kubernetes service with the real client against an emulated API; RBAC is what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from safetake.config import ServiceConfig
from safetake.errors import ServiceError
from safetake.services.kubernetes import KubernetesService
from safetake.services.rbac import manifests, permissions, to_yaml
from tests.services.cluster import SCALERS, Call, Cluster, running_cluster

URL = "DATABASE_URL"
OLD, NEW = "sqlite:////data/projects.db", "sqlite:////data/projects-2.db"
SWITCH = {"projects": {"setting": URL, "value": "sqlite:///{path}"}}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with running_cluster(tmp_path) as (cluster, kubeconfig):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield cluster


def config(what: str = "deployment/web", **more: Any) -> ServiceConfig:
    limits = {"stop_timeout": 10, "start_timeout": 10}
    return ServiceConfig.model_validate(
        {"kubernetes": what, "namespace": "ns", "context": "it", **limits, **more}
    )


def service(section: ServiceConfig) -> KubernetesService:
    return KubernetesService("web", section, poll=0.01)


def granted(section: ServiceConfig) -> set[Call]:
    """What the rendered YAML allows, taken apart again."""
    found: set[Call] = set()
    for document in yaml.safe_load_all(to_yaml(manifests({"web": section}))):
        for rule in document.get("rules", []) if document["kind"] == "Role" else []:
            for verb in rule["verbs"]:
                for group in rule["apiGroups"]:
                    for what in rule["resources"]:
                        for name in rule.get("resourceNames", [""]):
                            found.add((verb, group, what, name))
    return found


@pytest.mark.parametrize("kind", ["deployment", "statefulset"])
@pytest.mark.parametrize("switch", [{}, SWITCH], ids=["scaled", "switched"])
def test_the_calls_are_exactly_those_that_the_rendered_rbac_allows(
    cluster: Cluster, kind: str, switch: dict[str, Any]
) -> None:
    cluster.add(f"{kind}s", "web", env=[{"name": URL, "value": OLD}])
    section = config(f"{kind}/web", switch=switch)
    cluster.allowed = granted(section)  # anything else is answered 403
    web = service(section)
    assert web.problems() == []
    cluster.calls.clear()

    state = web.state()
    assert state == {"running": True, "replicas": 3}
    web.stop(state)
    assert cluster.pods() == {}
    assert web.state() == {"running": False, "replicas": 0}
    if switch:
        web.switch("projects", web.value("projects", Path("/data/projects-2.db")))
        assert web.current("projects") == NEW
    web.start(state)
    assert len(cluster.pods()) == 3
    assert web.state() == state
    web.restart()

    assert set(cluster.calls) == granted(section)


def test_the_rendered_rbac_is_valid_kubernetes() -> None:
    sections = {
        "a": config("deployment/a", namespace="one", switch=SWITCH),
        "b": config("statefulset/b", namespace="two"),
        "c": config("deployment/c", namespace=None),
        "d": ServiceConfig(),
    }
    documents = list(yaml.safe_load_all(to_yaml(manifests(sections))))
    assert documents == manifests(sections)
    for document in documents:
        validate(document, "1.31", strict=True)
    kinds = [(d["kind"], d["metadata"]["namespace"]) for d in documents]
    assert kinds == [
        ("ServiceAccount", "one"),
        ("Role", "one"),
        ("RoleBinding", "one"),
        ("Role", "two"),
        ("RoleBinding", "two"),
    ]
    assert not any("*" in str(document) for document in documents)


def test_names_that_yaml_would_misread_are_quoted() -> None:
    documents = manifests({"a": config("deployment/on", namespace="7")}, account="null")
    assert list(yaml.safe_load_all(to_yaml(documents))) == documents


def test_what_did_not_run_stays_stopped(cluster: Cluster) -> None:
    cluster.add("deployments", "web", replicas=0)
    web = service(config())
    state = web.state()
    cluster.calls.clear()
    web.stop(state)
    web.start(state)
    web.restart()
    assert all(verb == "get" for verb, *_ in cluster.calls)


def test_an_api_that_can_not_now_is_asked_again(cluster: Cluster) -> None:
    """Otherwise production would stay scaled to nothing for the hiccup of a control plane."""
    cluster.add("deployments", "web", replicas=2)
    web = service(config(start_timeout=20))
    state = web.state()
    web.stop(state)
    cluster.broken_answers = 3
    web.start(state)
    assert len(cluster.pods()) == 2
    web = service(config(start_timeout=0.5, stop_timeout=0.5))
    cluster.broken_answers = 10_000
    with pytest.raises(
        ServiceError, match=r"could not be scaled to 2: .* no answer for 0\.5 s"
    ) as e:
        web.start(state)
    assert "kubectl scale deployment/web --replicas=2" in e.value.hint
    cluster.broken_answers = 0


def test_pods_that_do_not_end_are_named_after_the_deadline(cluster: Cluster) -> None:
    cluster.add("deployments", "web", replicas=2)
    cluster.stuck = True
    web = service(config(stop_timeout=0.3))
    with pytest.raises(
        ServiceError, match=r"still has pods 0\.3 s after its stop: web-1, web-2"
    ) as e:
        web.stop(web.state())
    assert "terminationGracePeriodSeconds" in e.value.hint


def test_pods_that_never_get_ready_fail_at_the_deadline_with_their_reason(
    cluster: Cluster,
) -> None:
    cluster.add("deployments", "web")
    web = service(config(start_timeout=0.5))
    state = web.state()
    web.stop(state)
    cluster.crash = "CrashLoopBackOff"
    with pytest.raises(
        ServiceError,
        match=r"not ready after 0\.5 s: 0 of 3 pods are ready; web-4: CrashLoopBackOff "
        r"\(exit code 1\)",
    ) as error:
        web.start(state)
    assert "kubectl logs deployment/web" in error.value.hint


def test_a_controller_that_gives_up_ends_the_wait_at_once(cluster: Cluster) -> None:
    cluster.add("deployments", "web")
    web = service(config(start_timeout=3600))
    state = web.state()
    web.stop(state)
    cluster.crash, cluster.gives_up = "ImagePullBackOff", True
    with pytest.raises(ServiceError, match=r"ProgressDeadlineExceeded.*ImagePullBackOff"):
        web.start(state)


def test_the_failure_of_an_earlier_rollout_is_not_taken_for_this_one(cluster: Cluster) -> None:
    """The condition of before stays in the status until the new rollout makes progress."""
    cluster.crash, cluster.gives_up = "CrashLoopBackOff", True
    cluster.add("deployments", "web", replicas=1)
    web = service(config(start_timeout=0.3))
    assert cluster.raw("deployments", "web")["status"]["conditions"]
    with pytest.raises(ServiceError, match="not ready after"):
        web.start({"running": True, "replicas": 2})


def test_somebody_who_scales_it_up_again_is_noticed(cluster: Cluster) -> None:
    cluster.add("deployments", "web")
    cluster.meddles = 2
    web = service(config())
    with pytest.raises(ServiceError, match="somebody scaled it to 2 again"):
        web.stop(web.state())


def scaler(name: str, labels: dict[str, str]) -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"hpa-{name}", "namespace": "ns", "labels": labels},
        "spec": {"scaleTargetRef": target, "maxReplicas": 9},
    }


def test_keda_is_refused_before_anything_is_changed_an_autoscaler_is_not(cluster: Cluster) -> None:
    """An HPA leaves 0 replicas alone; KEDA starts from 0."""
    cluster.add("deployments", "web")
    cluster.objects[SCALERS, "ns", "plain"] = scaler("web", {})
    keda = {"app.kubernetes.io/managed-by": "keda-operator"}
    cluster.objects[SCALERS, "ns", "other"] = scaler("other", keda)
    web = service(config())
    state = web.state()
    web.stop(state)
    web.start(state)
    cluster.objects[SCALERS, "ns", "keda"] = scaler("web", keda)
    assert "KEDA" in web.problems()[0][0]
    with pytest.raises(ServiceError, match="scaled by KEDA"):
        web.stop(state)
    assert len(cluster.pods()) == 3


def test_answers_that_may_pass_are_waited_out(cluster: Cluster) -> None:
    cluster.add("deployments", "web")
    web = service(config())
    state = web.state()
    web.stop(state)

    def breaks(now: Cluster) -> None:
        now.broken_answers = 4

    cluster.before_patch.append(breaks)
    web.start(state)
    assert cluster.broken_answers == 0


# ------------------------------------------------------------------------ the switch


def test_only_the_setting_is_changed_in_every_container_that_has_it(cluster: Cluster) -> None:
    env = [{"name": "A", "value": "1"}, {"name": URL, "value": OLD}, {"name": "B", "value": "$(A)"}]
    cluster.add("deployments", "web", env=env)
    before = cluster.raw("deployments", "web")
    before["spec"]["template"]["spec"]["initContainers"] = [
        {"name": "migrate", "image": "app:1", "env": [{"name": URL, "value": OLD}]}
    ]
    cluster.change("deployments", "web", before)
    web = service(config(switch=SWITCH))
    pods = set(cluster.pods())
    web.switch("projects", NEW)
    spec = cluster.raw("deployments", "web")["spec"]["template"]["spec"]
    assert spec["containers"][0]["env"] == [env[0], {"name": URL, "value": NEW}, env[2]]
    assert spec["containers"][0]["image"] == "app:1"
    assert spec["initContainers"][0]["env"] == [{"name": URL, "value": NEW}]
    assert not pods & set(cluster.pods())  # returns when only new pods are left


def test_a_change_meanwhile_is_kept_and_the_patch_tried_again(cluster: Cluster) -> None:
    cluster.add("deployments", "web", env=[{"name": URL, "value": OLD}])

    def faster(now: Cluster) -> None:
        changed = now.raw("deployments", "web")
        changed["spec"]["template"]["spec"]["containers"][0]["env"].insert(
            0, {"name": "NEWER", "value": "1"}
        )
        now.change("deployments", "web", changed)

    cluster.before_patch.append(faster)
    service(config(switch=SWITCH)).switch("projects", NEW)
    env = cluster.raw("deployments", "web")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env == [{"name": "NEWER", "value": "1"}, {"name": URL, "value": NEW}]


@pytest.mark.parametrize(
    ("container", "says"),
    [
        (
            {"env": [{"name": URL, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            "comes from secretKeyRef",
        ),
        ({"envFrom": [{"configMapRef": {"name": "c"}}]}, "no container has DATABASE_URL"),
    ],
)
def test_a_setting_that_is_not_plain_is_refused(
    cluster: Cluster, container: dict[str, Any], says: str
) -> None:
    cluster.add("deployments", "web", **container)
    web = service(config(switch=SWITCH))
    with pytest.raises(ServiceError, match=says):
        web.switch("projects", NEW)
    assert says in web.problems()[0][0]


def test_containers_that_differ_need_a_name(cluster: Cluster) -> None:
    cluster.add("deployments", "web", env=[{"name": URL, "value": OLD}])
    changed = cluster.raw("deployments", "web")
    changed["spec"]["template"]["spec"]["containers"].append(
        {"name": "side", "image": "x", "env": [{"name": URL, "value": "other"}]}
    )
    cluster.change("deployments", "web", changed)
    with pytest.raises(ServiceError, match="with different values"):
        service(config(switch=SWITCH)).current("projects")
    named = service(config(switch=SWITCH, container="side"))
    named.switch("projects", NEW)
    spec = cluster.raw("deployments", "web")["spec"]["template"]["spec"]
    assert [c["env"][0]["value"] for c in spec["containers"]] == [OLD, NEW]


# ------------------------------------------------------------------------ what is missing


def test_missing_permissions_are_found_before(cluster: Cluster) -> None:
    cluster.add("deployments", "web")
    section = config()
    cluster.allowed = granted(section) - {("patch", "apps", "deployments/scale", "web")}
    web = service(section)
    assert web.problems() == [
        (
            "deployment/web in ns: it is not allowed to patch deployments/scale web",
            "safetake services rbac",
        )
    ]
    with pytest.raises(ServiceError, match="403") as error:
        web.stop(web.state())
    assert "services rbac" in error.value.hint


def test_a_workload_that_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(ServiceError, match=r"cannot get deployment/web in the namespace ns \(404"):
        service(config()).state()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no credentials"),
        ("{}", "can not be used"),
        ("[1", "can not be used"),
        ('{"contexts":[{"name":"it","context":{"cluster":"c"}}]}', "can not be used"),
        (
            '{"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],"contexts":'
            '[{"name":"it","context":{"cluster":"c","user":"u"}}],'
            '"users":[{"name":"u","user":{"token":"t"}}]}',
            "does not answer",
        ),
    ],
)
def test_a_cluster_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, says: str
) -> None:
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(ServiceError, match=says) as error:
        service(config()).state()
    assert error.value.hint
    assert says in service(config()).problems()[0][0]


def test_permissions_of_a_service_elsewhere_are_none() -> None:
    assert permissions(ServiceConfig(systemd="a.service")) == []
    assert manifests({"a": ServiceConfig(systemd="a.service")}) == []
