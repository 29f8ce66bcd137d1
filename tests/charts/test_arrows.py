"""NetworkPolicies allow just the arrows of the design: who may connect to whom is worked out as Kubernetes does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.chassis.__main__ import SERVICES
from tests.charts.rendering import CASES, Release, Resource, render, rendered, role_and_service

Place = tuple[str, str]  # role and service
DNS = {("UDP", 53), ("TCP", 53)}
BROKER = {"worker", "relay", "migrate"}


def chosen(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions), "this test reads no other"
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def labels_of(workload: Resource) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]


def ports_of(workload: Resource) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for c in workload["spec"]["template"]["spec"]["containers"] for port in c.get("ports", [])}


def rules(release: Release, labels: dict[str, str], direction: str) -> list[dict[str, Any]]:
    """What is allowed to pods with these labels. Raises AssertionError where nothing says that all else is not."""
    policies = [one["spec"] for one in release.of("NetworkPolicy") if chosen(one["spec"]["podSelector"], labels)]
    assert any(direction.capitalize() in policy["policyTypes"] for policy in policies), f"{direction} of {labels} is open"
    return [rule for policy in policies for rule in policy.get(direction, [])]


def allows(rule: dict[str, Any], side: str, labels: dict[str, str], name: str, number: int) -> bool:
    if side in rule and not any("podSelector" in peer and chosen(peer["podSelector"], labels) for peer in rule[side]):
        return False
    return any(port["port"] in (name, number) for port in rule["ports"])


def arrows(release: Release) -> Iterator[tuple[Place, Place, str]]:
    """Between Steward's own processes: from, to, name of the port."""
    for source in release.workloads:
        for goal in release.workloads:
            for name, number in ports_of(goal).items():
                out = any(allows(rule, "to", labels_of(goal), name, number) for rule in rules(release, labels_of(source), "egress"))
                into = any(allows(rule, "from", labels_of(source), name, number) for rule in rules(release, labels_of(goal), "ingress"))
                if out and into:
                    yield role_and_service(source), role_and_service(goal), name


@pytest.mark.parametrize("case", CASES)
def test_between_processes_there_are_the_calls_of_the_design(case: str) -> None:
    to_api = {(("gateway", ""), ("api", service), "grpc") for service in SERVICES}
    to_residents = {(("api", service), ("api", "residents"), "grpc") for service in SERVICES}
    clients = {(source, ("gateway", ""), "rest") for source, goal, _ in arrows(rendered(case)) if goal == ("gateway", "")}
    assert set(arrows(rendered(case))) - clients == to_api | to_residents
    assert clients == set(), "nobody inside calls the gateway"


def outside(release: Release, workload: Resource) -> set[tuple[str, int]]:
    """Ports outside Steward's own pods that a process may connect to."""
    found = set()
    for rule in rules(release, labels_of(workload), "egress"):
        own = [peer for peer in rule.get("to", []) if peer.get("podSelector", {}).get("matchLabels", {}).get("steward/role")]
        if not own:
            found |= {(port["protocol"], port["port"]) for port in rule["ports"]}
    return found


@pytest.mark.parametrize("case", CASES)
def test_processes_reach_names_their_database_and_who_needs_it_the_broker(case: str) -> None:
    broker = 5671 if case == "external" else 5672
    for workload in rendered(case).workloads:
        role, service = role_and_service(workload)
        wanted = set(DNS)
        if role != "gateway":
            wanted.add(("TCP", 5432))
        if role in BROKER:
            wanted.add(("TCP", broker))
        if case == "full" and (role, service) == ("jobs", "residents"):
            wanted.add(("TCP", 443))  # the SMS company
        assert outside(rendered(case), workload) == wanted, f"{role} of {service}"


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_read_from_the_monitoring_namespace_alone_and_clients_call_the_gateway(case: str) -> None:
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    for workload in rendered(case).of("Deployment"):
        role, _ = role_and_service(workload)
        foreign = [
            rule
            for rule in rules(rendered(case), labels_of(workload), "ingress")
            if not any("podSelector" in peer for peer in rule.get("from", []))
        ]
        assert [rule["from"] for rule in foreign if rule["ports"][0]["port"] == "metrics"] == [monitoring]
        others = [rule for rule in foreign if rule["ports"][0]["port"] != "metrics"]
        assert [rule["ports"][0]["port"] for rule in others] == (["rest"] if role == "gateway" else [])
        if role == "gateway":
            assert ("from" in others[0]) is (case == "full")


def test_external_stores_may_be_pinned_to_their_networks() -> None:
    for name, network in (("database", "10.20.0.0/24"), ("broker", "10.20.1.0/24"), ("sms", "203.0.113.0/24")):
        [rule] = rendered("full").named("NetworkPolicy", f"steward-{name}")["spec"]["egress"]
        assert rule["to"] == [{"ipBlock": {"cidr": network}}]


def test_a_database_is_for_its_service_its_cluster_the_operator_and_metrics() -> None:
    release = rendered("operators")
    for service in SERVICES:
        name = f"steward-{service.replace('_', '-')}-db"
        labels = {"cnpg.io/cluster": name}
        for workload in release.workloads:
            role, other = role_and_service(workload)
            mine = role != "gateway" and other == service
            out = any(allows(rule, "to", labels, "", 5432) for rule in rules(release, labels_of(workload), "egress"))
            into = any(allows(rule, "from", labels_of(workload), "", 5432) for rule in rules(release, labels, "ingress") if "ports" in rule)
            assert (out, into) == (mine, mine), f"{role} of {other} and {name}"
        [among] = [rule for rule in rules(release, labels, "ingress") if "ports" not in rule]
        assert among["from"] == [{"podSelector": {"matchLabels": labels}}]


def test_the_broker_is_for_those_who_publish_and_consume() -> None:
    release = rendered("operators")
    labels = {"app.kubernetes.io/name": "steward-broker"}
    for workload in release.workloads:
        role, _ = role_and_service(workload)
        out = any(allows(rule, "to", labels, "", 5672) for rule in rules(release, labels_of(workload), "egress"))
        into = any(allows(rule, "from", labels_of(workload), "", 5672) for rule in rules(release, labels, "ingress") if "ports" in rule)
        assert (out, into) == (role in BROKER, role in BROKER), role
    [amqp] = [rule for rule in rules(release, labels, "ingress") if {"protocol": "TCP", "port": 5672} in rule.get("ports", [])]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}} in amqp["from"], "KEDA looks at the queues"


def test_policies_can_be_left_out() -> None:
    assert render({"networkPolicy": {"enabled": False}}).of("NetworkPolicy") == []
