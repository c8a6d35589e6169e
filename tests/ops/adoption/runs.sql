-- Ended runs, as every age has them.
INSERT INTO job_logs (job_id, status, message, traceback, snapshot_params, celery_task_id, attempt, started_at, finished_at) VALUES
    ('oa-sync', 'SUCCESS', 'first', NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://old.example.com"}, "secret_cfg": "gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=", "meta": {"trigger": "schedule"}}', 'task-1', 1, '2024-01-02 09:00:00', '2024-01-02 09:00:03.5'),
    ('oa-sync', 'FAILURE', 'boom', 'Traceback (most recent call last):
  boom', '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://old.example.com"}, "secret_cfg": "gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=", "meta": {"trigger": "manual", "user": "li.na"}}', 'task-2', 1, '2024-01-02 10:00:00', '2024-01-02 10:00:01'),
    ('oa-sync', 'FAILURE', 'boom', NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://old.example.com"}, "secret_cfg": "gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=", "meta": {"trigger": "manual", "user": "li.na"}}', 'task-2', 2, '2024-01-02 10:01:00', '2024-01-02 10:01:01'),
    ('oa-sync', 'SUCCESS', NULL, NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://oa.example.com", "limit": 10}, "secret_cfg": "gAAAAABl7IeAOYTjWuFm1EsGFNIwbmqNrTt0WcWGpS827BEa48LcLt8jv6aSF-Mu0G5UOFYujPzYyiovbGPRHQI0s3DnQx2hwL5GVl4Ok8sYC3_SjDpZBbA=", "meta": {"trigger": "retry", "retry_of": 3}}', 'task-3', 0, '2024-03-01 00:00:00', '2024-03-01 00:00:01'),
    ('oa-sync', 'SUCCESS', 'no snapshot', NULL, NULL, NULL, NULL, '2023-12-31 23:59:00', NULL),
    ('gone', 'SUCCESS', 'its Job was deleted', NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"x": 1}, "secret_cfg": "gAAAAABlU_EAKLXt48i8nnsFPldf-c4LmSjIdaQDUZbPUMQCPFKRK5Vvx9otDVuDZmB_RJxIXcZCJJkHcTGf-RYP7ZiBmpQfQd5jCrul1P9u5bRo_sXqbJc=", "meta": {}}', NULL, 1, '2023-06-01 12:00:00', '2023-06-01 12:00:01'),
    ('gone', 'FAILURE', 'nothing known', NULL, 'null', NULL, 1, NULL, NULL),
    ('odd-json', 'FAILURE', 'odd', NULL, '{"public_cfg": {"text": "nul \u0000 here"}}', NULL, 1, '2024-01-03 00:00:00', '2024-01-03 00:00:01'),
    ('同步 组织/部门', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('a/b?c=1#d%20e', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('run', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('../up', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('O''Brien "x"', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    (' padded ', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('-dash', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01'),
    ('delete', 'SUCCESS', 'odd id', NULL, NULL, NULL, 1, '2024-01-04 00:00:00', '2024-01-04 00:00:01');
