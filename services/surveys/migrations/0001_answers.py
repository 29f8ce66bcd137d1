"""Answers: the grades of accepted repairs.

Revision ID: surveys_0001
"""

from alembic import op

from services.chassis.migrate import protect

revision = "surveys_0001"
down_revision = None
branch_labels = ("surveys",)
depends_on = None


def upgrade() -> None:
    op.execute("""
CREATE TABLE satisfaction_answers (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, sequence integer NOT NULL,
    answered_at timestamptz NOT NULL, unit_id uuid, technician_id uuid,
    attitude integer NOT NULL CHECK (attitude BETWEEN 1 AND 5), quality integer NOT NULL CHECK (quality BETWEEN 1 AND 5)
);
CREATE INDEX satisfaction_answers_estate ON satisfaction_answers (estate_id, answered_at) WHERE unit_id IS NOT NULL;
CREATE INDEX satisfaction_answers_technician ON satisfaction_answers (technician_id, answered_at) WHERE technician_id IS NOT NULL;
""")
    protect("satisfaction_answers")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
