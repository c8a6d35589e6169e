"""The SQL of retention: which runs and revisions are no longer kept, and whose turn it is to delete them.

Everything goes in steps of one short statement each. They lock rows that nothing else writes: ended runs, which
no claim looks at, and revisions that no Job has had for days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from connecthub.storage.schema import is_known, schema_revisions

if TYPE_CHECKING:
    from connecthub.storage.database import Database
    from connecthub.storage.jobs import Row

# In the text of the statements: a plan made for any number of rows would read whole tables.
_RUNS = 1000
_REVISIONS = 50


@dataclass(frozen=True)
class Kept:
    """How long runs are kept in days, failures of their own (None: for ever), and how many of each Job anyway."""

    days: int
    failure_days: int | None
    keep_last: int


@dataclass(frozen=True)
class Step:
    """What one step did: the id it came to (None: the end), and how many rows went."""

    reached: int | None
    gone: int


_BEGIN = f"""
UPDATE retention SET worker_id = $1, touched_at = clock_timestamp(), runs = 0, revisions = 0
WHERE (touched_at IS NULL OR touched_at <= clock_timestamp() - make_interval(secs => $2)) AND {is_known("$3")}
RETURNING true
"""
_END = """
UPDATE retention SET touched_at = now, ended_at = now FROM clock_timestamp() AS now WHERE worker_id = $1
"""


async def begin(db: Database, worker_id: UUID, every_s: float) -> bool:
    """Whether a pass begins now, and is this hub's: for `every_s` seconds no hub has been at it.

    Under a schema of a newer version neither a pass begins nor a step does anything.
    """
    return bool(await db.fetchval(_BEGIN, worker_id, every_s, schema_revisions()))


async def end(db: Database, worker_id: UUID) -> None:
    """The pass of this hub came to its end: `ended_at` is `touched_at` until the next one begins."""
    await db.execute(_END, worker_id)


_OLD = """finished_at <= clock_timestamp() - make_interval(
        days => CASE WHEN status IN ('FAILURE', 'LOST') THEN {failure_days}::int ELSE {days}::int END)
    AND coalesce(lease_expires_at <= clock_timestamp(), true)"""
# By the primary key from its left end, where the oldest runs are.
_PAGE = f"""
SELECT id, job_id, queued_at > clock_timestamp() - make_interval(days => $2) AS young,
       coalesce({_OLD.format(days="$2", failure_days="$3")}, false) AS old
FROM job_logs WHERE id > $1 ORDER BY id LIMIT {_RUNS}
"""
_BEYOND = """
SELECT j.job_id, (SELECT n.id FROM job_logs n WHERE n.job_id = j.job_id ORDER BY n.id DESC OFFSET $2 LIMIT 1) AS id
FROM unnest($1::text[]) AS j(job_id)
"""
# An attempt goes after the one before it: an owner that comes back for its LOST run after months must find that
# the next attempt has been there. A fire time goes only after the Job has moved past it, or it would run again.
_DELETE_RUNS = f"""
WITH gone AS (
    DELETE FROM job_logs l
    WHERE l.id = ANY($2::bigint[]) AND {_OLD.format(days="$3", failure_days="$4")}
      AND (SELECT e.id FROM job_logs e WHERE e.id = l.retry_of) IS NULL
      AND coalesce((SELECT j.next_run_at > l.scheduled_for FROM jobs j WHERE j.id = l.job_id), true)
      AND {is_known("$5")}
    RETURNING l.id
), counted AS (
    UPDATE retention SET touched_at = clock_timestamp(), runs = runs + (SELECT count(*) FROM gone)
    WHERE worker_id = $1 AND {is_known("$5")} RETURNING true
)
SELECT (SELECT count(*) FROM gone) AS gone, EXISTS (SELECT FROM counted) AS mine
"""


async def delete_runs(db: Database, worker_id: UUID, kept: Kept, after: int, beyond: dict[str, int]) -> Step:
    """Look at the next runs with an id above `after`, and delete those that are no longer kept.

    The end is where all of them are young, or where another hub has taken over. `beyond` is for the steps of one
    pass to remember the newest run of each Job that is not among its last ones; new runs only move that on.
    """
    page = await db.fetch(_PAGE, after, kept.days, kept.failure_days)
    unknown = {row["job_id"] for row in page if row["old"]} - beyond.keys()
    if unknown:
        found = await db.fetch(_BEYOND, list(unknown), kept.keep_last)
        beyond.update((row["job_id"], row["id"] or 0) for row in found)
    going = [row["id"] for row in page if row["old"] and row["id"] <= beyond[row["job_id"]]]
    done = await db.fetchrow(_DELETE_RUNS, worker_id, going, kept.days, kept.failure_days, schema_revisions())
    gone, mine = (done["gone"], done["mine"]) if done else (0, False)
    return Step(None if not mine or all(row["young"] for row in page) else page[-1]["id"], gone)


# A revision counts from when the next one took its place: until long after that, a run of it may be on its way.
# One of the stretch in which the Job is disabled now stays: it says since when and by whom.
_DELETE_REVISIONS = f"""
WITH page AS MATERIALIZED (
    SELECT id FROM job_revisions WHERE id > $2 ORDER BY id LIMIT {_REVISIONS}
), gone AS (
    DELETE FROM job_revisions r USING page p
    WHERE r.id = p.id AND {is_known("$4")} AND CASE
        WHEN (SELECT n.saved_at > clock_timestamp() - make_interval(days => $3) FROM job_revisions n
              WHERE n.job_id = r.job_id AND n.number > r.number ORDER BY n.number LIMIT 1) IS DISTINCT FROM false
        THEN false
        WHEN EXISTS (SELECT FROM jobs j WHERE j.id = r.job_id AND j.revision_id = r.id) THEN false
        WHEN NOT r.enabled AND NOT EXISTS (SELECT FROM job_revisions n
              WHERE n.job_id = r.job_id AND n.number > r.number AND n.enabled) THEN false
        ELSE (SELECT l.id FROM job_logs l WHERE l.job_id = r.job_id AND l.revision_id = r.id
              ORDER BY l.id LIMIT 1) IS NULL END
    RETURNING r.id
), counted AS (
    UPDATE retention SET touched_at = clock_timestamp(), revisions = revisions + (SELECT count(*) FROM gone)
    WHERE worker_id = $1 AND {is_known("$4")} RETURNING true
)
SELECT (SELECT count(*) FROM gone) AS gone,
       (SELECT max(id) FROM page WHERE EXISTS (SELECT FROM counted)) AS reached
"""


async def delete_revisions(db: Database, worker_id: UUID, kept: Kept, after: int) -> Step:
    """Look at the next revisions with an id above `after`, and delete those that nothing needs any more."""
    row = await db.fetchrow(_DELETE_REVISIONS, worker_id, after, kept.days, schema_revisions())
    return Step(row["reached"], row["gone"]) if row else Step(None, 0)


# Each start of a hub leaves a row behind.
_DELETE_HUBS = f"""
WITH gone AS (
    DELETE FROM hubs WHERE seen_at <= clock_timestamp() - make_interval(days => $1) AND {is_known("$2")}
    RETURNING true
)
SELECT count(*) FROM gone
"""


async def delete_hubs(db: Database, worker_id: UUID, kept: Kept, after: int) -> Step:
    """Delete the hubs that have not been seen for as long as runs are kept, in one step."""
    return Step(None, await db.fetchval(_DELETE_HUBS, kept.days, schema_revisions()))


_LAST = """
SELECT touched_at, runs, revisions, extract(epoch FROM clock_timestamp() - ended_at)::float8 AS age_s FROM retention
"""


async def last_pass(db: Database) -> Row:
    """touched_at (None: there was none yet), runs and revisions that went, age_s since a whole pass ended."""
    row = await db.fetchrow(_LAST)
    assert row is not None  # noqa: S101 - the table has one row
    return row
