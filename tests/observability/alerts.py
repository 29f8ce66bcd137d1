"""charts/steward/files/rules: what Prometheus reckons from the metrics and when it calls somebody. `make docs` writes the files.

Service level objectives follow the SRE workbook: an alert asks how fast the error budget of 30 days is being used up, over a long
window (it matters) and a short one (it is still so). Burning fast (14.4 times over 1 h, 6 times over 6 h) calls somebody at once,
burning slowly (3 times over a day, once over 3 days) makes a ticket. Without traffic there is no ratio, hence no alert; with little
of it one failure is no outage: the long window must hold at least `least` things counted.
"""

from __future__ import annotations

from dataclasses import dataclass

RUNBOOK = "docs/runbook.md"  # of this repository; whoever publishes it elsewhere replaces this
PAGE, TICKET = "page", "ticket"
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
FAST, SLOW = ((14.4, "1h", "5m"), (6, "6h", "30m")), ((3, "1d", "2h"), (1, "3d", "6h"))
INNER = 'route!~"/healthz|/readyz|/metrics|/v1/dev/.*"'
BAD_CODES = 'code=~"INTERNAL|UNAVAILABLE|UNKNOWN|DEADLINE_EXCEEDED"'
EVERY_API = 'service!="chassis"'


@dataclass(frozen=True, slots=True)
class Objective:
    """An SLO. `total` and `bad`, or `good` in its place, are rates or increases with `{w}` for the window and `{f}` for the function."""

    name: str  # value of the label `slo`
    alert: str  # beginning of its alerts' names
    target: float  # share of good ones
    least: int
    by: tuple[str, ...]
    total: str
    says: str  # who suffers, in the summary
    cause: str
    bad: str = ""
    good: str = ""

    @property
    def budget(self) -> float:
        return round(1 - self.target, 6)


def _sum(by: tuple[str, ...], inside: str) -> str:
    return f"sum by ({', '.join(by)}) ({inside})" if by else f"sum({inside})"


OBJECTIVES = (
    Objective(
        "gateway-availability", "GatewayErrors", 0.999, 20, (),
        total=f"{{f}}(steward_gateway_requests_total{{{{{INNER}}}}}[{{w}}])",
        bad=f'{{f}}(steward_gateway_requests_total{{{{{INNER}, status="5xx"}}}}[{{w}}])',
        says="requests to the gateway fail",
        cause="Likely a service or its database does not answer (see which routes fail), or the gateway is out of places"
        " (steward_gateway_refusals_total).",
    ),
    Objective(
        "gateway-latency", "GatewaySlow", 0.99, 50, (),
        total=f"{{f}}(steward_gateway_request_seconds_count{{{{{INNER}}}}}[{{w}}])",
        good=f'{{f}}(steward_gateway_request_seconds_bucket{{{{{INNER}, le="0.5"}}}}[{{w}}])',
        says="requests to the gateway take longer than 0.5 s",
        cause="Likely a service is slow (see its panel), the gateway has no CPU left, or uploads crowd out the rest.",
    ),
    Objective(
        "rpc-availability", "ServiceErrors", 0.999, 20, ("service",),
        total=f"{{f}}(steward_rpc_seconds_count{{{{{EVERY_API}}}}}[{{w}}])",
        bad=f"{{f}}(steward_rpc_seconds_count{{{{{EVERY_API}, {BAD_CODES}}}}}[{{w}}])",
        says="operations of {{ $labels.service }} fail",
        cause="UNAVAILABLE: its database or residents does not answer, or locks are held too long. INTERNAL: a fault in the code,"
        " with a traceback in the log.",
    ),
    Objective(
        "rpc-latency", "ServiceSlow", 0.99, 50, ("service",),
        total=f"{{f}}(steward_rpc_seconds_count{{{{{EVERY_API}}}}}[{{w}}])",
        good=f'{{f}}(steward_rpc_seconds_bucket{{{{{EVERY_API}, le="0.25"}}}}[{{w}}])',
        says="operations of {{ $labels.service }} take longer than 0.25 s",
        cause="Likely the database is slow (locks, an old transaction, disk), or the api processes have no CPU or no threads left.",
    ),
    Objective(
        "reaction-freshness", "ReactionsLate", 0.99, 50, ("service",),
        total="{f}(steward_event_lag_seconds_count[{w}])",
        good='{f}(steward_event_lag_seconds_bucket{{le="5.0"}}[{w}])',
        says="{{ $labels.service }} reacts to events later than 5 s after they were written",
        cause="Likely the relay of a source is behind, or the workers of {{ $labels.service }} have more to do than they can, or"
        " its database is slow.",
    ),
    Objective(
        "clocks-met", "ClocksMissed", 0.95, 5, ("service", "process", "clock"),
        total='{f}(steward_clock_marks_total{{mark="ClockBreached"}}[{w}]) or {f}(steward_clocks_stopped_total{{result="met"}}[{w}])',
        bad='{f}(steward_clock_marks_total{{mark="ClockBreached"}}[{w}])',
        says="time limits `{{ $labels.clock }}` of {{ $labels.process }} are missed",
        cause="Likely too few people are on duty for what comes in, or those who should know are not told (messages, rosters, posts).",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    expr: str
    lasts: str
    severity: str
    summary: str
    description: str


CLOCK = 'clock="pickup", urgent="true"'
ALERTS: dict[str, tuple[Alert, ...]] = {
    "processes": (
        Alert(
            "ProcessDown", 'up{role=~"gateway|api|worker|relay|jobs"} == 0', "5m", TICKET,
            "{{ $labels.role }} {{ $labels.component }} at {{ $labels.instance }} does not answer Prometheus",
            "It has crashed, hangs, or cannot be reached. Others of its role go on. Likely causes: out of memory, a node that is"
            " gone, a NetworkPolicy.",
        ),
        Alert(
            "RoleDown", 'sum by (role, component) (up{role=~"gateway|api|worker|relay|jobs"}) == 0', "2m", PAGE,
            "no process of {{ $labels.role }} {{ $labels.component }} is up",
            "Every replica is gone at once: a bad release or setting, a node or zone that is lost, or Prometheus cannot reach them.",
        ),
        Alert(
            "GatewayAbsent", 'absent(up{role="gateway"})', "5m", PAGE, "Prometheus knows no gateway",
            "The gateway is not deployed, or Prometheus does not find it (PodMonitor, labels): nothing else here can be relied on.",
        ),
    ),
    "messaging": (
        Alert(
            "RelayAbsent",
            f"group by (service) (steward_rpc_in_flight{{{EVERY_API}}}) unless group by (service) (steward_relay_active == 1)", "2m", PAGE,
            "nobody publishes the events of {{ $labels.service }}",
            "Cases are taken in, but nobody hears of them. Likely the relay has not started, has lost its database, or the broker is away "
            "(then every service is here).",
        ),
        Alert(
            "RelayBehind", "max by (service) (steward_relay_lag_seconds) > 60", "5m", PAGE,
            "events of {{ $labels.service }} wait for {{ $value | humanizeDuration }} to be published",
            "The relay works, but does not keep up. Likely the broker confirms slowly (disk, flow control, a lost majority), or the"
            " database does.",
        ),
        Alert(
            "RelayHeld", "max by (service) (steward_relay_held) > 0", "10m", TICKET,
            "{{ $value }} events of {{ $labels.service }} are held back",
            "The broker refuses an event, and later ones of its case wait. `returned`: no queue is bound, migrate has not run;"
            " `nacked`: the queue is full.",
        ),
        Alert(
            "RelayRestarts", "sum by (service) (increase(steward_relay_restarts_total[15m])) > 5", "0m", TICKET,
            "the relay of {{ $labels.service }} starts over again and again",
            "Its connection to the database or the broker does not last: restarts of theirs, a proxy that cuts idle connections,"
            " wrong credentials.",
        ),
        Alert(
            "WorkerNotConsuming", "max by (service) (steward_worker_consuming) == 0", "2m", PAGE,
            "no worker of {{ $labels.service }} takes messages",
            "Likely the broker is away or refuses the credentials, or its queues are not declared: migrate has not run.",
        ),
        Alert(
            "ReactionsStandStill",
            "min_over_time((sum by (service) (steward_events_in_flight))[10m:1m]) > 0"
            "\nunless on (service) (sum by (service) (increase(steward_events_handled_total[10m])) > 0)"
            "\nunless on (service) (sum by (service) (increase(steward_events_retried_total[10m])) > 0)"
            "\nunless on (service) (sum by (service) (increase(steward_events_put_off_total[10m])) > 0)"
            "\nunless on (service) (sum by (service) (increase(steward_dead_letters_total[10m])) > 0)", "5m", PAGE,
            "workers of {{ $labels.service }} hold {{ $value }} messages and finish none",
            "Likely every slot waits for the database or for a lock; the log names the statement that was cut off.",
        ),
        Alert(
            "EventsRetried",
            "sum by (service) (increase(steward_events_retried_total[15m])) > 5"
            "\nand on (service) sum by (service) (increase(steward_events_retried_total[15m]))"
            " > 0.05 * (sum by (service) (increase(steward_events_handled_total[15m])) or 0 * sum by (service)"
            " (steward_events_retried_total))",
            "15m", TICKET, "{{ $value | humanize }} times in 15 minutes {{ $labels.service }} could not handle an event",
            "A reaction raises: likely a fault in the code, or an event that arrived before what it needs. What fails five times is"
            " a dead letter.",
        ),
        Alert(
            "EventsPutOff", "sum by (service) (increase(steward_events_put_off_total[10m])) > 0", "5m", TICKET,
            "{{ $labels.service }} puts messages off because its database is away",
            "Nothing is lost and no attempt is counted; what should follow is late until the database answers again.",
        ),
        Alert(
            "DeadLetters", "max by (service) (steward_dead_letters_waiting) > 0", "5m", TICKET,
            "{{ $value }} events of {{ $labels.service }} could not be handled",
            "What should have followed from them has not happened. Likely a fault in a reaction; once it is mended they can be replayed.",
        ),
    ),
    "timers": (
        Alert(
            "TimerStandsStill",
            "time() - max by (service, timer) (steward_timer_success_timestamp_seconds)"
            " > 5 * max by (service, timer) (steward_timer_period_seconds) + 60", "2m", PAGE,
            "{{ $labels.timer }} of {{ $labels.service }} has not ended well for {{ $value | humanizeDuration }}",
            "`clocks` and `duties` are what reminds and escalates: while they stand still nobody is told of a missed limit. "
            "Likely the database does not answer, or every run raises (steward_timer_failures_total, the log has the traceback).",
        ),
        Alert(
            "OperationsWait", "min_over_time(steward_operations_waiting[15m]) > 0", "5m", TICKET,
            "imports or exports of {{ $labels.service }} wait and nobody begins them",
            "Likely the role jobs is not up for this service, or a long operation keeps it busy.",
        ),
    ),
    "sla": (
        Alert(
            "EmergencyNotTaken", f"max by (service, process) (steward_clocks_overdue{{{CLOCK}}}) > 0", "5m", PAGE,
            "{{ $value }} emergencies of {{ $labels.service }} have passed their limit and nobody has taken them",
            "A resident waits for help (burst pipe, gas, lift) and no technician has taken the case. Likely nobody is on duty at"
            " the estate, "
            "or who is does not get his messages.",
        ),
        Alert(
            "EmergencyEscalated",
            f'sum by (service, process) (increase(steward_clock_marks_total{{{CLOCK}, mark="ClockEscalated"}}[30m])) > 0', "0m", TICKET,
            "an emergency had to go up the ladder",
            "The first to be told did not see to it that somebody takes the case; the next rung has been told. Likely a gap in the roster.",
        ),
        Alert(
            "DutiesMissed",
            'sum by (service, duty) (increase(steward_duties_total{result="missed"}[1d]))'
            ' / (sum by (service, duty) (increase(steward_duties_total{result="opened"}[1d])) > 0) > 0.1'
            ' and on (service, duty) sum by (service, duty) (increase(steward_duties_total{result="missed"}[1d])) >= 3', "0m", TICKET,
            "{{ $value | humanizePercentage }} of the duties `{{ $labels.duty }}` of a day were missed",
            "Likely those to whom it falls are not told (roster, messages), or were prevented from signing in.",
        ),
        Alert(
            "LadderVacant",
            "sum by (service, post) (increase(steward_ladder_vacant_total[1h]) > 0 or (steward_ladder_vacant_total unless"
            " steward_ladder_vacant_total"
            " offset 1h) > 0) > 0", "0m", PAGE,
            "nobody could be told of a missed limit: nobody holds {{ $labels.post }} nor a post above it",
            "A case of {{ $labels.service }} has reached a rung that nobody holds. The log of notifications names the case; past"
            " events are not told again.",
        ),
        Alert(
            "CodesNotSent",
            'sum(increase(steward_sms_attempts_total{result=~"retried|refused|expired|unreadable"}[15m])) > 3'
            ' unless sum(increase(steward_sms_attempts_total{result="sent"}[15m])) > 0', "5m", PAGE,
            "no one-time code reaches a telephone: residents cannot sign in",
            "Likely the SMS company is away or refuses the token or the template; `unreadable`: STEWARD_DATA_KEY has been changed.",
        ),
    ),
    "databases": (
        Alert(
            "DatabaseConnections",
            "max by (service) (steward_database_server_connections) / max by (service) (steward_database_server_connections_limit) > 0.85",
            "10m", TICKET, "the database server of {{ $labels.service }} has used {{ $value | humanizePercentage }} of its connections",
            "More replicas than max_connections was reckoned for, or something else on the server. At the limit api answers 503.",
        ),
        Alert(
            "OldTransaction", "max by (service) (steward_database_oldest_transaction_seconds) > 300", "5m", TICKET,
            "a transaction of {{ $labels.service }} has been open for {{ $value | humanizeDuration }}",
            "Steward's own end within seconds. Likely a person's session or a backup; it keeps locks and dead rows.",
        ),
    ),
}  # fmt: skip


def files() -> dict[str, str]:
    """File name → text. `slo-….yaml` has the ratios of an objective and its alerts; every file is one group."""
    found = {f"slo-{objective.name}.yaml": f"{_HEAD}groups:\n{_objective(objective)}" for objective in OBJECTIVES}
    for group, alerts in ALERTS.items():
        found[f"{group}.yaml"] = f"{_HEAD}groups:\n  - name: steward-{group}\n    rules:\n" + "".join(_alert(alert) for alert in alerts)
    return found


def names() -> list[str]:
    burning = [f"{objective.alert}Burn{speed}" for objective in OBJECTIVES for speed in ("Fast", "Slowly")]
    return [*burning, *(alert.name for alerts in ALERTS.values() for alert in alerts)]


_HEAD = "# Generated by `make docs` from tests/observability/alerts.py; do not edit. What to do: docs/runbook.md.\n"


def _objective(slo: Objective) -> str:
    rules = "".join(_record(f"steward:slo_bad:ratio_rate{window}", _ratio(slo, window), slo) for window in WINDOWS)
    for window in (long for _, long, _ in (*FAST, *SLOW)):
        inside = slo.total.format(f="increase", w=window)
        rules += _record(f"steward:slo_total:increase{window}", _sum(slo.by, inside), slo)
    rules += _alert(_burning(slo, "Fast", FAST, PAGE)) + _alert(_burning(slo, "Slowly", SLOW, TICKET))
    return f"  - name: steward-slo-{slo.name}\n    interval: 30s\n    rules:\n{rules}"


def _ratio(slo: Objective, window: str) -> str:
    total = _sum(slo.by, slo.total.format(f="rate", w=window))
    if slo.good:
        return f"1 - {_sum(slo.by, slo.good.format(f='rate', w=window))}\n/ ({total} > 0)"
    bad = _sum(slo.by, slo.bad.format(f="rate", w=window))
    return f"({bad} or 0 * {total})\n/ ({total} > 0)"


def _burning(slo: Objective, speed: str, legs: tuple[tuple[float, str, str], ...], severity: str) -> Alert:
    this = f'{{slo="{slo.name}"}}'
    expr = "\nor\n".join(
        f"(steward:slo_bad:ratio_rate{long}{this} > {_number(factor * slo.budget)}\n"
        f" and steward:slo_bad:ratio_rate{short}{this} > {_number(factor * slo.budget)}\n"
        f" and steward:slo_total:increase{long}{this} >= {slo.least})"
        for factor, long, short in legs
    )
    promised = f"{_number(slo.target * 100)} % are to be good over 30 days"
    return Alert(
        f"{slo.alert}Burn{speed}", expr, "0m" if speed == "Slowly" else "1m", severity,
        f"{{{{ $value | humanizePercentage }}}}: {slo.says}", f"{promised}; at this rate that is broken. {slo.cause}",
    )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _record(name: str, expr: str, slo: Objective) -> str:
    return f"      - record: {name}\n        expr: |-\n{_indented(expr)}        labels: {{slo: {slo.name}}}\n"


def _alert(alert: Alert) -> str:
    return (
        f"      - alert: Steward{alert.name}\n        expr: |-\n{_indented(alert.expr)}        for: {alert.lasts}\n"
        f"        labels: {{severity: {alert.severity}}}\n        annotations:\n          summary: {_quoted(alert.summary)}\n"
        f"          description: {_quoted(alert.description)}\n          runbook_url: {RUNBOOK}#{anchor(alert.name)}\n"
    )


def anchor(name: str) -> str:
    """The heading of an alert in the runbook is its name; both speeds of an objective share a section."""
    return f"steward{name.removesuffix('Fast').removesuffix('Slowly').removesuffix('Burn')}".lower()


def _indented(text: str) -> str:
    return "".join(f"          {line}\n" for line in text.splitlines())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
