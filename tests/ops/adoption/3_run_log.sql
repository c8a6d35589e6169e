-- The last age: a run's own log is kept too. A table of alembic stands beside.
CREATE TABLE job_logs (
    id              serial PRIMARY KEY,
    job_id          varchar NOT NULL,
    status          varchar NOT NULL CONSTRAINT ck_job_logs_status CHECK (status IN ('SUCCESS', 'FAILURE', 'RUNNING')),
    message         text,
    traceback       text,
    run_log         text,
    snapshot_params json,
    celery_task_id  varchar,
    attempt         integer,
    started_at      timestamp without time zone,
    finished_at     timestamp without time zone
);
CREATE INDEX ix_job_logs_job_id ON job_logs (job_id);

CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('3f2a9c81d7e4');
CREATE TABLE celery_taskmeta (id serial PRIMARY KEY, task_id varchar);
