-- The ids of the keys that each hub has, the newest first: a secret is not written with a key that one lacks.
ALTER TABLE hubs ADD COLUMN key_ids text[] NOT NULL DEFAULT '{}';

-- A rotation writes the same secret under another key, in Job and revisions alike: no change, no new revision.
DROP TRIGGER jobs_2_revise ON jobs;
CREATE TRIGGER jobs_2_revise BEFORE INSERT OR UPDATE OF id, name, tags, enabled, cron_expr, timezone, handler_path,
    public_cfg, secret_cfg, misfire, misfire_window_s, overlap, timeout_s, max_attempts, retry_delays, rerun_lost,
    priority, revision_id ON jobs
    FOR EACH ROW WHEN (current_setting('connecthub.rotation', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION jobs_revise();
