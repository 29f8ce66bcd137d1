"""Alembic's entry: `services.chassis.migrate` hands over the connection."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=True, version_table="schema_revisions")
with context.begin_transaction():
    context.run_migrations()
