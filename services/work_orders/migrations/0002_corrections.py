"""Corrections, duplicates, faults that come back, and the indexes of the monthly statistics.

Revision ID: work_orders_0002
"""

from alembic import op

revision = "work_orders_0002"
down_revision = "work_orders_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
ALTER TABLE repairs ADD COLUMN recurs_id uuid, ADD COLUMN duplicate_of_id uuid;
CREATE INDEX repairs_accepted ON repairs (estate_id, category, accepted_at) WHERE accepted_at IS NOT NULL;
CREATE INDEX repairs_recurring ON repairs (estate_id, category, reported_at) WHERE recurs_id IS NOT NULL;
CREATE INDEX repairs_estate_reported ON repairs (estate_id, reported_at);
CREATE INDEX repairs_company_reported ON repairs (company_id, reported_at);
CREATE INDEX repairs_group_reported ON repairs (group_id, reported_at);
""")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
