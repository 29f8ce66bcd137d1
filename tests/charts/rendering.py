"""The chart as Helm's own engine renders it: no cluster, no network, no helm binary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from helm_python.chart import Chart

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "steward"
CASES = sorted(path.stem.removesuffix("-values") for path in (CHART / "ci").glob("*-values.yaml"))
RELEASE = {"app.kubernetes.io/name": "steward", "app.kubernetes.io/instance": "steward"}

Resource = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """What would be sent to Kubernetes."""

    resources: list[Resource]
    notes: str

    def of(self, *kinds: str) -> list[Resource]:
        return [resource for resource in self.resources if resource["kind"] in kinds]

    def named(self, kind: str, name: str) -> Resource:
        [found] = [resource for resource in self.of(kind) if resource["metadata"]["name"] == name]
        return found

    @cached_property
    def workloads(self) -> list[Resource]:
        return self.of("Deployment", "Job")

    def containers(self) -> Iterator[tuple[Resource, Resource, bool]]:
        """(workload, container, whether it runs before the others)."""
        for workload in self.workloads:
            pod = workload["spec"]["template"]["spec"]
            for container in pod["containers"]:
                yield workload, container, False
            for container in pod.get("initContainers", []):
                yield workload, container, True


def values_of(case: str) -> dict[str, Any]:
    return yaml.safe_load((CHART / "ci" / f"{case}-values.yaml").read_text()) or {}


def render(values: dict[str, Any] | None = None, *, chart: Path = CHART, name: str = "steward", revision: int = 1) -> Release:
    """Raises helm_python.errors.HelmError."""
    with Chart.load(chart) as loaded:
        files = loaded.render(values or {}, name=name, namespace="property", revision=revision, is_upgrade=revision > 1)
    notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
    texts = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
    return Release([found for text in texts for found in yaml.load_all(text, Loader=yaml.CSafeLoader) if found], notes)


@cache
def rendered(case: str) -> Release:
    return render(values_of(case))


def role_and_service(workload: Resource) -> tuple[str, str]:
    """("api", "work_orders"); the gateway has no service."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return labels["steward/role"], labels.get("steward/service", "").replace("-", "_")


def environment(container: Resource) -> dict[str, str]:
    """Variable → value, or `secret:<name>/<key>`."""
    found = {}
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        assert variable["name"] not in found, f"{variable['name']} is set twice"
        found[variable["name"]] = f"secret:{reference['name']}/{reference['key']}" if reference else variable["value"]
    return found
