"""Policies as a product: the audit of changes, and clocks that remember which policy and which calendar they go by.

Revision ID: chassis_0003
"""

from alembic import op

from services.chassis.migrate import protect

revision = "chassis_0003"
down_revision = "chassis_0002"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE clocks ADD COLUMN policy text, ADD COLUMN hours text;
-- Paused clocks have no next mark; a change of policy finds them by this.
CREATE INDEX clocks_paused ON clocks (estate_id) WHERE stopped_at IS NULL AND running_since IS NULL;

-- Who changed what, when and why. node: its name at the time; old_value, new_value: what held there before and since.
CREATE TABLE policy_changes (
    number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, key text NOT NULL, node_id uuid NOT NULL, node text NOT NULL,
    sequence integer NOT NULL, action text NOT NULL, old_value jsonb NOT NULL, new_value jsonb NOT NULL, reason text NOT NULL,
    actor text NOT NULL, at timestamptz NOT NULL, recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), request_id text NOT NULL,
    operation_id uuid, UNIQUE (node_id, key, sequence)
);
"""


def upgrade() -> None:
    op.execute(TABLES)
    protect("policy_changes", scoped=False, append_only=True)


def downgrade() -> None:
    raise NotImplementedError("policies that have been changed cannot forget by whom")
