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
        if current == heads:
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


def protect(table: str, *, scoped: bool = True, append_only: bool = False) -> None:
    """Row-level security and the grants of a new table; every table of every service passes through here.

    `scoped`: rows carry group_id, company_id and estate_id and are seen only inside the transaction's scope. Others are
    seen by any transaction of Steward, and by nobody who has not said who he is. `append_only`: neither changed nor deleted.
    """
    role = op.get_bind().execute(sa.text("SELECT current_database()")).scalar_one()
    rights = "SELECT, INSERT" if append_only else "SELECT, INSERT, UPDATE, DELETE"
    system = "(SELECT current_setting('steward.system', true)) = 'on'"
    inside = " OR ".join(
        f"{column} = ANY ((SELECT NULLIF(current_setting('{setting}', true), '')::uuid[])::uuid[])"
        for column, setting in (("estate_id", "steward.estates"), ("company_id", "steward.companies"), ("group_id", "steward.groups"))
    )
    anybody = "(SELECT current_setting('steward.principal', true)) <> ''"
    for statement in (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY inside ON {table} USING ({f'{system} OR {inside}' if scoped else anybody})",
        f'GRANT {rights} ON {table} TO "{role}"',
    ):
        op.execute(statement)


def run(services: list[str], settings: Settings) -> int:
    """Every service's schema, then the broker's exchanges, queues and bindings."""
    from services.chassis import topology
    from services.chassis.__main__ import SERVICES

    for service in services:
        migrate(service, settings.migrate_database(service))
    if settings.amqp_url:
        topology.declare(settings.amqp_url, services)
    for service in services:
        topology.record_consumed(settings.migrate_database(service), service, SERVICES)
    return 0
