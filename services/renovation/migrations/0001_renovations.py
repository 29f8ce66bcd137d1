"""Renovations.

Revision ID: renovation_0001
"""

from alembic import op

from services.chassis.migrate import protect

revision = "renovation_0001"
down_revision = None
branch_labels = ("renovation",)
depends_on = None


def upgrade() -> None:
    op.execute("""
CREATE TABLE renovations (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL,
    version integer NOT NULL, event_count integer NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    number text, state text NOT NULL, unit_id uuid NOT NULL, origin text NOT NULL, papers_outstanding boolean NOT NULL,
    remark text NOT NULL, ended_at timestamptz, CHECK ((state = 'ENDED') = (ended_at IS NOT NULL))
);
CREATE UNIQUE INDEX renovations_unit_open ON renovations (unit_id) WHERE state <> 'ENDED';
CREATE UNIQUE INDEX renovations_unit_carried_over ON renovations (unit_id) WHERE origin = 'REGISTER';
CREATE UNIQUE INDEX renovations_number ON renovations (estate_id, number) WHERE number IS NOT NULL;
CREATE INDEX renovations_unit ON renovations (unit_id, id DESC);
CREATE INDEX renovations_estate ON renovations (estate_id, id DESC);
CREATE INDEX renovations_estate_state ON renovations (estate_id, state, id DESC);
CREATE INDEX renovations_company ON renovations (company_id, id DESC);
CREATE INDEX renovations_group ON renovations (group_id, id DESC);

-- The look for units without a record, every minute, in a directory of hundreds of thousands.
CREATE INDEX dir_nodes_under_renovation ON dir_nodes (id) WHERE under_renovation;
""")
    protect("renovations")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
