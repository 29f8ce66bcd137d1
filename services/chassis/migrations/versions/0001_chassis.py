"""The chassis's own tables, in every service's database.

Revision ID: chassis_0001
"""

from alembic import op

from services.chassis.migrate import protect

revision = "chassis_0001"
down_revision = None
branch_labels = ("chassis",)
depends_on = None

TABLES = """
CREATE TABLE business_time (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), shifted_by interval NOT NULL DEFAULT '0');
INSERT INTO business_time DEFAULT VALUES;

-- Outbox and log. position: the relay's, in publishing order, without gaps; published_at: the broker confirmed it.
CREATE TABLE events (
    id uuid NOT NULL, recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), aggregate text NOT NULL, aggregate_id uuid NOT NULL,
    sequence integer NOT NULL, type text NOT NULL, subject text NOT NULL, group_id uuid, company_id uuid, estate_id uuid,
    occurred_at timestamptz NOT NULL, actor text NOT NULL, trace text, data jsonb NOT NULL, position bigint, published_at timestamptz,
    PRIMARY KEY (recorded_at, id)
) PARTITION BY RANGE (recorded_at);
CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE INDEX events_unplaced ON events (recorded_at, aggregate_id, sequence) WHERE position IS NULL;
CREATE INDEX events_unpublished ON events (position) WHERE published_at IS NULL;
CREATE INDEX events_position ON events (position);
CREATE INDEX events_subject ON events (aggregate_id, sequence);

-- The relay's: the last position it gave, and which event types must find a queue (`migrate` writes that from the @on tables).
CREATE TABLE relay_state (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), last_position bigint NOT NULL DEFAULT 0,
    consumed text[] NOT NULL DEFAULT '{}');
INSERT INTO relay_state DEFAULT VALUES;

CREATE TABLE inbox (reaction text NOT NULL, event_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (reaction, event_id));
CREATE INDEX inbox_at ON inbox (at);

CREATE TABLE idempotency (principal text NOT NULL, rpc text NOT NULL, request_id text NOT NULL, body_hash bytea NOT NULL, reply bytea,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (principal, rpc, request_id));
CREATE INDEX idempotency_at ON idempotency (at);

CREATE TABLE clocks (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, aggregate text NOT NULL,
    aggregate_id uuid NOT NULL, subject text NOT NULL, name text NOT NULL, number text, handler text, urgent boolean NOT NULL,
    target interval NOT NULL, working boolean NOT NULL, warn double precision NOT NULL, ladder text[] NOT NULL,
    started_at timestamptz NOT NULL, spent interval NOT NULL, running_since timestamptz, marks timestamptz[] NOT NULL,
    level integer NOT NULL, next_at timestamptz, breached_at timestamptz, stopped_at timestamptz, cancelled boolean NOT NULL
);
CREATE INDEX clocks_due ON clocks (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX clocks_case ON clocks (aggregate_id);

CREATE TABLE history (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, aggregate text NOT NULL,
    aggregate_id uuid NOT NULL, version integer NOT NULL, at timestamptz NOT NULL, actor text NOT NULL, action text NOT NULL,
    from_state text NOT NULL, to_state text NOT NULL, note text NOT NULL, request_id text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX history_case ON history (aggregate_id, version);

-- Long-running operations (AIP-151).
CREATE TABLE operations (
    id uuid PRIMARY KEY, kind text NOT NULL, state text NOT NULL, request jsonb NOT NULL, progress jsonb NOT NULL DEFAULT '{}',
    input bytea NOT NULL, error text NOT NULL DEFAULT '', attempts integer NOT NULL DEFAULT 0, holder text, lease_until timestamptz,
    created_by text NOT NULL, created_at timestamptz NOT NULL DEFAULT clock_timestamp(), ended_at timestamptz
);
CREATE INDEX operations_open ON operations (created_at) WHERE state IN ('QUEUED', 'RUNNING');

CREATE TABLE numbers (estate_id uuid NOT NULL, kind text NOT NULL, day text NOT NULL, last integer NOT NULL,
    PRIMARY KEY (estate_id, kind, day)) WITH (fillfactor = 50);

CREATE TABLE policy_overrides (key text NOT NULL, node_id uuid NOT NULL, value jsonb NOT NULL, changed_by text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (key, node_id));

CREATE TABLE dead_letters (
    id uuid PRIMARY KEY, queue text NOT NULL, event_id uuid, type text NOT NULL, subject text NOT NULL, body bytea NOT NULL,
    error text NOT NULL, attempts integer NOT NULL, reaction text, first_failed_at timestamptz NOT NULL, died_at timestamptz NOT NULL,
    replayed_at timestamptz
);
CREATE INDEX dead_letters_died ON dead_letters (died_at);

-- The directory: this service's copy of the tree, memberships and posts, by state; ids only, no names of people.
CREATE TABLE dir_nodes (
    id uuid PRIMARY KEY, version bigint NOT NULL, deleted boolean NOT NULL DEFAULT false, kind text NOT NULL, parent_id uuid,
    code text NOT NULL, name text NOT NULL, estate_id uuid, company_id uuid, group_id uuid, zone text NOT NULL DEFAULT '',
    property_type text NOT NULL DEFAULT '', has_committee boolean NOT NULL DEFAULT false, taken_over boolean NOT NULL DEFAULT false,
    occupancy text NOT NULL DEFAULT '', under_renovation boolean NOT NULL DEFAULT false
);
CREATE INDEX dir_nodes_code ON dir_nodes (estate_id, code) WHERE NOT deleted;
CREATE INDEX dir_nodes_estate ON dir_nodes (code) WHERE kind = 'ESTATE' AND NOT deleted;
CREATE TABLE dir_members (
    id uuid PRIMARY KEY, version bigint NOT NULL, deleted boolean NOT NULL DEFAULT false, person_id uuid NOT NULL, unit_id uuid NOT NULL,
    estate_id uuid NOT NULL, kind text NOT NULL, starts_at timestamptz, ends_at timestamptz
);
CREATE INDEX dir_members_person ON dir_members (person_id) WHERE NOT deleted;
CREATE INDEX dir_members_unit ON dir_members (unit_id) WHERE NOT deleted;
CREATE TABLE dir_posts (
    id uuid PRIMARY KEY, version bigint NOT NULL, deleted boolean NOT NULL DEFAULT false, staff_id uuid NOT NULL, role text NOT NULL,
    node_id uuid NOT NULL, starts_at timestamptz, ends_at timestamptz
);
CREATE INDEX dir_posts_staff ON dir_posts (staff_id) WHERE NOT deleted;
CREATE INDEX dir_posts_node ON dir_posts (node_id, role) WHERE NOT deleted;
CREATE TABLE dir_state (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), filled_at timestamptz);
INSERT INTO dir_state DEFAULT VALUES;

-- Day partitions of the log: made ahead and dropped after 30 days by the owner's right, asked for by any replica.
CREATE FUNCTION keep_event_partitions(keep_days integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE day date; part text;
BEGIN
    PERFORM pg_advisory_xact_lock(7001);
    FOR day IN SELECT generate_series(current_date + 1, current_date + 3, interval '1 day')::date LOOP
        part := 'events_' || to_char(day, 'YYYYMMDD');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)', part, day::timestamptz, (day + 1)::timestamptz);
        END IF;
    END LOOP;
    FOR part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_[0-9]{8}$'
                   AND to_date(right(c.relname, 8), 'YYYYMMDD') < current_date - keep_days LOOP
        EXECUTE format('DROP TABLE %I', part);
    END LOOP;
    DELETE FROM events_default WHERE published_at < now() - make_interval(days => keep_days);
END $$;
SELECT keep_event_partitions(30);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("events", "clocks"):
        protect(table)
    protect("history", append_only=True)
    for table in (
        "business_time",
        "relay_state",
        "inbox",
        "operations",
        "numbers",
        "policy_overrides",
        "dead_letters",
        "dir_nodes",
        "dir_members",
        "dir_posts",
        "dir_state",
    ):
        protect(table, scoped=False)
    protect("idempotency", scoped=False)
    op.execute(
        "CREATE POLICY own_keys ON idempotency AS RESTRICTIVE USING (principal = (SELECT current_setting('steward.principal', true))"
        " OR (SELECT current_setting('steward.system', true)) = 'on')"
    )


def downgrade() -> None:
    raise NotImplementedError("there is nothing before the first revision")
