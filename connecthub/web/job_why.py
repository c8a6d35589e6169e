"""Why a Job did or did not run at a moment: one answer from the records. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from connecthub import cron
from connecthub.errors import ScheduleError
from connecthub.storage.job_history import Facts
from connecthub.storage.jobs import Row

# A hub that was not seen for so long was not alive: its beat comes every few seconds.
_BLINK = timedelta(seconds=90)


@dataclass(frozen=True)
class Answer:
    """`key` names the sentence `why.<key>` with its `values`: datetimes among them are shown as times, a
    ScheduleError in the reader's language.

    `runs` are the rows the sentence rests on, `blocked_by` the number of a run that stood in the way.
    """

    key: str
    values: dict[str, Any] = field(default_factory=dict)
    runs: tuple[Row, ...] = ()
    blocked_by: int | None = None


def answer(facts: Facts, moment: datetime, now: datetime, kept_days: int) -> Answer:
    """The first that the records say; `moment` is the start of a minute.

    `kept_days`: how long runs are kept, 0 for ever.
    """
    if facts.run is not None and facts.run["reason"] != "missed":
        return _of_run(facts.run)
    if facts.revision is None:
        return Answer("not_yet", {"at": facts.first_saved}) if facts.first_saved else Answer("not_kept")
    if facts.disabled is not None:
        return Answer("disabled", {"by": facts.disabled.by or "SQL", "at": facts.disabled.since})
    due = _due(facts.revision, moment)
    if isinstance(due, ScheduleError):
        return Answer("broken", {"text": due})
    if due != moment:
        return Answer("not_due", {"at": due})
    if moment > now:
        return Answer("future", {"at": moment})
    if facts.schedule_error:
        return Answer("broken", {"text": facts.schedule_error})
    is_old = bool(kept_days) and moment < now - timedelta(days=kept_days)
    # Hubs that were alive then may be kept no longer.
    found = _absent(replace(facts, down=None) if is_old else facts)
    return Answer("not_kept") if is_old and found.key == "unknown" else found


def _of_run(run: Row) -> Answer:
    if run["status"] == "SKIPPED":
        meta = json.loads(run["meta"])
        if run["reason"] == "bad_schedule":
            return Answer("broken", {"text": meta.get("detail", "")}, (run,))
        key = f"skipped_{run['reason']}" if run["reason"] in ("overlap", "changed") else "skipped"
        return Answer(key, {"reason": run["reason"]}, (run,), meta.get("blocked_by"))
    if run["status"] == "CANCELLED" and run["started_at"] is None:
        return Answer("cancelled", {"reason": run["reason"]}, (run,))
    if run["started_at"] is None:
        return Answer("waiting" if run["finished_at"] is None else "ended_unstarted", {}, (run,))
    return Answer("ran", {}, (run,))


def _due(revision: Row, moment: datetime) -> datetime | ScheduleError:
    """The first fire time from `moment` on, or what is wrong with the schedule."""
    try:
        return cron.next_fire(revision["cron_expr"], revision["timezone"], moment - timedelta(seconds=1))
    except ScheduleError as error:
        return error


def _absent(facts: Facts) -> Answer:
    """It was due, and no row has this fire time."""
    runs = tuple(run for run in (facts.missed, facts.made_up) if run is not None)
    if facts.paused is not None:
        return Answer("paused", {"by": facts.paused.by or "?", "at": facts.paused.since}, runs)
    down = facts.down
    if down is not None and (
        down.since is None or down.until is None or down.until - down.since > _BLINK or runs
    ):
        return Answer(
            "down" if down.until else "still_down", {"since": down.since, "until": down.until}, runs
        )
    if facts.missed is not None:
        missed = json.loads(facts.missed["meta"])["missed"]
        begin, end = (datetime.fromisoformat(missed[name]) for name in ("from", "to"))
        return Answer("missed", {"since": begin, "until": end, "count": missed["count"]}, runs)
    if facts.cleared is not None:
        return Answer("cleared", {"by": facts.cleared.by, "at": facts.cleared.since})
    return Answer("unknown")
