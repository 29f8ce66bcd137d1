"""The role `worker`: gives events to reactions and runs what runs periodically. Built on nameko, one container per service.

`consuming` takes messages from the broker and acknowledges them, `desk` handles them, `timers` run the rest. A lost broker or
database costs nothing but time.

The process must be monkey-patched by eventlet before anything else is imported; `services.chassis.__main__` does that. Then
psycopg2 waits cooperatively, and a slow statement holds up its own message only, or those that share its transaction.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import eventlet
import eventlet.patcher
from nameko import config as nameko_config
from nameko.extensions import Entrypoint, register_entrypoint
from nameko.runners import ServiceRunner

from services.chassis import figures, observe
from services.chassis.consuming import Consume, Intake
from services.chassis.db import Database
from services.chassis.desk import Desk
from services.chassis.reactions import reactions_of
from services.chassis.settings import Settings
from services.chassis.timers import Every, expect, run_periodic

log = logging.getLogger(__name__)

PREFETCH = {"directory": 5, "events": 100, "dead": 1}  # messages a worker holds of a queue
DRAIN_WITHIN = 12.0  # s for what is being worked on at SIGTERM; the supervisor kills after 15


def service_class(service: str, database: Database, settings: Settings, stopping: Callable[[], bool]) -> type:
    """The nameko service of a Steward service: a method for each queue it has and for each function that runs periodically."""
    table = reactions_of(service)
    members: dict[str, Any] = {"name": service}
    desk = Desk(service, database, settings.amqp_url, stopping)
    slots = {"directory": 2, "events": max(1, settings.pool_size - 3), "dead": 1}
    queues = [kind for kind in ("directory", "events") if table.routing_keys(kind)]  # type: ignore[arg-type]
    for kind in [*queues, "dead"] if queues else []:
        work = desk.bury_undeliverable if kind == "dead" else desk.react
        consume = Consume(f"{service}.{kind}", prefetch=PREFETCH[kind], slots=slots[kind], together=table.together)
        members[kind] = _method(kind, work, consume)
    for number, periodic in enumerate(table.periodic):
        name = f"every_{number}_{periodic.name}"
        expect(service, periodic)
        members[name] = _method(name, partial(run_periodic, service, database, periodic), Every(periodic.seconds))
    return type(f"Service_{service}", (), members)


def run(services: list[str], settings: Settings) -> int:
    """The process: reacts until SIGTERM, then finishes what it has in hand. Returns 1 when nameko gave up on a service."""
    if not eventlet.patcher.is_monkey_patched("socket"):
        raise RuntimeError("a worker needs eventlet.monkey_patch() before its first import")
    databases = {service: Database(service, settings.database(service), pool_size=settings.pool_size) for service in services}
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    classes = [service_class(service, databases[service], settings, asked.is_set) for service in services]
    for service in services:
        figures.announce(service)
    most = max(sum(1 for name in vars(c) if not name.startswith("_")) for c in classes)
    nameko_config.setup({"AMQP_URI": settings.amqp_url, "max_workers": sum(PREFETCH.values()) + most})
    runner = ServiceRunner()
    for one in classes:
        runner.add_service(one)
    observe.serve(settings.http_port, settings.bind, lambda: _why_not_ready(runner, databases))
    log.info("worker of %s", ", ".join(services))
    runner.start()
    ended = eventlet.spawn(runner.wait)
    while not asked.wait(0.2) and not ended.dead:
        pass
    if ended.dead:
        log.critical("a service's container has died")
        return 1
    with eventlet.Timeout(DRAIN_WITHIN, False):
        runner.stop()
        return 0
    log.error("not everything was finished within %.0f s", DRAIN_WITHIN)
    return 0


def _method(name: str, work: Callable[..., Any], entrypoint: Entrypoint) -> Callable[..., Any]:
    def method(self: object, *arguments: Any) -> Any:
        return work(*arguments)

    method.__name__ = name
    register_entrypoint(method, entrypoint)
    return method


def _why_not_ready(runner: ServiceRunner, databases: dict[str, Database]) -> str:
    intakes = ((container.service_name, container.shared_extensions.get(Intake)) for container in runner.containers)
    lacking = [f"{service}: {intake.trouble}" for service, intake in intakes if intake and intake.trouble]
    for database in databases.values():
        with database.read():
            pass
    return "; ".join(lacking)
