-- The list of runs goes by id; what is rare is found by an index of its own, what is common by walking down the ids.
CREATE INDEX job_logs_status ON job_logs (status, id) WHERE status IN ('FAILURE', 'LOST', 'CANCELLED', 'SKIPPED');
CREATE INDEX job_logs_reason ON job_logs (reason, id) WHERE reason IS NOT NULL;
-- Figures per hour, and where a span of time begins and ends among the ids, without a look into the table.
CREATE INDEX job_logs_queued ON job_logs (queued_at) INCLUDE (id, job_id, status);
