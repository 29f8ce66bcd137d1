"""What every workload of the chart must have, read from what would be sent to Kubernetes."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from helm_python.chart import Chart

from gateway import settings as gateway_settings
from services.chassis import settings as process_settings
from services.chassis.__main__ import SERVICES
from services.chassis.settings import NEEDED, OF_RESIDENTS, READ_BY
from tests.charts.rendering import CASES, CHART, RELEASE, Release, Resource, environment, render, rendered, role_and_service, values_of

SETTINGS = [field.name for field in dataclasses.fields(process_settings.Settings)]
GATEWAY_SETTINGS = [field.name for field in dataclasses.fields(gateway_settings.GatewaySettings)]
DEVELOPMENT = {"profile", "demo_password", "demo_code"}  # the chart installs production alone
SECRET = {"database_url", "migrate_url", "amqp_url", "identity_key", "identity_public_keys", "data_key", "internal_token", "sms_token"}
BESIDE = {"PGPASSWORD", "PGSSLMODE", "PGSSLROOTCERT", "BROKER_USERNAME", "BROKER_PASSWORD"}  # of libpq; parts of a URL
ROLES = ("api", "worker", "relay", "jobs")


@pytest.fixture(params=CASES)
def release(request: pytest.FixtureRequest) -> Release:
    return rendered(request.param)


def variable(name: str) -> str:
    return f"STEWARD_{name.upper()}"


def gateway_variable(name: str) -> str:
    return gateway_settings.OTHER_NAMES.get(name, f"STEWARD_GATEWAY_{name.upper()}")


# --- processes


def test_every_service_has_every_role_and_there_is_a_gateway(release: Release) -> None:
    wanted = {(role, service) for role in (*ROLES, "migrate") for service in SERVICES} | {("gateway", "")}
    assert {role_and_service(workload) for workload in release.workloads} == wanted
    assert len(release.workloads) == len(wanted)


def test_every_container_runs_what_its_labels_say(release: Release) -> None:
    for workload, container, first in release.containers():
        role, service = role_and_service(workload)
        command = ["gateway"] if role == "gateway" else ["services.chassis", "wait" if first else role, service]
        assert container["args"] == command
        assert "command" not in container, "the image says how Python is started"


def test_processes_wait_for_the_migration_and_the_gateway_for_nothing(release: Release) -> None:
    for workload in release.of("Deployment"):
        names = [container["name"] for container in workload["spec"]["template"]["spec"].get("initContainers", [])]
        assert names == ([] if role_and_service(workload)[0] == "gateway" else ["wait"])
    assert all("helm.sh/hook" not in resource["metadata"].get("annotations", {}) for resource in release.resources)


def test_every_process_is_probed_on_its_own_port(release: Release) -> None:
    for workload, container, first in release.containers():
        if workload["kind"] == "Job" or first:
            continue
        for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        said = environment(container)
        assert said["STEWARD_BIND"] == "0.0.0.0"  # noqa: S104 - in a pod
        assert int(said["STEWARD_HTTP_PORT"]) == ports["metrics"]
        assert ports.get("grpc") == (int(said["STEWARD_GRPC_PORT"]) if "STEWARD_GRPC_PORT" in said else None)
        assert ports.get("rest") == (int(said["STEWARD_PORT"]) if "STEWARD_PORT" in said else None)


def test_every_container_has_requests_and_a_limit_of_memory(release: Release) -> None:
    for _, container, _ in release.containers():
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"], "throttling turns a busy second into time-outs"


def test_no_container_has_any_right(release: Release) -> None:
    for workload, container, _ in release.containers():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] == "steward"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108 - the one place to write to
        assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {"emptyDir", "secret"}


def test_a_cluster_may_choose_the_user() -> None:
    for workload in render({"security": {"runAsUser": None}}).workloads:
        context = workload["spec"]["template"]["spec"]["securityContext"]
        assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_services_of_the_namespace_set_no_variables(release: Release) -> None:
    """A Service called `steward` would set STEWARD_PORT to tcp://…"""
    for workload in release.workloads:
        assert workload["spec"]["template"]["spec"]["enableServiceLinks"] is False


# --- settings


def test_every_process_is_told_what_it_needs(release: Release) -> None:
    for workload, container, first in release.containers():
        role, service = role_and_service(workload)
        needed = ("database_url",) if first else NEEDED[role] + (OF_RESIDENTS.get(role, ()) if service == "residents" else ())
        said = environment(container)
        assert [name for name in needed if not said.get(variable(name))] == [], f"{role} of {service}"


def test_no_process_is_told_what_it_does_not_read(release: Release) -> None:
    for workload, container, first in release.containers():
        role, service = role_and_service(workload)
        readers = "wait" if first else role
        known = {variable(name) for name in SETTINGS if role in READ_BY[name].split()} if not first else set()
        if readers == "wait":
            known = {"STEWARD_DATABASE_URL", "STEWARD_LOG_FORMAT"}
        if role == "gateway":
            known |= {gateway_variable(name) for name in GATEWAY_SETTINGS}
        unknown = environment(container).keys() - known - BESIDE
        assert not unknown, f"{readers} of {service} does not read {unknown}"
        for name in ("identity_key", "data_key", "sms_url", "sms_token"):
            if service != "residents":
                assert variable(name) not in environment(container), f"{name} is for residents alone"


def test_every_setting_of_production_can_be_set() -> None:
    """With the full set of values, by some process; the gateway's by `gateway.settings` too."""
    release = rendered("full")
    said = {name for _, container, _ in release.containers() for name in environment(container)}
    assert {variable(name) for name in SETTINGS if name not in DEVELOPMENT} <= said
    assert not {variable(name) for name in DEVELOPMENT} & said
    own = {
        "port",
        "descriptors",
        "cors_origins",
        "trusted_proxies",
        "drain_delay",
        "drain_timeout",
    }  # the chart's, the image's, values of their own
    every = {re.sub(r"_(\w)", lambda found: found[1].upper(), name): 1 for name in GATEWAY_SETTINGS if name not in own}
    gateway = render({"gateway": {"settings": every | {"metricsOutside": True}}}).named("Deployment", "steward-gateway")
    [container] = gateway["spec"]["template"]["spec"]["containers"]
    assert {gateway_variable(name) for name in GATEWAY_SETTINGS if name not in own} <= environment(container).keys()


def test_every_process_can_read_what_it_is_told(release: Release) -> None:
    """The very functions that read the environment when a process starts."""
    for _, container, _ in release.containers():
        said = {name: value.replace("secret:", "") for name, value in environment(container).items()}
        config = process_settings.read(said)
        assert not config.development
        own = gateway_settings.read(said)
        assert own.port == 8080
    said = environment(rendered("full").named("Deployment", "steward-gateway")["spec"]["template"]["spec"]["containers"][0])
    own = gateway_settings.read(said)
    assert (own.body_limit, own.principal_rate, own.metrics_outside, own.drain_delay) == (2097152, 20.5, False, 5.0)
    assert [str(network) for network in own.trusted_proxies] == ["10.0.0.0/8"]


def test_addresses_name_the_headless_services(release: Release) -> None:
    for workload in release.of("Deployment"):
        role, _ = role_and_service(workload)
        [container] = workload["spec"]["template"]["spec"]["containers"]
        addresses = process_settings.read(environment(container)).addresses
        assert sorted(addresses) == {"gateway": sorted(SERVICES), "api": ["residents"]}.get(role, [])
        for name, address in addresses.items():
            host, _, port = address.partition(":")
            found = release.named("Service", host.removesuffix(".property"))
            assert found["spec"]["clusterIP"] == "None"
            assert found["spec"]["selector"]["app.kubernetes.io/component"] == f"{name.replace('_', '-')}-api"
            assert [int(port)] == [one["port"] for one in found["spec"]["ports"]]


def test_secrets_are_named_and_never_written(release: Release) -> None:
    assert release.of("Secret") == []
    for _, container, _ in release.containers():
        for name, value in environment(container).items():
            secret = name.removeprefix("STEWARD_").lower() in SECRET or name in ("PGPASSWORD", "BROKER_PASSWORD")
            composed = "PGPASSWORD" in environment(container) or "$(BROKER_PASSWORD)" in value
            assert value.startswith("secret:") or not secret or composed, name
            assert not re.search(r"://[^/$@]*:[^$/@]+@", value), f"{name} has a password in it"


def test_no_value_holds_a_secret() -> None:
    def walk(values: Any, path: str) -> None:
        for key, value in values.items() if isinstance(values, dict) else ():
            assert not re.search(r"(?i)(password|token|private|credential)$", key), f"{path}.{key}"
            walk(value, f"{path}.{key}")
        if isinstance(values, str):
            assert "PRIVATE KEY" not in values
            assert not re.search(r"://[^/@]+:[^/@]+@", values), path

    for case in CASES:
        walk(values_of(case), case)
    with Chart.load(CHART) as chart:
        walk(chart.values, "values")


def test_a_service_may_have_a_secret_of_its_own() -> None:
    release = rendered("external")

    def urls(service: str) -> set[str]:
        return {
            value
            for workload, container, _ in release.containers()
            if role_and_service(workload)[1] == service
            for name, value in environment(container).items()
            if name in ("STEWARD_DATABASE_URL", "STEWARD_MIGRATE_URL")
        }

    assert urls("surveys") == {"secret:managed-postgresql/app-url", "secret:managed-postgresql/owner-url"}
    assert urls("work_orders") == {"secret:work-orders-postgresql/app-url", "secret:work-orders-postgresql/owner-url"}


# --- selectors, ports, budgets


def labels_of(workload: Resource) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]


def selects(selector: dict[str, str], workload: Resource) -> bool:
    return selector.items() <= labels_of(workload).items()


def test_a_deployment_selects_its_own_pods_and_no_others(release: Release) -> None:
    for deployment in release.of("Deployment"):
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert [other for other in release.workloads if selects(selector, other)] == [deployment]


def test_selectors_do_not_change_with_version_or_values() -> None:
    def selectors(release: Release) -> dict[str, Any]:
        return {one["metadata"]["name"]: one["spec"]["selector"] for one in release.of("Deployment")}

    upgraded = render({**values_of("full"), "image": {"tag": "2.0.0"}, "podLabels": {"cost-centre": "other"}}, revision=7)
    assert selectors(upgraded) == selectors(rendered("minimal"))


def test_labels_are_those_that_kubernetes_recommends(release: Release) -> None:
    for resource in release.resources:
        labels = resource["metadata"]["labels"]
        assert RELEASE.items() <= labels.items()
        assert {"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "app.kubernetes.io/part-of", "helm.sh/chart"} <= labels.keys()
    for workload in release.workloads:
        assert {**RELEASE, "app.kubernetes.io/part-of": "steward"}.items() <= labels_of(workload).items()
        assert "helm.sh/chart" not in labels_of(workload), "a new chart with the same image need not restart pods"
        assert labels_of(workload)["app.kubernetes.io/component"] == workload["metadata"]["labels"]["app.kubernetes.io/component"]


def test_every_port_of_a_service_is_a_port_of_the_pods_that_it_selects(release: Release) -> None:
    for service in release.of("Service"):
        [deployment] = [one for one in release.of("Deployment") if selects(service["spec"]["selector"], one)]
        names = {port["name"] for container in deployment["spec"]["template"]["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    assert len(release.of("Service")) == len(SERVICES) + 1


def test_every_deployment_has_a_budget_and_every_budget_a_deployment(release: Release) -> None:
    budgets = release.of("PodDisruptionBudget")
    for deployment in release.of("Deployment"):
        [budget] = [one for one in budgets if selects(one["spec"]["selector"]["matchLabels"], deployment)]
        assert budget["spec"]["maxUnavailable"] == 1, "a minimum would hold up the eviction of a single pod for ever"
    assert len(budgets) == len(release.of("Deployment"))


def test_pods_of_a_workload_are_spread(release: Release) -> None:
    for deployment in release.of("Deployment"):
        constraints = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in constraints} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        assert all(one["labelSelector"] == deployment["spec"]["selector"] for one in constraints)


def test_rolling_takes_no_pod_before_the_next_is_ready(release: Release) -> None:
    for deployment in release.of("Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        if role_and_service(deployment)[0] == "api":
            assert deployment["spec"]["minReadySeconds"] >= 30
    gateway = render({"gateway": {"drainDelay": 8, "drainTimeout": 40}}).named("Deployment", "steward-gateway")
    assert gateway["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 8 + 40


def test_what_is_scaled_has_no_number_of_its_own() -> None:
    release = rendered("full")
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in release.of("HorizontalPodAutoscaler")}
    assert sorted(scaled) == sorted([f"steward-{service.replace('_', '-')}-api" for service in SERVICES] + ["steward-gateway"])
    assert all("replicas" not in release.named("Deployment", name)["spec"] for name in scaled)
    assert scaled["steward-work-orders-api"]["maxReplicas"] == 24
    assert scaled["steward-surveys-api"]["maxReplicas"] == 12


def test_a_value_of_a_service_leaves_the_others_of_its_role_alone() -> None:
    [container] = rendered("full").named("Deployment", "steward-work-orders-api")["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "500m", "memory": "128Mi"}, "limits": {"memory": "384Mi"}}
    assert environment(container)["STEWARD_API_THREADS"] == "24"
    [container] = rendered("full").named("Deployment", "steward-surveys-api")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "100m"
    assert environment(container)["STEWARD_API_THREADS"] == "16"


# --- migrations


def jobs(**changes: Any) -> dict[str, Resource]:
    return {role_and_service(job)[1]: job for job in render(**changes).of("Job")}


def test_a_migration_is_a_new_job_for_each_revision_and_each_change_of_what_it_runs() -> None:
    first = jobs()
    assert {name: job["metadata"]["name"] for name, job in jobs().items()} == {name: job["metadata"]["name"] for name, job in first.items()}
    for changed in (
        jobs(revision=2),
        jobs(values={"image": {"tag": "2.0.0"}}),
        jobs(values={"migrate": {"resources": {"requests": {"cpu": 1}}}}),
    ):
        assert not {job["metadata"]["name"] for job in changed.values()} & {job["metadata"]["name"] for job in first.values()}


def test_a_migration_is_tried_again_until_its_stores_are_there(release: Release) -> None:
    for job in release.of("Job"):
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
        assert job["spec"]["backoffLimit"] >= 10
        assert "ttlSecondsAfterFinished" not in job["spec"], "one that is gone would be made again"


def test_only_migrations_know_the_owner_of_the_schema(release: Release) -> None:
    for workload, container, _ in release.containers():
        is_migration = role_and_service(workload)[0] == "migrate"
        assert ("STEWARD_MIGRATE_URL" in environment(container)) is is_migration
        assert not any(value.endswith("-db-app/uri") and not is_migration for value in environment(container).values())


# --- the clusters that operators make


def test_database_and_roles_are_called_as_the_migrations_expect() -> None:
    clusters = rendered("operators").of("Cluster")
    assert {one["spec"]["bootstrap"]["initdb"]["database"] for one in clusters} == set(SERVICES)
    for one in clusters:
        service = one["spec"]["bootstrap"]["initdb"]["database"]
        assert one["spec"]["bootstrap"]["initdb"]["owner"] == f"{service}_owner"
        [role] = one["spec"]["managed"]["roles"]
        assert role["name"] == service
        assert not role["superuser"]
        assert not role["bypassrls"]
        assert role["passwordSecret"]["name"] == f"steward-{service.replace('_', '-')}-role"
        assert one["spec"]["postgresql"]["synchronous"] == {"method": "any", "number": 1}


def test_processes_connect_to_the_cluster_of_their_service_and_check_its_certificate() -> None:
    release = rendered("operators")
    for workload, container, _ in release.containers():
        role, service = role_and_service(workload)
        if role == "gateway":
            continue
        said, dashed = environment(container), service.replace("_", "-")
        assert (said["PGSSLMODE"], said["PGSSLROOTCERT"]) == ("verify-full", "/etc/steward/database/ca.crt")
        volumes = workload["spec"]["template"]["spec"]["volumes"]
        assert [one["secret"]["secretName"] for one in volumes if "secret" in one] == [f"steward-{dashed}-db-ca"]
        assert {"name": "database-ca", "mountPath": "/etc/steward/database", "readOnly": True} in container["volumeMounts"]
        if role == "migrate":
            assert said["STEWARD_MIGRATE_URL"] == f"secret:steward-{dashed}-db-app/uri"
        else:
            assert said["STEWARD_DATABASE_URL"] == f"postgresql://{service}@steward-{dashed}-db-rw.property.svc:5432/{service}"
            assert said["PGPASSWORD"] == f"secret:steward-{dashed}-role/password"


def test_the_broker_has_three_nodes_and_a_minority_stops() -> None:
    [broker] = rendered("operators").of("RabbitmqCluster")
    assert broker["spec"]["replicas"] == 3
    assert "cluster_partition_handling = pause_minority" in broker["spec"]["rabbitmq"]["additionalConfig"]
    names = [variable["name"] for variable in rendered("operators").of("Job")[0]["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert names.index("STEWARD_AMQP_URL") > max(names.index("BROKER_USERNAME"), names.index("BROKER_PASSWORD")), "or $(…) stays as it is"
