"""The last accepted repair of a place is found by its place, however many the estate has.

Revision ID: work_orders_0004
"""

from alembic import op

revision = "work_orders_0004"
down_revision = "work_orders_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
CREATE INDEX repairs_accepted_unit ON repairs (unit_id, category, accepted_at) WHERE unit_id IS NOT NULL AND accepted_at IS NOT NULL;
CREATE INDEX repairs_accepted_place ON repairs (estate_id, category, btrim(location), accepted_at)
    WHERE unit_id IS NULL AND accepted_at IS NOT NULL;
DROP INDEX repairs_accepted;
""")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
