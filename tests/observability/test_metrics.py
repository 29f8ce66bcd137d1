"""Every metric has its line in the reference, and every label a set of values that is known before anything happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.observability import reference
from tests.observability.reference import Metric
from tests.observability.scraping import strays

ROOT = Path(__file__).parents[2]
TARGETS = {"role", "component", "job", "instance", "namespace", "pod", "container", "endpoint"}
METRICS = reference.metrics()


def test_every_metric_named_in_the_code_is_in_the_reference() -> None:
    named = {
        name
        for folder in ("services", "gateway")
        for file in (ROOT / folder).rglob("*.py")
        for name in re.findall(r'\b(?:Counter|Gauge|Histogram|Summary|Info|Enum)\(\s*"(\w+)"', file.read_text())
    }
    assert named == {metric.name for metric in METRICS}


@pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
def test_a_metric_says_what_it_means_who_serves_it_and_what_its_labels_can_say(metric: Metric) -> None:
    assert len(metric.meaning) > 10
    assert metric.roles
    assert set(metric.roles) <= set(reference.ROLES)
    for label in metric.labels:
        assert reference.said(metric.name, label), label
        values = reference.allowed(metric.name, label)
        assert values, label
        assert "" not in values, label
        assert not any(re.search(r"[0-9a-f]{8}-|\d{5}|/[A-Z]{4}/", value) for value in values), label


def test_no_label_hides_one_of_the_scrape() -> None:
    assert {label for metric in METRICS for label in metric.labels} & TARGETS == set()


def test_no_set_of_values_stands_for_nothing() -> None:
    labels = {f"{metric.name}.{label}" for metric in METRICS for label in metric.labels}
    assert {key for key in reference.VALUES if key not in labels and not any(label.endswith(f".{key}") for label in labels)} == set()


def test_a_stray_value_is_found() -> None:
    page = 'steward_rpc_in_flight{service="surveys"} 1.0\nsteward_rpc_in_flight{service="estates/TFHY"} 1.0\nsteward_new_total 1.0\n'
    assert strays(page, "api") == [
        "steward_rpc_in_flight: service is estates/TFHY",
        "steward_new_total is in no line of the reference",
    ]
    assert strays('steward_rpc_in_flight{service="surveys"} 1.0\n', "relay") == ["steward_rpc_in_flight is served by relay"]
    assert strays("steward_sms_seconds_count 0.0\n", "api") == []
    assert strays("steward_sms_seconds_count 1.0\n", "api") == ["steward_sms_seconds is served by api"]
    assert strays('steward_relay_lag_seconds{service="surveys",le="5"} 1.0\n', "relay") == ["steward_relay_lag_seconds has a label le"]
