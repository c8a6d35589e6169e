-- Of the system that ConnectHub replaces: its tables move aside, into a schema of their own, where they stay.
SET LOCAL lock_timeout = '5s';
CREATE SCHEMA IF NOT EXISTS before_connecthub;
DO $$
DECLARE
    moved record;
BEGIN
    FOR moved IN
        SELECT c.relname FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT EXISTS (SELECT FROM pg_depend d
                          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('ALTER TABLE %I SET SCHEMA before_connecthub', moved.relname);
    END LOOP;
END $$;
