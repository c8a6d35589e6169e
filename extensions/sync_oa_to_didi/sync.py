"""The synchronisation itself: read who belongs where, plan the edits, make them, report.

`job.py` holds the Job; nothing here knows of runs.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from connecthub.errors import (
    AccessError,
    ConfigurationError,
    CredentialsError,
    DataError,
    IntegrationError,
    RateError,
    RemoteError,
)
from connecthub.integrations import DidiClient, ExportRow

log = logging.getLogger(__name__)

EMPLOYEE_NUMBER = "工号"
COMPANY = "所属公司"

_MOST_ERRORS = 50  # in a result
_LONGEST_CELL = 200  # characters of an employee number or a company name
_LONGEST_SHOWN = 500
# So many employees in a row that fail for a reason which is not their own: the other system is down, or the
# configuration is wrong. Going on would take hours and change nothing.
_GIVE_UP_AFTER = 10
_REFUSED_PARAMETER = ("400", "10003")  # errno of DiDi: what this call sent, so the employee's own


class SyncError(Exception):
    """The run did not do what its Job is for; the message says why, with the figures."""


@dataclass(frozen=True)
class Assignment:
    """What the OA says: this employee belongs to this company. `rows` say so, more than one at times."""

    employee_number: str
    company: str
    rows: list[int]


@dataclass(frozen=True)
class Change:
    """An edit to be made: the legal entity `before` and `after`."""

    assignment: Assignment
    before: str
    after: str

    def shown(self) -> dict[str, Any]:
        return {
            "row": self.assignment.rows[0],
            "employee_number": self.assignment.employee_number,
            "company": self.assignment.company,
            "from": _shown(self.before),
            "to": self.after,
        }


@dataclass
class Report:
    """The figures of a run. Each row is counted once: success, skipped or failed."""

    total: int
    on_progress: Callable[[int, int | None], None]
    success: int = 0
    skipped: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def count(self, *, success: int = 0, skipped: int = 0) -> None:
        self.success += success
        self.skipped += skipped
        self.on_progress(self.success + self.skipped + len(self.errors), self.total)

    def fail(self, rows: Sequence[int], employee_number: str, error: object) -> None:
        number, text = _shown(employee_number), _shown(str(error))
        for row in rows:
            log.info("row %d, employee %s: %s", row, number or "(unknown)", text)
            self.errors.append({"row": row, "employee_number": number, "error": text})
        self.count()

    @property
    def figures(self) -> str:
        failed = len(self.errors)
        return f"{self.total} rows: {self.success} edited, {self.skipped} already right, {failed} failed"

    def check_success(self) -> None:
        """Raises SyncError where not one row is right."""
        if len(self.errors) == self.total:
            first = self.errors[0]
            raise SyncError(f"every row failed; {self.figures}; first: row {first['row']}: {first['error']}")

    def result(self) -> dict[str, Any]:
        if self.errors:
            log.warning("%s", self.figures)
        self.errors.sort(key=lambda error: int(error["row"]))
        return {
            "total": self.total,
            "success": self.success,
            "skipped": self.skipped,
            "failed": len(self.errors),
            "errors": self.errors[:_MOST_ERRORS],
        }


def read_assignments(rows: Sequence[ExportRow], report: Report) -> list[Assignment]:
    """Who belongs where, in the order of the rows. Rows that do not say so, or say two companies, fail.

    Raises SyncError where there are no rows, or where one of the two fields is missing.
    """
    if not rows:
        raise SyncError("the export has no rows; check oa_templateCode, the dates and the form right")
    said: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        employee_number, company = _text(row, EMPLOYEE_NUMBER), _text(row, COMPANY)
        problem = row.problem or _problem(EMPLOYEE_NUMBER, employee_number) or _problem(COMPANY, company)
        if problem or employee_number is None or company is None:
            report.fail([row.number], employee_number or "", problem)
        else:
            said[employee_number][company].append(row.number)
    assignments = []
    for employee_number, companies in said.items():
        if len(companies) == 1:
            assignments += [Assignment(employee_number, *each) for each in companies.items()]
            continue
        numbers = sorted(number for each in companies.values() for number in each)
        report.fail(
            numbers, employee_number, f"rows {numbers} name different companies: {', '.join(companies)}"
        )
    return assignments


def _problem(display: str, text: str | None) -> str:
    """Why a cell is no text to send on, or nothing."""
    if text is None:
        return f"the row does not have exactly one of the fields displayed as {display}"
    if len(text) > _LONGEST_CELL or "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        return f"{display} holds what no name or number holds"
    return "" if text else f"{display} is blank"


def _shown(text: str) -> str:
    """`text` as a result can hold it: one short line, and without what PostgreSQL cannot store."""
    line = " ".join(text[:_LONGEST_SHOWN].split())
    return line.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _text(row: ExportRow, display: str) -> str | None:
    """What the row says there; None where several fields are displayed so, and it has not just one of them.

    Raises SyncError where the form has no such field.
    """
    if not any(each.display.strip() == display for each in row.fields):
        raise SyncError(f"the form has no field displayed as {display}")
    names = row.names(display)
    if len(names) != 1:
        return None
    cell = row.cells.get(names[0])
    return cell.text if cell else ""


class Sync:
    """Compares what the OA says with what DiDi holds, then edits where they differ.

    An error of one employee fails its rows and no others. A refused log-in ends the run at once, and so does
    a missing permission before any member could be read. Ten employees in a row whose error is not their own
    end it too: outage, rate, and, as long as no call of the kind has worked, permission and configuration.
    """

    def __init__(self, didi: DidiClient, report: Report) -> None:
        self._didi = didi
        self._report = report
        self._entities: dict[str, str | DataError] = {}  # by company name
        self._in_a_row = 0
        self._allowed = False  # a member was read or edited in this run
        self._works = False  # and by a call of this kind: what we sent is right in general

    async def plan(self, assignments: Sequence[Assignment]) -> list[Change]:
        """The edits that are needed. Edits nothing."""
        changes: list[Change] = []
        self._works = False
        for assignment in assignments:
            await self._isolated(assignment, self._compare(assignment, changes))
        return changes

    async def edit(self, changes: Sequence[Change]) -> None:
        self._works = False
        for change in changes:
            await self._isolated(change.assignment, self._edit(change))

    async def _compare(self, assignment: Assignment, changes: list[Change]) -> None:
        employee_number = assignment.employee_number
        after = await self._entity(assignment.company)
        member = await self._didi.member_detail(employee_number=employee_number)
        self._allowed = self._works = True
        if str(member.get("employee_number", employee_number)).strip() != employee_number:
            raise DataError(f"DiDi answered with employee {member['employee_number']}")
        if member["legal_entity_id"] == after:
            self._report.count(skipped=len(assignment.rows))
        else:
            changes.append(Change(assignment, member["legal_entity_id"], after))

    async def _edit(self, change: Change) -> None:
        employee_number, rows = change.assignment.employee_number, change.assignment.rows
        await self._didi.member_edit({"legal_entity_id": change.after}, employee_number=employee_number)
        self._allowed = self._works = True
        before = _shown(change.before) or "(none)"
        log.info("employee %s: %s -> %s", employee_number, before, change.after)
        # Further rows that say the same are right by now.
        self._report.count(success=1, skipped=len(rows) - 1)

    async def _entity(self, company: str) -> str:
        """The id of the company's legal entity; each name is asked for once."""
        if company not in self._entities:
            try:
                found = (await self._didi.find_legal_entity(company))["legal_entity_id"]
                # A member without a company would otherwise count as one of it.
                self._entities[company] = found or DataError(f"DiDi holds {company} without an id")
            except DataError as error:
                self._entities[company] = error
        known = self._entities[company]
        if isinstance(known, DataError):
            raise DataError(str(known))
        return known

    async def _isolated(self, assignment: Assignment, work: Awaitable[None]) -> None:
        """Do `work` for one employee; what fails there is reported, and ends the run only as said above."""
        try:
            await work
        except (IntegrationError, ValueError) as error:  # ValueError: the client refuses what it is given
            if isinstance(error, CredentialsError) or (isinstance(error, AccessError) and not self._allowed):
                log.warning("stopped; %s", self._report.figures)
                raise
            self._report.fail(assignment.rows, assignment.employee_number, error)
            self._in_a_row = self._in_a_row + 1 if self._shared(error) else 0
            if self._in_a_row >= _GIVE_UP_AFTER:
                raise SyncError(
                    f"gave up after {self._in_a_row} employees in a row, the last with: "
                    f"{_shown(str(error))}; {self._report.figures}"
                ) from error
        else:
            self._in_a_row = 0

    def _shared(self, error: Exception) -> bool:
        """Whether the next employee can be expected to fail in the same way."""
        if isinstance(error, (AccessError, ConfigurationError)):
            return not self._works and error.code not in _REFUSED_PARAMETER
        return isinstance(error, (RateError, RemoteError))
