"""Compares a page of metrics with the reference."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.observability import reference


def strays(page: str, role: str) -> list[str]:
    """What a process of this role shows and should not: unknown metrics, labels or values, and metrics of other roles, each once."""
    known, found = reference.by_series(), {}
    for sample in (sample for family in text_string_to_metric_families(page) for sample in family.samples):
        if sample.name.startswith(reference.STANDARD):
            continue
        metric = known.get(sample.name)
        if metric is None:
            found[f"{sample.name} is in no line of the reference"] = None
            continue
        if role not in metric.roles and (metric.labels or sample.value):  # without labels it stands at 0 wherever its module is loaded
            found[f"{metric.name} is served by {role}"] = None
        for label, value in sample.labels.items():
            if label == "le" and metric.buckets:
                known_value = value in metric.buckets or value == "+Inf"
            elif label not in metric.labels:
                found[f"{metric.name} has a label {label}"] = None
                continue
            else:
                known_value = value in reference.allowed(metric.name, label)
            if not known_value:
                found[f"{metric.name}: {label} is {value}"] = None
    return list(found)
