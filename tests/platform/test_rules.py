"""Every alert fires when it should and stays silent just short of that: promtool plays series against the rules of the chart.

Needs Debian's package `prometheus`, of which only the programs are used. Part of `make test-platform`.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.observability import alerts

RULES = Path(__file__).parents[2] / "charts" / "steward" / "files" / "rules"
MISSING = "promtool is missing: `apt-get install --no-install-recommends prometheus` has it"


@pytest.fixture(scope="session")
def promtool() -> str:
    """Fails, and does not skip, where there is none."""
    found = shutil.which("promtool")
    assert found, MISSING
    return found


@dataclass(frozen=True, slots=True)
class Play:
    """Series (one value a step, as promtool writes them), the time of the look, and what is then to be firing, by its labels.

    A step is a minute, and ten for alerts that look days back.
    """

    series: dict[str, str]
    at: str
    firing: tuple[dict[str, str], ...] = field(default=())


def counting(per_step: float, steps: int = 450) -> str:
    return f"0+{per_step:g}x{steps}"


def then(before: float, steps: int, after: float, more: int) -> str:
    """A counter that grows by `before` a step for so many steps, then by `after`."""
    last = before * steps
    return f"0+{before:g}x{steps} {last + after:g}+{after:g}x{more}"


def gateway(bad: str, good: str) -> dict[str, str]:
    labels = 'route="/v1/x", method="GET"'
    return {
        f'steward_gateway_requests_total{{{labels}, status="2xx"}}': good,
        f'steward_gateway_requests_total{{{labels}, status="5xx"}}': bad,
    }


def histogram(name: str, labels: str, le: str, fast: str, all: str) -> dict[str, str]:
    return {f'{name}_bucket{{{labels}, le="{le}"}}': fast, f"{name}_count{{{labels}}}": all}


def rpc(bad: str, good: str, code: str = "INTERNAL", service: str = "surveys") -> dict[str, str]:
    return {
        f'steward_rpc_seconds_count{{service="{service}", rpc="X", code="OK"}}': good,
        f'steward_rpc_seconds_count{{service="{service}", rpc="X", code="{code}"}}': bad,
    }


def clocks(missed: str, met: str) -> dict[str, str]:
    labels = 'service="work_orders", process="repair", clock="pickup"'
    return {
        f'steward_clock_marks_total{{{labels}, mark="ClockBreached", urgent="false"}}': missed,
        f'steward_clocks_stopped_total{{{labels}, result="met"}}': met,
    }


def timer(last: str) -> dict[str, str]:
    labels = 'service="work_orders", timer="clocks"'
    return {f"steward_timer_success_timestamp_seconds{{{labels}}}": last, f"steward_timer_period_seconds{{{labels}}}": "1x200"}


def events(name: str, values: str, service: str = "surveys") -> dict[str, str]:
    return {f'{name}{{service="{service}", type="work_orders.RepairFiled"}}': values}


def duties(missed: str, opened: str) -> dict[str, str]:
    labels = 'service="work_orders", duty="repair_check"'
    return {f'steward_duties_total{{{labels}, result="missed"}}': missed, f'steward_duties_total{{{labels}, result="opened"}}': opened}


GATEWAY = 'route="/v1/x", method="GET"'
SURVEYS = {"service": "surveys"}
PICKUP = {"service": "work_orders", "process": "repair", "clock": "pickup"}
OVERDUE = 'steward_clocks_overdue{service="work_orders", process="repair", clock="pickup", urgent="true"}'
ESCALATED = 'steward_clock_marks_total{service="work_orders", process="repair", clock="pickup", mark="ClockEscalated", urgent="true"}'
VACANT = 'steward_ladder_vacant_total{service="work_orders", post="GENERAL_MANAGER"}'
UP, RELAY, API = 'up{role="worker", component="surveys", instance="%s"}', "steward_relay_active", 'steward_rpc_in_flight{service="surveys"}'

# alert → (it fires, it is silent), several of each where it has several legs
PLAYS: dict[str, tuple[list[Play], list[Play]]] = {
    # 14.4 × 0.1 % over 1 h and 5 min; 6 × 0.1 % over 6 h and 30 min
    "GatewayErrorsBurnFast": (
        [
            Play(gateway(then(0, 420, 2.5, 100), counting(97.5, 600)), "8h", ({"slo": "gateway-availability"},)),  # 0.4 % of the 6 h
            Play(gateway(counting(0.7), counting(99.3)), "7h", ({"slo": "gateway-availability"},)),
        ],
        [
            Play(gateway(then(0, 420, 1.3, 100), counting(98.7, 600)), "8h"),  # just below 1.44 %, and after clean hours below 0.6 %
            Play(gateway(counting(0.55), counting(99.45)), "7h"),  # just below 0.6 %
            Play(gateway(then(5, 60, 0, 60), counting(95)), "90m"),  # over for half an hour
            Play(gateway(counting(0.01), counting(0.01)), "90m"),  # half of everything fails, which is one request
            Play(gateway("0x100", "100x100"), "90m"),  # nobody asks anything
            Play({'steward_gateway_requests_total{route="/readyz", method="GET", status="5xx"}': counting(5)}, "90m"),
        ],
    ),
    "GatewayErrorsBurnSlowly": (
        [
            Play(gateway(counting(0.35), counting(99.65)), "25h", ({"slo": "gateway-availability"},)),
            Play(gateway(counting(0.11), counting(99.89)), "73h", ({"slo": "gateway-availability"},)),
        ],
        [Play(gateway(counting(0.09), counting(99.91)), "73h"), Play(gateway(then(1, 140, 0, 300), counting(99)), "40h")],
    ),
    "GatewaySlowBurnFast": (
        [
            Play(
                histogram("steward_gateway_request_seconds", GATEWAY, "0.5", counting(80), counting(100)),
                "90m",
                ({"slo": "gateway-latency"},),
            )
        ],
        [Play(histogram("steward_gateway_request_seconds", GATEWAY, "0.5", counting(95), counting(100)), "7h")],  # 5 %, below 6 %
    ),
    "GatewaySlowBurnSlowly": (
        [
            Play(
                histogram("steward_gateway_request_seconds", GATEWAY, "0.5", counting(96), counting(100)),
                "25h",
                ({"slo": "gateway-latency"},),
            )
        ],
        [Play(histogram("steward_gateway_request_seconds", GATEWAY, "0.5", counting(99.2), counting(100)), "73h")],
    ),
    "ServiceErrorsBurnFast": (
        [Play(rpc(counting(2), counting(98)), "90m", ({"slo": "rpc-availability", **SURVEYS},))],
        [
            Play(rpc(counting(50), counting(50), code="NOT_FOUND"), "90m"),  # what callers do wrong
            Play(rpc(counting(2), counting(98), service="chassis"), "90m"),
            Play(rpc(counting(0.55), counting(99.45)), "7h"),
        ],
    ),
    "ServiceErrorsBurnSlowly": (
        [Play(rpc(counting(0.35), counting(99.65), code="UNAVAILABLE"), "25h", ({"slo": "rpc-availability", **SURVEYS},))],
        [Play(rpc(counting(0.09), counting(99.91)), "73h")],
    ),
    "ServiceSlowBurnFast": (
        [
            Play(
                histogram("steward_rpc_seconds", 'service="surveys", rpc="X", code="OK"', "0.25", counting(80), counting(100)),
                "90m",
                ({"slo": "rpc-latency", **SURVEYS},),
            ),
        ],
        [Play(histogram("steward_rpc_seconds", 'service="surveys", rpc="X", code="OK"', "0.25", counting(95), counting(100)), "7h")],
    ),
    "ServiceSlowBurnSlowly": (
        [
            Play(
                histogram("steward_rpc_seconds", 'service="surveys", rpc="X", code="OK"', "0.25", counting(96), counting(100)),
                "25h",
                ({"slo": "rpc-latency", **SURVEYS},),
            ),
        ],
        [Play(histogram("steward_rpc_seconds", 'service="surveys", rpc="X", code="OK"', "0.25", counting(99.2), counting(100)), "73h")],
    ),
    "ReactionsLateBurnFast": (
        [
            Play(
                histogram("steward_event_lag_seconds", 'service="surveys", type="x"', "5.0", counting(80), counting(100)),
                "90m",
                ({"slo": "reaction-freshness", **SURVEYS},),
            ),
        ],
        [Play(histogram("steward_event_lag_seconds", 'service="surveys", type="x"', "5.0", counting(95), counting(100)), "7h")],
    ),
    "ReactionsLateBurnSlowly": (
        [
            Play(
                histogram("steward_event_lag_seconds", 'service="surveys", type="x"', "5.0", counting(96), counting(100)),
                "25h",
                ({"slo": "reaction-freshness", **SURVEYS},),
            ),
        ],
        [Play(histogram("steward_event_lag_seconds", 'service="surveys", type="x"', "5.0", counting(99.2), counting(100)), "73h")],
    ),
    # 72 % of an hour, 30 % of 6 h; 15 % of a day, 5 % of three days
    "ClocksMissedBurnFast": (
        [
            Play(clocks(then(0, 420, 0.8, 100), then(0.8, 420, 0.2, 100)), "8h", ({"slo": "clocks-met", **PICKUP},)),
            Play(clocks(counting(0.35), counting(0.65)), "7h", ({"slo": "clocks-met", **PICKUP},)),
        ],
        [
            Play(clocks(then(0, 420, 0.7, 100), then(0.8, 420, 0.3, 100)), "8h"),
            Play(clocks(counting(0.28), counting(0.72)), "7h"),
            Play(clocks("0x60 3x400", "0x460"), "63m"),  # three, and no other
            Play(clocks("0x400", "0x400"), "6h"),
        ],
    ),
    "ClocksMissedBurnSlowly": (
        [
            Play(clocks(counting(0.16), counting(0.84)), "25h", ({"slo": "clocks-met", **PICKUP},)),
            Play(clocks(counting(0.06), counting(0.94)), "73h", ({"slo": "clocks-met", **PICKUP},)),
        ],
        [Play(clocks(counting(0.04), counting(0.96)), "73h")],
    ),
    "ProcessDown": (
        [Play({UP % "a": "1x10 0x20", UP % "b": "1x30"}, "16m", ({"role": "worker", "component": "surveys", "instance": "a"},))],
        [Play({UP % "a": "1x10 0x3 1x20"}, "16m"), Play({UP % "a": "1x10 0x20"}, "15m"), Play({'up{job="another"}': "0x30"}, "16m")],
    ),
    "RoleDown": (
        [Play({UP % "a": "1x10 0x20", UP % "b": "1x10 0x20"}, "13m", ({"role": "worker", "component": "surveys"},))],
        [Play({UP % "a": "1x10 0x20", UP % "b": "1x30"}, "13m"), Play({UP % "a": "1x10 0x20"}, "12m")],
    ),
    "GatewayAbsent": ([Play({UP % "a": "1x30"}, "5m", ({"role": "gateway"},))], [Play({'up{role="gateway"}': "0x30"}, "20m")]),
    "RelayAbsent": (
        [
            Play({API: "0x30"}, "2m", (SURVEYS,)),
            Play({API: "0x30", f'{RELAY}{{service="surveys", instance="a"}}': "1x5 0x20"}, "8m", (SURVEYS,)),
        ],
        [
            Play(
                {API: "0x30", f'{RELAY}{{service="surveys", instance="a"}}': "0x30", f'{RELAY}{{service="surveys", instance="b"}}': "1x30"},
                "8m",
            ),
            Play({'steward_rpc_in_flight{service="chassis"}': "0x30"}, "8m"),
            Play({API: "0x30"}, "1m"),
        ],
    ),
    "RelayBehind": (
        [Play({'steward_relay_lag_seconds{service="surveys"}': "61x30"}, "5m", (SURVEYS,))],
        [
            Play({'steward_relay_lag_seconds{service="surveys"}': "60x30"}, "20m"),
            Play({'steward_relay_lag_seconds{service="surveys"}': "300x3 0x20"}, "5m"),
        ],
    ),
    "RelayHeld": (
        [Play({'steward_relay_held{service="surveys"}': "1x30"}, "10m", (SURVEYS,))],
        [
            Play({'steward_relay_held{service="surveys"}': "1x9 0x20"}, "10m"),
            Play({'steward_relay_held{service="surveys"}': "0x30"}, "20m"),
        ],
    ),
    "RelayRestarts": (
        [Play({'steward_relay_restarts_total{service="surveys"}': counting(1, 60)}, "20m", (SURVEYS,))],
        [Play({'steward_relay_restarts_total{service="surveys"}': "0x10 4x60"}, "20m")],
    ),
    "WorkerNotConsuming": (
        [Play({'steward_worker_consuming{service="surveys"}': "1x5 0x20"}, "8m", (SURVEYS,))],
        [
            Play(
                {
                    'steward_worker_consuming{service="surveys", instance="a"}': "0x20",
                    'steward_worker_consuming{service="surveys", instance="b"}': "1x20",
                },
                "8m",
            ),
            Play({'steward_worker_consuming{service="surveys"}': "1x5 0x1 1x20"}, "8m"),
        ],
    ),
    "ReactionsStandStill": (
        [
            Play(
                {
                    'steward_events_in_flight{service="surveys", queue="surveys.events"}': "7x60",
                    **events("steward_events_handled_total", "100x60"),
                },
                "20m",
                (SURVEYS,),
            )
        ],
        [
            Play(
                {
                    'steward_events_in_flight{service="surveys", queue="surveys.events"}': "7x60",
                    **events("steward_events_handled_total", counting(1)),
                },
                "20m",
            ),
            Play(
                {
                    'steward_events_in_flight{service="surveys", queue="surveys.events"}': "7x60",
                    **events("steward_events_retried_total", counting(1)),
                    **events("steward_events_handled_total", "100x60"),
                },
                "20m",
            ),
            Play(
                {
                    'steward_events_in_flight{service="surveys", queue="surveys.events"}': "0x60",
                    **events("steward_events_handled_total", "100x60"),
                },
                "20m",
            ),
        ],
    ),
    "EventsRetried": (
        [
            Play(
                {**events("steward_events_retried_total", counting(1)), **events("steward_events_handled_total", counting(10))},
                "35m",
                (SURVEYS,),
            ),
            Play(events("steward_events_retried_total", counting(1)), "35m", (SURVEYS,)),
        ],
        [
            Play({**events("steward_events_retried_total", counting(1)), **events("steward_events_handled_total", counting(25))}, "35m"),
            Play({**events("steward_events_retried_total", "0x10 4x60"), **events("steward_events_handled_total", "0x60")}, "35m"),
        ],
    ),
    "EventsPutOff": (
        [Play({'steward_events_put_off_total{service="surveys"}': counting(1)}, "10m", (SURVEYS,))],
        [Play({'steward_events_put_off_total{service="surveys"}': "9x60"}, "30m")],
    ),
    "DeadLetters": (
        [Play({'steward_dead_letters_waiting{service="surveys"}': "0x5 1x20"}, "11m", (SURVEYS,))],
        [Play({'steward_dead_letters_waiting{service="surveys"}': "0x5 1x3 0x20"}, "11m")],
    ),
    "TimerStandsStill": (
        [Play(timer("0x200"), "5m", ({"service": "work_orders", "timer": "clocks"},))],  # last well at 0 s; 65 s are allowed, and 2 min
        [Play(timer("0+60x200"), "60m"), Play(timer("0x200"), "3m")],
    ),
    "OperationsWait": (
        [Play({'steward_operations_waiting{service="residents"}': "1x60"}, "30m", ({"service": "residents"},))],
        [Play({'steward_operations_waiting{service="residents"}': "1x12 0x1 1x60"}, "20m")],
    ),
    "EmergencyNotTaken": (
        [Play({OVERDUE: "0x5 1x20"}, "11m", ({"service": "work_orders", "process": "repair"},))],
        [Play({OVERDUE: "0x5 1x3 0x20"}, "11m"), Play({OVERDUE.replace("true", "false"): "9x30"}, "20m")],
    ),
    "EmergencyEscalated": (
        [Play({ESCALATED: "0x10 1x60"}, "12m", ({"service": "work_orders", "process": "repair"},))],
        [Play({ESCALATED: "0x10 1x90"}, "50m"), Play({ESCALATED.replace("true", "false"): counting(1)}, "12m")],
    ),
    "DutiesMissed": (
        [Play(duties(counting(0.2), counting(1)), "25h", ({"service": "work_orders", "duty": "repair_check"},))],
        [
            Play(duties(counting(0.09), counting(1)), "25h"),  # 9 %
            Play(duties("0x70 2x90", "0x60 4x90"), "25h"),  # half of them, which is two
            Play(duties("0x160", "0x160"), "25h"),
        ],
    ),
    "LadderVacant": (
        [
            Play({VACANT: "0x90 1x90"}, "95m", ({"service": "work_orders", "post": "GENERAL_MANAGER"},)),
            Play({VACANT: "_x90 1x90"}, "95m", ({"service": "work_orders", "post": "GENERAL_MANAGER"},)),  # its first is its series' first
        ],
        [Play({VACANT: "_x10 1x200"}, "90m"), Play({VACANT: "0x200"}, "95m")],
    ),
    "CodesNotSent": (
        [
            Play(
                {'steward_sms_attempts_total{result="retried"}': counting(1), 'steward_sms_attempts_total{result="sent"}': "50x200"},
                "30m",
                ({},),
            )
        ],
        [
            Play(
                {'steward_sms_attempts_total{result="retried"}': counting(1), 'steward_sms_attempts_total{result="sent"}': counting(1)},
                "30m",
            ),
            Play({'steward_sms_attempts_total{result="nobody"}': counting(1)}, "30m"),
        ],
    ),
    "DatabaseConnections": (
        [
            Play(
                {
                    'steward_database_server_connections{service="surveys"}': "86x30",
                    'steward_database_server_connections_limit{service="surveys"}': "100x30",
                },
                "10m",
                (SURVEYS,),
            )
        ],
        [
            Play(
                {
                    'steward_database_server_connections{service="surveys"}': "85x30",
                    'steward_database_server_connections_limit{service="surveys"}': "100x30",
                },
                "20m",
            )
        ],
    ),
    "OldTransaction": (
        [Play({'steward_database_oldest_transaction_seconds{service="surveys"}': "301x30"}, "5m", (SURVEYS,))],
        [Play({'steward_database_oldest_transaction_seconds{service="surveys"}': "300x30"}, "20m")],
    ),
}


def step(alert: str) -> str:
    return "10m" if alert.endswith("Slowly") or alert == "DutiesMissed" else "1m"


def found(alert: str) -> tuple[Path, str]:
    """(file of the rules, severity)"""
    for file in RULES.glob("*.yaml"):
        for rule in (rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]):
            if rule.get("alert") == f"Steward{alert}":
                return file, rule["labels"]["severity"]
    raise LookupError(alert)


def played(play: Play, alert: str) -> dict[str, object]:
    name = f"Steward{alert}"
    expected = []
    for labels in play.firing:
        every = {"alertname": name, "alertstate": "firing", "severity": found(alert)[1], **labels}
        expected.append({"labels": "ALERTS{" + ", ".join(f'{label}="{value}"' for label, value in every.items()) + "}", "value": 1})
    return {
        "interval": step(alert),
        "input_series": [{"series": series, "values": values} for series, values in play.series.items()],
        "promql_expr_test": [{"expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}', "eval_time": play.at, "exp_samples": expected}],
    }


def run(promtool: str, folder: Path, rules: list[Path], tests: list[dict[str, object]]) -> str:
    """What promtool says; empty when all is as expected."""
    file = folder / "tests.yaml"
    document = {"rule_files": [str(path) for path in rules], "evaluation_interval": tests[0]["interval"], "tests": tests}
    file.write_text(yaml.safe_dump(document, allow_unicode=True))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_prometheus_reads_the_rules(promtool: str) -> None:
    files = sorted(str(path) for path in RULES.glob("*.yaml"))
    assert len(files) == len(alerts.files())
    done = subprocess.run([promtool, "check", "rules", *files], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_played() -> None:
    assert sorted(PLAYS) == sorted(alerts.names())
    for fires, silent in PLAYS.values():
        assert fires
        assert silent
        assert all(play.firing for play in fires)
        assert not any(play.firing for play in silent)


@pytest.mark.parametrize("alert", PLAYS)
def test_an_alert_fires_and_is_silent_just_short_of_it(promtool: str, alert: str, tmp_path: Path) -> None:
    fires, silent = PLAYS[alert]
    assert run(promtool, tmp_path, [found(alert)[0]], [played(play, alert) for play in (*fires, *silent)]) == ""


SOONER = {
    "GatewayAbsent": "4m", "RelayAbsent": "1m", "RelayBehind": "4m", "RelayHeld": "9m", "WorkerNotConsuming": "7m", "DeadLetters": "10m",
    "EmergencyNotTaken": "10m", "DatabaseConnections": "9m", "OldTransaction": "4m", "ProcessDown": "15m", "RoleDown": "12m",
    "TimerStandsStill": "3m",
}  # fmt: skip


@pytest.mark.parametrize("alert", SOONER)
def test_an_alert_that_waits_is_silent_a_minute_sooner(promtool: str, alert: str, tmp_path: Path) -> None:
    fires = PLAYS[alert][0][0]
    assert run(promtool, tmp_path, [found(alert)[0]], [played(Play(fires.series, SOONER[alert]), alert)]) == ""


def test_without_any_series_only_the_absence_of_the_gateway_is_told(promtool: str, tmp_path: Path) -> None:
    nothing = {
        "interval": "1m",
        "input_series": [],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "2h",
                "exp_samples": [{"labels": '{alertname="StewardGatewayAbsent"}', "value": 1}],
            }
        ],
    }
    assert run(promtool, tmp_path, sorted(RULES.glob("*.yaml")), [nothing]) == ""


def test_an_alert_says_how_much_and_where_to_read_on(promtool: str, tmp_path: Path) -> None:
    told = played(Play(gateway(counting(2), counting(98)), "90m"), "GatewayErrorsBurnFast") | {
        "promql_expr_test": [],
        "alert_rule_test": [
            {
                "alertname": "StewardGatewayErrorsBurnFast",
                "eval_time": "90m",
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "page", "slo": "gateway-availability"},
                        "exp_annotations": {
                            "summary": "2%: requests to the gateway fail",
                            "description": "99.9 % are to be good over 30 days; at this rate that is broken. " + alerts.OBJECTIVES[0].cause,
                            "runbook_url": "docs/runbook.md#stewardgatewayerrors",
                        },
                    }
                ],
            }
        ],
    }
    assert run(promtool, tmp_path, [found("GatewayErrorsBurnFast")[0]], [told]) == ""
