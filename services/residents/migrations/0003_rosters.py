"""Duty rosters, leaves with deputies, the training mark of the intake (REP-36), and when somebody who left was handed over.

Revision ID: residents_0003
"""

from alembic import op

from services.chassis.migrate import protect

revision = "residents_0003"
down_revision = "residents_0002"
branch_labels = None
depends_on = None

# As in residents_0001: what every record of the register has. A leave stands where its member of staff works.
RECORD = """
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid{company}, estate_id uuid{estate}, version bigint NOT NULL,
    register_digest bytea, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL"""


def upgrade() -> None:
    op.execute(f"""
ALTER TABLE staff ADD COLUMN intake_trained boolean NOT NULL DEFAULT false, ADD COLUMN retired_at timestamptz;

CREATE TABLE shifts ({RECORD.format(company=" NOT NULL", estate=" NOT NULL")}, staff_id uuid NOT NULL REFERENCES staff (id),
    role text NOT NULL, early_shift boolean NOT NULL, starts_at timestamptz NOT NULL, ends_at timestamptz NOT NULL, deleted boolean NOT NULL,
    CHECK (ends_at > starts_at AND ends_at <= starts_at + interval '24 hours'));
CREATE INDEX shifts_estate ON shifts (estate_id, starts_at, id) WHERE NOT deleted;
CREATE INDEX shifts_staff ON shifts (staff_id, ends_at) WHERE NOT deleted;

CREATE TABLE leaves ({RECORD.format(company="", estate="")}, staff_id uuid NOT NULL REFERENCES staff (id), deputy_id uuid REFERENCES staff (id),
    kind text NOT NULL, starts_at timestamptz NOT NULL, ends_at timestamptz CHECK (ends_at > starts_at), from_register boolean NOT NULL,
    deleted boolean NOT NULL, CHECK (deputy_id <> staff_id));
CREATE INDEX leaves_estate ON leaves (estate_id, id DESC);
CREATE INDEX leaves_staff ON leaves (staff_id) WHERE NOT deleted;
CREATE INDEX leaves_deputy ON leaves (deputy_id) WHERE deputy_id IS NOT NULL AND NOT deleted;
""")
    for table in ("shifts", "leaves"):
        protect(table)


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
