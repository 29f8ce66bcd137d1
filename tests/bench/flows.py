"""What happens behind the requests: events on their way from the log to their effect, and the sweep of the clocks."""

from __future__ import annotations

import http.client
import re
import time
from dataclasses import dataclass, field

from tests.bench import filling
from tests.bench.client import Client, Load
from tests.bench.measures import CLIENTS, Measures
from tests.bench.processes import Spent
from tests.bench.profiling import Profile, Sampling
from tests.bench.stage import REPORT, Stage

RATE, FOR = 50, 20.0  # events per second of a steady load, and its seconds
DUE, ROUNDS = 1_000, 3

# The event of a dispatch, copied: one message to one person in `notifications`, and nobody else reacts to it.
EVENTS = """
INSERT INTO events ({columns}) SELECT {values} FROM generate_series(1, {count}) n,
  (SELECT * FROM events WHERE type = 'RepairDispatched' AND aggregate_id = '{dispatched}' ORDER BY recorded_at DESC LIMIT 1) t
"""
NEW_EVENT = {
    "id": "gen_random_uuid()",
    "aggregate_id": "gen_random_uuid()",
    "recorded_at": "clock_timestamp()",
    "position": "NULL",
    "published_at": "NULL",
}
REPORTS = """
SELECT e.id, extract(epoch FROM pg_xact_commit_timestamp(h.xmin))::float8 FROM history h JOIN events e ON e.aggregate_id = h.aggregate_id
 WHERE h.action = 'report' AND e.type = 'RepairReported' AND h.recorded_at > %s
"""
EFFECTS = "SELECT event_id, max(extract(epoch FROM pg_xact_commit_timestamp(xmin)))::float8 FROM inbox WHERE at > %s GROUP BY event_id"
FALL_DUE = """
UPDATE clocks SET next_at = %s, marks = array_prepend(%s::timestamptz, marks[2:]) WHERE id IN (
  SELECT id FROM clocks WHERE next_at > now() + interval '30 days' AND level = 0 ORDER BY md5(id::text) LIMIT %s)
"""
FIRED = (
    "SELECT count(*), extract(epoch FROM max(pg_xact_commit_timestamp(xmin)) - %s)::float8 FROM clocks WHERE level = 1 AND marks[1] = %s"
)


@dataclass(slots=True)
class Flow:
    """Events per second, and microseconds of CPU for each by process."""

    what: str
    count: int
    per_second: float
    cpu: dict[str, float] = field(default_factory=dict)
    profile: Profile | None = None


@dataclass(slots=True)
class Effect:
    """Milliseconds from the commit of a command to the commit of its last reaction in another service, at a steady rate."""

    service: str
    count: int
    per_second: float
    p50: float
    p99: float


@dataclass(slots=True)
class Sweep:
    """Seconds. `written`: from the instant the clocks were due until the last one's event was committed, with up to a second in which
    no sweep was due; `took`: what the worker itself says its sweeps took in that time; `cpu`: of worker and PostgreSQL."""

    open_clocks: int
    due: int
    written: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def effect(measures: Measures) -> list[Effect]:
    """Creates at a steady rate, and when `notifications` and `governance` have had each of their events."""
    stage = measures.stage
    [(since,)] = stage.sql("work_orders", "SELECT clock_timestamp()")
    path = f"/v1/estates/{stage.estate}/repairs"
    requests = measures.commands("CUSTOMER_ASSISTANT", [path] * int(RATE * (FOR + 5)), REPORT)
    with Client(Load(stage.platform.ports["gateway"], requests, FOR, 2.0, CLIENTS, rate=RATE)) as client:
        client.wait_started()
        began = time.time()
        client.wait_ended()
        ended = time.time()
        outcome = client.outcome()
    if outcome.refused:
        raise RuntimeError(f"refused: {dict(outcome.refused)}; the first: {outcome.first_refusal[:300]}")
    stage.settle()
    committed = {event: at for event, at in stage.sql("work_orders", REPORTS, (since,)) if began <= at <= ended}
    found = []
    for service in ("notifications", "governance"):
        done = dict(stage.sql(service, EFFECTS, (since,)))
        took = sorted((done[event] - at) * 1000 for event, at in committed.items())
        found.append(Effect(service, len(took), len(took) / (ended - began), took[len(took) // 2], took[int(len(took) * 0.99) - 1]))
    return found


def relay_and_consumer(stage: Stage, backlog: int, *, profile: bool = False) -> tuple[Flow, Flow]:
    """A backlog is published while no worker runs; then a worker drains the queue."""
    dispatched = _dispatched(stage)
    stage.settle()
    stage.platform.stop("worker")
    time.sleep(1)
    relayed = _relay(stage, EVENTS.replace("{dispatched}", dispatched), backlog, profile)
    return relayed, _consumer(stage, backlog, profile)


def _relay(stage: Stage, statement: str, backlog: int, profile: bool) -> Flow:
    statement = filling.spread(stage, statement, NEW_EVENT, "events", prefix="t", count=backlog)
    before = stage.processes.usage()
    stage.sql("work_orders", statement)
    [(began,)] = stage.sql("work_orders", "SELECT clock_timestamp() FROM (SELECT pg_notify('steward_events', '')) told")
    sampling = _sampling(stage, "relay", 2) if profile else None
    while stage.sql("work_orders", "SELECT 1 FROM events WHERE published_at IS NULL LIMIT 1"):
        time.sleep(0.05)
    spent = stage.processes.usage().since(before)
    [(seconds,)] = stage.sql("work_orders", "SELECT extract(epoch FROM max(published_at) - %s)::float8 FROM events", (began,))
    return Flow("relay", backlog, backlog / seconds, _each(spent, backlog), sampling.profile() if sampling else None)


def _consumer(stage: Stage, backlog: int, profile: bool) -> Flow:
    """Counted from the first event that is done to the last, so that the start of the worker is left out."""
    [(begun,)] = stage.sql("notifications", "SELECT clock_timestamp()")
    stage.platform.start("worker")

    def done() -> int:
        [(count,)] = stage.sql("notifications", "SELECT count(*) FROM inbox WHERE at > %s", (begun,))
        return count

    while not (first := done()):
        time.sleep(0.05)
    before = stage.processes.usage()
    sampling = _sampling(stage, "worker", 4) if profile else None
    while (last := done()) < backlog:
        time.sleep(0.2)
    spent, count = stage.processes.usage().since(before), last - first
    stage.platform.wait_ready("worker")
    return Flow("consumer", count, count / spent.seconds, _each(spent, count), sampling.profile() if sampling else None)


def _sampling(stage: Stage, name: str, seconds: float) -> Sampling | None:
    pid = stage.platform.pid(name)
    return Sampling(name, pid, stage.folder, seconds) if pid else None


def sweep(stage: Stage, open_clocks: int) -> Sweep:
    """`DUE` of `open_clocks` fall due at one instant, and the running worker finds them."""
    filling.open_clocks(stage, open_clocks)
    [(count,)] = stage.sql("work_orders", "SELECT count(*) FROM clocks WHERE stopped_at IS NULL")
    found = Sweep(count, DUE)
    for _ in range(ROUNDS):
        stage.settle()
        [(instant,)] = stage.sql("work_orders", "SELECT clock_timestamp() + interval '4 seconds'")
        stage.sql("work_orders", FALL_DUE, (instant, instant, DUE))
        [(wait,)] = stage.sql("work_orders", "SELECT extract(epoch FROM %s - clock_timestamp())::float8 - 0.1", (instant,))
        if wait <= 0:
            raise RuntimeError("the machine is too slow to make the clocks due at one instant")
        time.sleep(wait)
        before, said = stage.processes.usage(), _sweeping(stage)
        fired = 0
        while fired < DUE:
            time.sleep(0.05)
            [(fired, written)] = stage.sql("work_orders", FIRED, (instant, instant))
        time.sleep(0.2)
        spent = stage.processes.usage().since(before)
        found.written.append(written)
        found.took.append(_sweeping(stage) - said)
        found.cpu.append(sum(spent.by_name.get(name, 0.0) for name in ("worker", "postgres: work_orders worker")))
    return found


def _sweeping(stage: Stage) -> float:
    """Seconds that the worker's sweeps of work_orders have taken so far, by its own metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.platform.http_port("worker"), timeout=10)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    found = re.search(r'^steward_timer_seconds_sum\{service="work_orders",timer="clocks"\} (\S+)', page, re.M)
    return float(found.group(1)) if found else 0.0


def _dispatched(stage: Stage) -> str:
    """Id of an order that was dispatched through the API: its event is what the backlog is copied from."""
    [(technician,)] = stage.sql(
        "work_orders",
        "SELECT p.staff_id::text FROM dir_posts p JOIN dir_nodes n ON n.id = p.node_id"
        " WHERE p.role = 'TECHNICIAN' AND n.code = %s AND NOT p.deleted ORDER BY 1 LIMIT 1",
        (stage.estate,),
    )
    desk = stage.person("CUSTOMER_ASSISTANT")
    name: str = desk.post(f"/v1/estates/{stage.estate}/repairs", REPORT)["name"]
    desk.post(f"/v1/{name}:dispatch", {"technician": f"staff/{technician}"})
    return name.rpartition("/")[2]


def _each(spent: Spent, count: int) -> dict[str, float]:
    return {name: seconds / count * 1e6 for name, seconds in spent.by_name.items()}
