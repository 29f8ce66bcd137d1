"""Duties: which occurrence comes next, and the cases they open.

Revision ID: chassis_0004
"""

from alembic import op

from services.chassis.migrate import protect

revision = "chassis_0004"
down_revision = "chassis_0003"
branch_labels = None
depends_on = None

TABLES = """
-- recurrence: zone and rule that due_at was worked out by; next_at: when that occurrence opens.
CREATE TABLE duties (
    group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, duty text NOT NULL, recurrence text NOT NULL,
    due_at timestamptz NOT NULL, next_at timestamptz NOT NULL, PRIMARY KEY (estate_id, duty)
);
CREATE INDEX duties_next ON duties (next_at);

CREATE TABLE duty_tasks (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, estate_code text NOT NULL,
    version integer NOT NULL, event_count integer NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    number text, state text NOT NULL, duty text NOT NULL, due_at timestamptz NOT NULL, role text NOT NULL, doers uuid[] NOT NULL,
    superiors text[] NOT NULL, done_by text NOT NULL, done_at timestamptz, remark text NOT NULL, outcome jsonb,
    UNIQUE (estate_id, duty, due_at)
);
CREATE INDEX duty_tasks_open ON duty_tasks (due_at) WHERE state = 'OPEN';
CREATE INDEX duty_tasks_estate ON duty_tasks (estate_id, duty, id DESC);
CREATE INDEX duty_tasks_company ON duty_tasks (company_id, duty, id DESC);
CREATE INDEX duty_tasks_group ON duty_tasks (group_id, duty, id DESC);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("duties", "duty_tasks"):
        protect(table)


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
