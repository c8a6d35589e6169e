"""Accounts: first log-in, roles, the pages and commands that manage them, preferences, audit, pause."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from connecthub.security.passwords import verify_password
from tests.program import OWN_PASSWORD, ROOT, Person, Program
from tests.web_hub import OWN, PASSWORD, Hub, add_user, insert_job, insert_run

pytest_plugins = ["tests.web_hub"]


def test_a_made_up_password_is_changed_first_and_its_file_goes(tmp_path: Path) -> None:
    with Program(tmp_path) as program:
        first = program.password
        person = Person(program.url)
        answer = person.post("/admin/login", data={"username": "admin", "password": first})
        assert answer.headers["location"] == "/admin/account/password"
        for path in ("/admin/", "/admin/jobs/list", "/admin/users/list", "/admin/audit"):
            assert person.get(path).headers["location"] == "/admin/account/password", path
        assert person.post("/admin/pause").status_code == 403
        wrong = {"current": first, "new": "short", "again": "short"}
        assert "10 to 1024" in person.post("/admin/account/password", data=wrong).text
        assert (program.data / "admin-password").exists()
        good = {"current": first, "new": OWN_PASSWORD, "again": OWN_PASSWORD}
        assert person.post("/admin/account/password", data=good).headers["location"] == "/admin/"
        assert person.get("/admin/jobs/list").status_code == 200
        assert not (program.data / "admin-password").exists()

        # The commands work beside the running hub.
        made = program.command("user", "add", "li.na", "--role", "operator")
        assert "li.na\toperator\tenabled\tnever" in program.command("user", "list")
        program.command("user", "role", "li.na", "viewer")
        program.command("user", "disable", "li.na")
        password = made.rsplit(" ", 1)[1].strip()
        other = Person(program.url)
        refused = other.post("/admin/login", data={"username": "li.na", "password": password})
        assert refused.status_code == 400, "disabled"
        program.command("user", "enable", "li.na")
        other.sign_in(password, "li.na")
        assert other.get("/admin/jobs/create").status_code == 403
        program.command("user", "passwd", "li.na")
        assert other.get("/admin/jobs/list").status_code == 303, "a new password ends all sessions"
        refusals = {
            ("user", "role", "admin", "viewer"): "last admin",
            ("user", "disable", "admin"): "last admin",
            ("user", "add", "admin"): "already",
            ("user", "passwd", "nobody"): "no user",
            ("user", "add", "a b"): "cannot be a name",
        }
        for words, told in refusals.items():
            done = subprocess.run(
                [sys.executable, "-m", "connecthub", *words],
                cwd=tmp_path,
                env={**program._environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, words
        # Where no admin is left, nobody is called the last one.
        program.fetch("UPDATE users SET disabled = true WHERE username = 'admin'")
        program.command("user", "disable", "li.na")
        program.command("user", "role", "li.na", "operator")
        program.command("user", "enable", "admin")
        program.command("pause")
        assert "Paused by" in person.get("/admin/jobs/list").text
        program.command("resume")
        assert program.stop() == 0
        rows = program.fetch("SELECT action FROM audit WHERE username LIKE '%(command line)' ORDER BY id")
        assert [row["action"] for row in rows] == [
            "user.create", "user.role", "user.disable", "user.enable", "user.password",
            "user.disable", "user.role", "user.enable", "hub.pause", "hub.resume",
        ]  # fmt: skip


def test_an_admin_manages_the_others(hub: Hub) -> None:
    assert "New user" in hub.page("/admin/users/list")
    for name in ("", "a b", "-x", "x" * 65, "a/b", "<b>"):
        answer = hub.post("/admin/users/create", username=name, role="viewer")
        assert answer.status_code == 400 and 'id="username-error"' in answer.text, name
    assert hub.post("/admin/users/create", username="wang", role="root").status_code == 400
    answer = hub.post("/admin/users/create", username="王伟", role="operator")
    password = re.search(r'hub-secret">([^<]+)<', answer.text)
    assert answer.status_code == 200 and password
    again = hub.post("/admin/users/create", username="王伟", role="viewer")
    assert again.status_code == 400 and "already" in again.text
    assert password[1] not in hub.page("/admin/users/list"), "shown once"
    [user] = hub.sql("SELECT * FROM users WHERE username = '王伟'")
    assert user["must_change_password"] and verify_password(user["password_hash"], password[1])

    hub.post("/admin/users/role", username="王伟", role="viewer")
    hub.post("/admin/users/disable", username="王伟")
    hub.post("/admin/users/enable", username="王伟")
    answer = hub.post("/admin/users/password", username="王伟")
    assert answer.status_code == 200 and password[1] not in answer.text
    for path in ("role", "disable", "enable", "password", "sessions"):
        answer = hub.post(f"/admin/users/{path}", username="nobody", role="viewer")
        assert answer.status_code == 404, path
    rows = hub.sql("SELECT action, object, address, detail FROM audit WHERE action LIKE 'user.%' ORDER BY id")
    assert [row["action"].removeprefix("user.") for row in rows] == [
        "create", "role", "disable", "enable", "password",
    ]  # fmt: skip
    assert {row["object"] for row in rows} == {"王伟"} and {row["address"] for row in rows} == {"testclient"}
    assert json.loads(rows[1]["detail"]) == {"role": ["operator", "viewer"]}
    page = hub.page("/admin/audit?action=user.")
    assert "operator, viewer" in page or "operator → viewer" in page


def test_the_list_of_accounts_stays_where_it_was(hub: Hub) -> None:
    hub.sql(
        "INSERT INTO users (username, password_hash, role)"
        " SELECT 'u' || n, '', 'viewer' FROM generate_series(1, 60) n"
    )
    page = hub.page("/admin/users/list?q=u&page=2")
    assert 'name="back" value="q=u&page=2"' in page
    answer = hub.post("/admin/users/disable", username="u9", back="q=u&page=2")
    assert answer.headers["location"] == "/admin/users/list?q=u&page=2"
    shown = hub.post(
        "/admin/users/password", username="u9"
    ).text  # the answer to a post is no list to page through
    assert 'href="/admin/users/list?page=2"' in shown


def test_a_session_that_idled_away_is_not_counted(hub: Hub) -> None:
    assert "sessions: 1<" in hub.page("/admin/users/list")
    hub.sql(
        "INSERT INTO sessions (token_hash, username, expires_at, last_seen_at)"
        " VALUES ('\\x00', 'admin', now() + interval '1 day', now() - interval '13 hours')"
    )
    assert "sessions: 1<" in hub.page("/admin/users/list")


def test_nobody_cuts_off_the_own_branch(hub: Hub) -> None:
    for path, fields in (("role", {"role": "viewer"}), ("disable", {}), ("password", {})):
        answer = hub.post(f"/admin/users/{path}", username="admin", **fields)
        assert answer.status_code == 409, path
    add_user(hub, "second", "admin")
    hub.sql("UPDATE users SET disabled = true WHERE username = 'admin'")
    hub.log_in("second")
    hub.sql("UPDATE users SET disabled = false WHERE username = 'admin'")
    assert hub.post("/admin/users/disable", username="admin").status_code == 303
    assert hub.post("/admin/users/role", username="second", role="viewer").status_code == 409


def test_the_own_account(hub: Hub) -> None:
    other = hub.browser()
    other.post("/admin/login", data={"username": "admin", "password": PASSWORD}, headers=OWN)
    assert hub.page("/admin/account").count("last seen") == 2
    hub.post("/admin/account/sessions", session="others")
    assert other.get("/admin/account").status_code == 303
    answer = hub.post("/admin/account", language="zh", timezone="Mars/Base", theme="dark")
    assert answer.status_code == 400 and "Mars/Base" in answer.text
    hub.post("/admin/account", language="zh", timezone="America/New_York", theme="dark")
    page = hub.page("/admin/account")
    assert 'lang="zh-CN" data-theme="dark"' in page and "America/New_York" in page and "我的账号" in page
    hub.post("/admin/language", language="en", next="/admin/more")
    assert "My account" in hub.page("/admin/account")


def test_the_browser_tells_its_zone_at_the_log_in(stranger: Hub) -> None:
    insert_job(stranger)
    stranger.sql("UPDATE jobs SET next_run_at = '2030-01-01 00:00Z'")
    for zone, shown in (("America/New_York", "2019"), ("Not/AZone", "2030-01-01 08:00")):
        answer = stranger.post("/admin/login", username="admin", password=PASSWORD, timezone=zone)
        assert answer.status_code == 303
        assert ("2029-12-31 19:00" if shown == "2019" else shown) in stranger.page("/admin/jobs/list"), zone


def test_times_are_the_readers_with_the_zone_of_the_job_beside(stranger: Hub) -> None:
    insert_job(stranger)
    run_id = insert_run(stranger)
    stranger.sql("UPDATE jobs SET next_run_at = '2030-01-01 00:30Z'")
    stranger.sql("UPDATE job_logs SET scheduled_for = '2020-01-01 00:30Z'")
    for zone, is_beside in (("America/New_York", True), ("Asia/Shanghai", False)):
        stranger.post("/admin/login", username="admin", password=PASSWORD, timezone=zone)
        for path, year in (("jobs/list", 2030), ("", 2030), (f"joblogs/details/{run_id}", 2020)):
            text = re.sub(r"<[^>]+>", "", stranger.page(f"/admin/{path}"))
            theirs = f"{year}-01-01 08:30"
            mine = rf"{year - 1}-12-31 19:30 \(\D*{theirs} Asia/Shanghai\)" if is_beside else theirs
            assert re.search(mine, text) and ("Asia/Shanghai" in text) is is_beside, (path, zone)
        page = stranger.page("/admin/jobs/details/sync-1")
        assert " Asia/Shanghai" in page and (page.count(" for you") == 10) is is_beside, zone


def test_pause_and_resume_are_told_on_every_page(hub: Hub) -> None:
    insert_job(hub)
    assert "1 Job stops firing" in hub.page("/admin/pause")
    assert hub.post("/admin/pause", next="//evil.example").headers["location"] == "/admin/"
    hub.post("/admin/pause")
    for path in (
        "jobs/list",
        "joblogs/list",
        "jobs/details/sync-1",
        "users/list",
        "audit",
        "account",
        "more",
    ):
        page = hub.page(f"/admin/{path}")
        assert "Paused by admin" in page and 'action="/admin/resume"' in page, path
    add_user(hub, "wang", "operator")
    hub.log_in("wang")
    page = hub.page("/admin/jobs/list")
    assert "Paused by admin" in page and "/admin/resume" not in page
    hub.log_in()
    hub.post("/admin/resume")
    assert "Paused by" not in hub.page("/admin/jobs/list")
    rows = hub.sql("SELECT action FROM audit WHERE action LIKE 'hub.%' ORDER BY id")
    assert [row["action"] for row in rows] == ["hub.pause", "hub.resume"], "a second pause changes nothing"


def test_the_audit_is_filtered_and_goes_on_by_keys(hub: Hub) -> None:
    hub.sql(
        "INSERT INTO audit (username, action, object, at) SELECT 'u' || n % 2, 'job.run', 'job-' || n,"
        " '2026-01-01 12:00Z'::timestamptz + n * interval '1 day' FROM generate_series(1, 120) n"
    )
    seen: list[str] = []
    path = "/admin/audit?action=job.&user=u1"
    while path:
        page = hub.page(path)
        seen += re.findall(r">job-(\d+)<", page)
        older = re.search(r'href="([^"]*before=\d+[^"]*)">older', page)
        path = f"/admin/audit{older[1]}" if older else ""
    assert [int(number) for number in seen] == list(range(119, 0, -2))
    page = hub.page("/admin/audit?from=2026-01-10&to=2026-01-11")
    assert re.findall(r">job-(\d+)<", page) == ["10", "9"]
    assert ">job-7<" in hub.page("/admin/audit?object=job-7")
    hub.page("/admin/audit?from=yesterday", 400)
    assert ">job-120<" in hub.page("/admin/audit?before=99999999999999999999&action=job.")
    hub.page("/admin/audit?before=x", 400)
    [row] = hub.sql("SELECT count(*) FROM audit")
    assert row["count"] == 121
    hub.sql("INSERT INTO audit (username, action, object) VALUES ('u1', 'login.failed', 'u1')")
    text = hub.client.get("/admin/audit.csv?action=login").text
    assert ",login," in text and "login.failed" not in text  # only what ends in a dot stands for a kind


def test_the_search_box(hub: Hub) -> None:
    insert_job(hub)
    for text, location in (
        ("#12", "/admin/joblogs/details/12"), ("＃12", "/admin/joblogs/details/12"),
        ("sync-1", "/admin/jobs/details/sync-1"), ("sync", "/admin/jobs/list?q=sync"),
        ("", "/admin/jobs/list"),
        ("//evil.example", "/admin/jobs/list?q=%2F%2Fevil.example"),
    ):  # fmt: skip
        answer = hub.client.get("/admin/search", params={"q": text})
        assert answer.status_code == 303 and answer.headers["location"].rstrip("?") == location


def test_what_people_do_to_runs_is_audited_with_the_change(hub: Hub) -> None:
    insert_job(hub)
    hub.sql("CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'full'; END$$")
    hub.sql("CREATE TRIGGER broken BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION broken()")
    hub.answer_faults()
    answer = hub.post("/admin/jobs/sync-1/run")
    assert answer.status_code == 500 and "Runs go on" in answer.text and "full" not in answer.text
    assert not hub.sql("SELECT FROM job_logs")


def test_the_audit_shows_what_changed(hub: Hub) -> None:
    changes = [
        {"field": "timeout_s", "key": "", "kind": "changed", "before": "300", "after": "600"},
        {"field": "secret_cfg", "key": "token", "kind": "changed", "before": None, "after": None},
    ]
    hub.sql(
        "INSERT INTO audit (username, action, object, detail) VALUES ('admin', 'job.update', 'sync-1', $1)",
        json.dumps({"changed": ["secret_cfg", "timeout_s"], "changes": changes}),
    )
    # One row that SQL wrote may not take the page away for ever.
    for odd in ("null", "[7]", '"odd text"', '{"changes": 7}', '{"changes": ["x"]}', "{}"):
        hub.sql("INSERT INTO audit (username, action, object, detail) VALUES ('a', 'b', 'c', $1)", odd)
    page = re.sub(r"<[^>]+>", "", hub.page("/admin/audit"))
    assert "odd text" in page
    assert "timeout_s 300 → 600" in page and "secret_cfg.token replaced" in page
