"""Accounts, sessions and one-time codes.

Revision ID: residents_0002
"""

from alembic import op

from services.chassis.migrate import protect

revision = "residents_0002"
down_revision = "residents_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
CREATE TABLE accounts (principal text PRIMARY KEY, password_hash text);

CREATE TABLE sessions (
    id uuid PRIMARY KEY, principal text NOT NULL, access_hash bytea NOT NULL, access_expires_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL, created_at timestamptz NOT NULL DEFAULT clock_timestamp(), ended_at timestamptz
);
CREATE UNIQUE INDEX sessions_access ON sessions (access_hash);
CREATE INDEX sessions_principal ON sessions (principal) WHERE ended_at IS NULL;
CREATE INDEX sessions_expires ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    hash bytea PRIMARY KEY, session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, used_at timestamptz
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

CREATE TABLE sign_in_codes (
    id uuid PRIMARY KEY, phone_hash bytea NOT NULL, code_hash bytea NOT NULL, expires_at timestamptz NOT NULL, used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sign_in_codes_phone ON sign_in_codes (phone_hash, created_at);

CREATE TABLE failed_sign_ins (id uuid PRIMARY KEY, key text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX failed_sign_ins_key ON failed_sign_ins (key, at);
""")
    for table in ("accounts", "sessions", "refresh_tokens", "sign_in_codes", "failed_sign_ins"):
        protect(table, scoped=False)


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
