"""Who follows up, spot checks, parts and the archive set, and what billing says of a repair.

Revision ID: work_orders_0003
"""

from alembic import op

from services.chassis.migrate import protect

revision = "work_orders_0003"
down_revision = "work_orders_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
ALTER TABLE repairs ADD COLUMN price_explained boolean NOT NULL DEFAULT false, ADD COLUMN explained_only boolean NOT NULL DEFAULT false,
    ADD COLUMN archive_gap text NOT NULL DEFAULT '';
ALTER TABLE repair_charges ADD COLUMN kind text NOT NULL DEFAULT 'MATERIAL';
CREATE INDEX repair_charges_estate ON repair_charges (estate_id, repair_id);

CREATE TABLE repair_parts (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL,
    repair_id uuid NOT NULL REFERENCES repairs (id), name text NOT NULL, quantity integer NOT NULL CHECK (quantity > 0),
    qualified boolean NOT NULL, certificate text NOT NULL, shown_to_owner boolean NOT NULL, bought boolean NOT NULL, voucher text NOT NULL,
    recorded_by text NOT NULL, recorded_at timestamptz NOT NULL
);
CREATE INDEX repair_parts_repair ON repair_parts (repair_id);

CREATE TABLE repair_payments (
    repair_id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, sequence integer NOT NULL,
    state text NOT NULL, number text NOT NULL, notice_date date, due_date date
);

ALTER TABLE follow_ups ADD COLUMN doer_ids uuid[] NOT NULL DEFAULT '{}', ADD COLUMN department text NOT NULL DEFAULT 'ENGINEERING',
    ADD COLUMN assignee_id uuid, ADD COLUMN assigned_role text NOT NULL DEFAULT '', ADD COLUMN assigned_for date,
    ADD COLUMN delegated_by text NOT NULL DEFAULT '', ADD COLUMN appointment_at timestamptz, ADD COLUMN solution_at timestamptz,
    ADD COLUMN valid boolean NOT NULL DEFAULT false, ADD COLUMN measure text NOT NULL DEFAULT '';
UPDATE follow_ups SET doer_ids = ARRAY[technician_id] WHERE technician_id IS NOT NULL;
UPDATE follow_ups SET valid = true WHERE round > 1 OR state IN ('CLOSED', 'REVIEWED', 'DISSATISFIED');
CREATE INDEX follow_ups_company_returned ON follow_ups (company_id, returned_at);
CREATE INDEX follow_ups_group_returned ON follow_ups (group_id, returned_at);
CREATE INDEX follow_ups_assignee ON follow_ups (assignee_id, id DESC) WHERE state = 'PENDING';
CREATE INDEX follow_ups_pending ON follow_ups (estate_id, assigned_for) WHERE state = 'PENDING';
ALTER TABLE follow_up_attempts ADD COLUMN reason text NOT NULL DEFAULT '', ADD COLUMN explanation text NOT NULL DEFAULT '',
    ADD COLUMN companion_ids uuid[] NOT NULL DEFAULT '{}';
CREATE INDEX follow_up_attempts_answered ON follow_up_attempts (estate_id, attempted_at) WHERE reached;

CREATE TABLE spot_check_rounds (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, estate_code text NOT NULL,
    version integer NOT NULL, event_count integer NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    tier text NOT NULL, month text NOT NULL, rate double precision NOT NULL, seed text NOT NULL, population uuid[] NOT NULL,
    population_size integer NOT NULL, drawn integer NOT NULL CHECK (drawn > 0)
);
CREATE UNIQUE INDEX spot_check_rounds_once ON spot_check_rounds (estate_id, month, tier);
CREATE INDEX spot_check_rounds_company ON spot_check_rounds (company_id, month);
CREATE INDEX spot_check_rounds_group ON spot_check_rounds (group_id, month);

CREATE TABLE spot_checks (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, estate_code text NOT NULL,
    version integer NOT NULL, event_count integer NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    number text, state text NOT NULL, tier text NOT NULL, month text NOT NULL, round_id uuid NOT NULL REFERENCES spot_check_rounds (id),
    follow_up_id uuid NOT NULL REFERENCES follow_ups (id), follow_up_number text NOT NULL, asked_by text NOT NULL,
    asked_at timestamptz NOT NULL, checker_id uuid, role text NOT NULL, due_at timestamptz NOT NULL, method text NOT NULL,
    finding text NOT NULL, measure text NOT NULL, reopened boolean NOT NULL, checked_by text NOT NULL, checked_at timestamptz
);
CREATE UNIQUE INDEX spot_checks_once ON spot_checks (round_id, follow_up_id);
CREATE UNIQUE INDEX spot_checks_number ON spot_checks (estate_id, number);
CREATE INDEX spot_checks_estate ON spot_checks (estate_id, id DESC);
CREATE INDEX spot_checks_company ON spot_checks (company_id, id DESC);
CREATE INDEX spot_checks_group ON spot_checks (group_id, id DESC);
CREATE INDEX spot_checks_checker ON spot_checks (checker_id, id DESC) WHERE state = 'OPEN';
""")
    for table in ("repair_parts", "repair_payments", "spot_check_rounds", "spot_checks"):
        protect(table)


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
