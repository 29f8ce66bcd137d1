"""What has become of each case.

Revision ID: governance_0001
"""

from alembic import op

from services.chassis.migrate import protect

revision = "governance_0001"
down_revision = None
branch_labels = ("governance",)
depends_on = None


def upgrade() -> None:
    op.execute("""
CREATE TABLE service_cases (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL,
    reported_at timestamptz, urgent boolean, accepted integer NOT NULL, reopened integer NOT NULL, reworks integer NOT NULL,
    cancelled boolean NOT NULL, CHECK ((reported_at IS NULL) = (urgent IS NULL))
);
CREATE INDEX service_cases_estate ON service_cases (estate_id, reported_at);

CREATE TABLE missed_limits (
    case_id uuid NOT NULL, clock text NOT NULL, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL,
    PRIMARY KEY (case_id, clock)
);
""")
    protect("service_cases")
    protect("missed_limits")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
