"""What requests cost: throughput, times and CPU of create, state change and list at 16 clients."""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.client import Client, Load, Outcome
from tests.bench.processes import Spent, threads
from tests.bench.profiling import PROFILED, Profile, Sampling
from tests.bench.stage import REPORT, Stage

CLIENTS = 16
WARM_UP = 1.0


@dataclass(slots=True)
class Figure:
    """One measurement. CPU is of every process of the platform, in milliseconds per request; the client's own is apart.

    `cpu`: in the seconds that count. `whole`: from the first request of the warm-up until every event was published and reacted to, per
    request sent, without what the platform uses at rest.
    """

    what: str
    orders: int
    per_second: float
    p50: float  # ms
    p99: float  # ms
    count: int
    cpu: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    client: float = 0.0  # ms per request
    others: float = 0.0  # cores somebody else has used meanwhile
    refused: int = 0
    profiles: list[tuple[Profile, float]] = field(default_factory=list)
    threads: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def cpu_total(self) -> float:
        return sum(self.cpu.values())

    @property
    def whole_total(self) -> float:
        return sum(self.whole.values())


class Measures:
    """Runs loads against a stage. `rest` is what the platform uses when nobody asks for anything."""

    def __init__(self, stage: Stage, seconds: float, rest: Spent, *, profile: bool = False):
        self.stage, self.seconds, self.rest, self.profile = stage, seconds, rest, profile
        self.orders = 0

    def create(self) -> Figure:
        path = f"/v1/estates/{self.stage.estate}/repairs"
        return self.measure("create", self.commands("CUSTOMER_ASSISTANT", [path] * self._enough(), REPORT))

    def take(self, names: Sequence[str]) -> Figure:
        """The state change: a technician takes orders that nobody has taken yet, each once."""
        return self.measure("state change (take)", self.commands("TECHNICIAN", [f"/v1/{name}:take" for name in names], {}))

    def list_estate(self) -> Figure:
        request = self.stage.request("GET", f"/v1/estates/{self.stage.estate}/repairs?states=REPORTED&pageSize=20", "CUSTOMER_ASSISTANT")
        return self.measure("list by state, one estate", [request], again=True)

    def list_group(self) -> Figure:
        request = self.stage.request("GET", "/v1/estates/-/repairs?states=REPORTED&pageSize=20", "GROUP")
        return self.measure("list by state, the group", [request], again=True)

    def measure(self, what: str, requests: Sequence[bytes], *, again: bool = False) -> Figure:
        stage = self.stage
        load = Load(stage.platform.ports["gateway"], requests, self.seconds, WARM_UP, CLIENTS, again=again)
        first = stage.processes.usage()
        with Client(load) as client:
            client.wait_started()
            before = stage.processes.usage()
            samplings = self._samplings() if self.profile else []
            spun = {name: threads(stage.platform.pid(name) or 0) for name in PROFILED} if self.profile else {}
            client.wait_ended()
            after = stage.processes.usage()
            spun = {name: {t: s - spun[name].get(t, 0.0) for t, s in threads(stage.platform.pid(name) or 0).items()} for name in spun}
            outcome = client.outcome()
        whole = stage.settle().since(first).less(self.rest)
        return self._figure(what, outcome, after.since(before), whole, [sampling.profile() for sampling in samplings], spun)

    def commands(self, role: str, paths: Sequence[str], body: dict[str, str]) -> list[bytes]:
        """One request for each path, each under an idempotency key of its own."""
        mark = "5d0c6f0e-0000-4000-8000-000000000000"
        pattern = self.stage.request("POST", "{path}", role, body, mark)
        before, _, rest = pattern.partition(b"{path}")
        middle, _, behind = rest.partition(mark.encode())
        return [b"".join((before, path.encode(), middle, str(uuid.uuid4()).encode(), behind)) for path in paths]

    def _enough(self) -> int:
        """More requests than can be answered in the time."""
        return int((self.seconds + WARM_UP + 1) * 2000)

    def _samplings(self) -> list[Sampling]:
        platform = self.stage.platform
        return [Sampling(name, pid, self.stage.folder, self.seconds) for name in PROFILED if (pid := platform.pid(name))]

    def _figure(
        self,
        what: str,
        outcome: Outcome,
        window: Spent,
        whole: Spent,
        profiles: list[Profile],
        spun: dict[str, dict[str, float]],
    ) -> Figure:
        count = len(outcome.took)
        if not count:
            raise RuntimeError(f"{what}: nothing was answered; first refusal: {outcome.first_refusal}")
        share = 1000 / count
        figure = Figure(
            what,
            self.orders,
            count / outcome.elapsed,
            statistics.median(outcome.took) * 1000,
            outcome.took[int(count * 0.99) - 1] * 1000,
            count,
            cpu={name: seconds * share for name, seconds in window.by_name.items()},
            whole={name: seconds * 1000 / outcome.sent for name, seconds in whole.by_name.items()},
            client=outcome.cpu * share,
            others=window.others(outcome.cpu),
            refused=sum(outcome.refused.values()),
        )
        if outcome.refused:
            print(f"    refused: {dict(outcome.refused)}; the first: {outcome.first_refusal[:300]}", flush=True)
        figure.profiles = [(profile, figure.cpu.get(profile.name, 0.0)) for profile in profiles]
        figure.threads = {name: {t: s * share for t, s in found.items()} for name, found in spun.items()}
        return figure
