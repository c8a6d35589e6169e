"""What the pages of Jobs read: the list with its states, the latest runs, revisions, and what a change would meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from connecthub.storage.jobs import Row
from connecthub.storage.run_lists import EXCERPT

if TYPE_CHECKING:
    from connecthub.storage.database import Database

STATES = ("all", "failing", "running", "disabled")
# By name of the order: the expression, and which way it goes without a minus in front.
SORTS = {
    "failing": "failing DESC, lower(name)",
    "name": "lower(name)",
    "next": "next_run_at NULLS LAST",
    "last": "ended_at DESC NULLS LAST",
    "-name": "lower(name) DESC",
    "-next": "next_run_at DESC NULLS LAST",
    "-last": "ended_at NULLS LAST",
}

# A Job is failing while it is enabled and the newest of its runs that came to a result is FAILURE or LOST.
_FOUND = """
WITH found AS (
    SELECT j.id, j.name, j.tags, j.enabled, j.cron_expr, j.timezone, j.handler_path, j.next_run_at,
           j.schedule_from, j.schedule_error, ended.finished_at AS ended_at,
           j.enabled AND (j.schedule_error IS NOT NULL OR coalesce(judged.status IN ('FAILURE', 'LOST'), false))
               AS failing,
           going.id AS going
    FROM jobs j
    LEFT JOIN LATERAL (
        SELECT status FROM job_logs l
        WHERE l.job_id = j.id AND l.status IN ('SUCCESS', 'FAILURE', 'LOST') ORDER BY l.id DESC LIMIT 1
    ) judged ON true
    LEFT JOIN LATERAL (
        SELECT finished_at FROM job_logs l
        WHERE l.job_id = j.id AND l.finished_at IS NOT NULL ORDER BY l.id DESC LIMIT 1
    ) ended ON true
    LEFT JOIN LATERAL (
        SELECT id FROM job_logs l
        WHERE l.job_id = j.id AND l.lease_expires_at IS NOT NULL AND l.status = 'RUNNING' ORDER BY l.id LIMIT 1
    ) going ON true
    WHERE ($1 = '' OR j.id ILIKE $2 OR j.name ILIKE $2 OR j.handler_path ILIKE $2
           OR EXISTS (SELECT FROM unnest(j.tags) AS tag WHERE tag ILIKE $2))
      AND ($3 = '' OR $3 = ANY(j.tags)) AND ($4::text[] IS NULL OR j.id = ANY($4))
)
"""
_STATE = {
    "all": "true",
    "failing": "failing",
    "running": "going IS NOT NULL",
    "disabled": "NOT enabled",
}


@dataclass(frozen=True)
class JobFilter:
    """What narrows the list: a text in id, name, handler or tags, one exact tag, one of STATES."""

    q: str = ""
    tag: str = ""
    state: str = "all"

    def values(self, job_ids: Sequence[str] | None = None) -> tuple[object, ...]:
        """The arguments of the query, which looks at `job_ids` only where they are given."""
        escaped = self.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return self.q, f"%{escaped}%", self.tag, None if job_ids is None else list(job_ids)


async def count_jobs(db: Database, wanted: JobFilter) -> dict[str, int]:
    """How many Jobs match text and tag, by state."""
    columns = ", ".join(f"count(*) FILTER (WHERE {_STATE[state]}) AS {state}_jobs" for state in STATES)
    row = await db.fetchrow(f"{_FOUND} SELECT {columns} FROM found", *wanted.values())
    return {state: int(row[f"{state}_jobs"]) if row else 0 for state in STATES}


async def list_jobs(db: Database, wanted: JobFilter, sort: str, limit: int, offset: int) -> list[Row]:
    """One page of the Jobs that match; `sort` is one of SORTS."""
    return await db.fetch(
        f"{_FOUND} SELECT * FROM found WHERE {_STATE[wanted.state]} ORDER BY {SORTS[sort]}, id LIMIT $5 OFFSET $6",
        *wanted.values(),
        limit,
        offset,
    )


async def jobs_again(db: Database, job_ids: Sequence[str]) -> list[Row]:
    """The same columns of these Jobs, in this order; those that are gone are left out."""
    rows = await db.fetch(f"{_FOUND} SELECT * FROM found", *JobFilter().values(job_ids))
    by_id = {row["id"]: row for row in rows}
    return [by_id[job_id] for job_id in job_ids if job_id in by_id]


async def has_many_jobs(db: Database, many: int) -> bool:
    """Whether there are more Jobs than that."""
    return bool(await db.fetchval("SELECT EXISTS (SELECT FROM jobs OFFSET $1)", many))


async def matching_ids(db: Database, wanted: JobFilter) -> list[str]:
    """The ids of all Jobs that match."""
    rows = await db.fetch(
        f"{_FOUND} SELECT id FROM found WHERE {_STATE[wanted.state]} ORDER BY id", *wanted.values()
    )
    return [row["id"] for row in rows]


async def all_tags(db: Database) -> list[str]:
    """Every tag in use."""
    rows = await db.fetch("SELECT DISTINCT unnest(tags) AS tag FROM jobs ORDER BY tag LIMIT 200")
    return [row["tag"] for row in rows]


_LATEST = f"""
SELECT l.* FROM unnest($1::text[]) AS wanted(job_id), LATERAL (
    SELECT id, job_id, status, reason, trigger, attempt, scheduled_for, queued_at, started_at, finished_at,
           not_before, {EXCERPT}, triggered_by,
           CASE WHEN pg_column_size(result) < 2000 THEN result END AS result,
           CASE WHEN status = 'SUCCESS' AND pg_column_size(result) < 20000 AND jsonb_typeof(result -> 'failed') = 'number'
               THEN (result -> 'failed')::numeric > 0 ELSE false END AS has_failed
    FROM job_logs WHERE job_logs.job_id = wanted.job_id ORDER BY id DESC LIMIT $2
) l
"""


async def newest_runs(db: Database, job_ids: Sequence[str], count: int) -> dict[str, list[Row]]:
    """The `count` newest runs of each Job, newest first."""
    runs: dict[str, list[Row]] = {job_id: [] for job_id in job_ids}
    for row in await db.fetch(_LATEST, list(job_ids), count):
        runs[row["job_id"]].append(row)
    return runs


# The change that disabled it, not a later edit of the disabled Job.
_DISABLED = """
SELECT DISTINCT ON (r.job_id) r.job_id, r.saved_at, r.saved_by
FROM unnest($1::text[]) AS wanted(job_id) JOIN job_revisions r USING (job_id)
WHERE r.number > coalesce((SELECT max(number) FROM job_revisions e WHERE e.job_id = r.job_id AND e.enabled), 0)
ORDER BY r.job_id, r.number
"""


async def disabled_by(db: Database, job_ids: Sequence[str]) -> dict[str, Row]:
    """When each of these Jobs was disabled (`saved_at`), and by whom (`saved_by`)."""
    return {row["job_id"]: row for row in await db.fetch(_DISABLED, list(job_ids))}


_HEALTH = f"""
WITH judged AS (
    SELECT id, status, coalesce(started_at, queued_at) AS begun_at, finished_at, {EXCERPT}, reason FROM job_logs
    WHERE job_id = $1 AND status IN ('SUCCESS', 'FAILURE', 'LOST') ORDER BY id DESC LIMIT 1000
), good AS (SELECT max(id) AS id, max(finished_at) AS at FROM judged WHERE status = 'SUCCESS'),
bad AS (SELECT count(*) AS streak, min(begun_at) AS since FROM judged WHERE id > coalesce((SELECT id FROM good), 0))
SELECT good.at AS last_success, bad.streak, bad.since,
       (SELECT excerpt FROM judged ORDER BY id DESC LIMIT 1) AS excerpt,
       (SELECT reason FROM judged ORDER BY id DESC LIMIT 1) AS reason,
       (SELECT count(*) FROM judged WHERE finished_at > clock_timestamp() - interval '30 days') AS judged_30d,
       (SELECT count(*) FROM judged WHERE finished_at > clock_timestamp() - interval '30 days'
            AND status = 'SUCCESS') AS good_30d,
       (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM (
            SELECT extract(epoch FROM finished_at - started_at)::float8 AS seconds FROM job_logs
            WHERE job_id = $1 AND status = 'SUCCESS' AND started_at IS NOT NULL ORDER BY id DESC LIMIT 50) d
        HAVING count(*) >= 5) AS usual_s,
       (SELECT max(extract(epoch FROM finished_at - started_at))::float8 FROM (
            SELECT finished_at, started_at FROM job_logs
            WHERE job_id = $1 AND status = 'SUCCESS' AND started_at IS NOT NULL ORDER BY id DESC LIMIT 50) d)
           AS longest_s
FROM good, bad
"""


async def job_health(db: Database, job_id: str) -> Row:
    """Streak of failures and since when, the last success, 30 days in figures, usual and longest seconds."""
    row = await db.fetchrow(_HEALTH, job_id)
    assert row is not None  # noqa: S101 - aggregates always give a row
    return row


DEFINITION = (
    "name, tags, enabled, cron_expr, timezone, handler_path, public_cfg, secret_cfg, misfire, misfire_window_s, "
    "overlap, timeout_s, max_attempts, retry_delays, rerun_lost, priority"
)


async def list_revisions(db: Database, job_id: str, limit: int, before: int = 2**31 - 1) -> list[Row]:
    """The newest revisions below the number `before`, newest first, whole."""
    return await db.fetch(
        f"SELECT id, number, saved_at, saved_by, {DEFINITION} FROM job_revisions"
        " WHERE job_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        job_id,
        before,
        limit,
    )


async def read_revision(db: Database, job_id: str, number: int) -> Row | None:
    """One revision of a Job by its number."""
    rows = await list_revisions(db, job_id, 1, number + 1)
    return rows[0] if rows and rows[0]["number"] == number else None


_OF_SECRETS = """
SELECT saved_at, saved_by, secret_cfg FROM (
    SELECT *, lag(secret_cfg) OVER (ORDER BY number) AS before FROM job_revisions WHERE job_id = $1
) r WHERE secret_cfg IS DISTINCT FROM before ORDER BY number DESC LIMIT 50
"""


async def secret_revisions(db: Database, job_id: str) -> list[Row]:
    """The newest revisions that changed the secrets, newest first: saved_at, saved_by, secret_cfg."""
    return await db.fetch(_OF_SECRETS, job_id)


async def revision_by_id(db: Database, job_id: str, revision_id: int) -> Row | None:
    """One revision of a Job by its id."""
    return await db.fetchrow(
        f"SELECT id, number, saved_at, saved_by, {DEFINITION} FROM job_revisions WHERE job_id = $1 AND id = $2",
        job_id,
        revision_id,
    )


_WEIGHT = """
SELECT count(*) FILTER (WHERE finished_at IS NOT NULL AND NOT is_going(status, not_before, lease_expires_at))
           AS records,
       min(queued_at) FILTER (WHERE finished_at IS NOT NULL) AS first_at,
       count(*) FILTER (WHERE status = 'QUEUED' AND trigger = 'schedule') AS queued
FROM job_logs WHERE job_id = ANY($1::text[])
"""
_GOING = """
SELECT id, job_id, status, started_at, queued_at FROM job_logs
WHERE job_id = ANY($1::text[]) AND (status = 'QUEUED' OR lease_expires_at IS NOT NULL)
  AND is_going(status, not_before, lease_expires_at)
ORDER BY id
"""


@dataclass(frozen=True)
class Weight:
    """What hangs on some Jobs at this moment: what a person is told before changing them."""

    jobs: list[Row]  # those that exist, by name
    going: list[Row]  # runs queued and due, running, or still holding a place
    records: int  # ended runs
    first_at: datetime | None
    queued: int  # scheduled runs that disabling would cancel
    revisions: int

    @property
    def running(self) -> list[Row]:
        """Runs that go on whatever is done to their Job."""
        return [run for run in self.going if run["status"] != "QUEUED"]


async def weigh(db: Database, job_ids: Sequence[str]) -> Weight:
    """Counts for a confirmation, read now."""
    wanted = list(job_ids)
    async with db.transaction() as connection:
        jobs = await connection.fetch(
            "SELECT id, name, enabled, cron_expr, timezone, next_run_at, schedule_from, schedule_error, handler_path,"
            " public_cfg, revision_id FROM jobs WHERE id = ANY($1::text[]) ORDER BY lower(name), id",
            wanted,
        )
        sums = await connection.fetchrow(_WEIGHT, wanted)
        going = await connection.fetch(_GOING, wanted)
        revisions = await connection.fetchval(
            "SELECT count(*) FROM job_revisions WHERE job_id = ANY($1::text[])", wanted
        )
    assert sums is not None  # noqa: S101 - aggregates always give a row
    return Weight(jobs, going, sums["records"], sums["first_at"], sums["queued"], revisions)
