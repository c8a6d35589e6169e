-- One row per start of a hub, written by its heartbeat: tells which hubs live, and when none did.
CREATE TABLE hubs (
    worker_id  uuid PRIMARY KEY,
    name       text NOT NULL,          -- host and process number
    version    text NOT NULL,
    places     integer NOT NULL,
    taken      integer NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ticked_at  timestamptz,            -- its last whole tick
    stopped_at timestamptz             -- NULL: alive, or died at about seen_at
);
CREATE INDEX hubs_seen ON hubs (seen_at);
