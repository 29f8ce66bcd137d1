"""Messages may be removed when their time is over, by Steward alone.

Revision ID: notifications_0002
"""

import sqlalchemy as sa
from alembic import op

revision = "notifications_0002"
down_revision = "notifications_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    role = op.get_bind().execute(sa.text("SELECT current_database()")).scalar_one()
    op.execute("CREATE INDEX messages_age ON messages (occurred_at)")
    op.execute(f'GRANT DELETE ON messages TO "{role}"')
    system = "(SELECT current_setting('steward.system', true)) = 'on'"
    op.execute(f"CREATE POLICY removed_by_steward ON messages AS RESTRICTIVE FOR DELETE USING ({system})")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
