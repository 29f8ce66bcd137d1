"""Clocks that were missed and still run are counted every half minute (`figures.py`): an index that holds them alone.

Revision ID: chassis_0006
"""

from alembic import op

revision = "chassis_0006"
down_revision = "chassis_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX clocks_overdue ON clocks (aggregate, name) WHERE breached_at IS NOT NULL AND stopped_at IS NULL")


def downgrade() -> None:
    op.execute("DROP INDEX clocks_overdue")
