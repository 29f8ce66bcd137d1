"""Rules, dashboards and runbook speak of metrics that exist, with labels that exist; what is generated is all there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability import alerts, dashboards, reference
from tests.observability.reference import by_series

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts" / "steward" / "files"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
TARGETS = {"role", "component", "job", "instance", "namespace", "pod", "container"}  # labels of the scrape
RECORDED = {"slo", "service", "process", "clock"}  # of the rules' own series
WORDS = {"by", "on", "and", "or", "unless", "offset", "without", "ignoring", "group_left", "bool", "le"}


def rules() -> Iterator[dict[str, Any]]:
    for file in sorted((FILES / "rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def queries() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of rules and dashboards."""
    for rule in rules():
        yield rule.get("alert") or f"{rule['record']} {rule['labels']['slo']}", rule["expr"]
    for file in sorted((FILES / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']}", target["expr"]


QUERIES = list(queries())


def selectors(query: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """(metric, [(label, operator, value)]) of each series that a query reads."""
    plain = re.sub(r'"[^"]*"', lambda quoted: quoted.group().replace("{", "«").replace("}", "»"), query)
    for name, inside in re.findall(r"\b((?:steward[:_]|process_|up\b)[a-zA-Z0-9_:]*)(?:\{([^}]*)\})?", plain):
        yield name, re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', inside.replace("«", "{").replace("»", "}"))


def grouped(query: str) -> set[str]:
    """Labels by which a query sums, joins or names a legend."""
    return {label for inside in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query) for label in re.findall(r"\w+", inside)}


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_reads_metrics_and_labels_that_exist(where: str, query: str) -> None:
    known, recorded = by_series(), {rule["record"] for rule in rules() if "record" in rule}
    read = list(selectors(query))
    assert read
    labels: set[str] = set()
    for name, matchers in read:
        if name in recorded:
            labels |= RECORDED
        elif name == "up" or name.startswith("process_"):
            labels |= TARGETS
        else:
            assert name in known, f"there is no metric {name}"
            labels |= {*known[name].labels, *TARGETS} | ({"le"} if name.endswith("_bucket") else set())
        for label, operator, value in matchers:
            assert label in labels, f"{name} has no label {label}"
            if name in known and label in known[name].labels and not value.startswith("$"):
                possible = reference.allowed(known[name].name, label)
                wanted = value.split("|") if operator in ("=~", "!~") and "(" not in value else [value]
                matched = [one for one in wanted if any(re.fullmatch(one, value) for value in possible)]
                assert matched or operator in ("!=", "!~"), f"{label} of {name} is never {value}"
            if label == "le":
                assert value in known[name].buckets, f"{name} has no bucket {value}"
    assert grouped(query) <= labels


def test_every_bad_code_of_the_objectives_can_happen_or_comes_from_grpc_itself() -> None:
    codes = set(re.search(r'code=~"([^"]*)"', alerts.BAD_CODES).group(1).split("|"))  # type: ignore[union-attr]
    assert codes - reference.allowed("steward_rpc_seconds", "code") == {"UNKNOWN", "DEADLINE_EXCEEDED"}
    assert {"INTERNAL", "UNAVAILABLE"} <= codes


def test_every_alert_has_what_the_one_who_is_called_needs() -> None:
    found = [rule for rule in rules() if "alert" in rule]
    assert sorted(rule["alert"] for rule in found) == sorted(f"Steward{name}" for name in alerts.names())
    for rule in found:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert len(rule["annotations"]["description"]) > 60, rule["alert"]


def sections() -> dict[str, str]:
    return dict(re.findall(r"^### (Steward\w+)\n\n(.*?)(?=^##|\Z)", RUNBOOK, re.M | re.S))


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    wanted = {rule["annotations"]["runbook_url"].partition("#")[2] for rule in rules() if "alert" in rule}
    assert wanted == {name.lower() for name in sections()}


@pytest.mark.parametrize("name", sorted(sections()))
def test_a_section_says_what_it_means_how_to_see_what_to_do_and_when_it_is_over(name: str) -> None:
    text = sections()[name]
    said = {word: len(part) for word, part in re.findall(r"^\*(\w+):\*(.*?)(?=^\*\w+:\*|\Z)", text, re.M | re.S)}
    assert list(said) == ["Means", "See", "Do", "Over"]
    assert min(said.values()) > 10


def test_the_runbook_speaks_of_metrics_that_exist() -> None:
    named = set(re.findall(r"\b(steward_[a-z_]+)", RUNBOOK))
    assert named - set(by_series()) - {metric.name for metric in reference.metrics()} == set()


def test_there_is_no_file_that_is_not_generated() -> None:
    assert sorted(path.name for path in (FILES / "rules").glob("*.yaml")) == sorted(alerts.files())
    assert sorted(path.name for path in (FILES / "dashboards").glob("*.json")) == sorted(dashboards.files())


@pytest.mark.parametrize("file", sorted((FILES / "dashboards").glob("*.json")), ids=lambda file: file.stem)
def test_a_dashboard_is_whole(file: Path) -> None:
    """What Grafana needs to load it, and what a person needs to read it."""
    board = json.loads(file.read_text())
    assert board["uid"] == f"steward-{file.stem}"
    assert len(board["uid"]) <= 40
    assert board["title"].startswith("Steward · ")
    assert board["description"]
    assert board["templating"]["list"][0]["name"] == "datasource"
    panels = board["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert len(panel["description"]) > 3
        for target in panel.get("targets", ()):
            assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["fieldConfig"]["defaults"]["unit"] in ("short", "s", "bytes", "percentunit", "reqps", "ops")
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            recorded = "steward:slo_bad" in target["expr"]
            assert legend <= (RECORDED if recorded else grouped(target["expr"])), f"{panel['title']}: {target['legendFormat']}"
