"""Row-level security reads the scope of a transaction as one list of nodes, in one sub-select a statement.

Revision ID: chassis_0005
"""

from alembic import op

from services.chassis.migrate import INSIDE

revision = "chassis_0005"
down_revision = "chassis_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        f"""DO $$
        DECLARE scoped text;
        BEGIN
            FOR scoped IN SELECT tablename FROM pg_policies
                WHERE schemaname = current_schema() AND policyname = 'inside' AND qual LIKE '%steward.estates%'
            LOOP
                EXECUTE format('ALTER POLICY inside ON %I USING (%s)', scoped, {_text(INSIDE)});
            END LOOP;
        END $$"""
    )


def _text(sql: str) -> str:
    return "'" + sql.replace("'", "''") + "'"
