"""`make bench`: what a repair costs, on a platform of the run's own, as ratios to a pgbench transaction of the same rows.

Throughput at 16 clients, CPU of all processes of the platform per request, and commit → effect in another service. Absolute
figures depend on the machine and on who shares it: compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg2

from services.local.demo_cast import cast_of
from services.local.first_import import SHIPPED
from services.local.platform import Platform
from services.local.postgres import binaries
from services.local.story import Cast, Person

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CLIENTS = 16

# The rows of one create: the order, three clocks, the event, the history, the stored reply, the number.
PGBENCH = """
BEGIN;
INSERT INTO idempotency (principal, rpc, request_id, body_hash) VALUES ('bench', 'ReportRepair', gen_random_uuid()::text, '\\\\x00');
INSERT INTO numbers VALUES ('{estate}', 'BENCH', '20260101', 1) ON CONFLICT (estate_id, kind, day) DO UPDATE SET last = numbers.last + 1;
INSERT INTO repairs SELECT (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid(), 'number', gen_random_uuid()::text))).*
  FROM repairs r WHERE id = '{repair}';
INSERT INTO clocks SELECT (jsonb_populate_record(c, jsonb_build_object('id', gen_random_uuid(), 'aggregate_id',
  gen_random_uuid(), 'next_at', null))).* FROM clocks c
  WHERE aggregate_id = '{repair}';
INSERT INTO events (id, aggregate, aggregate_id, sequence, type, subject, occurred_at, actor, data, position, published_at)
  VALUES (gen_random_uuid(), 'bench', gen_random_uuid(), 1, 'Bench', 'bench', now(), 'bench', '{{}}', 0, now());
INSERT INTO history (id, group_id, company_id, estate_id, aggregate, aggregate_id, version, at, actor, action, from_state, to_state, note,
  request_id) SELECT gen_random_uuid(), group_id, company_id, estate_id, 'bench', id, 1, now(), 'bench', 'bench', '', '', '', '' FROM repairs
  WHERE id = '{repair}';
COMMIT;
"""


@dataclass(slots=True)
class Figure:
    what: str
    per_second: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes and their finished children."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(fields[n]) for n in (11, 12, 13, 14)) / TICKS
    return total


def family(roots: list[int]) -> list[int]:
    """Processes and all their descendants (PostgreSQL's backends)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found)


def pss(pids: list[int]) -> float:
    """Proportional set size in MB."""
    total = 0
    for pid in pids:
        try:
            match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        except OSError:
            continue
        total += int(match.group(1)) if match else 0
    return total / 1024


class Bench:
    def __init__(self, platform: Platform, cast: Cast, seconds: float):
        self.platform, self.cast, self.seconds = platform, cast, seconds
        self.names = [part.name for part in platform.parts] + ["postgres", "rabbitmq"]

    def pids(self) -> list[int]:
        return family([pid for pid in map(self.platform.pid, self.names) if pid])

    def measure(self, what: str, ask: Callable[[httpx.AsyncClient, int], Awaitable[None]]) -> Figure:
        """`ask(client, n)` by 16 clients for `seconds`, after a second of warming up."""
        return asyncio.run(self._measure(what, ask))

    async def _measure(self, what: str, ask: Callable[[httpx.AsyncClient, int], Awaitable[None]]) -> Figure:
        took: list[float] = []
        counting = False
        async with httpx.AsyncClient(base_url=self.platform.gateway_url, timeout=30, trust_env=False) as http:

            async def client(first: int) -> None:
                n = first
                while time.monotonic() < until:
                    began = time.perf_counter()
                    await ask(http, n)
                    if counting:
                        took.append(time.perf_counter() - began)
                    n += CLIENTS

            by_name = {name: family([pid]) for name in self.names if (pid := self.platform.pid(name))}
            until = time.monotonic() + 1 + self.seconds
            tasks = [asyncio.create_task(client(n)) for n in range(CLIENTS)]
            await asyncio.sleep(1)
            counting, began = True, time.perf_counter()
            before = {name: cpu_seconds(pids) for name, pids in by_name.items()}
            await asyncio.gather(*tasks)
            elapsed = time.perf_counter() - began
            spent_by = {name: cpu_seconds(pids) - before[name] for name, pids in by_name.items()}
            spent = sum(spent_by.values())
        took.sort()
        figure = Figure(
            what, len(took) / elapsed, spent / len(took) * 1000, statistics.median(took) * 1000, took[int(len(took) * 0.99) - 1] * 1000
        )
        print(
            f"{what:44} {figure.per_second:8.0f}/s {figure.cpu_ms:7.2f} ms CPU   p50 {figure.p50_ms:6.1f} ms  p99 {figure.p99_ms:6.1f} ms",
            flush=True,
        )
        print("    of that, ms: " + ", ".join(f"{name} {seconds / len(took) * 1000:.2f}" for name, seconds in spent_by.items()), flush=True)
        return figure

    def check(self, script: Path) -> None:
        """The yardstick once, because a pgbench client that fails keeps its locks and the others wait for ever."""
        place = self.platform.postgres.superuser_url("work_orders")
        done = subprocess.run(
            [str(binaries() / "psql"), "-qX", "-v", "ON_ERROR_STOP=1", "-f", str(script), place],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)

    def settle(self) -> None:
        """Waits until the backlog of events has been worked off, so that it does not weigh on what is measured next."""
        with psycopg2.connect(self.platform.postgres.superuser_url("notifications")) as connection, connection.cursor() as cursor:
            seen = -1
            while True:
                cursor.execute("SELECT count(*) FROM messages")
                row = cursor.fetchone()
                connection.commit()
                if row and row[0] == seen:
                    return
                seen = row[0] if row else 0
                time.sleep(1.5)

    def yardstick(self, script: Path) -> float:
        """Transactions per second of pgbench with the rows of one create."""
        place = self.platform.postgres.superuser_url("work_orders")
        command = [str(binaries() / "pgbench"), "-n", "-c", str(CLIENTS), "-j", "2", "-T", "4", "-f", str(script), place]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        found = re.search(r"tps = ([0-9.]+)", done.stdout)
        if not found:
            raise RuntimeError(done.stderr)
        print(f"{'pgbench, the rows of one create':44} {float(found.group(1)):8.0f}/s", flush=True)
        return float(found.group(1))


def headers(person: Person) -> dict[str, str]:
    return person._headers()


def fill(bench: Bench, orders: int, repair: str) -> None:
    """Copies one order until there are so many, spread over the last year and over the states."""
    with psycopg2.connect(bench.platform.postgres.superuser_url("work_orders")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO repairs SELECT (jsonb_populate_record(r, jsonb_build_object('id',"
            " (lpad(to_hex((extract(epoch FROM now() - n * (interval '365 days' / %s)) * 1000)::bigint), 12, '0') || '7' ||"
            "  lpad(to_hex(n), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid, 'number', 'B-' || n,"
            " 'state', (ARRAY['FILED','FILED','FILED','ACCEPTED','CANCELLED','TAKEN','REPORTED'])[n %% 7 + 1]))).*"
            " FROM repairs r, generate_series(1, %s) n WHERE r.id = %s",
            (orders, orders, repair),
        )
        cursor.execute("ANALYZE repairs")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--orders", type=int, default=10_000, help="orders present (10,000; the mark is flat to 1,000,000)")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    options = parser.parse_args()
    quick = {f"STEWARD_GATEWAY_{what}_RATE": "0" for what in ("PRINCIPAL", "ADDRESS", "SIGN_IN")}
    with (
        tempfile.TemporaryDirectory(prefix="steward-bench-") as folder,
        Platform(Path(folder), port=0, environment=quick, say=lambda line: None) as platform,
    ):
        platform.start_stores()
        platform.migrate()
        platform.start()
        platform.wait_ready(seconds=120)
        platform.run(
            "first_import",
            [sys.executable, "-m", "services.residents.first_import", str(SHIPPED)],
            platform.environment("jobs"),
            seconds=120,
        )
        return _run(Bench(platform, cast_of(platform), options.seconds), options.orders, Path(folder))


def _run(bench: Bench, orders: int, folder: Path) -> int:
    cast, platform = bench.cast, bench.platform
    time.sleep(3)
    print(f"{'memory of the whole platform at rest':44} {pss(bench.pids()):8.0f} MB PSS", flush=True)
    http = httpx.Client(base_url=platform.gateway_url, timeout=30, trust_env=False)
    people = {
        role: Person(http, {"grant_type": "password", "username": cast.staff[role], "password": cast.password})
        for role in ("CUSTOMER_ASSISTANT", "TECHNICIAN")
    }
    group = Person(http, {"grant_type": "password", "username": "G-006", "password": cast.password})
    body = {"location": "大堂", "category": "OTHER", "description": "灯不亮", "contactPhone": "13800000000"}
    first = people["CUSTOMER_ASSISTANT"].post(f"/v1/estates/{cast.estate}/repairs", body)
    repair = first["name"].rpartition("/")[2]
    with psycopg2.connect(platform.postgres.superuser_url("work_orders")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT estate_id FROM repairs WHERE id = %s", (repair,))
        row = cursor.fetchone()
        assert row
    script = folder / "create.sql"
    script.write_text(PGBENCH.format(estate=row[0], repair=repair))
    fill(bench, orders, repair)

    bench.check(script)
    before = bench.yardstick(script)
    desk, technician = headers(people["CUSTOMER_ASSISTANT"]), headers(people["TECHNICIAN"])
    names: list[str] = []

    async def checked(answer: httpx.Response) -> Any:
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code} {answer.text}")
        return json.loads(answer.content)

    async def create(client: httpx.AsyncClient, n: int) -> None:
        here = {**body, "location": f"{n} 号灯杆"}
        answer = await client.post(f"/v1/estates/{cast.estate}/repairs", json=here, headers={**desk, "Idempotency-Key": str(uuid.uuid4())})
        names.append((await checked(answer))["name"])

    waiting = iter(names)

    async def change(client: httpx.AsyncClient, n: int) -> None:
        name = next(waiting, "")
        if not name:  # all are taken: the measurement ends early
            return
        await checked(await client.post(f"/v1/{name}:take", json={}, headers={**technician, "Idempotency-Key": str(uuid.uuid4())}))

    async def list_estate(client: httpx.AsyncClient, n: int) -> None:
        await checked(await client.get(f"/v1/estates/{cast.estate}/repairs?states=REPORTED", headers=desk))

    async def list_group(client: httpx.AsyncClient, n: int) -> None:
        await checked(await client.get("/v1/estates/-/repairs?states=REPORTED", headers=headers(group)))

    created = bench.measure(f"create, {orders:,} orders present", create)
    bench.settle()
    bench.seconds = max(1.0, len(names) / created.per_second * 0.3)
    changed = bench.measure("state change (take)", change)
    bench.seconds = 8
    listed = bench.measure("list by state, one estate, 20 rows", list_estate)
    bench.measure("list by state, group scope, 20 rows", list_group)
    after = bench.yardstick(script)
    tps = (before + after) / 2
    for figure in (created, changed, listed):
        print(f"{'  ratio to pgbench: ' + figure.what:44} {figure.per_second / tps:8.3f}")
    print(f"{'commit → message in the inbox (at the end)':44} {_effect(bench, people['CUSTOMER_ASSISTANT'], body):8.0f} ms (median of 20)")
    return 0


def _effect(bench: Bench, desk: Person, body: dict[str, Any]) -> float:
    """Milliseconds from a create's answer until notifications has its message committed."""
    connection = psycopg2.connect(bench.platform.postgres.superuser_url("notifications"))
    connection.autocommit = True
    took = []
    with connection.cursor() as cursor:
        while True:  # until the backlog of the measurements has been worked off
            cursor.execute("SELECT count(*) FROM messages")
            row = cursor.fetchone()
            time.sleep(1)
            cursor.execute("SELECT count(*) FROM messages")
            if cursor.fetchone() == row:
                break
        for _ in range(20):
            name = desk.post(f"/v1/estates/{bench.cast.estate}/repairs", body)["name"]
            began = time.perf_counter()
            while True:
                cursor.execute("SELECT 1 FROM messages WHERE subject = %s", (name,))
                if cursor.fetchone():
                    break
                time.sleep(0.002)
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(0.02)
    connection.close()
    return statistics.median(took)


if __name__ == "__main__":
    sys.exit(main())
