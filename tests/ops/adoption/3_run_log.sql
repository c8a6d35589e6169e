-- The last age: a run's own log is kept too. A table of alembic stands beside. The key of the secrets is in tests/test_adoption.py.
CREATE TABLE jobs (
    id           varchar NOT NULL PRIMARY KEY,
    enabled      boolean NOT NULL,
    cron_expr    varchar NOT NULL,
    handler_path varchar NOT NULL,
    public_cfg   json NOT NULL,
    secret_cfg   text NOT NULL,
    last_run_at  timestamp without time zone
);

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

INSERT INTO jobs VALUES
    ('oa-sync', true, '*/5 * * * *', 'extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob', '{"base_url": "https://oa.example.com", "limit": 10}', 'gAAAAABl7IeAOYTjWuFm1EsGFNIwbmqNrTt0WcWGpS827BEa48LcLt8jv6aSF-Mu0G5UOFYujPzYyiovbGPRHQI0s3DnQx2hwL5GVl4Ok8sYC3_SjDpZBbA=', '2024-03-09 23:55:00'),
    ('off', false, '0 0 * * *', 'extensions.old.job.OldJob', '{}', '', NULL),
    ('odd-json', false, '0 0 * * *', 'extensions.old.job:OldJob', '{"text": "nul \u0000 here"}', '', NULL),
    ('list', false, '61 * * * *', 'extensions.old.job:OldJob', '[1, 2]', '', NULL),
    ('同步 组织/部门', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 0}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00'),
    ('a/b?c=1#d%20e', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 1}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00'),
    ('run', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 2}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00'),
    ('../up', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 3}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00'),
    ('O''Brien "x"', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 4}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00'),
    (' padded ', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 5}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00'),
    ('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 6}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00'),
    ('-dash', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 7}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00'),
    ('delete', true, '0 3 * * *', 'extensions.old.job:OldJob', '{"n": 8}', 'gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=', '2024-01-01 08:00:00');
INSERT INTO job_logs (job_id, status, message, traceback, run_log, snapshot_params, celery_task_id, attempt, started_at, finished_at) VALUES
    ('oa-sync', 'SUCCESS', 'first', NULL, '2024-01-02 09:00:00 INFO hello', '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://old.example.com"}, "secret_cfg": "gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=", "meta": {"trigger": "schedule"}}', 'task-1', 1, '2024-01-02 09:00:00', '2024-01-02 09:00:03.5'),
    ('oa-sync', 'FAILURE', 'boom', 'Traceback (most recent call last):
  boom', NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://old.example.com"}, "secret_cfg": "gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=", "meta": {"trigger": "manual", "user": "li.na"}}', 'task-2', 1, '2024-01-02 10:00:00', '2024-01-02 10:00:01'),
    ('oa-sync', 'FAILURE', 'boom', NULL, NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://old.example.com"}, "secret_cfg": "gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=", "meta": {"trigger": "manual", "user": "li.na"}}', 'task-2', 2, '2024-01-02 10:01:00', '2024-01-02 10:01:01'),
    ('oa-sync', 'SUCCESS', NULL, NULL, NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://oa.example.com", "limit": 10}, "secret_cfg": "gAAAAABl7IeAOYTjWuFm1EsGFNIwbmqNrTt0WcWGpS827BEa48LcLt8jv6aSF-Mu0G5UOFYujPzYyiovbGPRHQI0s3DnQx2hwL5GVl4Ok8sYC3_SjDpZBbA=", "meta": {"trigger": "retry", "retry_of": 3}}', 'task-3', 0, '2024-03-01 00:00:00', '2024-03-01 00:00:01'),
    ('oa-sync', 'SUCCESS', 'no snapshot', NULL, NULL, NULL, NULL, NULL, '2023-12-31 23:59:00', NULL),
    ('gone', 'SUCCESS', 'its Job was deleted', NULL, NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"x": 1}, "secret_cfg": "gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=", "meta": {}}', NULL, 1, '2023-06-01 12:00:00', '2023-06-01 12:00:01'),
    ('gone', 'FAILURE', 'nothing known', NULL, NULL, 'null', NULL, 1, NULL, NULL),
    ('odd-json', 'FAILURE', 'odd', NULL, NULL, '{"public_cfg": {"text": "nul \u0000 here"}}', NULL, 1, '2024-01-03 00:00:00', '2024-01-03 00:00:01'),
    ('同步 组织/部门', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('a/b?c=1#d%20e', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('run', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('../up', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('O''Brien "x"', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    (' padded ', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('-dash', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('delete', 'SUCCESS', 'odd id', NULL, NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('oa-sync', 'RUNNING', NULL, NULL, NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://oa.example.com", "limit": 10}, "secret_cfg": "gAAAAABl7IeAOYTjWuFm1EsGFNIwbmqNrTt0WcWGpS827BEa48LcLt8jv6aSF-Mu0G5UOFYujPzYyiovbGPRHQI0s3DnQx2hwL5GVl4Ok8sYC3_SjDpZBbA=", "meta": {"trigger": "schedule"}}', 'task-9', 1, '2024-03-10 00:00:00', NULL);
