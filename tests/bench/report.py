"""What is printed: a line or two as each figure is there, and at the end the tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.bench.flows import RATE, Effect, Flow, Sweep
from tests.bench.measures import Figure
from tests.bench.profiling import table
from tests.bench.yardstick import WHICH, Yard

MEMORY, EFFECT, SWEEP, FLAT = 1536, 250, 1.0, 1.2  # MB, ms, s, times the CPU with fewer orders
MARKS = {
    "create": (300, 5.0),
    "state change (take)": (300, 5.0),
    "list by state, one estate": (500, 3.0),
    "list by state, the group": (500, 3.0),
}


@dataclass(slots=True)
class Report:
    """All that one run has found."""

    memory: dict[str, float] = field(default_factory=dict)  # MB by process
    at_rest: float = 0.0  # cores
    commits: list[float] = field(default_factory=list)  # ms of a small transaction of one client
    yards: list[tuple[str, int, Yard]] = field(default_factory=list)  # what the rows are those of, orders present
    figures: list[Figure] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    sweep: Sweep | None = None

    def yard(self, which: str, orders: int) -> float:
        """Transactions per second: the mean of the measurements before and after."""
        rates = [yard.per_second for name, present, yard in self.yards if (name, present) == (which, orders)]
        return sum(rates) / len(rates) if rates else 0.0

    def tables(self) -> list[str]:
        lines = ["| measured | orders | per second | p50 ms | p99 ms | CPU ms | with what follows | of pgbench | mark |", "|" + "---|" * 9]
        lines += [self._row(figure) for figure in self.figures]
        lines += ["", "| measured | result | mark |", "|---|---|---|"]
        lines += [f"| {what} | {result} | {mark} |" for what, result, mark in self._others()]
        return lines

    def _row(self, figure: Figure) -> str:
        rate, cpu = MARKS[figure.what]
        yard = self.yard(next(which for which in WHICH if figure.what.startswith(which)), figure.orders)
        ratio = f"{figure.per_second / yard:.3f}" if yard else ""
        met = figure.per_second >= rate and figure.whole_total <= cpu
        mark = f"≥ {rate}/s at ≤ {cpu:g} ms: {'met' if met else 'not met'}"
        numbers = f"{figure.per_second:.0f} | {figure.p50:.1f} | {figure.p99:.1f} | {figure.cpu_total:.2f} | {figure.whole_total:.2f}"
        return f"| {figure.what} | {figure.orders:,} | {numbers} | {ratio} | {mark} |"

    def _others(self) -> Iterable[tuple[str, str, str]]:
        sizes = sorted({figure.orders for figure in self.figures})
        if len(sizes) > 1:
            for what in dict.fromkeys(figure.what for figure in self.figures):
                cpu = {figure.orders: figure.whole_total for figure in self.figures if figure.what == what}
                times = cpu[sizes[-1]] / cpu[sizes[0]]
                text = f"CPU {times:.2f} times that with {sizes[0]:,} orders"
                yield f"{what}, {sizes[-1]:,} orders", text, f"flat (≤ {FLAT:g}): {_met(times <= FLAT)}"
        for name, orders in dict.fromkeys((name, orders) for name, orders, _ in self.yards):
            found = [yard for which, present, yard in self.yards if (which, present) == (name, orders)]
            text = "; ".join(f"{yard.per_second:.0f}/s at {yard.cpu:.2f} ms CPU" for yard in found)
            yield f"pgbench, the rows of a {name}, {orders:,} orders, before and after", text, ""
        if self.commits:
            yield "a small transaction of one client, each time", f"{_listed(self.commits)} ms", ""
        for effect in self.effects:
            text = f"p50 {effect.p50:.0f} ms, p99 {effect.p99:.0f} ms ({effect.count} events)"
            yield f"commit → effect in {effect.service} at {RATE} events/s", text, f"p99 < {EFFECT} ms: {_met(effect.p99 < EFFECT)}"
        for flow in self.flows:
            total = sum(flow.cpu.values())
            own = {"relay": "relay", "consumer": "worker"}[flow.what]
            text = f"{flow.per_second:.0f} events/s; µs CPU each: {flow.cpu.get(own, 0):.0f} of the {own}, {total:.0f} of all processes"
            yield f"{flow.what}, a backlog of {flow.count:,}", text, ""
        if self.sweep:
            sweep = self.sweep
            text = f"all written {_listed(sweep.written)} s after the instant; the sweep itself {_listed(sweep.took)} s, {_listed(sweep.cpu)} s CPU"
            met = f"< {SWEEP:g} s: {_met(max(sweep.took) < SWEEP)}"
            yield f"sweep, {sweep.due:,} of {sweep.open_clocks:,} open clocks due", text, met
        if self.memory:
            total = sum(self.memory.values())
            text = f"{total:.0f} MB PSS, {self.at_rest * 1000:.0f} ms CPU a second"
            yield "the whole platform at rest", text, f"< {MEMORY} MB: {_met(total < MEMORY)}"


def figure_lines(figure: Figure, rows: int) -> Iterable[str]:
    rates = f"{figure.per_second:5.0f}/s  p50 {figure.p50:5.1f}  p99 {figure.p99:5.1f} ms  CPU {figure.cpu_total:5.2f} ms/request"
    yield f"{figure.what:28} {rates}  with all that follows {figure.whole_total:.2f}"
    yield f"    client {figure.client:.2f}; others on the machine {figure.others:.2f} cores; of the platform: " + split(figure.cpu)
    for profile, milliseconds in figure.profiles:
        yield ""
        yield from ("  " + line for line in table(profile, milliseconds, rows))
        yield "    threads: " + split(figure.threads[profile.name])
    if figure.profiles:
        yield ""


def flow_lines(flow: Flow, rows: int) -> Iterable[str]:
    yield f"{flow.what:28} {flow.per_second:5.0f} events/s, {sum(flow.cpu.values()):.0f} µs CPU each: " + split(flow.cpu, least=5, digits=0)
    if flow.profile:
        yield from ("  " + line for line in table(flow.profile, flow.cpu[flow.profile.name] / 1000, rows))


def sweep_lines(sweep: Sweep) -> Iterable[str]:
    yield f"sweep of {sweep.due:,} among {sweep.open_clocks:,} open clocks: all written {_listed(sweep.written)} s after the instant,"
    yield f"    the sweep itself {_listed(sweep.took)} s, CPU of worker and PostgreSQL {_listed(sweep.cpu)} s"


def split(costs: dict[str, float], least: float = 0.015, digits: int = 2) -> str:
    """The larger parts, largest first; the rest together."""
    parts = sorted(costs.items(), key=lambda item: -item[1])
    said = [f"{name} {cost:.{digits}f}" for name, cost in parts if cost >= least]
    rest = sum(cost for _, cost in parts if cost < least)
    return ", ".join([*said, f"the rest {rest:.{digits}f}"] if rest >= least else said)


def _met(met: bool) -> str:
    return "met" if met else "not met"


def _listed(times: Sequence[float]) -> str:
    return " / ".join(f"{seconds:.2f}" for seconds in sorted(times))
