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
            "from": self.before,
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
            log.info("row %d, employee %s: %s", row, number or "(blank)", text)
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
    """Who belongs where, in the order of the rows. Blank cells, and employees of two companies, fail.

    Raises SyncError where there are no rows, or where one of the two fields is missing.
    """
    if not rows:
        raise SyncError("the export has no rows; check oa_templateCode, the dates and the form right")
    said: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        employee_number, company = _text(row, EMPLOYEE_NUMBER), _text(row, COMPANY)
        said_by = {EMPLOYEE_NUMBER: employee_number, COMPANY: company}
        unusable = [name for name, text in said_by.items() if _odd(text)]
        if row.problem:
            report.fail([row.number], "", row.problem)
        elif unusable:
            report.fail([row.number], employee_number, f"{unusable[0]} holds what no name or number holds")
        elif employee_number and company:
            said[employee_number][company].append(row.number)
        else:
            report.fail(
                [row.number], employee_number, f"{COMPANY if employee_number else EMPLOYEE_NUMBER} is blank"
            )
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


def _odd(text: str) -> bool:
    """Whether a cell is no text to send on: too long, or with characters that no system can store."""
    return len(text) > _LONGEST_CELL or "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text)


def _shown(text: str) -> str:
    """`text` as a result can hold it: short, and without what PostgreSQL cannot store."""
    return text[:_LONGEST_SHOWN].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _text(row: ExportRow, display: str) -> str:
    names = row.names(display)
    if len(names) != 1:
        raise SyncError(f"the form has {'more than one' if names else 'no'} field displayed as {display}")
    cell = row.cells.get(names[0])
    return cell.text if cell else ""


class Sync:
    """Compares what the OA says with what DiDi holds, then edits where they differ.

    An error of one employee fails its rows and no others. A refused log-in ends the run at once, and so does
    a missing permission as long as nothing has worked; ten employees in a row whose error is not their own
    (outage, rate, and, as long as nothing has worked, address and parameters) end it too.
    """

    def __init__(self, didi: DidiClient, report: Report) -> None:
        self._didi = didi
        self._report = report
        self._entities: dict[str, str | DataError] = {}  # by company name
        self._in_a_row = 0
        self._works = False  # a call of this kind has worked, so what fails is the employee's own

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
        if str(member.get("employee_number", employee_number)).strip() != employee_number:
            raise DataError(f"DiDi answered with employee {member['employee_number']}")
        if member["legal_entity_id"] == after:
            self._report.count(skipped=len(assignment.rows))
        else:
            changes.append(Change(assignment, member["legal_entity_id"], after))

    async def _edit(self, change: Change) -> None:
        employee_number, rows = change.assignment.employee_number, change.assignment.rows
        await self._didi.member_edit({"legal_entity_id": change.after}, employee_number=employee_number)
        log.info("employee %s: %s -> %s", employee_number, change.before or "(none)", change.after)
        # Further rows that say the same are right by now.
        self._report.count(success=1, skipped=len(rows) - 1)

    async def _entity(self, company: str) -> str:
        """The id of the company's legal entity; each name is asked for once."""
        if company not in self._entities:
            try:
                self._entities[company] = (await self._didi.find_legal_entity(company))["legal_entity_id"]
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
        except IntegrationError as error:
            if isinstance(error, CredentialsError) or (isinstance(error, AccessError) and not self._works):
                log.warning("stopped; %s", self._report.figures)
                raise
            self._report.fail(assignment.rows, assignment.employee_number, error)
            own = isinstance(error, DataError) or (self._works and isinstance(error, ConfigurationError))
            shared = not own and isinstance(error, (AccessError, ConfigurationError, RateError, RemoteError))
            self._in_a_row = self._in_a_row + 1 if shared else 0
            if self._in_a_row >= _GIVE_UP_AFTER:
                raise SyncError(
                    f"gave up after {self._in_a_row} employees in a row, the last with: {error}; "
                    f"{self._report.figures}"
                ) from error
        else:
            self._in_a_row, self._works = 0, True
