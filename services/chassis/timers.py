"""What a worker runs by itself every so often (`@every`), as an entrypoint of nameko."""

from __future__ import annotations

import logging
import random
import threading
import time
from functools import partial
from typing import Any

from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint
from prometheus_client import Counter, Gauge, Histogram

from services.chassis.db import Database
from services.chassis.errors import Unavailable
from services.chassis.reactions import Periodic

log = logging.getLogger(__name__)

TIMER_SECONDS = Histogram(
    "steward_timer_seconds", "Time a periodic function took.", ["service", "timer"], buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 30)
)
TIMER_PERIOD = Gauge("steward_timer_period_seconds", "How often a periodic function is to run.", ["service", "timer"])
TIMER_SUCCESS = Gauge(
    "steward_timer_success_timestamp_seconds",
    "Unix time at which a periodic function last ended well; until then, that of the start of the process.",
    ["service", "timer"],
)
TIMER_FAILURES = Counter("steward_timer_failures_total", "Runs of a periodic function that raised.", ["service", "timer"])


class Every(Entrypoint):
    """Runs its method every so often, a little off the beat so that replicas spread out; never twice at once, never to catch up."""

    def __init__(self, seconds: float, **options: Any):
        super().__init__(**options)
        self.seconds = seconds

    def setup(self) -> None:
        self._stopped = threading.Event()

    def start(self) -> None:
        self._thread = self.container.spawn_managed_thread(self._run, identifier=f"every {self.seconds} s")

    def stop(self) -> None:
        self._stopped.set()
        self._thread.wait()

    def _run(self) -> None:
        pause = min(self.seconds, 30) * random.random()  # noqa: S311 - nothing has to be secret about a beat
        while not self._stopped.wait(pause):
            done = threading.Event()
            try:
                self.container.spawn_worker(self, (), {}, handle_result=partial(self._result, done))
            except ContainerBeingKilled:
                return
            done.wait()
            pause = self.seconds * random.uniform(0.9, 1.1)  # noqa: S311 - as above

    def _result(self, done: threading.Event, worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        done.set()
        return result, exc_info


def expect(service: str, periodic: Periodic) -> None:
    """Says that a function is going to run every so often, so that one that never does is seen too."""
    TIMER_PERIOD.labels(service, periodic.name).set(periodic.seconds)
    TIMER_SUCCESS.labels(service, periodic.name).set(time.time())
    TIMER_FAILURES.labels(service, periodic.name)


def run_periodic(service: str, database: Database, periodic: Periodic) -> None:
    """One run; what it raises is logged and counted, and the next one comes at its time."""
    started = time.monotonic()
    try:
        periodic.function(database)
        TIMER_SUCCESS.labels(service, periodic.name).set(time.time())
    except Unavailable as unavailable:
        TIMER_FAILURES.labels(service, periodic.name).inc()
        log.warning("%s: %s: %s", service, periodic.name, unavailable)
    except Exception:
        TIMER_FAILURES.labels(service, periodic.name).inc()
        log.exception("%s: %s failed", service, periodic.name)
    finally:
        TIMER_SECONDS.labels(service, periodic.name).observe(time.monotonic() - started)
