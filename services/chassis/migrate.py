"""The role `migrate`: schema and broker topology, once per release, never at boot of a replica.

Each service's database has two branches of revisions: the chassis's (`services/chassis/migrations`) and the service's own
(`services/<service>/migrations`). Repeating it changes nothing. Migrations expand first and contract a release later, hold
locks for two seconds at most, and run as the owner of the schema, a role that no other process has.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from services.chassis.settings import Settings

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
LOCK = 7002  # advisory: two migrations of one database wait for each other


def migrate(service: str, url: str) -> bool:
    """Brings one service's schema to the newest revision. Returns whether anything was done.

    Raises sqlalchemy.exc.OperationalError when the database does not answer or a lock is held too long.
    """
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1), poolclass=sa.NullPool)
    config = configuration(service)
    with engine.connect() as connection:
        heads = set(ScriptDirectory.from_config(config).get_heads())
        current = set(MigrationContext.configure(connection, opts={"version_table": "schema_revisions"}).get_current_heads())
        connection.rollback()
        if not behind(service, current):
            return False
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
        connection.execute(sa.text("SET lock_timeout = '2s'"))
        connection.execute(sa.text("SET steward.system = 'on'"))
        connection.commit()
        config.attributes["connection"] = connection
        branches = set().union(*(r.branch_labels for r in ScriptDirectory.from_config(config).walk_revisions()))
        for branch in ("chassis", service):
            if branch in branches:
                command.upgrade(config, f"{branch}@head")
        connection.execute(sa.text(f'GRANT SELECT ON schema_revisions TO "{service}"'))
        connection.commit()
    log.info("%s: schema at %s", service, ", ".join(sorted(heads)))
    return True


def configuration(service: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE / "migrations"))
    own = HERE.parent / service / "migrations"
    places = [HERE / "migrations" / "versions", *([own] if own.is_dir() else [])]
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(str(place) for place in places))
    return config


def expected_heads(service: str) -> set[str]:
    return set(ScriptDirectory.from_config(configuration(service)).get_heads())


def behind(service: str, revisions: set[str]) -> set[str]:
    """The revisions of this code that a database at `revisions` has not reached.

    One that is further has reached them: while a release rolls, and after it is rolled back, code meets the schema of the next
    release, which has only added to its own.
    """
    return {head for head in expected_heads(service) if not any(_reaches(revision, head) for revision in revisions)}


def _reaches(revision: str, head: str) -> bool:
    branch, _, number = head.rpartition("_")
    of, _, reached = revision.rpartition("_")
    return of == branch and reached.isdigit() and int(reached) >= int(number)


# A row is seen when its estate, its company or its group is among the nodes of the transaction's scope. One sub-select, made
# once a statement: four of them cost as much as the rest of a small statement. Steward's own processes see everything. Without
# the coalesce the planner takes it that one row in a hundred passes, and sorts all there are where it could walk an index.
EVERYWHERE = "'00000000-0000-0000-0000-000000000000'::uuid"
INSIDE = (
    f"coalesce((SELECT CASE WHEN current_setting('steward.system', true) = 'on' THEN ARRAY[{EVERYWHERE}]"
    " ELSE NULLIF(current_setting('steward.nodes', true), '')::uuid[] END)"
    f" && ARRAY[estate_id, company_id, group_id, {EVERYWHERE}], false)"
)


def protect(table: str, *, scoped: bool = True, append_only: bool = False) -> None:
    """Row-level security and the grants of a new table; every table of every service passes through here.

    `scoped`: rows carry group_id, company_id and estate_id and are seen only inside the transaction's scope. Others are
    seen by any transaction of Steward, and by nobody who has not said who he is. `append_only`: neither changed nor deleted.
    """
    role = op.get_bind().execute(sa.text("SELECT current_database()")).scalar_one()
    rights = "SELECT, INSERT" if append_only else "SELECT, INSERT, UPDATE, DELETE"
    anybody = "(SELECT current_setting('steward.principal', true)) <> ''"
    for statement in (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY inside ON {table} USING ({INSIDE if scoped else anybody})",
        f'GRANT {rights} ON {table} TO "{role}"',
    ):
        op.execute(statement)


def run(services: list[str], settings: Settings) -> int:
    """The schema of these services, then the exchanges, queues and bindings of all, then the note that both are there.

    All, because what a service emits may begin when the note stands in its database (`waiting`), and every queue must get it.
    """
    from services.chassis import topology
    from services.chassis.__main__ import SERVICES

    for service in services:
        migrate(service, settings.migrate_database(service))
    if settings.amqp_url:
        topology.declare(settings.amqp_url, SERVICES)
    for service in services:
        topology.record_consumed(settings.migrate_database(service), service, SERVICES)
    return 0
