"""Whose CPU and memory: every process of the platform, and PostgreSQL's backends by the service and role that they work for."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from services.local.platform import Platform

TICKS = os.sysconf("SC_CLK_TCK")
BACKENDS = "SELECT pid, coalesce(datname, ''), application_name, backend_type FROM pg_stat_activity"


ENDED = "postgres: connections that ended"  # and so the cost of opening them: a pool that is too small shows here


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU-seconds since each process began, by (name, pid), and of the whole machine since it was started."""

    at: float
    by_process: dict[tuple[str, int], float]
    machine: float

    def since(self, earlier: Usage) -> Spent:
        by_name: dict[str, float] = {}
        for (name, pid), seconds in self.by_process.items():
            by_name[name] = by_name.get(name, 0.0) + seconds - earlier.by_process.get((name, pid), 0.0)
        gone = sum(seconds for process, seconds in earlier.by_process.items() if process not in self.by_process)
        by_name[ENDED] = max(
            0.0, by_name.get(ENDED, 0.0) - gone
        )  # the server has waited for them: what they had used before is in its count
        return Spent(self.at - earlier.at, by_name, self.machine - earlier.machine)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU-seconds within `seconds`, by name: `gateway`, `postgres: work_orders api`, …; and of the whole machine."""

    seconds: float
    by_name: dict[str, float]
    machine: float

    def less(self, rest: Spent) -> Spent:
        """Without what would have been used in the same time at rest."""
        share = self.seconds / rest.seconds
        by_name = {name: used - rest.by_name.get(name, 0.0) * share for name, used in self.by_name.items()}
        return Spent(self.seconds, by_name, self.machine - rest.machine * share)

    @property
    def total(self) -> float:
        return sum(self.by_name.values())

    def others(self, client: float = 0.0) -> float:
        """Cores that neither the platform nor the client has used: who else was on the machine."""
        return max(0.0, self.machine - self.total - client) / self.seconds


class Processes:
    """Reads the usage of a running platform."""

    def __init__(self, platform: Platform):
        self._platform = platform
        self._names = [*(part.name for part in platform.parts), "rabbitmq", "epmd"]
        self._postgres = psycopg2.connect(platform.postgres.superuser_url("postgres"), application_name="bench")
        self._postgres.autocommit = True

    def close(self) -> None:
        self._postgres.close()

    def usage(self) -> Usage:
        below = children()
        found = {(name, pid): sum(cpu_seconds(pid)) for name in self._names for pid in self._family(name, below)}
        backends = self._backends()
        for pid in self._family("postgres", below):
            own, waited_for = cpu_seconds(pid)
            name = backends.get(pid, "postgres: background")
            if name:
                found[name, pid] = own
            found[ENDED, 0] = found.get((ENDED, 0), 0.0) + waited_for
        return Usage(time.monotonic(), found, machine_seconds())

    def pss(self) -> dict[str, float]:
        """MB of each process with its children, shared pages counted in part."""
        below = children()
        return {name: sum(map(pss, self._family(name, below))) / 1024 for name in [*self._names, "postgres"]}

    def _family(self, name: str, below: dict[int, list[int]]) -> list[int]:
        """A process and all its descendants; nothing while it does not run."""
        found, waiting = [], [pid] if (pid := self._platform.pid(name)) else []
        while waiting:
            found.append(waiting.pop())
            waiting += below.get(found[-1], [])
        return found

    def _backends(self) -> dict[int, str]:
        """pid → name, empty for those of the bench itself."""
        with self._postgres.cursor() as cursor:
            cursor.execute(BACKENDS)
            return {pid: backend_name(*rest) for pid, *rest in cursor.fetchall()}


def backend_name(database: str, application: str, kind: str) -> str:
    if application in ("bench", "pgbench", "psql"):
        return ""
    if not database:
        return "postgres: background"
    if kind != "client backend":
        return f"postgres: {kind}"
    role = re.sub(rf"^steward-({database})?-?", "", application)
    return f"postgres: {database} {role}".strip()


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time of a process, and of the children it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS, (int(fields[13]) + int(fields[14])) / TICKS


def threads(pid: int) -> dict[str, float]:
    """CPU-seconds of a process's threads by their name; Python's are all called like the program, those of gRPC's core have their own."""
    found: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            name, _, rest = task.read_text().partition(" (")[2].rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        name = re.sub(r"[-_]?\d+$", "", name)
        found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS
    return found


def machine_seconds() -> float:
    """CPU-seconds of all processes of the machine, without idle, waiting for disks and what a hypervisor took."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq) / TICKS


def pss(pid: int) -> float:
    """Proportional set size in KB."""
    try:
        match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    except OSError:
        return 0.0
    return float(match.group(1)) if match else 0.0


def children() -> dict[int, list[int]]:
    """pid → pids of the processes it has started."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            found.setdefault(parent, []).append(int(entry.name))
    return found
