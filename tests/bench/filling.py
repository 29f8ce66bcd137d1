"""Orders that are there already, as if the group had worked for a year.

Copied from one that was reported through the API, so that every column is as the platform writes it, and then spread: over the last
year, the estates of the register, units and public areas, categories, states. What is older than two weeks is filed or cancelled; of
the rest every state has its part. Open ones have the clocks that they would have, which are not due while anything is measured.
"""

from __future__ import annotations

from tests.bench.stage import Stage

YEAR, OPEN_FOR = "interval '365 days'", "interval '14 days'"

# n counts from the newest. Random numbers are a hash of n, so that two runs fill in the same.
ORDERS = """
WITH places AS (
    SELECT e.id AS estate_id, e.company_id, e.group_id, e.code, row_number() OVER (ORDER BY e.code) - 1 AS place, count(*) OVER () AS places
      FROM dir_nodes e WHERE e.kind = 'ESTATE' AND NOT e.deleted
), units AS (
    SELECT estate_id, id, code, row_number() OVER (PARTITION BY estate_id ORDER BY id) - 1 AS place, count(*) OVER (PARTITION BY estate_id) AS units
      FROM dir_nodes WHERE kind = 'UNIT' AND NOT deleted
), technicians AS (
    SELECT node_id AS estate_id, min(staff_id::text)::uuid AS staff_id FROM dir_posts WHERE role = 'TECHNICIAN' AND NOT deleted GROUP BY node_id
), drawn AS (
    SELECT n, now() - {year} * (n::float8 / {orders}) AS at, abs(hashint8(n)) AS one, abs(hashint8(n + 7919)) AS two,
           abs(hashint8(n + 104729)) AS three FROM generate_series({first}, {last}) n
), told AS (
    SELECT d.*, p.*, u.id AS in_unit, u.code AS unit_code, technicians.staff_id,
           CASE WHEN d.at < now() - {open_for} THEN (ARRAY['FILED', 'FILED', 'FILED', 'FILED', 'FILED', 'FILED', 'FILED', 'FILED', 'FILED',
                     'CANCELLED'])[d.two % 10 + 1]
                ELSE (ARRAY['REPORTED', 'DISPATCHED', 'TAKEN', 'ON_SITE', 'DONE', 'ACCEPTED', 'FILED', 'FILED', 'FILED', 'FILED'])[d.two % 10 + 1]
           END AS now_is
      FROM drawn d JOIN places p ON p.place = d.one % p.places
      LEFT JOIN units u ON d.three % 2 = 0 AND u.estate_id = p.estate_id AND u.place = d.two % u.units
      LEFT JOIN technicians ON technicians.estate_id = p.estate_id
)
INSERT INTO repairs ({columns}) SELECT {values} FROM told t, repairs r WHERE r.id = '{template}'
"""
SPREAD = {
    "id": "uuidv7(t.at - now())",
    "group_id": "t.group_id",
    "company_id": "t.company_id",
    "estate_id": "t.estate_id",
    "estate_code": "t.code",
    "number": "'BENCH-' || t.n",
    "created_at": "t.at",
    "reported_at": "t.at",
    "updated_at": "t.at",
    "state": "t.now_is",
    "unit_id": "t.in_unit",
    "unit": "coalesce(t.unit_code, '')",
    "location": "CASE WHEN t.in_unit IS NULL THEN t.three % 200 || ' 号灯杆' ELSE '' END",
    "category": "(ARRAY['OTHER', 'BURST_PIPE', 'POWER_CUT', 'WATER_CUT', 'OTHER', 'CIRCUIT_HAZARD'])[t.three % 6 + 1]",
    "technician_id": "CASE WHEN t.now_is NOT IN ('REPORTED', 'CANCELLED') THEN t.staff_id END",
    "arrived_at": "CASE WHEN t.now_is IN ('ON_SITE', 'DONE', 'ACCEPTED', 'FILED') THEN t.at + interval '1 hour' END",
    "completed_at": "CASE WHEN t.now_is IN ('DONE', 'ACCEPTED', 'FILED') THEN t.at + interval '3 hours' END",
    "accepted_at": "CASE WHEN t.now_is IN ('ACCEPTED', 'FILED') THEN t.at + interval '5 hours' END",
}

# The template's clocks, for open orders that have none yet.
CLOCKS = """
INSERT INTO clocks ({columns}) SELECT {values} FROM repairs r JOIN clocks c ON c.aggregate_id = '{template}'
 WHERE r.number LIKE 'BENCH-%' AND r.state IN ('REPORTED', 'DISPATCHED', 'TAKEN', 'ON_SITE', 'DONE')
   AND NOT EXISTS (SELECT FROM clocks k WHERE k.aggregate_id = r.id)
"""
OF_ORDER = {
    "id": "uuidv7()",
    "group_id": "r.group_id",
    "company_id": "r.company_id",
    "estate_id": "r.estate_id",
    "aggregate_id": "r.id",
    "subject": "'estates/' || r.estate_code || '/repairs/' || r.id",
    "number": "r.number",
    "handler": "'staff/' || r.technician_id",
    "started_at": "r.reported_at",
    "running_since": "r.reported_at",
    "target": "interval '90 days'",
    "marks": "(SELECT array_agg(now() + interval '60 days' + i * interval '1 hour') FROM generate_series(1, cardinality(c.marks)) i)",
    "next_at": "now() + interval '60 days 1 hour'",
    "level": "0",
    "stopped_at": "NULL",
    "breached_at": "NULL",
}
BATCH = 100_000


def orders(stage: Stage, count: int) -> None:
    """Orders until there are `count` that were filled in, with the clocks of the open ones; then ANALYZE."""
    [(present,)] = stage.sql("work_orders", "SELECT count(*) FROM repairs WHERE number ~ '^BENCH-[0-9]+$'")
    for first in range(present + 1, count + 1, BATCH):
        last = min(first + BATCH - 1, count)
        stage.sql("work_orders", spread(stage, ORDERS, SPREAD, "repairs", orders=count, first=first, last=last))
    clocks(stage)
    stage.sql("work_orders", "ANALYZE")


def reported(stage: Stage, count: int) -> list[str]:
    """So many orders at the bench's estate that nobody has taken yet, with their clocks; their names."""
    mark = stage.sql("work_orders", "SELECT uuidv7()::text")[0][0]
    here = {"id": "uuidv7()", "number": "'BENCH-' || r.id || '-' || t.n || '-" + mark + "'"}
    statement = "INSERT INTO repairs ({columns}) SELECT {values} FROM repairs r, generate_series(1, {count}) t (n) WHERE r.id = '{template}' RETURNING id::text"
    ids = stage.sql("work_orders", spread(stage, statement, here, "repairs", count=count))
    clocks(stage)
    stage.sql("work_orders", "ANALYZE repairs, clocks")
    return [f"estates/{stage.estate}/repairs/{identifier}" for (identifier,) in ids]


def clocks(stage: Stage) -> None:
    stage.sql("work_orders", spread(stage, CLOCKS, OF_ORDER, "clocks", prefix="c"))


def open_clocks(stage: Stage, count: int) -> None:
    """Open clocks until there are `count`, of orders that are not there: the sweep never looks at the case."""
    [(missing,)] = stage.sql("work_orders", "SELECT %s - count(*) FROM clocks WHERE stopped_at IS NULL", (count,))
    later = "now() + interval '60 days' + n * interval '1 second'"
    alone = {"id": "uuidv7()", "aggregate_id": "uuidv7()", "target": "interval '90 days'", "level": "0", "next_at": later}
    alone["marks"] = f"array_prepend({later}, c.marks[2:])"
    statement = "INSERT INTO clocks ({columns}) SELECT {values} FROM clocks c, generate_series({first}, {last}) n WHERE c.id = '{clock}'"
    [(clock,)] = stage.sql("work_orders", "SELECT min(id::text) FROM clocks WHERE aggregate_id = %s", (stage.template,))
    statement = statement.replace("{clock}", clock)
    for first in range(1, missing + 1, BATCH):
        stage.sql("work_orders", spread(stage, statement, alone, "clocks", prefix="c", first=first, last=min(first + BATCH - 1, missing)))
    stage.sql("work_orders", "VACUUM (ANALYZE) clocks")


def spread(stage: Stage, statement: str, changed: dict[str, str], table: str, prefix: str = "r", **values: int) -> str:
    """`statement` with the columns of the table, and the template's values for all that are not changed."""
    names = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position"
    columns = [name for (name,) in stage.sql("work_orders", names, (table,))]
    return statement.format(
        columns=", ".join(columns),
        values=", ".join(changed.get(column, f"{prefix}.{column}") for column in columns),
        template=stage.template,
        year=YEAR,
        open_for=OPEN_FOR,
        **values,
    )
