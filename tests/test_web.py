"""The admin over HTTP: its doors, its lists and pages, its buttons."""

from __future__ import annotations

import asyncio
import re
import stat
import string
from html import unescape
from pathlib import Path

from connecthub.security.passwords import verify_password
from connecthub.storage.database import Database
from connecthub.storage.users import ensure_admin
from connecthub.words import CATALOGUES, LANGUAGES, choose
from tests.web_hub import CANARY, GOOD, OWN, PASSWORD, Hub, fetch, insert_job, insert_run, run

pytest_plugins = ["tests.web_hub"]

GETS = "jobs/list", "jobs/create", "jobs/edit/x", "jobs/details/x", "joblogs/list", "joblogs/details/1"
POSTS = (
    "jobs/create",
    "jobs/edit/x",
    "jobs/delete/x",
    "jobs/x/run",
    "joblogs/1/retry",
    "joblogs/1/cancel",
    "logout",
)
ROUTES = [
    ("GET", "/admin"),
    ("GET", "/admin/nowhere"),
    *(("GET", f"/admin/{path}") for path in GETS),
    *(("POST", f"/admin/{path}") for path in POSTS),
    ("DELETE", "/admin/jobs/delete?pks=x"),
]


def test_nothing_opens_without_a_session(stranger: Hub) -> None:
    for method, path in ROUTES:
        answer = stranger.client.request(method, path, headers=OWN)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/admin/login"), path
        answer = stranger.client.request(method, path, headers={**OWN, "Accept": "application/json"})
        assert answer.status_code == 401 and answer.json()["error"], path
    stranger.client.cookies.set("connecthub_session", "guessed")
    assert stranger.client.get("/admin/jobs/list").status_code == 303


def test_logging_in_and_out(stranger: Hub) -> None:
    wrong = stranger.post("/admin/login", username="admin", password="wrong")
    assert wrong.status_code == 400 and "Name or password is wrong." in wrong.text
    assert stranger.post("/admin/login", username="nobody", password="").status_code == 400

    answer = stranger.post("/admin/login", username="admin", password=PASSWORD, next="/admin/joblogs/list")
    assert answer.headers["location"] == "/admin/joblogs/list"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    token = stranger.client.cookies["connecthub_session"]
    [row] = stranger.sql("SELECT token_hash, expires_at - created_at AS life FROM sessions")
    assert token.encode() not in row["token_hash"] and abs(row["life"].total_seconds() - 7 * 86_400) < 5

    stranger.client.get("/admin/logout")
    stranger.page("/admin/jobs/list")
    assert stranger.post("/admin/logout").headers["location"] == "/admin/login"
    stranger.client.cookies.set("connecthub_session", token)
    assert stranger.client.get("/admin/jobs/list").status_code == 303
    actions = [row["action"] for row in stranger.sql("SELECT action FROM audit ORDER BY id")]
    assert actions == ["login.failed", "login.failed", "login", "logout"]


def test_a_login_leads_nowhere_else(stranger: Hub) -> None:
    for page in ("https://evil.example", "//evil.example", "/\\evil.example", "/admin/\r\nx"):
        answer = stranger.post("/admin/login", username="admin", password=PASSWORD, next=page)
        assert answer.headers["location"] == "/admin/", page


ORIGINS: list[tuple[dict[str, str], bool]] = [
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Origin": "http://testserver"}, True),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site", "Origin": "http://testserver"}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "http://testserver.evil.example"}, False),
    ({"Origin": "null"}, False),
    ({}, False),
]


def test_a_forged_post_changes_nothing(hub: Hub) -> None:
    insert_job(hub)
    for headers, passes in ORIGINS:
        assert hub.post("/admin/jobs/sync-1/run", headers=headers).status_code == (303 if passes else 403)
        assert len(hub.sql("DELETE FROM job_logs RETURNING id")) == passes, headers


def test_no_page_ever_shows_a_secret(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub)
    [job] = hub.sql("SELECT secret_cfg FROM jobs")
    paths = (
        "jobs/list",
        "jobs/details/sync-1",
        "jobs/edit/sync-1",
        "joblogs/list",
        f"joblogs/details/{run_id}",
    )
    for path in paths:
        page = hub.page(f"/admin/{path}")
        assert CANARY not in page and job["secret_cfg"] not in page


def test_a_run_is_shown_whole(hub: Hub) -> None:
    insert_job(hub)
    insert_job(hub, "sync-10")
    run_id, other = insert_run(hub), insert_run(hub, job_id="sync-10")
    answer = hub.client.get(f"/admin/joblogs/details/{run_id}")
    assert "&lt;b&gt;line 1&lt;/b&gt;" in answer.text
    page = unescape(answer.text)
    for text in (
        "all well",
        "Traceback: deep",
        '"total": 7',
        '"only": "once"',
        "webjobs.jobs:PlainJob",
        "Success",
    ):
        assert text in page
    listed = hub.page("/admin/joblogs/list?search=sync-1")
    assert f"#{run_id}<" in listed and f"#{other}<" not in listed
    everything = hub.page("/admin/joblogs/list?pageSize=999999999")
    assert everything.index(f"#{other}<") < everything.index(f"#{run_id}<")


def test_run_retry_and_cancel(hub: Hub) -> None:
    insert_job(hub)
    first = hub.post("/admin/jobs/sync-1/run")
    assert first.status_code == 303 and re.fullmatch(r"/admin/joblogs/details/\d+", first.headers["location"])
    run_id = int(first.headers["location"].rsplit("/", 1)[1])
    assert tuple(hub.sql("SELECT triggered_by, status FROM job_logs")[0]) == ("admin", "QUEUED")

    refused = hub.post(f"/admin/joblogs/{run_id}/retry")
    assert refused.status_code == 409 and "still running" in refused.text
    refused = hub.post(f"/admin/joblogs/{run_id}/retry", headers={**OWN, "Accept-Language": "zh-CN,en;q=0.5"})
    assert refused.status_code == 409 and "正在运行中，请结束后再重试" in refused.text
    refused = hub.post("/admin/jobs/delete/sync-1")
    assert refused.status_code == 409 and "still queued or running" in refused.text

    assert hub.post(f"/admin/joblogs/{run_id}/cancel").status_code == 303
    assert hub.post(f"/admin/joblogs/{run_id}/cancel").status_code == 409
    answer = hub.post(f"/admin/joblogs/{run_id}/retry", headers={**OWN, "Accept": "application/json"})
    assert answer.status_code == 200 and answer.json()["run_id"] > run_id
    actions = [row["action"] for row in hub.sql("SELECT action FROM audit ORDER BY id")]
    assert actions == ["login", "job.run", "run.cancel", "run.retry"]


def test_what_is_not_there_or_no_number(hub: Hub) -> None:
    for path, status in [
        ("/admin/jobs/details/none", 404), ("/admin/jobs/edit/none", 404), ("/admin/joblogs/details/7", 404),
        ("/admin/joblogs/details/x", 400), ("/admin/joblogs/details/99999999999999999999", 404),
        ("/admin/nowhere", 404), ("/admin/nowhere/list", 404), ("/admin/jobs/list?page=x", 400),
        ("/admin/jobs/list?page=99999999999999999999", 200), ("/admin/joblogs/list?page=-1&pageSize=0", 200),
        ("/admin/jobs/list?search=%00", 400), ("/admin/jobs/details/%00", 400), ("/admin/jobs/x/run", 404),
        ("/admin/jobs/export/csv", 404), ("/admin/joblogs/create", 404), ("/admin/jobs/delete?pks=x", 404),
        ("/admin/jobs/list/", 404), ("/admin", 303),
    ]:  # fmt: skip
        hub.page(path, status)
    for path, status in [
        ("/admin/jobs/none/run", 404), ("/admin/joblogs/7/retry", 404), ("/admin/joblogs/7/cancel", 404),
        ("/admin/joblogs/x/retry", 400), ("/admin/joblogs/x/cancel", 400), ("/admin/jobs/delete/none", 404),
        ("/admin/jobs/edit/none", 404),
    ]:  # fmt: skip
        assert hub.post(path).status_code == status, path
    assert hub.post("/admin/jobs/create", **{**GOOD, "name": "a\0b"}).status_code == 400


def test_health(stranger: Hub) -> None:
    assert stranger.client.get("/health").json() == {"ok": True, "name": "ConnectHub"}
    assert stranger.client.get("/health/ready").status_code == 200
    stranger.problems["tick"] = "the last tick is 300 s old"
    answer = stranger.client.get("/health/ready")
    assert answer.status_code == 503 and answer.json()["checks"]["tick"] == "the last tick is 300 s old"


def test_headers_and_languages(hub: Hub) -> None:
    answer = hub.client.get("/admin/jobs/list", headers={"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"})
    assert '<html lang="zh-CN"' in answer.text and "新建任务" in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (
        answer.headers["referrer-policy"] == "same-origin" and answer.headers["cache-control"] == "no-store"
    )
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    style = hub.client.get("/admin/static/hub.css")
    assert style.status_code == 200 and "no-store" not in style.headers.get("cache-control", "")
    assert choose("") == "en" and choose("de, zh-TW;q=0.3") == "zh" and choose("en;q=0.2,zh;q=0.1") == "en"


def test_both_languages_have_every_text() -> None:
    english, chinese = LANGUAGES["en"], LANGUAGES["zh"]
    assert len(english) == sum(len(catalogue) for catalogue in CATALOGUES), "a key stands in two"
    for key in english:
        places = [
            {part[1] for part in string.Formatter().parse(words[key])} - {None}
            for words in (english, chinese)
        ]
        assert places[0] == places[1], key
    sources = Path(__file__).parent.parent / "connecthub" / "web"
    for template in (sources / "templates").glob("*.html"):
        for key in re.findall(r"\bt\('([\w.]+)'[,)]", template.read_text()):
            assert key in LANGUAGES["en"], (template.name, key)


def test_the_first_account(dsn: str, tmp_path: Path) -> None:
    async def two_at_once() -> list[Path | None]:
        databases = [await Database.open(dsn), await Database.open(dsn)]
        made = await asyncio.gather(*(ensure_admin(database, "", tmp_path / "d") for database in databases))
        made.append(await ensure_admin(databases[0], "", tmp_path / "d"))
        for database in databases:
            await database.close()
        return made

    paths = [path for path in run(two_at_once()) if path]
    assert paths == [tmp_path / "d" / "admin-password"]
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600
    [user] = run(fetch(dsn, "SELECT * FROM users"))
    assert verify_password(user["password_hash"], paths[0].read_text().strip())


def test_a_new_job_shows_when_it_fires_before_any_tick(hub: Hub) -> None:
    insert_job(hub)
    hub.sql("UPDATE jobs SET cron_expr = '0 3 * * *'")
    for page in ("/admin/jobs/list", "/admin/jobs/details/sync-1"):
        shown = r"<time datetime=[^>]*>(\w+ )?((\d{4}-)?\d\d-\d\d )?03:00(:00)?</time>"
        assert re.search(shown, hub.page(page)), page


def test_every_page_says_that_a_newer_version_has_migrated_the_database(hub: Hub) -> None:
    said = "A newer version has migrated the database"
    assert said not in hub.page("/admin/jobs/list")
    hub.sql("UPDATE alembic_version SET version_num = '9999'")
    assert all(said in hub.page(path) for path in ("/admin/", "/admin/jobs/list", "/admin/account"))
