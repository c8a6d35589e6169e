-- A run that was going when the old system ended.
INSERT INTO job_logs (job_id, status, message, traceback, snapshot_params, celery_task_id, attempt, started_at, finished_at) VALUES
    ('oa-sync', 'RUNNING', NULL, NULL, '{"handler_path": "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob", "public_cfg": {"base_url": "https://oa.example.com", "limit": 10}, "secret_cfg": "gAAAAABl7IeAOYTjWuFm1EsGFNIwbmqNrTt0WcWGpS827BEa48LcLt8jv6aSF-Mu0G5UOFYujPzYyiovbGPRHQI0s3DnQx2hwL5GVl4Ok8sYC3_SjDpZBbA=", "meta": {"trigger": "schedule"}}', 'task-9', 1, '2024-03-10 00:00:00', NULL);
