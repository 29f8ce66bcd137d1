"""People as operations: merged duplicates, households, the log of disclosures, and indexes to find people by.

Revision ID: residents_0004
"""

from alembic import op

from services.chassis.migrate import protect

revision = "residents_0004"
down_revision = "residents_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
-- merged_into: this record was a duplicate of that one, never of another duplicate.
ALTER TABLE people
    ADD COLUMN merged_into uuid REFERENCES people (id) CHECK (merged_into <> id),
    ADD CHECK (merged_into IS NULL OR identity_index IS NULL);
CREATE INDEX people_duplicates ON people (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX people_name_begin ON people (group_id, (name COLLATE "C"), id);

-- Every telephone of everybody but duplicates, digits alone and the last one first: found by its last digits.
CREATE TABLE people_phones (person_id uuid NOT NULL REFERENCES people (id) ON DELETE CASCADE, ending text COLLATE "C" NOT NULL,
    PRIMARY KEY (person_id, ending));
CREATE INDEX people_phones_ending ON people_phones (ending);
CREATE FUNCTION keep_people_phones() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM people_phones WHERE person_id = NEW.id;
    END IF;
    IF NEW.merged_into IS NULL THEN
        INSERT INTO people_phones (person_id, ending)
            SELECT DISTINCT NEW.id, reverse(regexp_replace(t.number, '[^0-9]', '', 'g'))
              FROM unnest(NEW.other_phones || NEW.phone) AS t (number) WHERE t.number IS NOT NULL;
    END IF;
    RETURN NULL;
END $$;
INSERT INTO people_phones (person_id, ending)
    SELECT DISTINCT p.id, reverse(regexp_replace(t.number, '[^0-9]', '', 'g'))
      FROM people p, unnest(p.other_phones || p.phone) AS t (number) WHERE t.number IS NOT NULL;
CREATE TRIGGER keep_phones AFTER INSERT OR UPDATE OF phone, other_phones, merged_into ON people
    FOR EACH ROW EXECUTE FUNCTION keep_people_phones();

-- household_id: of family, the membership of the owner or tenant whose family it is. former_digests: of register rows that
-- spoke of a membership that was folded into this one, and are passed over too.
ALTER TABLE memberships
    ADD COLUMN household_id uuid REFERENCES memberships (id) ON DELETE SET NULL CHECK (household_id <> id),
    ADD COLUMN former_digests bytea[] NOT NULL DEFAULT '{}';
CREATE INDEX memberships_household ON memberships (household_id) WHERE household_id IS NOT NULL;

-- Who looked at whose data (ARC-12), at which estate. person_id: null when a look-up found nobody.
CREATE TABLE disclosures (id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL,
    person_id uuid, field text NOT NULL, at timestamptz NOT NULL, actor text NOT NULL, reason text NOT NULL);
CREATE INDEX disclosures_person ON disclosures (person_id, id DESC);
CREATE INDEX disclosures_estate ON disclosures (estate_id, id DESC);
CREATE INDEX corrections_estate ON corrections (estate_id, id DESC);
""")
    protect("disclosures", append_only=True)
    protect("people_phones", scoped=False)
    op.execute("""
-- A person who belongs to a unit in sight is in sight, wherever first registered, and with him the duplicates that became him.
-- OFFSET 0 and CASE (not coalesce, which counts as leaky): one look at an index for each person who is read, not a scan of all
-- memberships.
DROP POLICY by_membership ON people;
CREATE POLICY by_membership ON people
    USING (EXISTS (SELECT 1 FROM memberships m WHERE m.person_id = CASE WHEN people.merged_into IS NULL THEN people.id ELSE people.merged_into END OFFSET 0));
CREATE POLICY of_people ON people_phones AS RESTRICTIVE USING (EXISTS (SELECT 1 FROM people p WHERE p.id = person_id OFFSET 0));
-- His record is one for all estates, and so is its history.
CREATE POLICY of_people ON corrections USING (record = 'people' AND EXISTS (SELECT 1 FROM people p WHERE p.id = record_id OFFSET 0));
-- Everybody may know who looked at his own data, wherever that was.
CREATE POLICY of_oneself ON disclosures FOR SELECT USING (EXISTS (SELECT 1 FROM people p WHERE p.id = person_id
    AND coalesce(p.merged_into, p.id)::text = (SELECT substr(current_setting('steward.principal', true), 8))));
""")


def downgrade() -> None:
    raise NotImplementedError("contract in a later revision instead")
