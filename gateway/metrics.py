"""What the gateway counts. Labels are bounded: route templates, methods, status classes, outcomes — never an id."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

disable_created_metrics()  # a second series per counter, which nobody reads


class Metrics:
    """One registry per application, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "steward_gateway_requests_total", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "steward_gateway_request_seconds", "Time to the answer.", ["route", "method"], buckets=SECONDS, registry=self.registry
        )
        self.in_flight = Gauge("steward_gateway_in_flight", "Requests being answered.", registry=self.registry)
        self._refusals = Counter("steward_gateway_refusals_total", "Refusals the gateway made itself.", ["reason"], registry=self.registry)
        self._exchanges = Counter(
            "steward_gateway_identities_total", "Identities looked for, by outcome.", ["outcome"], registry=self.registry
        )
        # Looking labels up costs more than counting: what was looked up is kept (bounded by routes × methods × classes).
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        key = (route, method, status // 100)
        known = self._answered.get(key)
        if known is None:
            method = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
            known = self._requests.labels(route, method, f"{status // 100}xx"), self._seconds.labels(route, method)
            if method != "other":
                self._answered[key] = known
        known[0].inc()
        known[1].observe(seconds)

    def refused(self, reason: str) -> None:
        """`reason` is one of the gateway's own: rate, places, size."""
        self._refusals.labels(reason).inc()

    def identity(self, outcome: str) -> None:
        self._exchanges.labels(outcome).inc()

    def page(self) -> tuple[bytes, bytes]:
        """(content type, exposition)"""
        return CONTENT_TYPE_LATEST.encode(), generate_latest(self.registry)
