-- Jobs of every age. The key of their secrets is in tests/test_adoption.py.
CREATE TABLE jobs (
    id           varchar NOT NULL PRIMARY KEY,
    enabled      boolean NOT NULL,
    cron_expr    varchar NOT NULL,
    handler_path varchar NOT NULL,
    public_cfg   json NOT NULL,
    secret_cfg   text NOT NULL,
    last_run_at  timestamp without time zone
);

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
