"""/metrics: what it shows of a hub that works, and to whom."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from starlette.requests import Request

from connecthub.web.metrics import MetricsPage
from tests.program import ROOT, Person, Program
from tests.test_run_life import create, run_now, wait_for


def test_what_a_hub_has_done_and_does(tmp_path: Path) -> None:
    environ = {
        "CONNECTHUB_PLUGINS__PACKAGES": '["tests"]',
        "CONNECTHUB_SECURITY__ADMIN_PASSWORD": "a password",
        "CONNECTHUB_POOL__SHUTDOWN_GRACE_S": "0",
        "CONNECTHUB_METRICS__TOKEN": "canary-of-the-token",
    }
    with Program(tmp_path, environ) as program:
        person = Person(program.url)
        person.sign_in("a password")
        create(person, "good", "EchoJob")
        create(person, "bad", "FailJob")
        create(person, "zombie", "HoldJob", public_cfg='{"stubborn": true}', timeout_s="1")
        runs = [run_now(person, job_id) for job_id in ("good", "bad", "zombie")]
        for run_id, word in zip(runs, ("Success", "Exception", "Still running after timeout"), strict=True):
            wait_for(person, run_id, word)
        text = person.get("/metrics").text
        checks = person.get("/health/ready").json()["checks"]
    figures = {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.M)}
    assert figures['connecthub_results_total{job_id="good",reason="",status="SUCCESS"}'] == 1
    assert figures['connecthub_results_total{job_id="bad",reason="exception",status="FAILURE"}'] == 1
    assert figures['connecthub_results_total{job_id="zombie",reason="timeout",status="FAILURE"}'] == 1
    assert figures["connecthub_runs_past_their_end"] == 1 == figures["connecthub_places_taken"]
    assert figures["connecthub_start_delay_seconds_count"] == 3 == figures["connecthub_starts_total"]
    assert figures["connecthub_start_delay_seconds_sum"] < 3
    assert figures["connecthub_claim_seconds_count"] >= 3 > figures["connecthub_claim_seconds_sum"] > 0
    assert figures["connecthub_queue_depth"] == 0 and figures["connecthub_tick_age_seconds"] < 60
    assert figures["connecthub_paused"] == 0 and "connecthub_build_info{" in text
    assert figures["connecthub_retention_age_seconds"] < 60 and "connecthub_retention_rows_total" in text
    assert "canary-of-the-token" not in text
    shown = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    rules = re.sub(r"_bucket\b", "", (ROOT / "docs" / "alerts.yml").read_text())
    assert set(re.findall(r"\bconnecthub_\w+", rules)) <= shown, "a rule that watches nothing"
    for page in ("watch.md", "watch.zh-CN.md"):
        manual = (ROOT / "docs" / page).read_text("utf-8")
        named = re.findall(r"^\| `GET /health/ready` \| .*[:：]\s*(.*?) \|", manual, re.M)
        assert [sorted(re.split(", |、", names)) for names in named] == [sorted(checks)], page
        rows = re.findall(r"^\| (.*?) \|", manual, re.M)
        told = {f"connecthub_{name}" for row in rows for name in re.findall(r"`([a-z_]+)(?:\{.*?\})?`", row)}
        assert {name for name in shown if name.startswith("connecthub_")} == told, page


@pytest.mark.parametrize(
    ("client", "headers", "token", "status"),
    [
        ("127.0.0.1", {}, "", 200),
        ("::1", {}, "secret", 200),
        ("10.0.0.7", {}, "", 401),
        ("10.0.0.7", {"authorization": "Bearer "}, "", 401),
        ("10.0.0.7", {"authorization": "Bearer wrong"}, "secret", 401),
        ("10.0.0.7", {"authorization": "Basic secret"}, "secret", 401),
        ("10.0.0.7", {"authorization": "Bearer secret"}, "secret", 200),
        # A proxy on this machine stands for everybody.
        ("127.0.0.1", {"x-forwarded-for": "10.0.0.7"}, "", 401),
        ("127.0.0.1", {"forwarded": "for=10.0.0.7"}, "", 401),
    ],
)
def test_who_may_read_them(client: str, headers: dict[str, str], token: str, status: int) -> None:
    async def text() -> bytes:
        return b"connecthub_places 4\n"

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/metrics",
        "query_string": b"",
        "client": (client, 5000),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    answer = asyncio.run(MetricsPage(text, token).show(Request(scope)))
    assert answer.status_code == status
