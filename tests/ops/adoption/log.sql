-- A run's own log.
UPDATE job_logs SET run_log = '2024-01-02 09:00:00 INFO hello' WHERE celery_task_id = 'task-1';
