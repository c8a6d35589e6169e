-- Copies what adoption_before.sql has moved aside. Set-based, without triggers: a million runs take about a minute.
-- Times without a zone were written on clocks of Shanghai.
SET LOCAL TimeZone = 'Asia/Shanghai';

-- The ages of that system differ by these columns.
ALTER TABLE before_connecthub.jobs
    ADD COLUMN IF NOT EXISTS enabled boolean, ADD COLUMN IF NOT EXISTS public_cfg json,
    ADD COLUMN IF NOT EXISTS secret_cfg text, ADD COLUMN IF NOT EXISTS last_run_at timestamp;
ALTER TABLE before_connecthub.job_logs
    ADD COLUMN IF NOT EXISTS message text, ADD COLUMN IF NOT EXISTS traceback text,
    ADD COLUMN IF NOT EXISTS run_log text, ADD COLUMN IF NOT EXISTS snapshot_params json,
    ADD COLUMN IF NOT EXISTS celery_task_id varchar, ADD COLUMN IF NOT EXISTS attempt integer,
    ADD COLUMN IF NOT EXISTS started_at timestamp, ADD COLUMN IF NOT EXISTS finished_at timestamp;

-- json keeps what jsonb refuses (\u0000, half a surrogate pair), and any value where an object is meant: nothing of it
-- is lost, it stands under the key `adopted`.
CREATE FUNCTION pg_temp.adopted_object(given text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    found jsonb;
BEGIN
    found := given::jsonb;
    IF jsonb_typeof(found) = 'string' THEN  -- encoded twice
        found := (found #>> '{}')::jsonb;
    END IF;
    RETURN CASE coalesce(jsonb_typeof(found), 'null')
        WHEN 'object' THEN found WHEN 'null' THEN '{}' ELSE jsonb_build_object('adopted', found) END;
EXCEPTION WHEN data_exception OR untranslatable_character OR program_limit_exceeded THEN
    RETURN jsonb_build_object('adopted', given);
END $$;

-- A time that no calendar here reaches (infinity, the year 1, a typing error of 20240) would break the page of its row.
CREATE FUNCTION pg_temp.adopted_time(given timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN given >= '1970-01-01Z' AND given < '9999-12-01Z' THEN given END
$$;

CREATE TEMP TABLE adopted_jobs ON COMMIT DROP AS
SELECT coalesce(nullif(id::text, ''), '(none)') AS id, coalesce(enabled, false) AS enabled,
       coalesce(cron_expr, '') AS cron_expr, coalesce(handler_path, '') AS handler_path,
       pg_temp.adopted_object(public_cfg::text) AS public_cfg, nullif(secret_cfg, '') AS secret_cfg,
       pg_temp.adopted_time(last_run_at) AS last_run_at
FROM before_connecthub.jobs;

-- What each run ran with: its snapshot, and where that is silent, what its Job says today.
CREATE TEMP TABLE adopted_runs ON COMMIT DROP AS
SELECT l.id, l.job_id, l.at, coalesce(l.snap ->> 'handler_path', j.handler_path, '') AS handler_path,
       CASE WHEN NOT l.snap ? 'public_cfg' THEN coalesce(j.public_cfg, '{}')
            WHEN jsonb_typeof(l.snap -> 'public_cfg') = 'object' THEN l.snap -> 'public_cfg'
            ELSE pg_temp.adopted_object((l.snap -> 'public_cfg')::text) END AS public_cfg,
       CASE WHEN l.snap ? 'secret_cfg' THEN nullif(l.snap ->> 'secret_cfg', '') ELSE j.secret_cfg END AS secret_cfg,
       CASE jsonb_typeof(l.snap -> 'meta') WHEN 'object' THEN l.snap -> 'meta' ELSE '{}' END
           || CASE WHEN l.snap ? 'adopted' THEN jsonb_build_object('adopted', l.snap -> 'adopted') ELSE '{}' END AS meta
FROM (
    SELECT id, coalesce(nullif(job_id::text, ''), '(none)') AS job_id,
           coalesce(pg_temp.adopted_time(started_at), pg_temp.adopted_time(finished_at)) AS at, pg_temp.adopted_object(snapshot_params::text) AS snap
    FROM before_connecthub.job_logs OFFSET 0
) l LEFT JOIN adopted_jobs j ON j.id = l.job_id;

-- A revision for each distinct definition, in the order of their first use; the last one is the Job's of today.
CREATE TEMP TABLE adopted_definitions ON COMMIT DROP AS
SELECT *, row_number() OVER (PARTITION BY job_id ORDER BY is_current, first_at, handler_path, public_cfg) AS number
FROM (
    SELECT job_id, handler_path, public_cfg, secret_cfg, min(at) AS first_at, bool_or(is_current) AS is_current
    FROM (
        SELECT job_id, handler_path, public_cfg, secret_cfg, at, false AS is_current FROM adopted_runs
        UNION ALL
        SELECT id, handler_path, public_cfg, secret_cfg, last_run_at, true FROM adopted_jobs
    ) d
    GROUP BY job_id, handler_path, public_cfg, secret_cfg
) d;
INSERT INTO job_revisions (job_id, number, name, tags, enabled, cron_expr, timezone, handler_path, public_cfg, secret_cfg,
    misfire, misfire_window_s, overlap, timeout_s, max_attempts, retry_delays, rerun_lost, priority, saved_at, saved_by)
SELECT d.job_id, d.number, d.job_id, '{}', NOT d.is_current OR j.enabled, coalesce(j.cron_expr, ''), 'Asia/Shanghai',
       d.handler_path, d.public_cfg, d.secret_cfg, 'skip', 3600, 'allow', 0, 1, '{60,300}', false, 0,
       coalesce(d.first_at, clock_timestamp()), 'adoption'
FROM adopted_definitions d LEFT JOIN adopted_jobs j ON j.id = d.job_id
ORDER BY d.job_id, d.number;

-- Misfire, overlap and timeout as they were there: what was missed did not run, runs went side by side, and for ever.
ALTER TABLE jobs DISABLE TRIGGER USER;
INSERT INTO jobs (id, name, enabled, cron_expr, timezone, handler_path, public_cfg, secret_cfg, misfire, overlap,
    timeout_s, last_run_at, revision_id)
SELECT j.id, j.id, j.enabled, j.cron_expr, 'Asia/Shanghai', j.handler_path, j.public_cfg, j.secret_cfg, 'skip', 'allow',
       0, j.last_run_at, r.id
FROM adopted_jobs j
JOIN adopted_definitions d ON d.job_id = j.id AND d.is_current
JOIN job_revisions r ON r.job_id = d.job_id AND r.number = d.number
ORDER BY j.id;
ALTER TABLE jobs ENABLE TRIGGER USER;

ANALYZE adopted_runs, adopted_definitions, job_revisions;
INSERT INTO job_logs (id, job_id, revision_id, trigger, status, reason, attempt, idempotency_key, meta, message, traceback,
    run_log, queued_at, started_at, finished_at)
SELECT l.id, a.job_id, r.id,
       CASE WHEN a.meta ->> 'trigger' IN ('manual', 'retry', 'api') THEN a.meta ->> 'trigger' ELSE 'schedule' END,
       s.status, CASE s.status WHEN 'FAILURE' THEN 'exception' END,
       greatest(coalesce(l.attempt, 1), 1),
       coalesce(a.job_id || ':celery:' || nullif(l.celery_task_id, ''), a.job_id || ':log:' || l.id),
       a.meta || jsonb_strip_nulls(jsonb_build_object(
           'celery_task_id', l.celery_task_id,
           'adopted_times', CASE WHEN pg_temp.adopted_time(l.started_at) IS DISTINCT FROM l.started_at::timestamptz
                                     OR pg_temp.adopted_time(l.finished_at) IS DISTINCT FROM l.finished_at::timestamptz
                            THEN jsonb_build_object('started_at', l.started_at, 'finished_at', l.finished_at) END,
           'adopted_status', CASE s.status WHEN 'LOST' THEN l.status END,
           'detail', CASE s.status WHEN 'LOST' THEN 'had no end when the database was adopted' END)),
       l.message, l.traceback, l.run_log,
       coalesce(a.at, clock_timestamp()), pg_temp.adopted_time(l.started_at),
       coalesce(pg_temp.adopted_time(l.finished_at), CASE WHEN s.status <> 'LOST' THEN a.at END, clock_timestamp())
FROM before_connecthub.job_logs l
JOIN adopted_runs a ON a.id = l.id
JOIN adopted_definitions d ON d.job_id = a.job_id AND d.handler_path = a.handler_path AND d.public_cfg = a.public_cfg
    AND d.secret_cfg IS NOT DISTINCT FROM a.secret_cfg
JOIN job_revisions r ON r.job_id = d.job_id AND r.number = d.number
CROSS JOIN LATERAL (SELECT CASE WHEN upper(l.status) IN ('SUCCESS', 'FAILURE') THEN upper(l.status) ELSE 'LOST' END) s(status)
ORDER BY l.id;
SELECT setval(pg_get_serial_sequence('job_logs', 'id'), coalesce(max(id), 1), max(id) IS NOT NULL) FROM job_logs;

DO $$
BEGIN
    IF (SELECT count(*) FROM jobs) <> (SELECT count(*) FROM before_connecthub.jobs)
       OR (SELECT count(*) FROM job_logs) <> (SELECT count(*) FROM before_connecthub.job_logs) THEN
        RAISE EXCEPTION 'not all rows could be adopted; nothing was changed';
    END IF;
END $$;
INSERT INTO audit (username, action, object, detail)
SELECT 'adoption', 'hub.adopt', '', jsonb_build_object(
    'jobs', (SELECT count(*) FROM jobs), 'runs', (SELECT count(*) FROM job_logs),
    'revisions', (SELECT count(*) FROM job_revisions));
DROP FUNCTION pg_temp.adopted_object, pg_temp.adopted_time;
ANALYZE jobs, job_logs;
