"""Data for pages to be looked at: a hub in its first week, and that of a large firm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from connecthub.cron import next_fire
from tests.browser.hubs import SCRIPT, Hub
from tests.standins.__main__ import job_settings

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"
LONG = (
    "集团总部与各分子公司人员任职信息、组织架构及法人主体每日全量同步（含离职与返聘）Full-Sync-Of-Everything"
)
EXAMPLES = {
    "SyncOAToDidiTokenJob": ("oa-token", "OA 登录检查 OA log-in"),
    "SyncOAToDidiExportFormJob": ("oa-export", "OA 表单导出 OA form export"),
    "SyncOAToDidiLegalEntitySyncJob": ("oa-to-didi", "OA 公司同步到滴滴 OA companies to DiDi"),
}
# id, name in Chinese and in English, cron, tag, usual seconds, how many of the newest runs have failed
FIRM = [
    ("oa-travel", "OA 出差申请同步", "OA travel requests", "5 9-18 * * 1-5", "travel", 12, 9),
    ("ehr-people", "EHR 人员同步到 OA", "EHR people to OA", "*/15 * * * *", "people", 100, 0),
    ("ehr-leavers", "离职人员停用账号", "Accounts of leavers", "0 * * * *", "people", 31, 0),
    ("didi-rules", "滴滴用车制度更新", "DiDi rules by grade", "30 6 * * *", "travel", 45, 0),
    ("invoice-pool", "发票池入库", "Invoice pool", "*/30 * * * *", "finance", 240, 0),
    ("bank-slips", "银行回单入账", "Bank slips to the ledger", "10 * * * *", "finance", 8, 2),
    ("crm-contracts", "CRM 合同归档", "CRM contracts", "0 2 * * *", "crm", 900, 0),
    ("warehouse", "数仓快照", "Warehouse snapshot", "20 3 * * *", "bi", 1500, 0),
    ("attendance", "考勤日报", "Attendance of the day", "45 * * * *", "people", 19, 0),
    ("suppliers", "供应商与银行账户", "Suppliers and accounts", "0 4 * * 1", "finance", 70, 0),
]
ODD = [
    ("long-" + "name-" * 24, LONG, "", "7 7 7 7 *", "tag-" * 20, 5, 0),
    (HOSTILE, HOSTILE, "", "8 8 8 8 *", HOSTILE, 3, 1),
]
ENTITIES = [
    (f"entity-{n:02}", f"法人主体 {n:02}", f"Entity {n:02}", f"{n} 5 * * *", "entities", 5 + n, 0)
    for n in range(1, 49)
]
_RUNS = """
WITH fires AS (
    SELECT n, clock_timestamp() - n * interval '1 hour' AS at, random() AS luck, random() + random() AS size
    FROM generate_series(1, $2::int) n
)
INSERT INTO job_logs (job_id, revision_id, trigger, status, reason, scheduled_for, idempotency_key, message,
                      queued_at, started_at, finished_at, worker_id, result)
SELECT j.id, j.revision_id, 'schedule', status,
       CASE status WHEN 'FAILURE' THEN CASE WHEN n % 3 = 0 THEN 'timeout' ELSE 'exception' END
                   WHEN 'SKIPPED' THEN 'overlap' END,
       at, j.id || ':' || n,
       CASE status WHEN 'FAILURE' THEN 'httpx.ReadTimeout: POST https://api.example.com: ' || $5 END,
       at, CASE WHEN status <> 'SKIPPED' THEN at + interval '0.3 s' END,
       at + interval '0.3 s' + CASE WHEN status = 'SKIPPED' THEN 0 ELSE size * $3 END * interval '1 s',
       CASE WHEN status <> 'SKIPPED' THEN gen_random_uuid() END,
       CASE status WHEN 'SUCCESS' THEN '{"total": 1250, "success": 3, "skipped": 1247}'::jsonb END
FROM fires, jobs j, LATERAL (SELECT CASE
    WHEN n <= $4 THEN 'FAILURE' WHEN luck > 0.99 THEN 'FAILURE' WHEN luck > 0.98 THEN 'SKIPPED'
    WHEN luck > 0.977 THEN 'LOST' WHEN luck > 0.975 THEN 'CANCELLED' ELSE 'SUCCESS' END AS status) s
WHERE j.id = $1 ORDER BY at
"""


def little(hub: Hub) -> dict[str, int]:
    """The three example Jobs and a few more, with a run of each kind; the runs by kind."""
    runs = _examples(hub)
    failing = hub.script(
        "say asking the OA", "warn no answer after 30 s, asked again", "fail no answer for 30 s"
    )
    going = hub.script(*[f"say page {n} of 8" for n in range(1, 6)], "progress 1240/2000")
    again = hub.script("say all well", "end")
    hub.make_job("failing", failing, name="EHR 人员同步 EHR people", cron_expr="*/30 * * * *", tags="people")
    hub.make_job(
        "going", going, name="发票池入库 Invoice pool", timezone="Europe/Berlin", cron_expr="0 2 * * *"
    )
    hub.make_job("off", going, name="数仓快照 Warehouse snapshot")
    runs["failed"] = hub.run_job("failing")
    runs["cancelled"] = hub.run_job("going")
    hub.admin.post(f"/admin/joblogs/{runs['cancelled']}/cancel")
    hub.wait_for_ends(5)
    runs["going"] = hub.run_job("going")
    hub.admin.post("/admin/jobs-bulk/disable", data={"ids": "off"})
    for fields in (
        {"p.script": str(again.path), "p.tone": '"loud"'},
        {"timeout_s": "600", "s.token": "not told"},
    ):
        assert hub.admin.fill("/admin/jobs/edit/failing", fields).status_code == 303
    return runs


def _examples(hub: Hub) -> dict[str, int]:
    runs = {}
    for class_name, (public, secret) in job_settings(hub.oa.url, hub.didi.url).items():
        job_id, name = EXAMPLES[class_name]
        path = f"extensions.sync_oa_to_didi.job:{class_name}"
        answer = hub.admin.fill(
            "/admin/jobs/create",
            {
                "id": job_id,
                "name": name,
                "tags": "oa, travel",
                "cron_expr": "0 3 * * *",
                "timezone": "Asia/Shanghai",
                "handler_path": path,
                "public_cfg": json.dumps(public),
                "secret_cfg": json.dumps(secret),
            },
        )
        assert answer.status_code == 303, answer.text
        runs[job_id] = hub.run_job(job_id)
    return runs


def much(hub: Hub) -> dict[str, int]:
    """60 Jobs, some with long or hostile names, 30 revisions of one, 10,000 runs, one of great size."""
    sql = hub.sql
    firm(hub, FIRM + ODD + ENTITIES)
    for number in range(28):
        sql("UPDATE jobs SET priority = $1 WHERE id = 'ehr-people'", number + 1)
    runs = little(hub)
    hub.make_job(
        "chatty", hub.script(*_lines(), "end"), name="话多 Chatty", secret_cfg='{"token": "hush-hush-hush"}'
    )
    runs["chatty"] = hub.run_job("chatty")
    hub.wait_for_ends(6)
    sql("UPDATE job_logs SET result = $2 WHERE id = $1", runs["chatty"], json.dumps(_result()))
    return runs


def firm(hub: Hub, jobs: Sequence[tuple[str, str, str, str, str, int, int]]) -> None:
    """These Jobs, each with a week of hourly runs."""
    script = hub.script("fail httpx.ReadTimeout")
    for number, (job_id, chinese, english, cron, tag, usual_s, failed) in enumerate(jobs):
        hub.sql(
            "INSERT INTO jobs (id, name, tags, cron_expr, handler_path, public_cfg)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            job_id,
            f"{chinese} {english}".strip(),
            [tag, "nightly"] if number % 2 else [tag],
            cron,
            SCRIPT,
            json.dumps({"script": str(script.path)}),
        )
        # What the tick would write within the minute.
        fire = next_fire(cron, "Asia/Shanghai", datetime.now(UTC))
        hub.sql("UPDATE jobs SET next_run_at = $2 WHERE id = $1", job_id, fire)
        why = HOSTILE if job_id == HOSTILE else "no answer for 30 s"
        hub.sql(_RUNS, job_id, 168, float(usual_s), failed, why)


def _lines() -> list[str]:
    words = [
        "say 已同步 employee 工号",
        "warn no 工号 in row",
        f"say {HOSTILE}",
        "say " + "a-word-without-an-end" * 20,
    ]
    return [f"{words[min(n % 40, 3)]} {n}" for n in range(6000)]


def _result() -> dict[str, object]:
    row = {
        "row": 17,
        "employee": HOSTILE,
        "company": LONG,
        "reason": "no such 工号",
        "answer": {"errno": 50233},
    }
    return {
        "total": 1250,
        "success": 1198,
        "failed": 52,
        "message": HOSTILE,
        "errors": [{**row, "row": n} for n in range(60)],
        "changes": [{f"column_{n}": f"value {n} 数值" for n in range(14)}] * 3,
    }
