"""The role `jobs`: long-running operations (AIP-151) that outlive a request and survive `kill -9`.

An operation is a row. A process claims it with a lease, works in steps, and writes each step's effect and its checkpoint in
one transaction (`Job.step`), which also renews the lease; whoever claims it after a crash goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from prometheus_client import Counter

from services.chassis import observe
from services.chassis.db import Database, Transaction, new_id
from services.chassis.errors import Conflict, StewardError, Unavailable
from services.chassis.settings import Settings

log = logging.getLogger(__name__)

LEASE = 20  # seconds of machine time; renewed by every step
ATTEMPTS = 5  # crashes or faults before an operation is given up
CHASSIS_MODULES = ("services.chassis.policy_api",)  # their kinds are carried out for every service
PAUSE = 0.5  # seconds between looks at an empty queue
ENDED = Counter("steward_operations_total", "Long-running operations that ended.", ["service", "kind", "state"])


class Lost(Exception):
    """Another process holds the operation now; this one must stop at once."""


@dataclass(slots=True)
class Job:
    """An operation in the hands of this process. `progress` is the last checkpoint, free for the kind to shape."""

    database: Database
    id: UUID
    kind: str
    request: dict[str, Any]
    progress: dict[str, Any]
    input: bytes
    holder: str
    created_by: str

    @contextlib.contextmanager
    def step(self) -> Iterator[Transaction]:
        """One step: what it writes and `self.progress` commit together. Raises Lost when the lease is gone."""
        with self.database.transaction() as tx:
            yield tx
            held = tx.execute(
                "UPDATE operations SET progress = %s, lease_until = now() + make_interval(secs => %s)"
                " WHERE id = %s AND holder = %s AND state = 'RUNNING' RETURNING 1",
                (json.dumps(self.progress), LEASE, self.id, self.holder),
            )
            if not held:
                raise Lost(f"operation {self.id} is held by another process")


Work = Callable[[Job], None]
_KINDS: dict[tuple[str, str], Work] = {}


def job(service: str, kind: str) -> Callable[[Work], Work]:
    """Registers the function that carries out operations of a kind. It returns when done and raises StewardError to fail.

    One of `chassis` does so for every service.
    """

    def register(work: Work) -> Work:
        _KINDS[service, kind] = work
        return work

    return register


Round = Callable[[Database], bool]
_BESIDE: list[tuple[str, int, Round]] = []


def beside(service: str, threads: int = 1) -> Callable[[Round], Round]:
    """Registers what the role does beside the operations, in threads of its own: short work that must not wait for a long import.

    The function claims one piece, does it, and says whether there was one; while there is none it is asked every second.
    """

    def register(once: Round) -> Round:
        _BESIDE.append((service, threads, once))
        return once

    return register


def enqueue(tx: Transaction, kind: str, request: dict[str, Any], data: bytes = b"") -> UUID:
    """Starts an operation with the transaction's commit."""
    identifier = new_id()
    tx.execute(
        "INSERT INTO operations (id, kind, state, request, input, created_by) VALUES (%s, %s, 'QUEUED', %s, %s, %s)",
        (identifier, kind, json.dumps(request, ensure_ascii=False), data, str(tx.principal)),
    )
    return identifier


def claim(database: Database, holder: str) -> Job | None:
    """The oldest operation that is queued or whose holder died."""
    kinds = [kind for service, kind in _KINDS if service in (database.service, "chassis")]
    if not kinds:
        return None
    with database.transaction() as tx:
        rows = tx.execute(
            "UPDATE operations SET state = 'RUNNING', holder = %s, attempts = attempts + 1, lease_until = now() + make_interval(secs => %s)"
            " WHERE id = (SELECT id FROM operations WHERE kind = ANY(%s) AND (state = 'QUEUED' OR (state = 'RUNNING' AND lease_until < now()))"
            " ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, kind, request, progress, input, created_by, attempts",
            (holder, LEASE, kinds),
        )
    if not rows:
        return None
    identifier, kind, request, progress, data, created_by, attempts = rows[0]
    found = Job(database, identifier, kind, request, progress, bytes(data), holder, created_by)
    if attempts > ATTEMPTS:
        end(found, "FAILED", f"given up after {ATTEMPTS} attempts")
        return None
    return found


def end(done: Job, state: str, error: str = "") -> None:
    with done.database.transaction() as tx:
        tx.execute(
            "UPDATE operations SET state = %s, error = %s, ended_at = clock_timestamp(), lease_until = NULL WHERE id = %s AND holder = %s",
            (state, error, done.id, done.holder),
        )
        tx.after_commit.append(lambda: ENDED.labels(done.database.service, done.kind, state).inc())


def _work(service: str, kind: str) -> Work:
    return _KINDS.get((service, kind)) or _KINDS["chassis", kind]


def work_once(database: Database, holder: str) -> bool:
    """Claims one operation and carries it out. Returns whether there was one."""
    found = claim(database, holder)
    if found is None:
        return False
    log.info("%s: %s %s begins", database.service, found.kind, found.id)
    with _renewed(found):
        try:
            _work(database.service, found.kind)(found)
            end(found, "SUCCEEDED")
        except Unavailable as error:
            log.warning("%s %s waits for its lease to end: %s", found.kind, found.id, error.message)
        except Lost as error:
            log.warning("%s", error)
        except (StewardError, Conflict) as error:
            end(found, "FAILED", error.message)
        except Exception:
            log.exception("%s %s failed; it is tried again when its lease ends", found.kind, found.id)
    return True


@contextlib.contextmanager
def _renewed(found: Job) -> Iterator[None]:
    """Keeps the lease alive while a single step takes longer than it."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LEASE / 3):
            with contextlib.suppress(StewardError), found.database.transaction() as tx:
                tx.execute(
                    "UPDATE operations SET lease_until = now() + make_interval(secs => %s) WHERE id = %s AND holder = %s AND state = 'RUNNING'",
                    (LEASE, found.id, found.holder),
                )

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run(services: list[str], config: Settings) -> int:
    """The process: works on operations until SIGTERM; the one in hand is left to its lease and goes on elsewhere."""
    databases = []
    for module in CHASSIS_MODULES:
        importlib.import_module(module)
    for service in services:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"services.{service}.jobs")
        databases.append(Database(service, config.database(service), pool_size=2))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def why_not_ready() -> str:
        for database in databases:
            with database.read():
                pass
        return ""

    observe.serve(config.http_port, config.bind, why_not_ready)
    holder = f"{socket.gethostname()}:{os.getpid()}"
    for database in databases:
        _start(database, partial(work_once, database, holder), PAUSE, stop)
        for service, threads, once in _BESIDE:
            for _ in range(threads if service == database.service else 0):
                _start(database, partial(once, database), 2 * PAUSE, stop)
    log.info("jobs of %s", ", ".join(services))
    stop.wait()
    return 0


def _start(database: Database, once: Callable[[], bool], pause: float, stop: threading.Event) -> None:
    threading.Thread(target=_loop, args=(database.service, once, pause, stop), daemon=True).start()


def _loop(service: str, once: Callable[[], bool], pause: float, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            if not once():
                stop.wait(pause)
        except StewardError as error:
            log.warning("%s: %s", service, error.message)
            stop.wait(1)
        except Exception:
            log.exception("%s: the loop goes on", service)
            stop.wait(1)
