"""`make bench`: what a repair costs, on a platform of the run's own, beside what PostgreSQL alone needs for the same rows.

Absolute figures depend on the machine and on who shares it: compare ratios and CPU. docs/performance.md says what each figure means.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.bench import filling, flows, report
from tests.bench.measures import Figure, Measures
from tests.bench.report import Report
from tests.bench.stage import Stage, stage
from tests.bench.yardstick import WHICH, Yardstick

REQUESTS, BEHIND = ("create", "take", "list"), ("effect", "events", "sweep")
ORDERS, BACKLOG, CLOCKS = ("10000", "10000,1000000"), (5_000, 20_000), (100_000, 1_000_000)  # usually, and with --full
RESTING = 4.0  # seconds in which nothing is asked, to know what the platform uses by itself


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--full", action="store_true", help=f"the sizes of the marks: --orders {ORDERS[1]} --backlog {BACKLOG[1]} --clocks {CLOCKS[1]}")
    add("--orders", help=f"orders present, one size after the other, separated by commas ({ORDERS[0]})")
    add("--backlog", type=int, help=f"events that wait for relay and worker ({BACKLOG[0]})")
    add("--clocks", type=int, help=f"open clocks of the sweep ({CLOCKS[0]})")
    add("--seconds", type=float, default=6.0, help="of each measurement of requests (6)")
    add("--only", default=",".join(REQUESTS + BEHIND), help=f"some of {','.join(REQUESTS + BEHIND)}")
    add("--profile", action="store_true", help="sample the processes meanwhile: where the time goes; the figures get worse")
    add("--rows", type=int, default=14, help="of a profile (14)")
    options = parser.parse_args()
    options.orders = options.orders or ORDERS[options.full]
    options.backlog = options.backlog or BACKLOG[options.full]
    options.clocks = options.clocks or CLOCKS[options.full]
    wanted = options.only.split(",")
    if unknown := set(wanted) - {*REQUESTS, *BEHIND}:
        parser.error(f"there is no {', '.join(unknown)}")
    with stage() as here:
        run = Run(here, options, wanted)
        for orders in map(int, options.orders.split(",")):
            run.requests(orders)
        run.behind()
    _say("", *run.report.tables())
    return 0


class Run:
    def __init__(self, here: Stage, options: argparse.Namespace, wanted: list[str]):
        self._stage, self._options, self._wanted = here, options, wanted
        self._yardstick = Yardstick(here, options.seconds / 2)
        here.settle()
        before = here.processes.usage()
        time.sleep(RESTING)
        rest = here.processes.usage().since(before)
        self.report = Report(memory=here.processes.pss(), at_rest=rest.total / rest.seconds)
        self._measures = Measures(here, options.seconds, rest, profile=options.profile)
        _say(f"at rest: {sum(self.report.memory.values()):.0f} MB PSS, {self.report.at_rest * 1000:.0f} ms CPU a second")
        _say("    " + report.split(self.report.memory, digits=0))

    def requests(self, orders: int) -> None:
        """Create, state change and list with so many orders present, between two looks at the yardstick."""
        began = time.monotonic()
        filling.orders(self._stage, orders)
        filling.reported(self._stage, 40)  # two pages of the list, at this estate
        self._measures.orders = orders
        _say("", f"{orders:,} orders present (filled in within {time.monotonic() - began:.0f} s)")
        if not set(self._wanted) & set(REQUESTS):
            return
        self._yards(orders)
        if "create" in self._wanted:
            self._tell(self._measures.create())
        if "take" in self._wanted:
            names = filling.reported(self._stage, int((self._options.seconds + 2) * 600))
            self._stage.settle()
            self._tell(self._measures.take(names))
        if "list" in self._wanted:
            self._tell(self._measures.list_estate())
            self._tell(self._measures.list_group())
        self._yards(orders)

    def behind(self) -> None:
        """What happens behind the requests, with the orders of the last size present."""
        if "effect" in self._wanted:
            self.report.effects = flows.effect(self._measures)
            for one in self.report.effects:
                what = f"commit → effect in {one.service}"
                _say(f"{what:28} p50 {one.p50:.0f} ms, p99 {one.p99:.0f} ms at {one.per_second:.0f} events/s ({one.count})")
        if "events" in self._wanted:
            self.report.flows = list(flows.relay_and_consumer(self._stage, self._options.backlog, profile=self._options.profile))
            for flow in self.report.flows:
                _say(*report.flow_lines(flow, self._options.rows))
        if "sweep" in self._wanted:
            self.report.sweep = sweep = flows.sweep(self._stage, self._options.clocks)
            _say(*report.sweep_lines(sweep))

    def _yards(self, orders: int) -> None:
        self.report.commits.append(self._yardstick.commit())
        _say(f"pgbench, a small transaction of one client: {self.report.commits[-1]:.2f} ms")
        for which in WHICH:
            yard = self._yardstick.measure(which)
            self.report.yards.append((which, orders, yard))
            _say(f"pgbench, rows of a {which:13} {yard.per_second:5.0f}/s  CPU {yard.cpu:.2f} ms of PostgreSQL")

    def _tell(self, figure: Figure) -> None:
        self.report.figures.append(figure)
        _say(*report.figure_lines(figure, self._options.rows))


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
