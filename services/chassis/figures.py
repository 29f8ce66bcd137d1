"""What stands in a service's database, for its metrics: counted by every worker every half minute.

Counters say what happened; these gauges say what is so: which emergencies nobody has taken, how many dead letters wait, how the
database is. Every replica counts the same, so that a dashboard takes the maximum and one replica is enough.

`announce` gives every counter of cases, clocks and duties its series at the start, at 0: Prometheus sees an increase only from one sample
to the next, and what is rare (a missed duty) would be missed when its series begins with it.
"""

from __future__ import annotations

from prometheus_client import Gauge

from services.chassis import duties, observe
from services.chassis.db import Base, Database, Transaction
from services.chassis.duties import DutyTask, duties_of
from services.chassis.lifecycle import Case
from services.chassis.reactions import every

URGENT = ("true", "false")
MARKS = ("ClockWarned", "ClockBreached", "ClockEscalated")
RESULTS = ("met", "breached", "cancelled")
DUTY_RESULTS = ("opened", "done", "late", "missed")
STATES = ("active", "idle", "idle in transaction", "other")  # of a connection

OVERDUE = Gauge(
    "steward_clocks_overdue", "Clocks that were missed and still run: nobody has done yet what they wait for.",
    ["service", "process", "clock", "urgent"],
)  # fmt: skip
LETTERS = Gauge("steward_dead_letters_waiting", "Dead letters that nobody has replayed.", ["service"])
OPERATIONS = Gauge("steward_operations_waiting", "Long-running operations that no process has begun.", ["service"])
BYTES = Gauge("steward_database_bytes", "Size of the service's database.", ["service"])
CONNECTIONS = Gauge("steward_database_connections", "Connections to the service's database, by what they do.", ["service", "state"])
SERVER = Gauge("steward_database_server_connections", "Connections to the server, of this database and all others on it.", ["service"])
LIMIT = Gauge("steward_database_server_connections_limit", "Connections that the server takes (max_connections).", ["service"])
OLDEST = Gauge("steward_database_oldest_transaction_seconds", "Age of the oldest transaction of the service's database.", ["service"])

DATABASE = """
SELECT pg_database_size(current_database()), (SELECT sum(numbackends) FROM pg_stat_database), current_setting('max_connections')::int
"""
SESSIONS = """
SELECT coalesce(state, ''), count(*), extract(epoch FROM max(clock_timestamp() - xact_start)) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1
"""
MISSED = "SELECT aggregate, name, urgent, count(*) FROM clocks WHERE breached_at IS NOT NULL AND stopped_at IS NULL GROUP BY 1, 2, 3"


def processes(service: str) -> list[type[Case]]:
    """The kinds of case of a service that this process has loaded."""
    loaded = [mapper.class_ for mapper in Base.registry.mappers if issubclass(mapper.class_, Case)]
    own = [case for case in loaded if case.__module__.startswith(f"services.{service}.")]
    return sorted(own + ([DutyTask] if duties_of(service) else []), key=lambda case: case.KIND)


def announce(service: str) -> None:
    """Begins the series of a service's cases, clocks and duties at 0."""
    for case in processes(service):
        for action in (*case.LIFECYCLE.actions(), *(start for rule in case.CLOCKS for start in rule.starts)):
            observe.CASES_MOVED.labels(service, case.KIND, action)
        for rule in case.CLOCKS:
            observe.CLOCKS_STARTED.labels(service, case.KIND, rule.name)
            for result in RESULTS:
                observe.CLOCKS_STOPPED.labels(service, case.KIND, rule.name, result)
            for mark in MARKS:
                for urgent in URGENT:
                    observe.CLOCKS_FIRED.labels(service, case.KIND, rule.name, mark, urgent)
    for duty in duties_of(service).values():
        for result in DUTY_RESULTS if duty.instead is None else ():
            duties.TOTAL.labels(service, duty.name, result)


@every(30, name="figures")
def count(database: Database) -> None:
    """Reads all gauges of a service."""
    with database.transaction() as tx:
        tx.execute("SET LOCAL enable_seqscan = off")  # row-level security hides from the planner how few rows these are
        _clocks(tx)
        waiting, queued = tx.execute(
            "SELECT (SELECT count(*) FROM dead_letters WHERE replayed_at IS NULL), (SELECT count(*) FROM operations WHERE state = 'QUEUED')"
        )[0]
        LETTERS.labels(tx.service).set(waiting)
        OPERATIONS.labels(tx.service).set(queued)
        _database(tx)


def _clocks(tx: Transaction) -> None:
    found = {(process, clock, str(urgent).lower()): number for process, clock, urgent, number in tx.execute(MISSED)}
    announced = {(case.KIND, rule.name, urgent) for case in processes(tx.service) for rule in case.CLOCKS for urgent in URGENT}
    for labels in announced | set(found):
        OVERDUE.labels(tx.service, *labels).set(found.get(labels, 0))


def _database(tx: Transaction) -> None:
    size, server, limit = tx.execute(DATABASE)[0]
    BYTES.labels(tx.service).set(size)
    SERVER.labels(tx.service).set(server)
    LIMIT.labels(tx.service).set(limit)
    sessions, oldest = dict.fromkeys(STATES, 0), 0.0
    for state, number, age in tx.execute(SESSIONS):
        sessions[state if state in STATES else "other"] += number
        oldest = max(oldest, float(age or 0))
    for state, number in sessions.items():
        CONNECTIONS.labels(tx.service, state).set(number)
    OLDEST.labels(tx.service).set(oldest)
