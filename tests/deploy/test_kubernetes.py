"""What is rendered for Kubernetes is valid, keeps the policy, holds no secret, and is the same from
`safetake kubernetes` and from the Helm chart."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from safetake.cli.preset import policy
from safetake.drill.isolation import open_ways
from safetake.errors import ConfigError
from safetake.operate.kubernetes import Mode, Plan, chart_values, make_plan, objects
from safetake.yamltext import to_yaml
from tests.support.kubernetes_tools import (
    CHART,
    CUSTOM,
    IMAGE,
    R2,
    ROOT,
    VERSIONS,
    Piece,
    normal,
    pods,
    rendered_by_helm,
    run_tool,
    validate,
)
from tests.support.pod_policy import RULES, broken

MODES: list[Mode] = ["cronjobs", "daemon"]

# Every key of [kubernetes], and kinds of hosts, that the layout of R2 leaves out.
FULL = f"""
[repository]
location = "/backup/repo"
password_file = "/run/secrets/safetake/password"

[sources.projects]
type = "sqlite"
path = "/data/projects.db"

[sources.queue]
type = "redis"
url = "rediss://cache.other.svc.cluster.local"
username = "safetake"
password_env = "REDIS_PASSWORD"
tls_ca = "/etc/safetake/redis/ca.crt"

[sources.remote]
type = "chroma"
url = "https://chroma.example.com"
headers_env = {{ Authorization = "CHROMA_TOKEN" }}

[sources.scripts]
type = "files"
path = "/scripts"

[jobs.nightly_Backup]
kind = "backup"
schedule = "30 3 * * 7"
retries = 0
timeout = "1h"

[jobs."a.job.with.a.long.name.that.does.not.fit.into.a.cronjob"]
kind = "prune"
schedule = "0 5 1 * *"

[services.project-service]
kubernetes = "statefulset/project-service"
namespace = "apps"
health = "http://project-service.apps:8001/healthz"

[services.project-service.switch.projects]
setting = "DATABASE_URL"
value = "sqlite:///{{path}}"

[daemon]
listen = "[::]:9999"

[metrics]
pushgateway = "http://pushgateway.monitoring.svc:9091"

[notify]
urls = ["json://localhost/path"]
urls_file = "/etc/safetake/notify-urls"
ping_env = {{ nightly_Backup = "PING_URL" }}

[restore]
state = "/backup/state"

[kubernetes]
name = "keeper"
namespace = "y"
image = "{IMAGE}"
pull_secrets = ["registry"]
user = 1000
group = 1001
fs_group = 1002
secret = "keeper-secrets"
requests = {{ cpu = "0.5", memory = "300Mi" }}
limits = {{ cpu = "1500m", memory = "2Gi" }}
scratch = "20Gi"
history_successful = 1
history_failed = 5
labels = {{ team = "data", "example.com/tier" = "y" }}
pod_annotations = {{ "example.com/note" = "1e3: yes" }}
account_annotations = {{ "example.com/role" = "arn:role/backup" }}
node_selector = {{ disk = "ssd" }}
priority_class = "low"
dns_namespace = "dns"
metrics_from = {{ "kubernetes.io/metadata.name" = "monitoring" }}
redis_restores = true
monitoring = true
monitoring_labels = {{ release = "prometheus" }}
same_node = "preferred"

[[kubernetes.tolerations]]
key = "dedicated"
value = "data"
effect = "NoSchedule"

[[kubernetes.tolerations]]
effect = "NoExecute"

[kubernetes.secrets]
PING_URL = "pings/on"

[kubernetes.peers."chroma.example.com"]
cidr = ["203.0.113.7/32"]

[kubernetes.peers."cache.other.svc.cluster.local"]
labels = {{ app = "redis" }}
ports = [6380]

[kubernetes.peers."smtp.example.com"]
ports = [587]

[kubernetes.volumes.data]
claim = "project.data"
mount = "/data"
used_by = {{ app = "project-service" }}

[kubernetes.volumes.scripts]
claim = "project.data"
mount = "/scripts"
sub_path = "scripts"
read_only = true
used_by = {{ app = "generation-service" }}

[kubernetes.volumes.backup]
claim = "backup"
mount = "/backup"
size = "100Gi"
storage_class = "slow"
access_mode = "ReadWriteMany"
"""
CONFIGS = {"R2": R2, "full": FULL}

# Drills whose services are pods, in a namespace of their own.
DRILL = f"""{R2}
[jobs.rehearsal]
kind = "drill"
schedule = "0 3 * * 0"

[kubernetes.volumes.scratch]
claim = "drill-scratch"
mount = "/scratch"

[drill]
scratch = "/scratch"

[drill.kubernetes]
namespace = "ai-script-generator-drill"
source_namespace = "ai-script-generator"

[drill.services.project-service]
kubernetes = "deployment/project-service"
environment = {{ DATABASE_URL = "sqlite:///{{projects}}" }}
health = "http://{{host}}:{{port}}/api/v1/health"
"""


def plan(text: str, mode: Mode = "cronjobs", **more: Any) -> Plan:
    return make_plan(text, Path("safetake.toml"), mode, **more)


@pytest.fixture(scope="module", params=[(n, m) for n in CONFIGS for m in MODES], ids="-".join)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Piece], list[Piece]]:
    """The same configuration, rendered by us and by the chart."""
    name, mode = request.param
    made = plan(CONFIGS[name], mode)
    folder = tmp_path_factory.mktemp("values")
    return objects(made), rendered_by_helm(chart_values(made), folder, made.namespace)


def by_kind(documents: list[Piece], kind: str) -> list[Piece]:
    return [document for document in documents if document["kind"] == kind]


# -------------------------------------------------------------------------------- what is asked for


def test_the_layout_of_the_users_document() -> None:
    """R2: every 6 hours, 3 successful and 1 failed runs kept, PVC, namespace."""
    documents = objects(plan(R2))
    jobs = {document["metadata"]["name"]: document for document in by_kind(documents, "CronJob")}
    assert set(jobs) == {"safetake-sqlite-backup", "safetake-chroma-backup", "safetake-integrity"}
    job = jobs["safetake-sqlite-backup"]
    spec = job["spec"]
    assert job["metadata"]["namespace"] == "ai-script-generator"
    assert spec["schedule"] == "0 */6 * * *"
    assert spec["timeZone"] == "UTC"
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["successfulJobsHistoryLimit"] == 3
    assert spec["failedJobsHistoryLimit"] == 1
    assert spec["startingDeadlineSeconds"] == 6 * 3600
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert [*container["command"], *container["args"]] == ["safetake", "run", "sqlite-backup"]
    claims = [
        (volume["persistentVolumeClaim"]["claimName"], mount["mountPath"])
        for volume in pod["volumes"]
        for mount in container["volumeMounts"]
        if "persistentVolumeClaim" in volume and mount["name"] == volume["name"]
    ]
    assert ("project-service-data", "/data") in claims
    near = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert near == [
        {
            "labelSelector": {"matchLabels": {"app": "project-service"}},
            "topologyKey": "kubernetes.io/hostname",
        }
    ]
    chroma, integrity = jobs["safetake-chroma-backup"], jobs["safetake-integrity"]
    assert chroma["spec"]["schedule"] == "0 2 * * *"
    assert chroma["spec"]["timeZone"] == "Asia/Seoul"
    assert integrity["spec"]["startingDeadlineSeconds"] == 300  # catch_up = false
    assert all(each["metadata"]["namespace"] == "ai-script-generator" for each in documents)
    (claim,) = by_kind(documents, "PersistentVolumeClaim")
    assert claim["metadata"]["name"] == "safetake-state"  # that of the data exists already


def test_the_preset_is_that_layout() -> None:
    """As `init` writes it, with what only a cluster knows: the Services' names and the image."""
    text = '[repository]\nlocation = "/data/backup"\n' + policy({}, "Asia/Seoul", json.dumps)
    with pytest.raises(ConfigError, match="is the pod itself") as error:
        plan(text)
    places = [line.split(": ")[1] for line in str(error.value).splitlines()]
    assert places == [
        "sources.queue.url",
        "services.project-service.health.url",
        "services.generation-service.health.url",
        "kubernetes.image",
    ]
    text = text.replace("redis://127.0.0.1", "redis://redis")
    text = re.sub(r"127\.0\.0\.1:(800[12])", r"service:\1", text)
    documents = objects(plan(text, image=IMAGE))
    jobs = {job["metadata"]["name"]: job for job in by_kind(documents, "CronJob")}
    assert len(jobs) == 8
    job = jobs["safetake-sqlite-backup"]
    assert job["metadata"]["namespace"] == "ai-script-generator"
    assert job["spec"]["schedule"] == "0 */6 * * *"
    assert job["spec"]["timeZone"] == "Asia/Seoul"
    assert job["spec"]["successfulJobsHistoryLimit"] == 3
    assert job["spec"]["failedJobsHistoryLimit"] == 1
    (pod, *_) = pods([job])
    claims = [each.get("persistentVolumeClaim") for each in pod["spec"]["volumes"]]
    assert [each for each in claims if each] == [{"claimName": "project-service-data"}]


def test_the_daemon_is_one_and_is_asked_whether_it_is_well() -> None:
    documents = objects(plan(FULL, "daemon"))
    (deployment,) = by_kind(documents, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["run"]
    assert container["ports"][0]["containerPort"] == 9999
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    (monitor,) = by_kind(documents, "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0]["honorLabels"] is True
    chosen = monitor["spec"]["selector"]["matchLabels"].items()
    assert chosen <= deployment["spec"]["template"]["metadata"]["labels"].items()
    (policy,) = by_kind(documents, "NetworkPolicy")
    (metrics, redis) = policy["spec"]["ingress"]
    assert metrics["ports"] == [{"protocol": "TCP", "port": 9999}]
    assert "ports" not in redis


def test_egress_is_what_the_configuration_names() -> None:
    (policy,) = by_kind(objects(plan(FULL)), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    found = {
        json.dumps(rule["to"]): sorted({port["port"] for port in rule["ports"]})
        for rule in policy["spec"]["egress"]
    }

    def namespace(name: str) -> Piece:
        return {"matchLabels": {"kubernetes.io/metadata.name": name}}

    anywhere = [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]
    redis = {
        "podSelector": {"matchLabels": {"app": "redis"}},
        "namespaceSelector": namespace("other"),
    }
    assert found == {
        json.dumps(
            [{"namespaceSelector": namespace("dns")}, {"ipBlock": {"cidr": "169.254.20.10/32"}}]
        ): [53],
        json.dumps([redis]): [6380],
        json.dumps([{"ipBlock": {"cidr": "203.0.113.7/32"}}]): [443],
        json.dumps([{"podSelector": {}, "namespaceSelector": namespace("apps")}]): [8001],
        json.dumps([{"podSelector": {}, "namespaceSelector": namespace("monitoring")}]): [9091],
        # the API server, the receivers of messages (secret), and one that is let through by hand
        json.dumps(anywhere): [443, 587, 6443],
    }


def test_a_token_only_where_services_need_the_api() -> None:
    cut = re.sub(r"(?m)^kubernetes = .*\n", "", R2)
    for text, needed in ((R2, True), (cut, False)):
        documents = objects(plan(text))
        for pod in pods(documents):
            assert pod["spec"]["automountServiceAccountToken"] is needed
        assert bool(by_kind(documents, "Role")) is needed
        assert bool(by_kind(documents, "RoleBinding")) is needed
        (account,) = by_kind(documents, "ServiceAccount")
        assert account["automountServiceAccountToken"] is False
        (policy,) = by_kind(documents, "NetworkPolicy")
        assert ("6443" in json.dumps(policy)) is needed


@pytest.mark.parametrize("mode", MODES)
def test_the_pods_of_drills_have_a_policy_and_rights_of_their_own(
    mode: Mode, tmp_path: Path
) -> None:
    planned = plan(DRILL, mode)
    documents = objects(planned)
    policies = {each["metadata"]["name"]: each for each in by_kind(documents, "NetworkPolicy")}
    ours, theirs = policies["safetake"], policies["safetake-drill"]
    validate(theirs, *VERSIONS)
    assert theirs["metadata"]["namespace"] == "ai-script-generator-drill"
    drills = theirs["spec"]["podSelector"]["matchLabels"]
    assert open_ways([theirs], drills, "10.0.0.1") == []
    assert "169.254" not in json.dumps(theirs), "a name is a way out"
    # whoever runs the drill reaches them, and they the drill's Redis servers
    for rules, side in ((ours["spec"]["egress"], "to"), (ours["spec"]["ingress"], "from")):
        (rule,) = [rule for rule in rules if "drill" in json.dumps(rule)]
        assert set(rule) == {side}
        assert rule[side][0]["podSelector"]["matchLabels"] == drills
    roles = {each["metadata"]["namespace"]: each["rules"] for each in by_kind(documents, "Role")}
    assert set(roles) == {"ai-script-generator", "ai-script-generator-drill"}
    verbs = {rule["resources"][0]: rule["verbs"] for rule in roles["ai-script-generator-drill"]}
    assert verbs == {
        "pods": ["create", "delete", "get", "list"],
        "persistentvolumeclaims": ["get"],
        "networkpolicies": ["list"],
    }
    charts = rendered_by_helm(chart_values(planned), tmp_path, planned.namespace)
    assert normal(charts) == normal(documents)


def test_a_command_once_is_a_job_of_the_same_pod() -> None:
    words = ["restore", "latest", "projects", "--in-place", "--yes"]
    made = plan(R2, "job", arguments=words, affinity=False)
    (job,) = objects(made)
    assert job["kind"] == "Job"
    assert "name" not in job["metadata"]
    (pod,) = pods([job])
    assert pod["spec"]["containers"][0]["args"] == words
    assert job["spec"]["backoffLimit"] == 0
    near = pod["spec"]["affinity"]["podAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in near
    (policy,) = by_kind(objects(plan(R2)), "NetworkPolicy")
    chosen = policy["spec"]["podSelector"]["matchLabels"].items()
    assert chosen <= pod["metadata"]["labels"].items()
    validate(job, *VERSIONS)


# ------------------------------------------------------------------------------ valid, and the same


def test_everything_is_valid_for_the_newest_versions(
    both: tuple[list[Piece], list[Piece]],
) -> None:
    assert len(VERSIONS) == 3
    for documents in both:
        for document in documents:
            if document["kind"] not in CUSTOM:
                validate(document, *VERSIONS)


def test_the_schemas_would_find_a_mistake() -> None:
    (job,) = [each for each in objects(plan(R2)) if "integrity" in each["metadata"]["name"]]
    job["spec"]["successfulJobHistoryLimit"] = 3  # without the s
    with pytest.raises(kubernetes_validate.ValidationError, match="successfulJobHistoryLimit"):
        validate(job)


def test_the_chart_renders_the_same(both: tuple[list[Piece], list[Piece]]) -> None:
    ours, charts = normal(both[0]), normal(both[1])
    assert set(charts) == set(ours)
    for name, document in ours.items():
        assert charts[name] == document


def test_the_chart_keeps_the_claims(both: tuple[list[Piece], list[Piece]]) -> None:
    for claim in by_kind(both[1], "PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_objects_of_prometheus_are_what_its_operator_wants(
    both: tuple[list[Piece], list[Piece]],
) -> None:
    rules = yaml.safe_load(
        (ROOT / "deploy" / "prometheus" / "safetake.rules.yml").read_text(encoding="utf-8")
    )
    for documents in both:
        (alerts,) = by_kind(documents, "PrometheusRule")
        assert alerts["apiVersion"] == "monitoring.coreos.com/v1"
        assert alerts["spec"] == rules
        for group in alerts["spec"]["groups"]:
            assert set(group) <= {"name", "rules", "interval", "limit", "labels"}
            for rule in group["rules"]:
                known = {"alert", "record", "expr", "for", "keep_firing_for", "labels"}
                assert set(rule) <= known | {"annotations"}


def test_kubectl_reads_what_is_rendered(
    both: tuple[list[Piece], list[Piece]], tmp_path: Path
) -> None:
    """Without a cluster: kubectl's own types and kustomize, both strict about what they read."""
    documents = [document for document in both[0] if document["kind"] not in CUSTOM]
    done = run_tool(
        "kubectl", "label", "--local", "-f", "-", "seen=yes", "-o", "json", stdin=to_yaml(documents)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"seen": "yes"') == len(documents)
    (tmp_path / "all.yaml").write_text(to_yaml(both[0]), encoding="utf-8")
    (tmp_path / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    done = run_tool("kubectl", "kustomize", tmp_path)
    assert done.returncode == 0, done.stderr
    read = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert sorted(json.dumps(each, sort_keys=True) for each in read) == sorted(
        json.dumps(each, sort_keys=True) for each in both[0]
    )


# ------------------------------------------------------------------------------------------- policy


def test_every_pod_keeps_the_policy(both: tuple[list[Piece], list[Piece]]) -> None:
    for documents in both:
        assert pods(documents)
        for pod in pods(documents):
            assert broken(pod["spec"]) == []


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_of_the_policy_finds_what_it_is_for(rule: str) -> None:
    (pod,) = pods(objects(plan(R2, "daemon")))
    for change in RULES[rule][1]:
        changed = copy.deepcopy(pod["spec"])
        change(changed, changed["containers"][0])
        assert rule in broken(changed)


def test_what_a_read_only_root_needs_is_there() -> None:
    for text in CONFIGS.values():
        for pod in pods(objects(plan(text))):
            mounts = {
                m["mountPath"]: m["name"] for m in pod["spec"]["containers"][0]["volumeMounts"]
            }
            kinds = {volume["name"]: set(volume) - {"name"} for volume in pod["spec"]["volumes"]}
            assert set(mounts.values()) == set(kinds)
            assert kinds[mounts["/tmp"]] == {"emptyDir"}
            assert kinds[mounts["/var/lib/safetake"]] <= {"emptyDir", "persistentVolumeClaim"}
            assert len(mounts) == len(pod["spec"]["containers"][0]["volumeMounts"])


def test_no_secret_lands_in_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the machine that renders holds."""
    names = ["REDIS_PASSWORD", "CHROMA_TOKEN", "PING_URL", "NOTIFY_URLS", "SAFETAKE_PASSWORD"]
    for name in (*names, "RESTIC_PASSWORD", "KUBECONFIG", "HOME"):
        monkeypatch.setenv(name, f"/s3cret-{name}")
    for text in CONFIGS.values():
        for mode in MODES:
            made = plan(text, mode)
            everything = json.dumps([objects(made), chart_values(made)])
            assert "s3cret" not in everything
    references = json.dumps(pods(objects(plan(FULL))))
    for name in ("REDIS_PASSWORD", "CHROMA_TOKEN", "PING_URL"):
        assert f'"name": "{name}", "valueFrom": {{"secretKeyRef"' in references
    assert '{"name": "pings", "key": "on"}' in references


# -------------------------------------------------------------------------------------------- chart


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONFIGS)
def test_helm_lints_the_chart(name: str, mode: Mode, tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(chart_values(plan(CONFIGS[name], mode))), encoding="utf-8")
    done = run_tool("helm", "lint", "--strict", CHART, "-f", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout


def test_helm_lints_the_chart_as_it_is() -> None:
    done = run_tool("helm", "lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": {"reference": "safetake:1"}}, "has no digest"),
        ({"image": {"reference": ""}}, "image.reference is missing"),
        ({"config": ""}, "config is missing"),
        ({"jobs": []}, "nothing would run"),
        ({"user": 0}, "/user"),
        ({"imag": {}}, "imag"),
        ({"resources": {"limits": None}}, "limits"),
        ({"mode": "both"}, "/mode"),
        ({"volumes": [{"claim": "x"}]}, "/volumes/0"),
    ],
)
def test_wrong_values_are_refused(change: Piece, message: str, tmp_path: Path) -> None:
    values = chart_values(plan(R2))
    for key, value in change.items():
        values[key] = (
            {**values[key], **value} if isinstance(value, dict) and key in values else value
        )
    if "image" in change:
        values["image"]["allowUnpinned"] = False
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    done = run_tool("helm", "template", "x", CHART, "-f", file)
    assert done.returncode != 0
    assert message in done.stderr


def test_every_value_is_documented_and_in_the_schema() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(defaults) == set(schema["properties"]) - {"global"}
    assert set(chart_values(plan(FULL, "daemon"))) == set(defaults)
    for block in text.split("\n\n"):
        assert "#" in block or set(yaml.safe_load(block)) <= {
            "resources",
            "affinity",
            "nodeSelector",
            "tolerations",
            "priorityClassName",
            "serviceAccount",
        }


def test_the_chart_has_the_version_of_safetake() -> None:
    from safetake import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__
