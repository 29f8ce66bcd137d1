"""The inbox.

Revision ID: notifications_0001
"""

import sqlalchemy as sa
from alembic import op

from services.chassis.migrate import protect

revision = "notifications_0001"
down_revision = None
branch_labels = ("notifications",)
depends_on = None


def upgrade() -> None:
    op.execute("""
CREATE TABLE messages (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL,
    recipient text NOT NULL CHECK (recipient ~ '^(staff|people)/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'),
    kind text NOT NULL, title text NOT NULL, body text NOT NULL, subject text NOT NULL, number text NOT NULL, urgent boolean NOT NULL,
    skipped_roles text[] NOT NULL, event_id uuid NOT NULL, occurred_at timestamptz NOT NULL, created_at timestamptz NOT NULL,
    read_at timestamptz, UNIQUE (recipient, event_id, kind)
);
CREATE INDEX messages_inbox ON messages (recipient, occurred_at DESC, id DESC);
CREATE INDEX messages_unread ON messages (recipient, occurred_at DESC, id DESC) WHERE read_at IS NULL;
""")
    # A message belongs to its recipient and to nobody else, whatever part of the tree he may see: so not the scope but the
    # principal decides, as for idempotency keys. Steward alone writes one, and nothing of it changes but that it is read.
    protect("messages", scoped=False, append_only=True)
    system = "(SELECT current_setting('steward.system', true)) = 'on'"
    own = f"recipient = (SELECT current_setting('steward.principal', true)) OR {system}"
    op.execute(f"CREATE POLICY own_messages ON messages AS RESTRICTIVE USING ({own})")
    op.execute(f"CREATE POLICY written_by_steward ON messages AS RESTRICTIVE FOR INSERT WITH CHECK ({system})")
    role = op.get_bind().execute(sa.text("SELECT current_database()")).scalar_one()
    op.execute(f'GRANT UPDATE (read_at) ON messages TO "{role}"')


def downgrade() -> None:
    raise NotImplementedError("there is nothing before the first revision")
