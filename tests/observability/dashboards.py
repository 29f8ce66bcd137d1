"""charts/steward/files/dashboards: what Grafana shows. `make docs` writes the files; ids and order are those of the tables here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8
SLO_BURN = ("steward:slo_bad:ratio_rate1h", "{{slo}} {{service}} {{process}} {{clock}}")


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `queries` are (PromQL, legend)."""

    title: str
    says: str
    queries: tuple[tuple[str, str], ...] = ()
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    text: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    says: str
    panels: tuple[Panel, ...]
    variables: dict[str, str] = field(default_factory=dict)  # name → PromQL of its values
    since: str = "now-6h"


def p(quantile: str, name: str, by: str, where: str = "") -> str:
    return f"histogram_quantile({quantile}, sum by (le{', ' if by else ''}{by}) (rate({name}_bucket{where}[$__rate_interval])))"


MET = 'steward_clocks_stopped_total{result="met"}'
MISSED = 'steward_clock_marks_total{mark="ClockBreached"}'
MET_30D = (
    f"sum by (process, clock) (increase({MET}[30d])) / ((sum by (process, clock) (increase({MET}[30d]))"
    f" + (sum by (process, clock) (increase({MISSED}[30d])) or 0 * sum by (process, clock) (increase({MET}[30d])))) > 0)"
)
QUANTILES = (("0.5", "50"), ("0.95", "95"), ("0.99", "99"))
ONE = '{service="$service"}'

DASHBOARDS = (
    Dashboard(
        "steward-sla", "Steward · group SLA", "Whether residents get what they were promised, over all estates of the group.",
        (
            Panel("Emergencies nobody has taken", "Urgent cases past the limit for being taken, now. Anything but 0 is somebody waiting.",
                  (('sum(max by (service, process) (steward_clocks_overdue{clock="pickup", urgent="true"}))', "emergencies"),),
                  kind="stat", width=6),
            Panel("Limits that were missed and are still open", "Cases of any kind that should have moved and have not.",
                  (("sum(max by (service, process, clock, urgent) (steward_clocks_overdue))", "open"),), kind="stat", width=6),
            Panel("Limits met in 30 days", "Of all time limits that ended or were missed, the share that was met. Promised: 95 %.",
                  ((f"sum(increase({MET}[30d])) / ((sum(increase({MET}[30d])) + sum(increase({MISSED}[30d]))) > 0)", "met"),),
                  "percentunit", "stat", 6),
            Panel("Nobody could be told", "Times within 24 hours that a missed limit found no holder of any post on its ladder.",
                  (("sum(increase(steward_ladder_vacant_total[24h])) or vector(0)", "vacant"),), kind="stat", width=6),
            Panel("Limits met by kind of case, 30 days", "Below 95 % the objective is broken.",
                  ((MET_30D, "{{process}} {{clock}}"),), "percentunit", "bargauge"),
            Panel("Missed and open, by kind of case", "What waits now; urgent ones apart.",
                  (("sum by (process, clock, urgent) (max by (service, process, clock, urgent) (steward_clocks_overdue))",
                    "{{process}} {{clock}} urgent={{urgent}}"),)),
            Panel("Limits begun, an hour", "How much comes in.",
                  (("sum by (process, clock) (increase(steward_clocks_started_total[1h]))", "{{process}} {{clock}}"),)),
            Panel("Limits missed, an hour", "Each clock counts once, at the instant at which it was due.",
                  ((f"sum by (process, clock) (increase({MISSED}[1h]))", "{{process}} {{clock}}"),)),
            Panel("Reminders and escalations, an hour", "Which rungs people needed to be told.",
                  (("sum by (clock, mark) (increase(steward_clock_marks_total[1h]))", "{{clock}} {{mark}}"),)),
            Panel("Duties, a day", "What estates owe day by day: opened, done, missed, done late.",
                  (("sum by (duty, result) (increase(steward_duties_total[1d]))", "{{duty}} {{result}}"),)),
            Panel("Moves of cases, an hour", "What people do with cases.",
                  (("sum by (process, action) (increase(steward_case_moves_total[1h]))", "{{process}} {{action}}"),)),
            Panel("Messages, an hour", "What people are told, by template.",
                  (("sum by (kind) (increase(steward_messages_told_total[1h]))", "{{kind}}"),)),
            Panel("One-time codes, an hour", "Residents sign in with them; only with an SMS company.",
                  (("sum by (result) (increase(steward_sms_attempts_total[1h]))", "{{result}}"),)),
            Panel("Objectives: bad share of the last hour", "Of each objective (docs/runbook.md has the promises).",
                  (SLO_BURN,), "percentunit"),
        ), since="now-24h",
    ),
    Dashboard(
        "steward-estate", "Steward · one estate", "What can be said of one estate, and where.",
        (
            Panel("Where the figures of one estate are", "Metrics carry no estate: a thousand estates are a thousand times the series.",
                  kind="text", width=24,
                  text="Metrics have no label for the estate: their values must be few and known beforehand,"
                       " and a group may have a thousand estates.\n\n"
                       "Figures of **one estate** come from the API, with the rights of whoever asks:\n\n"
                       "- `GET /v1/estates/{estate}/repairs:statistics?month=2026-11`: how many, how many in time, at the first attempt,"
                       " to satisfaction\n"
                       "- `GET /v1/estates/{estate}/repairs:board`: what is not done yet, and what is wrong with it\n"
                       "- `GET /v1/estates/{estate}/watchedRepairs`: the orders themselves that something is wrong with\n"
                       "- `GET /v1/estates/{estate}/repairChecks`: the day's checks and what they found\n\n"
                       "Below: how much these are asked, and the figures of the whole group to hold an estate's against."),
            Panel("Requests for figures of an estate", "Boards and statistics, by operation.",
                  (('sum by (route) (rate(steward_gateway_requests_total{route=~"/v1/.*:(statistics|board)"}[$__rate_interval]))',
                    "{{route}}"),), "reqps"),
            Panel("Share of repairs that residents send back", "In the group, over 7 days: rejected of all that were accepted or rejected.",
                  (('sum(increase(steward_case_moves_total{process="repair", action="reject"}[7d]))'
                    ' / (sum(increase(steward_case_moves_total{process="repair", action=~"accept|reject"}[7d])) > 0)', "sent back"),),
                  "percentunit"),
            Panel("Cases opened, a day", "In the group, by kind.",
                  (('sum by (process) (increase(steward_case_moves_total{action=~"report|open|raise|carry_over"}[1d]))', "{{process}}"),)),
            Panel("Limits met, 30 days", "In the group, by kind of case.",
                  ((MET_30D, "{{process}} {{clock}}"),), "percentunit", "bargauge"),
        ), since="now-7d",
    ),
    Dashboard(
        "steward-service", "Steward · one service", "Rate, errors and duration of a service's operations, and what its processes need.",
        (
            Panel("Operations a second", "By operation.",
                  ((f"sum by (rpc) (rate(steward_rpc_seconds_count{ONE}[$__rate_interval]))", "{{rpc}}"),), "reqps"),
            Panel("Answers a second, by code", "NOT_FOUND and the like are the caller's; INTERNAL and UNAVAILABLE are ours.",
                  ((f"sum by (code) (rate(steward_rpc_seconds_count{ONE}[$__rate_interval]))", "{{code}}"),), "reqps"),
            Panel("Duration", "Half, 95 and 99 of 100 operations are faster.",
                  tuple((p(q, "steward_rpc_seconds", "", ONE), f"p{name}") for q, name in QUANTILES), "s"),
            Panel("Duration of the slowest 1 %, by operation", "Which one it is.",
                  ((p("0.99", "steward_rpc_seconds", "rpc", ONE), "{{rpc}}"),), "s"),
            Panel("In work", "Operations at once; near STEWARD_API_THREADS for each process, others wait.",
                  ((f"sum by (instance) (steward_rpc_in_flight{ONE})", "{{instance}}"),)),
            Panel("Objectives: bad share", "Over 5 minutes and 1 hour.",
                  (('steward:slo_bad:ratio_rate5m{service="$service"}', "{{slo}} {{clock}} 5m"),
                   ('steward:slo_bad:ratio_rate1h{service="$service"}', "{{slo}} {{clock}} 1h")), "percentunit"),
            Panel("Events handled a second", "By type.",
                  ((f"sum by (type) (rate(steward_events_handled_total{ONE}[$__rate_interval]))", "{{type}}"),), "ops"),
            Panel("Timers: time since they last ended well", "Should stay below a few periods.",
                  (('time() - max by (timer) (steward_timer_success_timestamp_seconds{service="$service"})', "{{timer}}"),), "s"),
            Panel("Timers: how long they take", "The mean.",
                  (('sum by (timer) (rate(steward_timer_seconds_sum{service="$service"}[$__rate_interval])) / (sum by (timer)'
                    ' (rate(steward_timer_seconds_count{service="$service"}[$__rate_interval])) > 0)', "{{timer}}"),), "s"),
            Panel("Long-running operations", "Waiting to be begun.",
                  (('max(steward_operations_waiting{service="$service"})', "waiting"),)),
            Panel("CPU by role, all services", "Cores.",
                  (('sum by (role, component) (rate(process_cpu_seconds_total{role!=""}[$__rate_interval]))', "{{role}} {{component}}"),)),
            Panel("Memory by role, all services", "Resident.",
                  (('sum by (role, component) (process_resident_memory_bytes{role!=""})', "{{role}} {{component}}"),), "bytes"),
        ), {"service": "label_values(steward_timer_period_seconds, service)"},
    ),
    Dashboard(
        "steward-gateway", "Steward · gateway", "What clients see.",
        (
            Panel("Requests a second", "By class of the answer.",
                  (("sum by (status) (rate(steward_gateway_requests_total[$__rate_interval]))", "{{status}}"),), "reqps"),
            Panel("Share of errors", "5xx of all; promised: below 0.1 %.",
                  (('steward:slo_bad:ratio_rate5m{slo="gateway-availability"}', "5 minutes"),
                   ('steward:slo_bad:ratio_rate1h{slo="gateway-availability"}', "1 hour")), "percentunit"),
            Panel("Duration", "Half, 95 and 99 of 100 requests are faster.",
                  tuple((p(q, "steward_gateway_request_seconds", ""), f"p{name}") for q, name in QUANTILES), "s"),
            Panel("Slowest routes", "99 of 100 are faster.",
                  ((f"topk(10, {p('0.99', 'steward_gateway_request_seconds', 'route')})", "{{route}}"),), "s"),
            Panel("Busiest routes", "Requests a second.",
                  (("topk(10, sum by (route, method) (rate(steward_gateway_requests_total[$__rate_interval])))", "{{method}} {{route}}"),),
                  "reqps"),
            Panel("In work", "Requests at once, by process.", (("sum by (instance) (steward_gateway_in_flight)", "{{instance}}"),)),
            Panel("Refused by the gateway itself", "Rate limits and places.",
                  (("sum by (reason) (rate(steward_gateway_refusals_total[$__rate_interval]))", "{{reason}}"),), "reqps"),
            Panel("Identities", "Where they came from; `unavailable`: residents is away.",
                  (("sum by (outcome) (rate(steward_gateway_identities_total[$__rate_interval]))", "{{outcome}}"),), "reqps"),
        ),
    ),
    Dashboard(
        "steward-messaging", "Steward · messaging", "From the event log to the broker and on to reactions.",
        (
            Panel("Relays", "1: somebody publishes the service's events.",
                  (("max by (service) (steward_relay_active)", "{{service}}"),), kind="stat"),
            Panel("Workers that take messages", "By service.",
                  (("sum by (service) (steward_worker_consuming)", "{{service}}"),), kind="stat"),
            Panel("Events not at the broker yet", "Counted up to 100,000.",
                  (("max by (service) (steward_relay_pending)", "{{service}}"),)),
            Panel("Age of the oldest of them", "What listeners are behind.",
                  (("max by (service) (steward_relay_lag_seconds)", "{{service}}"),), "s"),
            Panel("Published a second", "Confirmed by the broker.",
                  (("sum by (service) (rate(steward_relay_published_total[$__rate_interval]))", "{{service}}"),), "ops"),
            Panel("Confirms of the broker", "99 of 100 are faster.",
                  ((p("0.99", "steward_relay_confirm_seconds", "service"), "{{service}}"),), "s"),
            Panel("Refused and held back", "Events that the broker refused in 5 minutes, and those waiting behind them.",
                  (("sum by (service, how) (increase(steward_relay_refused_total[5m]))", "{{service}} {{how}}"),
                   ("max by (service) (steward_relay_held)", "{{service}} held"))),
            Panel("Relays that started over", "In 5 minutes.",
                  (("sum by (service) (increase(steward_relay_restarts_total[5m]))", "{{service}}"),)),
            Panel("Handled a second", "Reactions committed, by service.",
                  (("sum by (service) (rate(steward_events_handled_total[$__rate_interval]))", "{{service}}"),), "ops"),
            Panel("From writing to reaction", "99 of 100 events are faster; promised: 5 s.",
                  ((p("0.99", "steward_event_lag_seconds", "service"), "{{service}}"),), "s"),
            Panel("Messages in hand", "Held by workers, by queue.", (("sum by (queue) (steward_events_in_flight)", "{{queue}}"),)),
            Panel("Failed, put off, known already", "In 5 minutes.",
                  (("sum by (service) (increase(steward_events_retried_total[5m]))", "{{service}} failed"),
                   ("sum by (service) (increase(steward_events_put_off_total[5m]))", "{{service}} put off"),
                   ("sum by (service) (increase(steward_events_duplicate_total[5m]))", "{{service}} had before"))),
            Panel("Dead letters", "Waiting for somebody.", (("max by (service) (steward_dead_letters_waiting)", "{{service}}"),)),
            Panel("Share handled together", "The heavier the load, the more events share a transaction.",
                  (("sum by (service) (rate(steward_events_handled_together_total[$__rate_interval])) / (sum by (service)"
                    " (rate(steward_events_handled_total[$__rate_interval])) > 0)", "{{service}}"),), "percentunit"),
        ),
    ),
    Dashboard(
        "steward-databases", "Steward · databases",
        "Databases as their services see them; the server's own metrics come from its operator.",
        (
            Panel("Connections of the server", "Of all that it takes.",
                  (("max by (service) (steward_database_server_connections) / max by (service)"
                    " (steward_database_server_connections_limit)", "{{service}}"),), "percentunit"),
            Panel("Connections by what they do", "Of each database.",
                  (("sum by (service, state) (max by (service, state) (steward_database_connections))", "{{service}} {{state}}"),)),
            Panel("Oldest transaction", "Steward's own end within seconds.",
                  (("max by (service) (steward_database_oldest_transaction_seconds)", "{{service}}"),), "s"),
            Panel("Size", "Of each database.", (("max by (service) (steward_database_bytes)", "{{service}}"),), "bytes"),
            Panel("Operations that failed for the database", "UNAVAILABLE, by service.",
                  (('sum by (service) (rate(steward_rpc_seconds_count{code="UNAVAILABLE"}[$__rate_interval]))', "{{service}}"),), "reqps"),
            Panel("Rows whose time was over", "Removed in an hour, by table.",
                  (("sum by (table) (increase(steward_rows_forgotten_total[1h]))", "{{table}}"),)),
            Panel("Retention behind", "1: more was over than a run may remove.",
                  (("max by (service, table) (steward_retention_behind)", "{{service}} {{table}}"),)),
        ),
    ),
)  # fmt: skip


def files() -> dict[str, str]:
    return {
        f"{dashboard.uid.removeprefix('steward-')}.json": json.dumps(_dashboard(dashboard), indent=1, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }


def _dashboard(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": dashboard.uid, "title": dashboard.title, "description": dashboard.says, "tags": ["steward"], "schemaVersion": 39,
        "version": 1, "editable": False, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
        "time": {"from": dashboard.since, "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0},
            *(_variable(name, query) for name, query in dashboard.variables.items()),
        ]},
        "panels": _placed(dashboard.panels),
    }  # fmt: skip


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
    }


def _placed(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    placed: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        placed.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": HEIGHT}))
        x += panel.width
    return placed


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    common: dict[str, Any] = {"id": number, "type": panel.kind, "title": panel.title, "description": panel.says, "gridPos": place}
    if panel.kind == "text":
        return common | {"options": {"mode": "markdown", "content": panel.text}}
    now = panel.kind != "timeseries"
    targets = [
        {"refId": chr(ord("A") + at), "datasource": DATASOURCE, "expr": query, "legendFormat": legend, "instant": now, "range": not now}
        for at, (query, legend) in enumerate(panel.queries)
    ]
    limits = {"min": 0, **({"max": 1} if panel.unit == "percentunit" and now else {})}
    return common | {
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, **limits}, "overrides": []},
        "targets": targets,
    }
