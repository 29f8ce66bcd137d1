"""A real Prometheus scrapes a platform that really runs, with the rules of the chart; every panel's query returns data.

Needs Debian's package `prometheus`, of which only the programs are used. Part of `make test-platform`.
"""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from services.local.demo_cast import cast_of
from services.local.first_import import SHIPPED
from services.local.platform import Platform
from services.local.story import Cast, Person, play
from tests.observability.scraping import strays

FILES = Path(__file__).parents[2] / "charts" / "steward" / "files"
MISSING = "prometheus is missing: `apt-get install --no-install-recommends prometheus` has it"
SCRAPED = 2  # s between scrapes; four of them make a rate
# Series that begin with what they count: nothing of the kind happens in a run where all goes well.
EMPTY = {
    "steward_sms_attempts_total": "in development codes are shown in the log, no SMS company is asked",
    "steward_gateway_refusals_total": "nobody reaches a limit",
    "steward_relay_refused_total": "the broker takes everything",
    "steward_relay_restarts_total": "neither database nor broker is lost",
    "steward_events_retried_total": "no reaction fails",
    "steward_events_put_off_total": "the database is there",
    "steward_events_duplicate_total": "the broker delivers once",
    'code="UNAVAILABLE"': "no operation fails for the database",
    "steward_rows_forgotten_total": "nothing in a new database is old",
}


class Prometheus:
    """A server of this test's own, on a port of loopback."""

    def __init__(self, folder: Path, targets: dict[str, list[dict[str, Any]]]):
        program = shutil.which("prometheus")
        assert program, MISSING
        self.port = _free()
        self.url = f"http://127.0.0.1:{self.port}"
        rules = sorted(str(path) for path in (FILES / "rules").glob("*.yaml"))
        scrapes = [{"job_name": job, "static_configs": configs} for job, configs in targets.items()]
        config = {
            "global": {"scrape_interval": f"{SCRAPED}s", "evaluation_interval": f"{SCRAPED}s"},
            "rule_files": rules,
            "scrape_configs": scrapes,
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        arguments = [
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen([program, *arguments], stdout=self._log, stderr=subprocess.STDOUT)
        self._wait(folder / "log")

    def _wait(self, log: Path) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(log.read_text()[-3000:])

    def ask(self, path: str, **values: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(values)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        return [(sample["metric"], float(sample["value"][1])) for sample in self.ask("query", query=query)["result"]]

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def reckoned(self) -> bool:
        """Whether every rule has had its turn, which some have every 30 s."""
        return all(rule["health"] != "unknown" for rule in self.rules())

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("seen"), port=0, say=lambda line: None) as whole:
        whole.start_stores()
        whole.migrate()
        whole.start()
        whole.wait_ready(seconds=180)
        importing = [sys.executable, "-m", "services.residents.first_import", str(SHIPPED)]
        whole.run("first_import", importing, whole.environment("jobs"), seconds=180)
        yield whole


@pytest.fixture(scope="module")
def prometheus(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """After the story was played under its eyes, figures of an estate were asked for, and the timers have run."""
    targets = [
        {"targets": [f"127.0.0.1:{platform.http_port(part.name)}"], "labels": {"role": part.role, "component": part.name}}
        for part in platform.parts
    ]
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), {"steward": targets})
    try:
        time.sleep(3 * SCRAPED)
        cast = cast_of(platform)
        play(platform.gateway_url, cast, lambda line: None)
        ask_for_figures(platform.gateway_url, cast)
        until = time.monotonic() + 60
        while time.monotonic() < until and not (server.values("steward_retention_behind") and server.reckoned()):
            time.sleep(1)
        time.sleep(3 * SCRAPED)
        yield server
    finally:
        server.close()


def ask_for_figures(url: str, cast: Cast) -> None:
    """And for what is not there, for nothing, and in strange ways: no label may grow with it."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        person = Person(http, {"grant_type": "password", "username": cast.staff["CS_SUPERVISOR"], "password": cast.password})
        person.get(f"/v1/estates/{cast.estate}/repairs:statistics", month=f"{datetime.now(UTC):%Y-%m}")
        person.get(f"/v1/estates/{cast.estate}/repairs:board")
        for path in (
            "/v1/estates/QQQQ/repairs/0",
            "/nothing/77777",
            "/v1/estates/TFHY/repairs/77777:take",
            "/%00",
            "/v1/estates/-/repairs",
        ):
            http.get(path)
        http.request("BREW", f"/v1/estates/{cast.estate}/repairs")


def panels() -> Iterator[tuple[str, str]]:
    for file in sorted((FILES / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']} {target['refId']}", target["expr"]


PANELS = list(panels())


@pytest.mark.timeout(400)
def test_every_process_is_scraped_and_every_rule_can_be_reckoned(prometheus: Prometheus, platform: Platform) -> None:
    assert {labels["component"]: value for labels, value in prometheus.values("up")} == {part.name: 1.0 for part in platform.parts}
    assert [(rule["name"], rule.get("lastError")) for rule in prometheus.rules() if rule["health"] != "ok"] == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("where", "query"), PANELS, ids=[where for where, _ in PANELS])
def test_a_panel_shows_something(prometheus: Prometheus, where: str, query: str) -> None:
    if any(part in query for part in EMPTY):
        assert prometheus.values(query.replace("$__rate_interval", "1m")) == [], "it shows something now: take it from EMPTY"
        return
    found = prometheus.values(query.replace("$__rate_interval", "1m").replace("$service", "work_orders"))
    assert any(not math.isnan(value) for _, value in found), f"{query} returns nothing: {found}"


@pytest.mark.timeout(400)
def test_the_values_of_a_variable_are_there(prometheus: Prometheus) -> None:
    variables = [
        variable for file in (FILES / "dashboards").glob("*.json") for variable in json.loads(file.read_text())["templating"]["list"]
    ]
    asked = [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    assert asked == ["label_values(steward_timer_period_seconds, service)"]
    found = prometheus.ask("label/service/values", **{"match[]": "steward_timer_period_seconds"})
    assert "work_orders" in found
    assert len(found) == 7


@pytest.mark.timeout(400)
def test_no_process_shows_a_metric_label_or_value_that_the_reference_does_not_have(prometheus: Prometheus, platform: Platform) -> None:
    for part in platform.parts:
        with urllib.request.urlopen(f"http://127.0.0.1:{platform.http_port(part.name)}/metrics", timeout=10) as answer:
            assert strays(answer.read().decode(), part.role) == [], part.name


@pytest.mark.timeout(400)
def test_when_all_is_well_nobody_is_called(prometheus: Prometheus) -> None:
    """The story lets an emergency wait on purpose: that is seen, and nothing else."""
    firing = {labels["alertname"] for labels, _ in prometheus.values('ALERTS{alertstate="firing", severity="page"}')}
    assert firing == set()
    escalated = prometheus.values('steward_clock_marks_total{mark="ClockEscalated", urgent="true", clock="pickup"}')
    assert sum(value for _, value in escalated) >= 1


def _free() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])
