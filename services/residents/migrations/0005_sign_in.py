"""Passwords that somebody sets, refresh tokens that know their successor, and one-time codes on their way to the SMS company.

Revision ID: residents_0005
"""

from alembic import op

from services.chassis.migrate import protect

revision = "residents_0005"
down_revision = "residents_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- temporary_until: the password was given by somebody else and opens only its own change, until then.
ALTER TABLE accounts ADD COLUMN temporary_until timestamptz;
ALTER TABLE sessions ADD COLUMN temporary boolean NOT NULL DEFAULT false;

-- successor: what was given for it last; revoked_at: it was never used and another one took its place.
ALTER TABLE refresh_tokens ADD COLUMN successor bytea, ADD COLUMN revoked_at timestamptz;

-- Who gave whom a password: RESET (temporary, by the actor), CHANGED (by himself), SET (by the command of operations).
CREATE TABLE password_changes (
    id uuid PRIMARY KEY, principal text NOT NULL, action text NOT NULL, actor text NOT NULL, reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX password_changes_principal ON password_changes (principal, at);

-- One SMS each. id: the company's idempotency key. sealed: telephone and code, forgotten when it has ended (next_at IS NULL).
CREATE TABLE code_messages (
    id uuid PRIMARY KEY, sealed bytea NOT NULL, expires_at timestamptz NOT NULL, state text NOT NULL DEFAULT 'QUEUED',
    attempts integer NOT NULL DEFAULT 0, next_at timestamptz DEFAULT clock_timestamp(), error text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(), ended_at timestamptz
);
CREATE INDEX code_messages_due ON code_messages (next_at) WHERE next_at IS NOT NULL;
""")
    for table in ("password_changes", "code_messages"):
        protect(table, scoped=False, append_only=table == "password_changes")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
