-- The first age: a run has a row when it has ended; no log of its own.
CREATE TABLE job_logs (
    id              serial PRIMARY KEY,
    job_id          varchar NOT NULL,
    status          varchar NOT NULL CONSTRAINT ck_job_logs_status CHECK (status IN ('SUCCESS', 'FAILURE')),
    message         text,
    traceback       text,
    snapshot_params json,
    celery_task_id  varchar,
    attempt         integer,
    started_at      timestamp without time zone,
    finished_at     timestamp without time zone
);
CREATE INDEX ix_job_logs_job_id ON job_logs (job_id);
