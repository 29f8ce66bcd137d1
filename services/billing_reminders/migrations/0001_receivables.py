"""Receivables, and what has been heard of the charges they come from.

Revision ID: billing_reminders_0001
"""

from alembic import op

from services.chassis.migrate import protect

revision = "billing_reminders_0001"
down_revision = None
branch_labels = ("billing_reminders",)
depends_on = None


def upgrade() -> None:
    op.execute("""
CREATE TABLE repair_bills (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL,
    sequence integer NOT NULL, state text NOT NULL, state_at timestamptz NOT NULL, charge_sequence integer NOT NULL,
    charge numeric(12, 2) CHECK (charge > 0), unit_id uuid, reporter text NOT NULL, repair_number text NOT NULL
);

CREATE TABLE receivables (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, estate_code text NOT NULL,
    version integer NOT NULL, event_count integer NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    number text, state text NOT NULL, kind text NOT NULL, repair_id uuid NOT NULL REFERENCES repair_bills (id),
    repair_number text NOT NULL, unit_id uuid, reporter text NOT NULL, amount numeric(12, 2) NOT NULL CHECK (amount > 0),
    state_at timestamptz NOT NULL, month date NOT NULL CHECK (extract(day FROM month) = 1), notice_on date, due_on date,
    CHECK ((state = 'DUE') = (notice_on IS NOT NULL AND due_on IS NOT NULL))
);
CREATE UNIQUE INDEX receivables_repair ON receivables (repair_id);
CREATE UNIQUE INDEX receivables_number ON receivables (estate_id, number);
CREATE INDEX receivables_estate ON receivables (estate_id, id DESC);
CREATE INDEX receivables_estate_state ON receivables (estate_id, state, id DESC);
CREATE INDEX receivables_estate_month ON receivables (estate_id, month, id DESC);
CREATE INDEX receivables_company ON receivables (company_id, id DESC);
CREATE INDEX receivables_company_month ON receivables (company_id, month);
CREATE INDEX receivables_group ON receivables (group_id, id DESC);
CREATE INDEX receivables_group_month ON receivables (group_id, month);
CREATE INDEX receivables_unit ON receivables (unit_id, id DESC) WHERE unit_id IS NOT NULL;
""")
    protect("repair_bills")
    protect("receivables")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
