-- Who had an account so far could do everything, and still can.
ALTER TABLE users
    ADD COLUMN role                 text NOT NULL DEFAULT 'admin' CHECK (role IN ('viewer', 'operator', 'admin')),
    ADD COLUMN disabled             boolean NOT NULL DEFAULT false,
    ADD COLUMN must_change_password boolean NOT NULL DEFAULT false,
    ADD COLUMN language             text CHECK (language IN ('en', 'zh')),     -- NULL: the browser's
    ADD COLUMN timezone             text,                                      -- NULL: the browser's
    ADD COLUMN theme                text NOT NULL DEFAULT 'auto' CHECK (theme IN ('auto', 'light', 'dark')),
    ADD COLUMN last_login_at        timestamptz;
ALTER TABLE users ALTER COLUMN role SET DEFAULT 'viewer';

-- expires_at is the absolute limit; without last_seen_at moving, a session ends earlier.
ALTER TABLE sessions
    ADD COLUMN id           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    ADD COLUMN last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN address      text,
    ADD COLUMN browser      text,
    ADD COLUMN timezone     text;
CREATE INDEX sessions_username ON sessions (username);

-- Of the name only its SHA-256: what was typed there may be a password. Rows live for the span that is counted.
CREATE TABLE login_failures (
    account bytea NOT NULL,
    address text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX login_failures_account ON login_failures (account, at);
CREATE INDEX login_failures_address ON login_failures (address, at);

-- The audit page reads newest first, filtered by one of these.
CREATE INDEX audit_username ON audit (username, id);
CREATE INDEX audit_object ON audit (object, id);
