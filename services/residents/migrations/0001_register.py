"""The register: tree, people, staff, parking, and its imports.

Revision ID: residents_0001
"""

from alembic import op

from services.chassis.migrate import protect

revision = "residents_0001"
down_revision = None
branch_labels = ("residents",)
depends_on = None

# group_id, company_id and estate_id of each row say who may see it; nodes name themselves.
RECORD = """
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid{company}, estate_id uuid{estate}, version bigint NOT NULL,
    register_digest bytea, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL"""
OF_AN_ESTATE = RECORD.format(company=" NOT NULL", estate=" NOT NULL")


def upgrade() -> None:
    op.execute(f"""
CREATE TABLE groups ({RECORD.format(company="", estate="")}, name text NOT NULL, CHECK (group_id = id));
CREATE UNIQUE INDEX groups_name ON groups (name);

CREATE TABLE companies ({RECORD.format(company=" NOT NULL", estate="")}, name text NOT NULL, CHECK (company_id = id));
CREATE UNIQUE INDEX companies_name ON companies (group_id, name);

CREATE TABLE estates ({OF_AN_ESTATE}, code text NOT NULL, name text NOT NULL, property_type text NOT NULL, time_zone text NOT NULL,
    has_committee boolean NOT NULL, CHECK (estate_id = id));
CREATE UNIQUE INDEX estates_code ON estates (code);

CREATE TABLE buildings ({OF_AN_ESTATE}, name text NOT NULL);
CREATE UNIQUE INDEX buildings_name ON buildings (estate_id, name);

CREATE TABLE units ({OF_AN_ESTATE}, building_id uuid NOT NULL REFERENCES buildings (id), entrance text NOT NULL, floor integer,
    number text NOT NULL, area numeric(12, 2) NOT NULL CHECK (area > 0), property_type text NOT NULL, taken_over boolean NOT NULL,
    occupancy text NOT NULL, under_renovation boolean NOT NULL, move_in_date date, fee_rate numeric(12, 4) CHECK (fee_rate >= 0));
CREATE UNIQUE INDEX units_number ON units (estate_id, number);
CREATE INDEX units_building ON units (building_id);

-- phone: digits as dialled. identity_index: HMAC of the identity number, whose ciphertext is identity_sealed.
CREATE TABLE people ({OF_AN_ESTATE}, name text NOT NULL, kind text NOT NULL, identity_sealed bytea, identity_index bytea, phone text,
    other_phones text[] NOT NULL, birthday date, CHECK ((identity_sealed IS NULL) = (identity_index IS NULL)));
CREATE UNIQUE INDEX people_identity ON people (group_id, identity_index) WHERE identity_index IS NOT NULL;
CREATE INDEX people_phone ON people (phone) WHERE phone IS NOT NULL;
CREATE INDEX people_name ON people (group_id, name);
CREATE INDEX people_estate ON people (estate_id);

CREATE TABLE memberships ({OF_AN_ESTATE}, unit_id uuid NOT NULL REFERENCES units (id), person_id uuid NOT NULL REFERENCES people (id),
    kind text NOT NULL, starts_on date, ends_on date CHECK (ends_on >= starts_on), share numeric(7, 4) CHECK (share > 0 AND share <= 100),
    owner_consent boolean, care_marks text[] NOT NULL, emergency_name text NOT NULL, emergency_phone text NOT NULL,
    payment_method text NOT NULL);
CREATE UNIQUE INDEX memberships_owner ON memberships (unit_id, person_id) WHERE kind = 'OWNER' AND ends_on IS NULL;
CREATE INDEX memberships_unit ON memberships (unit_id);
CREATE INDEX memberships_person ON memberships (person_id);
CREATE INDEX memberships_estate ON memberships (estate_id);

CREATE TABLE parking_spaces ({OF_AN_ESTATE}, number text NOT NULL, unit_id uuid NOT NULL REFERENCES units (id), plate text NOT NULL,
    kind text NOT NULL, monthly_fee numeric(12, 2) CHECK (monthly_fee >= 0), ended_at timestamptz);
CREATE UNIQUE INDEX parking_spaces_number ON parking_spaces (estate_id, number);
CREATE UNIQUE INDEX parking_spaces_household ON parking_spaces (unit_id) WHERE ended_at IS NULL; -- PRK-02
CREATE INDEX parking_spaces_plate ON parking_spaces (plate);

CREATE TABLE staff ({RECORD.format(company="", estate="")}, number text NOT NULL, name text NOT NULL, title text NOT NULL,
    phone text NOT NULL, email text NOT NULL, state text NOT NULL, active boolean GENERATED ALWAYS AS (state <> 'LEFT') STORED);
CREATE UNIQUE INDEX staff_number ON staff (upper(number));
CREATE INDEX staff_estate ON staff (estate_id);

CREATE TABLE posts ({RECORD.format(company="", estate="")}, staff_id uuid NOT NULL REFERENCES staff (id), role text NOT NULL,
    node_id uuid NOT NULL, starts_at timestamptz, ends_at timestamptz, from_register boolean NOT NULL);
CREATE INDEX posts_staff ON posts (staff_id);
CREATE INDEX posts_node ON posts (node_id, role);

-- What was corrected on a record, before and after; identity numbers only as having changed.
CREATE TABLE corrections (id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid, estate_id uuid, record text NOT NULL,
    record_id uuid NOT NULL, version bigint NOT NULL, at timestamptz NOT NULL, actor text NOT NULL, reason text NOT NULL,
    before jsonb NOT NULL, after jsonb NOT NULL);
CREATE INDEX corrections_record ON corrections (record_id, version);

-- Beside the chassis's row in `operations`, which has state and progress. report: the refused rows as sealed .xlsx.
CREATE TABLE imports (id uuid PRIMARY KEY, group_id uuid, company_id uuid, estate_id uuid, filename text NOT NULL, report bytea,
    created_at timestamptz NOT NULL);
CREATE INDEX imports_group ON imports (group_id, id DESC);

-- taken: a remark on a row that was taken. position: in the order of the file.
CREATE TABLE import_refusals (import_id uuid NOT NULL REFERENCES imports (id) ON DELETE CASCADE, position integer NOT NULL,
    group_id uuid, company_id uuid, estate_id uuid, sheet text NOT NULL, row integer NOT NULL, "column" text NOT NULL, value text NOT NULL,
    reason text NOT NULL, message text NOT NULL, taken boolean NOT NULL, PRIMARY KEY (import_id, position));
""")
    for table in ("groups", "companies", "estates", "buildings", "units", "people", "memberships", "parking_spaces", "staff", "posts"):
        protect(table)
    for table in ("imports", "import_refusals"):
        protect(table)
    protect("corrections", append_only=True)
    # A person who belongs to a unit in sight is in sight, wherever the person was first registered.
    op.execute("CREATE POLICY by_membership ON people USING (EXISTS (SELECT 1 FROM memberships m WHERE m.person_id = people.id))")


def downgrade() -> None:
    raise NotImplementedError("there is nothing before the first revision")
