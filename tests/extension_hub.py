"""Both stand-ins and a run of an example Job: for tests of extensions/sync_oa_to_didi."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from connecthub.plugins import BaseJob, RunContext
from extensions.sync_oa_to_didi.job import SyncOAToDidiLegalEntitySyncJob
from tests.standins import Dataset, DidiStandin, OaStandin, make_dataset, member
from tests.standins.__main__ import job_settings
from tests.standins.clients import forget_tokens

COMPANY, COMPANY_ID = "上海示例科技有限公司", "9007199254740993"
OTHER_ID = "9007199254740997"


class Hub:
    """Both stand-ins on one data set, and what a hub keeps of a run."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.oa, self.didi = OaStandin(data), DidiStandin(data)
        self.didi.switches.min_interval_ms = 0
        self.progress: list[tuple[int, int | None]] = []
        self.masked: list[str] = []

    async def run(self, job: BaseJob, public: dict[str, Any], secret: dict[str, Any]) -> Any:
        self.progress, self.masked = [], []
        job.ctx = RunContext(
            1,
            "job",
            None,
            1,
            "manual",
            "job:run:1",
            on_mask=self.masked.append,
            on_progress=lambda done, total: self.progress.append((done, total)),
        )
        return await job.run(public, secret)

    def settings(self, job: BaseJob) -> tuple[dict[str, Any], dict[str, str]]:
        public, secret = job_settings(self.oa.url, self.didi.url)[type(job).__name__]
        return dict(public), dict(secret)

    def sync(self, secrets: dict[str, Any] | None = None, **params: Any) -> Any:
        job = SyncOAToDidiLegalEntitySyncJob()
        public, secret = self.settings(job)
        public |= {"edit_interval_ms": 0} | params
        return asyncio.run(self.run(job, public, secret | (secrets or {})))

    def rows(self, *rows: dict[str, Any]) -> None:
        """Only these rows; each employee of them belongs to another company so far."""
        self.data.rows = list(rows)
        numbers = {row["masterData"]["field0001"]["value"].strip() for row in rows} - {""}
        self.data.members.clear()
        self.data.members.update({number: member(number, OTHER_ID) for number in numbers})


def serving(rows: int) -> Iterator[Hub]:
    """Both stand-ins on `rows` rows, for the time of a test."""
    forget_tokens()
    hub = Hub(make_dataset(rows))
    with hub.oa, hub.didi:
        yield hub
