"""Every metric of every process, by looking at what the code registers: name, type, labels with all their values, who serves it.

What a registry cannot say (which values a label takes, which role moves a metric) stands in two tables here. The values come from
the same tables as the code's own: contract, lifecycles, clocks, reactions, duties, routes.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import REGISTRY

from gateway.app import Gateway
from gateway.descriptors import Contract
from gateway.metrics import Metrics
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from services.chassis import errors, figures, policy_api, retention, rpc
from services.chassis.__main__ import SERVICES
from services.chassis.duties import duties_of
from services.chassis.reactions import reactions_of
from services.chassis.settings import read
from services.notifications.templates import TEMPLATES
from services.residents import importing
from steward.options.v1 import options_pb2

ROLES = ("api", "worker", "relay", "jobs", "gateway")
STANDARD = ("process_", "python_")
REACTING = tuple(service for service in SERVICES if reactions_of(service).by_event)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as Prometheus sees it; of a histogram `name` has `_bucket`, `_sum` and `_count` behind it."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str
    roles: tuple[str, ...]
    buckets: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which samples stand in Prometheus."""
        return tuple(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count")) if self.type == "histogram" else (self.name,)


# --- who moves a metric: by the beginning of its name ---------------------------------------------------------------------

SERVED_BY = {
    "steward_gateway_": ("gateway",),
    "steward_rpc_": ("api",),
    "steward_case_moves": ("api", "worker", "jobs"),
    "steward_clock_marks": ("api", "worker"),
    "steward_clocks_recomputed": ("jobs",),
    "steward_clocks_overdue": ("worker",),
    "steward_clocks_": ("api", "worker", "jobs"),
    "steward_duties": ("api", "worker"),
    "steward_events_": ("worker",),
    "steward_event_lag": ("worker",),
    "steward_dead_letters": ("worker",),
    "steward_worker_": ("worker",),
    "steward_timer_": ("worker",),
    "steward_rows_": ("worker",),
    "steward_retention_": ("worker",),
    "steward_messages_": ("worker",),
    "steward_ladder_": ("worker",),
    "steward_database_": ("worker",),
    "steward_operations_waiting": ("worker",),
    "steward_operations": ("jobs",),
    "steward_sms_": ("jobs",),
    "steward_relay_": ("relay",),
}

# --- what a label may say -------------------------------------------------------------------------------------------------


@cache
def _cases() -> tuple[type[Any], ...]:
    return tuple({case: None for service in SERVICES for case in figures.processes(service)})


def _actions() -> set[str]:
    """Moves of all lifecycles, and the actions by which cases are opened."""
    sources = [inspect.getsource(sys.modules[case.__module__]) for case in _cases()]
    opened = {name for source in sources for name in re.findall(r'\.open\(.*?, "(\w+)"\)', source)}
    return opened | {action for case in _cases() for action in case.LIFECYCLE.actions()}


def _events() -> set[str]:
    return {f"{source}.{type}" for service in SERVICES for source, type in reactions_of(service).by_event}


def _queues() -> set[str]:
    kinds = [(service, kind) for service in REACTING for kind in ("directory", "events")]
    used = {f"{service}.{kind}" for service, kind in kinds if reactions_of(service).routing_keys(kind)}  # type: ignore[arg-type]
    return used | {f"{service}.dead" for service in REACTING}


@cache
def _routes() -> frozenset[str]:
    """Templates of the gateway's routes; of the development profile, whose gateway serves all there are."""
    config, own = read({"STEWARD_PROFILE": "development"}), GatewaySettings()
    root = Gateway(config, own, Contract.load(own.descriptors), Upstream({})).outside.router._root

    def found(node: Any) -> Iterator[str]:
        for methods in node.ends.values():
            yield from (target.label for target in methods.values())
        for below in (*node.literals.values(), *([node.wildcard] if node.wildcard else [])):
            yield from found(below)

    return frozenset({"unmatched", *found(root)})


def _mounted_too() -> tuple[str, ...]:
    return (*SERVICES, rpc.EVERY)


def _rpcs() -> set[str]:
    moved = {"ShiftBusinessTime", "GetBusinessTime", "ListUnhandled"}
    return {operation.method.name for service in SERVICES for operation in [*rpc.operations(service), *rpc.mounted()]} | moved


def _clocks() -> set[str]:
    return {rule.name for case in _cases() for rule in case.CLOCKS}


def _duties() -> set[str]:
    return {duty.name for service in SERVICES for duty in duties_of(service).values()}


def _timers() -> set[str]:
    return {periodic.name for service in SERVICES for periodic in reactions_of(service).periodic}


def _tables() -> set[str]:
    return {rule.table for service in SERVICES for rule in retention.rules_of(service)}


def _telling() -> set[str]:
    return {source for source, _ in reactions_of("notifications").by_event}


def _posts() -> set[str]:
    return set(options_pb2.Role.keys())


def _codes() -> set[str]:
    return {"OK", *(row.code for row in errors.TABLE)}


Values = Callable[[], Iterable[str]]
# label, or `metric.label` where a metric means another thing by it → (what it says, all it may say)
VALUES: dict[str, tuple[str, Values]] = {
    "service": ("the service", lambda: SERVICES),
    "steward_rpc_in_flight.service": ("the service; `chassis` for what each answers for itself", _mounted_too),
    "steward_rpc_seconds.service": ("the service; `chassis` for what each answers for itself", _mounted_too),
    "rpc": ("the operation, as in the proto", _rpcs),
    "code": ("the gRPC code of the answer", _codes),
    "process": ("the kind of case", lambda: {case.KIND for case in _cases()}),
    "clock": ("the line of the process's table of clocks", _clocks),
    "mark": ("what fired: reminder, breach, or a further rung of the ladder", lambda: figures.MARKS),
    "urgent": ("whether the case is an emergency", lambda: figures.URGENT),
    "action": ("the move, or how the case was opened", _actions),
    "steward_clocks_stopped_total.result": ("whether the limit was kept", lambda: figures.RESULTS),
    "duty": ("the line of the service's table of duties", _duties),
    "steward_duties_total.result": ("what became of it", lambda: figures.DUTY_RESULTS),
    "type": ("`source.Event`; `unknown` for what nobody reacts to", lambda: {*_events(), "unknown"}),
    "queue": ("the queue", _queues),
    "timer": ("the periodic function", _timers),
    "table": ("a table with a rule in retention.py", _tables),
    "steward_messages_told_total.kind": ("the template of the message", lambda: TEMPLATES),
    "steward_ladder_vacant_total.service": ("the service whose case it is", _telling),
    "post": ("a post of the register", _posts),
    "steward_operations_total.kind": ("the kind of operation", lambda: {importing.KIND, policy_api.KIND}),
    "steward_operations_total.state": ("how it ended", lambda: ("SUCCEEDED", "FAILED")),
    "steward_database_connections.state": ("what the connection does", lambda: figures.STATES),
    "steward_sms_attempts_total.result": (
        "what came of it", lambda: ("sent", "refused", "retried", "expired", "unreadable", "nobody"),
    ),
    "how": ("nacked by the broker, or returned for want of a queue", lambda: ("nacked", "returned")),
    "route": ("the template of the route; `unmatched` for no route", _routes),
    "method": ("the HTTP method; `other` for any that is not one", lambda: ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
        "other")),
    "status": ("the class of the HTTP status", lambda: ("1xx", "2xx", "3xx", "4xx", "5xx")),
    "reason": (
        "the limit that was reached",
        lambda: ("principal_rate", "address_rate", "sign_in_rate", "in_flight", "large_uploads"),
    ),
    "outcome": (
        "where the identity came from, or why there is none",
        lambda: ("hit", "shared", "exchanged", "kept", "refused", "unavailable"),
    ),
}  # fmt: skip


def said(metric: str, label: str) -> str:
    return VALUES.get(f"{metric}.{label}", VALUES.get(label, ("", tuple)))[0]


@cache
def allowed(metric: str, label: str) -> frozenset[str]:
    """Every value a label of a metric may take. Raises KeyError for a label that nobody has bounded."""
    known = VALUES.get(f"{metric}.{label}") or VALUES[label]
    return frozenset(known[1]())


# --- what is registered ---------------------------------------------------------------------------------------------------

MODULES = ("observe", "desk", "consuming", "timers", "relay", "jobs", "retention", "duties", "figures", "policy_api")


@cache
def metrics() -> tuple[Metric, ...]:
    """Every metric of Steward, by name."""
    for module in MODULES:
        importlib.import_module(f"services.chassis.{module}")
    importlib.import_module("services.residents.codes")
    importlib.import_module("services.notifications.reactions")
    collectors = {*REGISTRY._collector_to_names, *Metrics().registry._collector_to_names}
    own = [collector for collector in collectors if getattr(collector, "_name", "").startswith("steward_")]
    return tuple(sorted((_metric(collector) for collector in own), key=lambda metric: metric.name))


def _metric(collector: Any) -> Metric:
    kind = collector._type
    name = f"{collector._name}_total" if kind == "counter" else collector._name
    buckets = tuple(_bound(bound) for bound in collector._kwargs.get("buckets", ())) if kind == "histogram" else ()
    return Metric(name, kind, tuple(collector._labelnames), collector._documentation, roles_of(name), buckets)


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else repr(float(seconds))


def roles_of(name: str) -> tuple[str, ...]:
    """Raises StopIteration for a metric of which nobody has said who serves it."""
    return next(roles for beginning, roles in SERVED_BY.items() if name.startswith(beginning))


def by_series() -> dict[str, Metric]:
    """Name of the samples → metric."""
    return {series: metric for metric in metrics() for series in metric.series}
