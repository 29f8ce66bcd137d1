"""The yardstick: what PostgreSQL alone does with the same rows, by pgbench on the same server, in the same run.

It is the floor: literal rows, prepared statements, no row-level security, no contract, nobody told. The rows of a create are its
idempotency key and its reply, the order, three clocks, an event, a line of history and the estate's number; of a state change the key, the
reply, the order and its clocks changed, an event and a line of history; of a list 20 orders and their clocks. The values are those of an
order that was reported through the API.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from services.local.postgres import binaries
from tests.bench.filling import OF_ORDER, spread
from tests.bench.stage import Stage

WHICH = ("create", "state change", "list")
CLIENTS = 16
ORDERS = 1_000  # that the state change of the yardstick works on
ALONE = {"id": "uuidv7()", "aggregate_id": "uuidv7()"}
PUBLISHED = {"recorded_at": "clock_timestamp()", "position": "0", "published_at": "clock_timestamp()"}
NUMBER = (
    "INSERT INTO numbers (estate_id, kind, day, last) VALUES ('{estate}', 'BENCH', '20260101', 1)"
    " ON CONFLICT (estate_id, kind, day) DO UPDATE SET last = numbers.last + 1"
)
CHANGE = (
    "UPDATE repairs SET version = version + 1, event_count = event_count + 1, updated_at = clock_timestamp(), technician_id = uuidv7(),"
    " state = CASE state WHEN 'FILED' THEN 'ACCEPTED' ELSE 'FILED' END WHERE estate_id = '{estate}' AND number = 'YARD-' || :order",
    "UPDATE clocks SET handler = 'staff/' || uuidv7(), stopped_at = clock_timestamp(), running_since = NULL"
    " WHERE aggregate_id = (SELECT id FROM repairs WHERE estate_id = '{estate}' AND number = 'YARD-' || :order)",
)
OWN_ORDERS = "INSERT INTO repairs ({columns}) SELECT {values} FROM repairs r, generate_series(1, {count}) n WHERE r.id = '{template}'"
OWN_CLOCKS = "INSERT INTO clocks ({columns}) SELECT {values} FROM repairs r JOIN clocks c ON c.aggregate_id = '{template}' WHERE r.number LIKE 'YARD-%'"
LIST = """SELECT * FROM repairs WHERE estate_id = '{estate}' AND state = 'REPORTED' ORDER BY id DESC LIMIT 21;
SELECT c.* FROM clocks c, (SELECT id FROM repairs WHERE estate_id = '{estate}' AND state = 'REPORTED' ORDER BY id DESC LIMIT 20) r
 WHERE c.aggregate_id = r.id;
"""


@dataclass(frozen=True, slots=True)
class Yard:
    """`cpu`: milliseconds of PostgreSQL per transaction."""

    per_second: float
    cpu: float


class Yardstick:
    def __init__(self, stage: Stage, seconds: float):
        self._stage, self._seconds = stage, seconds
        self._estate = stage.sql("work_orders", "SELECT estate_id::text FROM repairs WHERE id = %s", (stage.template,))[0][0]
        self._scripts = {"create": self._create(), "state change": self._change(), "list": LIST.format(estate=self._estate)}

    def measure(self, which: str) -> Yard:
        """`which`: one of WHICH. Raises RuntimeError with what pgbench said."""
        script = self._stage.folder / "pgbench.sql"
        script.write_text(self._scripts[which])
        self._check(script)
        before = self._stage.processes.usage()
        said = self._pgbench("-T", f"{max(2, round(self._seconds))}", "-c", str(CLIENTS), "-j", "1", "-f", str(script))
        spent = self._stage.processes.usage().since(before)
        rate, count = re.search(r"tps = ([0-9.]+)", said), re.search(r"transactions actually processed: (\d+)", said)
        if not rate or not count:
            raise RuntimeError(said)
        used = sum(seconds for name, seconds in spent.by_name.items() if name.startswith("postgres"))
        return Yard(float(rate.group(1)), used / int(count.group(1)) * 1000)

    def commit(self) -> float:
        """Milliseconds of a small transaction of one client: how busy the machine and its disk are at the moment."""
        script = self._stage.folder / "commit.sql"
        script.write_text("UPDATE business_time SET shifted_by = shifted_by;\n")
        said = self._pgbench("-T", "1", "-c", "1", "-f", str(script))
        found = re.search(r"latency average = ([0-9.]+) ms", said)
        if not found:
            raise RuntimeError(said)
        return float(found.group(1))

    def _pgbench(self, *options: str) -> str:
        place = self._stage.platform.postgres.superuser_url("work_orders")
        command = [str(binaries() / "pgbench"), "--no-vacuum", "--protocol=prepared", *options, place]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def _check(self, script: Path) -> None:
        """Once, by one client, because one that fails among many keeps its locks and the others wait for ever."""
        self._pgbench("-t", "1", "-c", "1", "-f", str(script))

    def _create(self) -> str:
        order = {"id": "uuidv7()", "number": "gen_random_uuid()::text", "state": "'FILED'"}  # and so in no list of what is open
        rows = [self._insert("repairs", "id", order), self._insert("clocks", "aggregate_id", ALONE | {"next_at": "NULL"})]
        return self._command(*rows, last=NUMBER.format(estate=self._estate))

    def _change(self) -> str:
        """Of an order of its own, one of `ORDERS`, whose state goes to and fro: its indexes change as they do in a real one."""
        own = {"id": "uuidv7()", "number": "'YARD-' || n", "state": "'FILED'"}
        self._stage.sql("work_orders", spread(self._stage, OWN_ORDERS, own, "repairs", count=ORDERS))
        self._stage.sql("work_orders", spread(self._stage, OWN_CLOCKS, OF_ORDER, "clocks", prefix="c"))
        return self._command(*(line.format(estate=self._estate) for line in CHANGE))

    def _command(self, *rows: str, last: str = "") -> str:
        """One transaction: the key, these rows, the event, the history, the reply and what is held for the shortest time."""
        key = "'bench ' || :key"
        lines = [
            "BEGIN",
            f"INSERT INTO idempotency (principal, rpc, request_id, body_hash) VALUES ('bench', 'Bench', {key}, '\\x{'00' * 32}')",
            *rows,
            self._insert("events", "aggregate_id", ALONE | PUBLISHED),
            self._insert("history", "aggregate_id", ALONE),
            f"UPDATE idempotency SET reply = '\\x{'00' * 700}' WHERE principal = 'bench' AND rpc = 'Bench' AND request_id = {key}",
            *([last] if last else []),
            "COMMIT",
        ]
        return "\\set key random(1, 9000000000000000000)\n" + f"\\set order random(1, {ORDERS})\n" + "".join(f"{line};\n" for line in lines)

    def _insert(self, table: str, key: str, changed: dict[str, str]) -> str:
        """One INSERT of literal rows like those of the order that was reported, but for the columns in `changed`."""
        names = (
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position"
        )
        columns = [name for (name,) in self._stage.sql("work_orders", names, (table,))]
        literals = ", ".join(f"quote_nullable({column}::text)" for column in columns)
        rows = self._stage.sql("work_orders", f"SELECT {literals} FROM {table} WHERE {key} = %s", (self._stage.template,))
        written = ["(" + ", ".join(changed.get(column, value) for column, value in zip(columns, row, strict=True)) + ")" for row in rows]
        return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join(written)}"
