"""The directory learns who is on duty when, and who is away.

Revision ID: chassis_0002
"""

from alembic import op

from services.chassis.migrate import protect

revision = "chassis_0002"
down_revision = "chassis_0001"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE dir_shifts (
    id uuid PRIMARY KEY, version bigint NOT NULL, deleted boolean NOT NULL DEFAULT false, staff_id uuid NOT NULL, role text NOT NULL,
    estate_id uuid NOT NULL, early_shift boolean NOT NULL, starts_at timestamptz NOT NULL, ends_at timestamptz NOT NULL
);
CREATE INDEX dir_shifts_estate ON dir_shifts (estate_id, ends_at) WHERE NOT deleted;
CREATE INDEX dir_shifts_staff ON dir_shifts (staff_id, ends_at) WHERE NOT deleted;

CREATE TABLE dir_absences (
    id uuid PRIMARY KEY, version bigint NOT NULL, deleted boolean NOT NULL DEFAULT false, staff_id uuid NOT NULL, deputy_id uuid,
    starts_at timestamptz NOT NULL, ends_at timestamptz
);
CREATE INDEX dir_absences_staff ON dir_absences (staff_id) WHERE NOT deleted;
CREATE INDEX dir_absences_deputy ON dir_absences (deputy_id) WHERE NOT deleted AND deputy_id IS NOT NULL;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("dir_shifts", "dir_absences"):
        protect(table, scoped=False)


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
