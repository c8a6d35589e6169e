"""Three Jobs from 致远 OA to 滴滴企业版: get a token, export a form, synchronise companies.

They are templates: copy this folder beside itself under another name, and change what you need.
"""

from __future__ import annotations

import logging
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from connecthub.integrations import DidiClient, ExportQuery, SeeyonClient
from connecthub.plugins import BaseJob, RunContext

from .sync import Report, Sync, SyncError, read_assignments

log = logging.getLogger(__name__)

_CHUNK = 8000  # characters of one log line


class _Config(BaseModel):
    """A misspelt name is refused, and no error quotes a value, which may be a secret."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_absent(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None and value != ""}


class OaSecrets(_Config):
    """The REST account of the OA."""

    rest_user: str = Field(description="REST account of the OA")
    rest_password: str = Field(description="Password of the REST account")
    loginName: str | None = Field(None, description="OA user to act for; empty for none")


class ExportOptions(_Config):
    """What narrows an export; every field may stay empty."""

    beginDateTime: str | None = Field(None, description="First day, such as 2026-01-31")
    endDateTime: str | None = Field(None, description="Last day, such as 2026-12-31")
    senderLoginName: str | None = Field(None, description="Passed to the OA as it is")
    rightId: str | None = Field(None, description="Id of the form right to read with")
    doTrigger: bool | str | None = Field(None, description="Passed to the OA as it is")
    param: Any = Field(None, description="Passed to the OA as it is")
    extra: dict[str, Any] | None = Field(
        None, description='Further parameters of the export, such as {"page": 2}; they win over all others'
    )

    def query(self, template_code: str) -> ExportQuery:
        options = {name: getattr(self, name) for name in ExportOptions.model_fields}
        return ExportQuery(templateCode=template_code, **options)


class SyncOAToDidiTokenJob(BaseJob):
    """Log in to 致远 OA and log the token, masked: shows that address and account are right."""

    class Params(_Config):
        base_url: str = Field(description="Address of the OA, such as https://oa.example.com")

    Secrets = OaSecrets

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
        given = self.Params.model_validate(params)
        oa = _oa(given.base_url, self.Secrets.model_validate(secrets), self.ctx)
        token = await oa.authenticate(fresh=True)
        masked = f"{token[:4] if len(token) >= 16 else ''}****"
        log.info("got a token of %d characters: %s", len(token), masked)
        return {"token": masked, "message": "the OA gave a token"}


class SyncOAToDidiExportFormJob(BaseJob):
    """Export one page of a CAP4 form from 致远 OA and keep the answer as it came."""

    class Params(ExportOptions):
        base_url: str = Field(description="Address of the OA, such as https://oa.example.com")
        templateCode: str = Field(description="Code of the form template")

    Secrets = OaSecrets

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
        given = self.Params.model_validate(params)
        oa = _oa(given.base_url, self.Secrets.model_validate(secrets), self.ctx)
        page = await oa.export_raw(given.query(given.templateCode))
        for start in range(0, len(page.text), _CHUNK):
            log.info("%s", page.text[start : start + _CHUNK])
        if page.meta["rows"] >= int(page.meta["page_size"]):
            log.warning(
                "page %s is full: there may be more rows; give extra to read on, such as %s",
                page.meta["page"],
                {"page": int(page.meta["page"]) + 1},
            )
        return {"raw": page.text, "meta": page.meta}


class SyncOAToDidiLegalEntitySyncJob(BaseJob):
    """Copy each employee's company from a form of 致远 OA to the legal entity in 滴滴企业版."""

    class Params(ExportOptions):
        oa_base_url: str = Field(description="Address of the OA, such as https://oa.example.com")
        oa_templateCode: str = Field(description="Code of the form with the fields 工号 and 所属公司")
        didi_base_url: str = Field(description="Address of DiDi, such as https://api.es.xiaojukeji.com")
        edit_interval_ms: int = Field(
            150, ge=0, description="Milliseconds between two edits; DiDi asks for 150"
        )
        dry_run: bool = Field(False, description="List what would be changed, and change nothing")
        max_edits: int | None = Field(None, ge=0, description="Fail before the first edit if there were more")

    class Secrets(OaSecrets):
        company_id: str = Field(description="company_id of DiDi")
        client_id: str = Field(description="client_id of DiDi")
        client_secret: str = Field(description="client_secret of DiDi")
        sign_key: str = Field(description="sign_key of DiDi")
        phone: str | None = Field(None, description="Phone of the DiDi administrator; older clients need it")

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
        given, account = self.Params.model_validate(params), self.Secrets.model_validate(secrets)
        oa = _oa(given.oa_base_url, account, self.ctx)
        didi = DidiClient(
            given.didi_base_url,
            account.client_id,
            account.client_secret,
            account.sign_key,
            account.company_id,
            account.phone,
            edit_interval_ms=given.edit_interval_ms,
            mask=self.ctx.mask,
        )
        # Before any row, so that a wrong key or clock ends the run at once.
        await didi.authenticate()
        rows = [row async for row in oa.export_rows(given.query(given.oa_templateCode))]
        report = Report(len(rows), self.ctx.progress)
        sync = Sync(didi, report)
        changes = await sync.plan(read_assignments(rows, report))
        report.check_success()
        log.info("%d employees need an edit; %s", len(changes), report.figures)
        if given.dry_run:
            return report.result() | {"dry_run": True, "changes": [change.shown() for change in changes]}
        if given.max_edits is not None and len(changes) > given.max_edits:
            raise SyncError(
                f"{len(changes)} edits would exceed max_edits {given.max_edits}: nothing was edited"
            )
        await sync.edit(changes)
        report.check_success()
        return report.result()


def _oa(base_url: str, account: OaSecrets, ctx: RunContext) -> SeeyonClient:
    return SeeyonClient(base_url, account.rest_user, account.rest_password, account.loginName, mask=ctx.mask)
