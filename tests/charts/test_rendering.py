"""Every set of values in charts/steward/ci is linted, rendered and valid for Kubernetes; wrong values are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python.chart import lint
from helm_python.errors import HelmError

from services.chassis import topology
from services.chassis.__main__ import SERVICES
from tests.charts.rendering import CASES, CHART, Resource, render, rendered, values_of

KUBERNETES = ("1.31", "1.33", "1.37")

# Kinds that Kubernetes does not know by itself, and what their definitions require of what the chart writes.
CUSTOM: dict[tuple[str, str], tuple[str, ...]] = {
    ("postgresql.cnpg.io/v1", "Cluster"): ("spec.instances", "spec.storage.size", "spec.bootstrap.initdb.database"),
    ("rabbitmq.com/v1beta1", "RabbitmqCluster"): ("spec.replicas", "spec.persistence.storage"),
    ("keda.sh/v1alpha1", "ScaledObject"): ("spec.scaleTargetRef.name", "spec.triggers"),
    ("monitoring.coreos.com/v1", "PodMonitor"): ("spec.selector.matchLabels", "spec.podMetricsEndpoints"),
    ("monitoring.coreos.com/v1", "PrometheusRule"): ("spec.groups",),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): ("spec.parentRefs", "spec.rules"),
}


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once() -> Iterator[None]:
    """Else each resource costs reading all definitions of a Kubernetes version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents))
        yield


def custom(resource: Resource) -> bool:
    return (resource["apiVersion"], resource["kind"]) in CUSTOM


def test_there_are_the_sets_of_values_that_the_readme_names() -> None:
    assert CASES == ["external", "full", "minimal", "operators"]


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing(case: str) -> None:
    report = lint(CHART, values_of(case), strict=True, kube_version="v1.33.0")
    assert report["total_charts_linted"] == 1
    assert [message for message in report["messages"] if message["severity"] > 1] == []
    assert {message["error"] for message in report["messages"]} <= {"icon is recommended"}
    assert report["errors"] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_every_resource(case: str, version: str) -> None:
    seen = set()
    for resource in rendered(case).resources:
        if not custom(resource):
            assert kubernetes_validate.validate(resource, version, strict=True) == version
            seen.add(resource["kind"])
    assert {"Deployment", "Service", "Job", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"} <= seen


def test_the_validation_would_notice_an_unknown_field() -> None:
    broken = json.loads(json.dumps(rendered("minimal").named("Deployment", "steward-gateway")))
    broken["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessProb"):
        kubernetes_validate.validate(broken, "1.33", strict=True)


@pytest.mark.parametrize("case", CASES)
def test_custom_resources_have_what_their_definitions_require(case: str) -> None:
    for resource in filter(custom, rendered(case).resources):
        for path in CUSTOM[resource["apiVersion"], resource["kind"]]:
            found: Any = resource
            for part in path.split("."):
                found = found.get(part)
                assert found, f"{resource['kind']} {resource['metadata']['name']} lacks {path}"


def test_custom_resources_come_only_where_they_are_asked_for() -> None:
    def kinds(case: str) -> set[str]:
        return {resource["kind"] for resource in rendered(case).resources if custom(resource)}

    assert kinds("minimal") == kinds("external") == set()
    assert kinds("full") == {"ScaledObject", "PodMonitor", "HTTPRoute"} | ({"PrometheusRule"} if rules() else set())
    assert kinds("operators") == {"Cluster", "RabbitmqCluster", "ScaledObject", "PodMonitor"}


def rules() -> list[Path]:
    return list((CHART / "files" / "rules").glob("*.yaml"))


def test_every_name_is_there_once() -> None:
    for case in CASES:
        names = [(resource["kind"], resource["metadata"]["name"]) for resource in rendered(case).resources]
        assert len(names) == len(set(names))
        assert all(len(name) <= 63 for _, name in names)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"gatway": {}}, "gatway"),
        ({"api": {"replica": 2}}, "replica"),
        ({"api": {"replicas": "two"}}, "replicas"),
        ({"worker": {"autoscaling": {"minReplicas": 0}}}, "minReplicas"),
        ({"worker": {"poolSize": 1}}, "poolSize"),
        ({"services": {"billing": {}}}, "billing"),
        ({"services": {"surveys": {"gateway": {}}}}, "gateway"),
        ({"services": {"surveys": None}}, "surveys"),
        ({"log": {"format": "xml"}}, "format"),
        ({"sms": {"url": "sms.example.com"}}, "url"),
        ({"sms": {"token": "123"}}, "token"),
        ({"database": {"url": "postgresql://a:b@c/d"}}, "url"),
        ({"image": {"digest": "sha256:abc"}}, "digest"),
        ({"image": {"repository": ""}}, "repository"),
        ({"keys": {"existingSecret": ""}}, "existingSecret"),
        ({"gateway": {"settings": {"noSuchSetting": 1}}}, "noSuchSetting"),
        ({"gateway": {"trustedProxies": ["everybody"]}}, "trustedProxies"),
        ({"postgresql": {"roleSecret": "one-for-all"}}, "roleSecret"),
        ({"rabbitmq": {"replicas": 2}}, "replicas"),
        ({"networkPolicy": {"monitoring": []}}, "monitoring"),
        ({"security": {"runAsUser": 0}}, "runAsUser"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(HelmError, match=complaint):
        render(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.hosts"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.enabled needs httpRoute.parentRefs"),
    ],
)
def test_values_that_lack_something_say_what(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HelmError, match=sentence):
        render(values)


def test_a_release_name_that_is_too_long_is_refused_and_not_cut() -> None:
    with pytest.raises(HelmError, match="more than 22 characters"):
        render(name="the-whole-property-group")
    names = {resource["metadata"]["name"] for resource in render(name="property-a-production", values={"fullnameOverride": "p"}).resources}
    assert "p-gateway" in names


def test_the_schema_knows_every_value_and_the_values_every_key_of_the_schema() -> None:
    """But for maps that are free, and `global`, which Helm adds."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(part: dict[str, Any], values: Any, path: str) -> None:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if "properties" not in part:
            return
        assert part["additionalProperties"] is False, f"{path} takes anything"
        assert set(values) <= set(part["properties"]), path
        if path.startswith((".services.", ".gateway.settings", ".probes.")) or path.endswith((".requests", ".limits")):
            return
        assert set(part["properties"]) - set(values) <= {"global"}, path
        for key, value in values.items():
            compare(part["properties"][key], value, f"{path}.{key}")

    compare(schema, yaml.safe_load((CHART / "values.yaml").read_text()), "")


def test_the_services_of_the_chart_are_those_there_are() -> None:
    assert sorted(yaml.safe_load((CHART / "values.yaml").read_text())["services"]) == sorted(SERVICES)


def test_workers_are_scaled_by_the_queues_that_they_consume() -> None:
    wanted = {queue for queue in topology.declared(SERVICES).queues if queue.endswith((".events", ".directory"))}
    scaled = rendered("full").of("ScaledObject")
    assert {trigger["metadata"]["queueName"] for one in scaled for trigger in one["spec"]["triggers"]} == wanted
    for one in scaled:
        name = one["spec"]["scaleTargetRef"]["name"]
        target = rendered("full").named("Deployment", name)
        assert "replicas" not in target["spec"], "two would decide on it"
        for trigger in one["spec"]["triggers"]:
            assert trigger["metadata"]["queueName"].split(".")[0].replace("_", "-") in name
            assert trigger["metadata"]["hostFromEnv"] in {v["name"] for v in target["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert rendered("full").named("Deployment", "steward-residents-worker")["spec"]["replicas"] == 1, "it consumes no queue"


def test_rules_and_dashboards_are_taken_from_their_folders(tmp_path: Path) -> None:
    chart = tmp_path / "steward"
    shutil.copytree(CHART, chart)
    for folder in ("rules", "dashboards"):
        shutil.rmtree(chart / "files" / folder, ignore_errors=True)
        (chart / "files" / folder).mkdir(parents=True)
    values = {"monitoring": {"rules": {"enabled": True, "labels": {"release": "prometheus"}}, "dashboards": {"enabled": True}}}
    assert render(values, chart=chart).of("PrometheusRule", "ConfigMap") == [], "empty folders are no error"

    rule = {"alert": "Late", "expr": "up == 0", "annotations": {"summary": "{{ $labels.service }} is late, 迟了"}}
    group = {"groups": [{"name": "sla", "rules": [rule]}]}
    board = {"title": "SLA", "panels": [{"legendFormat": "{{service}}", "expr": 'sum(rate(a{b="c\\\\d"}[5m]))'}]}
    (chart / "files" / "rules" / "sla.yaml").write_text(yaml.safe_dump(group))
    (chart / "files" / "dashboards" / "group.json").write_text(json.dumps(board, indent=2))
    release = render(values, chart=chart)
    [rules], [dashboard] = release.of("PrometheusRule"), release.of("ConfigMap")
    assert rules["spec"] == group
    assert rules["metadata"]["labels"]["release"] == "prometheus"
    assert json.loads(dashboard["data"]["group.json"]) == board
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_notes_name_the_secrets_that_are_read_and_the_way_in() -> None:
    assert "steward-keys: internal-token" in rendered("minimal").notes
    assert "port-forward svc/steward-gateway 8080:80" in rendered("minimal").notes
    assert "managed-postgresql: app-url, owner-url" in rendered("external").notes
    assert "trustedProxies is empty" in rendered("external").notes
    assert "https://steward.example.com/docs" in rendered("full").notes
    assert "steward-<service>-role" in rendered("operators").notes
    assert "steward-broker:" not in rendered("operators").notes


def test_the_rules_and_dashboards_that_there_are_arrive_as_they_are() -> None:
    release = render({"monitoring": {"rules": {"enabled": True}, "dashboards": {"enabled": True}}})
    files = {f"steward-{path.stem}": yaml.safe_load(path.read_text()) for path in rules()}
    assert {one["metadata"]["name"]: one["spec"] for one in release.of("PrometheusRule")} == files
    boards = {path.name: json.loads(path.read_text()) for path in (CHART / "files" / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for one in release.of("ConfigMap") for name, text in one["data"].items()} == boards
