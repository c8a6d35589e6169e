-- What retention did last: one row, owned by the hub whose pass it is. Kept apart from hub_state, which each claim reads.
CREATE TABLE retention (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    worker_id  uuid,
    touched_at timestamptz,             -- its last step, or its end; NULL: no pass yet
    ended_at   timestamptz NOT NULL DEFAULT clock_timestamp(),  -- of the last whole pass; until there is one, this table's age
    runs       bigint NOT NULL DEFAULT 0,
    revisions  bigint NOT NULL DEFAULT 0
);
INSERT INTO retention DEFAULT VALUES;
