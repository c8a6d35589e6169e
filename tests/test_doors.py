"""Nobody gets in who should not: routes without a session and by role, sessions, throttle, hosts, text.

What is done to all routes at once is in test_doors_walks.py.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import BaseRoute, Mount, Route

from connecthub.config import Settings, load_settings
from connecthub.storage.database import Database
from connecthub.storage.sessions import ThrottledError, log_in
from connecthub.web.csv_file import defused
from connecthub.web.roles import NEEDED, OPEN, Door, guarded
from tests.web_hub import OWN, PASSWORD, Hub, add_user, insert_job, insert_run, run, serving

pytest_plugins = ["tests.web_hub"]

# The only doors without a lock. A route that is added elsewhere fails the walk until it is closed.
OPEN_PATHS = {"/", "/health", "/health/ready", "/metrics", "/admin/login", "/admin/static", "/admin/statics"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
FILLED = re.compile(r"{[^}]+}")


def routes_of(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, BaseRoute]]:
    """Every route of the running app with its path."""
    for route in routes:
        inner = getattr(route, "routes", None)
        path = prefix + getattr(route, "path", "")
        if isinstance(route, Mount) and inner:
            yield from routes_of(list(inner), path)
        else:
            yield path, route


def closed_paths(hub: Hub) -> list[str]:
    found = [path for path, _ in routes_of(hub.routes) if path not in OPEN_PATHS]
    assert len(found) > 20
    return [FILLED.sub("1", path) for path in found]


def spellings(path: str) -> Iterator[str]:
    """Other ways to write a path, which a careless door would take for something else."""
    yield path
    yield path + "/"
    yield path.upper()
    yield path.replace("/admin", "/Admin")
    yield "/" + path
    yield path.replace("/admin/", "/admin//")
    yield path.replace("/admin/", "/admin/./")
    yield path.replace("/admin/", "/admin/static/../")
    yield path.replace("/admin/", "/admin/static/%2e%2e/")
    yield path.replace("/admin/", "/admin/login/../")
    yield path.replace("/admin/", "/admin/login/%2e%2e/")
    yield path.replace("/admin/", "/%61dmin/")
    yield path.replace("/admin/", "/admin%2f")
    yield path + "?next=/admin/login"
    yield path + ";/admin/login"
    yield path + "%00"


def test_every_route_is_closed_in_every_spelling(stranger: Hub) -> None:
    for path in closed_paths(stranger):
        for spelt in spellings(path):
            for method in ("GET", "HEAD", "POST"):
                # With the host: two slashes in front would be read as one.
                answer = stranger.client.request(method, f"http://testserver{spelt}", headers=OWN)
                refused = answer.status_code in (400, 401, 404, 405) or (
                    answer.status_code == 303 and answer.headers["location"].startswith("/admin/login")
                )
                assert refused, (method, spelt, answer.status_code, answer.headers.get("location"))


def test_every_route_is_closed_for_every_method_and_content_type(stranger: Hub) -> None:
    for path in closed_paths(stranger):
        for method in METHODS:
            answer = stranger.client.request(method, path, headers={**OWN, "Accept": "application/json"})
            assert answer.status_code == 401, (method, path)
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x", "application/xml"):
        headers = {**OWN, "Content-Type": kind}
        answer = stranger.client.post("/admin/jobs/x/run", content=b"{}", headers=headers)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/admin/login"), kind
    assert not stranger.sql("SELECT FROM job_logs")


def test_every_route_says_which_role_it_needs(stranger: Hub) -> None:
    for path, route in routes_of(stranger.routes):
        if path.startswith("/admin/") and not isinstance(route, Mount):
            assert isinstance(route, Route) and isinstance(route.app, Door), path
            assert (NEEDED[route.name] == OPEN) == (path in OPEN_PATHS), path
    with pytest.raises(LookupError, match="forgotten"):
        guarded([Route("/forgotten", stranger.page, name="forgotten")])


REFUSED: dict[str, list[tuple[str, str]]] = {
    "viewer": [
        ("POST", "/admin/jobs/sync-1/run"), ("POST", "/admin/joblogs/1/retry"),
        ("POST", "/admin/joblogs/1/cancel"),
    ],
    "operator": [
        ("GET", "/admin/jobs/create"), ("POST", "/admin/jobs/create"), ("GET", "/admin/jobs/edit/sync-1"),
        ("POST", "/admin/jobs/edit/sync-1"), ("POST", "/admin/jobs/delete/sync-1"), ("POST", "/admin/pause"),
        ("POST", "/admin/resume"), ("GET", "/admin/pause"), ("GET", "/admin/users/list"),
        ("POST", "/admin/users/create"), ("POST", "/admin/users/role"), ("POST", "/admin/users/password"),
        ("GET", "/admin/audit"), ("GET", "/admin/audit.csv"), ("GET", "/admin/joblogs/list/../../users/list"),
    ],
}  # fmt: skip


def test_each_role_gets_what_it_may_and_is_told_what_it_lacks(hub: Hub) -> None:
    insert_job(hub)
    add_user(hub, "wang", "viewer")
    hub.log_in("wang")
    for method, path in [*REFUSED["viewer"], *REFUSED["operator"][:-1]]:
        assert hub.client.request(method, path, headers=OWN).status_code == 403, (method, path)
    text = hub.post("/admin/jobs/sync-1/run").text
    assert "operator" in text
    text = hub.post("/admin/jobs/sync-1/run", headers={**OWN, "Accept-Language": "zh"}).text
    assert "「操作员」" in text
    assert not hub.sql("SELECT FROM job_logs")
    hub.page("/admin/jobs/details/sync-1")

    hub.sql("UPDATE users SET role = 'operator' WHERE username = 'wang'")
    for method, path in REFUSED["operator"]:
        assert hub.client.request(method, path, headers=OWN).status_code in (403, 404), (method, path)
    assert hub.post("/admin/jobs/sync-1/run").status_code == 303
    page = hub.page("/admin/jobs/list")
    assert "/admin/audit" not in page and "/admin/users" not in page


def test_a_crawl_changes_no_row(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub)
    before = snapshot(hub)
    known = {"job_id": "sync-1", "pk": "sync-1", "log_id": str(run_id), "identity": "jobs", "number": "1"}
    opened = set()
    for path, _ in routes_of(hub.routes):
        path = re.sub(r"{(\w+)(?::\w+)?}", lambda part: known.get(part[1], "x"), path)
        for method in ("GET", "HEAD"):
            if hub.client.request(method, path).status_code == 200:
                opened.add(path)
    expected = (
        "jobs/list jobs/details/sync-1 jobs/edit/sync-1 jobs/sync-1/run jobs/restore/1/sync-1 joblogs/csv"
        f" joblogs/{run_id}/log/stream users/list"
    ).split()
    assert {f"/admin/{path}" for path in expected} <= opened, "the pages themselves, not what is not there"
    assert snapshot(hub) == before


def snapshot(hub: Hub) -> dict[str, Any]:
    """Every row of every table, but for when a session was seen."""
    tables = [row["relname"] for row in hub.sql("SELECT relname FROM pg_stat_user_tables ORDER BY relname")]
    return {
        table: [
            {name: value for name, value in row.items() if name != "last_seen_at"}
            for row in hub.sql(f'SELECT * FROM "{table}" t ORDER BY t::text')
        ]
        for table in tables
    }


def test_a_log_in_over_http_of_another_scheme_is_forged(stranger: Hub) -> None:
    over_tls = stranger.browser("https://testserver")
    answer = over_tls.post(
        "/admin/login",
        data={"username": "admin", "password": PASSWORD},
        headers={"Origin": "http://testserver"},
    )
    assert answer.status_code == 403


def test_over_tls_the_cookie_is_bound_to_this_host(stranger: Hub) -> None:
    origin = {"Origin": "https://testserver"}
    over_tls = stranger.browser("https://testserver")
    answer = over_tls.post("/admin/login", data={"username": "admin", "password": PASSWORD}, headers=origin)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-connecthub_session=") and "Domain" not in cookie
    assert "Secure" in cookie and "HttpOnly" in cookie and "Path=/" in cookie
    token = over_tls.cookies["__Host-connecthub_session"]
    assert over_tls.get("/admin/jobs/list").status_code == 200
    # The weaker name is not taken over TLS: a neighbour in clear could have set it.
    over_tls.cookies.clear()
    over_tls.cookies.set("connecthub_session", token)
    assert over_tls.get("/admin/jobs/list").status_code == 303


@pytest.fixture
def behind_proxy(dsn: str, settings: Settings) -> Iterator[Hub]:
    with serving(dsn, with_server(settings, trusted_proxies=("10.0.0.0/8",))) as hub:
        yield hub


def with_server(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"server": settings.server.model_copy(update=changes)})


def test_forwarded_headers_count_only_from_a_trusted_proxy(behind_proxy: Hub) -> None:
    sent = {
        "Origin": "https://testserver",
        "X-Forwarded-For": "6.6.6.6, 203.0.113.9",
        "X-Forwarded-Proto": "https",
    }
    form = {"username": "admin", "password": PASSWORD}
    for client, cookie, address in (
        ("10.0.0.1", "__Host-connecthub_session", "203.0.113.9"),
        ("192.0.2.1", "connecthub_session", "192.0.2.1"),
    ):
        browser = behind_proxy.browser(address=client)
        answer = browser.post("/admin/login", data=form, headers=sent)
        assert answer.status_code == 303 and cookie in browser.cookies, client
        assert (
            behind_proxy.sql("SELECT address FROM sessions ORDER BY id DESC LIMIT 1")[0]["address"] == address
        )


def test_only_the_allowed_hosts_are_answered(dsn: str, settings: Settings) -> None:
    with serving(dsn, with_server(settings, allowed_hosts=("hub.example.com", "::1"))) as hub:
        for host, status in [
            ("hub.example.com", 200), ("HUB.example.com:8000", 200), ("[::1]:8000", 200),
            ("evil.example", 400),
            ("hub.example.com.evil.example", 400), ("hub.example.com@evil.example", 400), ("", 400),
        ]:  # fmt: skip
            assert hub.client.get("/admin/login", headers={"Host": host}).status_code == status, host
        assert hub.client.get("/health", headers={"Host": "10.2.3.4:8000"}).status_code == 200


def test_a_host_header_leads_nowhere(stranger: Hub) -> None:
    for path in ("/", "/admin", "/admin/", "/admin/jobs/list", "/admin/jobs/list/"):
        answer = stranger.client.get(path, headers={"Host": "evil.example"})
        assert "evil.example" not in answer.headers.get("location", "") + answer.text, path


# Sessions


ENDS: dict[str, Callable[[Hub], object]] = {
    "log-out": lambda hub: hub.post("/admin/logout"),
    "password": lambda hub: hub.post(
        "/admin/account/password", current=PASSWORD, new="quite another one", again="quite another one"
    ),
    "disabled": lambda hub: hub.sql("UPDATE users SET disabled = true WHERE username = 'wang'"),
    "idle": lambda hub: hub.sql("UPDATE sessions SET last_seen_at = now() - interval '12 hours 1 minute'"),
    "age": lambda hub: hub.sql("UPDATE sessions SET expires_at = now()"),
}


def test_a_session_ends_with_log_out_password_disabling_idleness_and_age(stranger: Hub) -> None:
    for reason, end in ENDS.items():
        stranger.client.cookies.clear()
        stranger.sql("DELETE FROM users WHERE username = 'wang'")
        add_user(stranger, "wang", "viewer")
        stranger.log_in("wang")
        old = stranger.client.cookies["connecthub_session"]
        stranger.page("/admin/jobs/list")
        end(stranger)
        stranger.client.cookies.clear()
        stranger.client.cookies.set("connecthub_session", old)
        assert stranger.client.get("/admin/jobs/list").status_code == 303, reason


def test_a_log_in_makes_a_new_session_and_ends_the_one_before(hub: Hub) -> None:
    before = hub.client.cookies["connecthub_session"]
    hub.log_in()
    assert hub.client.cookies["connecthub_session"] != before
    assert len(hub.sql("SELECT FROM sessions")) == 1
    hub.client.cookies.clear()
    hub.client.cookies.set("connecthub_session", "fixed-by-somebody")
    hub.log_in()
    assert not hub.sql("SELECT FROM sessions WHERE token_hash = sha256('fixed-by-somebody')")


def test_what_a_page_asks_by_itself_keeps_no_session_alive(hub: Hub) -> None:
    for headers, moves in (({"Sec-Fetch-Dest": "empty"}, False), ({"Sec-Fetch-Dest": "document"}, True)):
        hub.sql("UPDATE sessions SET last_seen_at = now() - interval '1 hour'")
        assert hub.client.get("/admin/jobs/list", headers=headers).status_code == 200
        [row] = hub.sql("SELECT last_seen_at > now() - interval '1 minute' AS moved FROM sessions")
        assert row["moved"] is moves, headers


# Throttle


def wrong(hub: Hub, username: str, times: int) -> list[int]:
    return [
        hub.post("/admin/login", username=username, password="wrong-password").status_code
        for _ in range(times)
    ]


def test_ten_wrong_passwords_close_the_account_for_a_while(stranger: Hub) -> None:
    assert wrong(stranger, "admin", 10) == [400] * 10
    answer = stranger.post("/admin/login", username="admin", password=PASSWORD)
    assert answer.status_code == 429 and "Try again in 1" in answer.text
    assert 800 < int(answer.headers["retry-after"]) <= 900
    # From this address nothing more can be tried either.
    assert wrong(stranger, "someone-else", 1) == [429]
    stranger.sql("UPDATE login_failures SET at = at - interval '15 minutes'")
    stranger.log_in()
    assert not stranger.sql("SELECT FROM login_failures WHERE at > now() - interval '15 minutes'")


def test_an_account_is_closed_for_every_address_and_unknown_ones_look_alike(stranger: Hub) -> None:
    first = []
    for username in ("admin", "nobody"):
        answers = []
        for number in range(12):
            browser = stranger.browser(address=f"192.0.2.{number}")
            form = {"username": username, "password": "wrong-password"}
            answer = browser.post("/admin/login", data=form, headers=OWN)
            answers.append((answer.status_code, answer.text.replace(f'"{username}"', "")))
        assert [status for status, _ in answers] == [400] * 10 + [429] * 2, username
        first.append(answers[0])
        stranger.sql("DELETE FROM login_failures WHERE account = sha256('admin')")
    assert first[0] == first[1], "the same page, whether the account exists or not"
    names = {row["object"] for row in stranger.sql("SELECT object FROM audit WHERE action = 'login.failed'")}
    assert names == {"admin", ""}, "a name that no account has may be a password"


def test_an_ipv6_neighbourhood_counts_as_one_address(stranger: Hub) -> None:
    answers = []
    for number in range(11):
        browser = stranger.browser(address=f"2001:db8::{number:x}")
        form = {"username": f"name-{number}", "password": "wrong-password"}
        answers.append(browser.post("/admin/login", data=form, headers=OWN).status_code)
    assert answers == [400] * 10 + [429]


def test_many_at_once_get_no_more_answers_than_the_throttle_allows(dsn: str, tmp_path: Path) -> None:
    async def attack() -> list[object]:
        hubs = [await Database.open(dsn) for _ in range(2)]
        tries = [log_in(hubs[number % 2], "admin", "wrong", "192.0.2.1", "", None) for number in range(16)]
        answers = await asyncio.gather(*tries, return_exceptions=True)
        for hub in hubs:
            await hub.close()
        return list(answers)

    answers = run(attack())
    assert sum(answer is None for answer in answers) == 10
    assert all(answer is None or isinstance(answer, ThrottledError) for answer in answers)


def test_guessing_the_present_password_is_throttled_too(hub: Hub) -> None:
    form = {"current": "wrong-password", "new": "quite another one", "again": "quite another one"}
    statuses = [hub.post("/admin/account/password", **form).status_code for _ in range(11)]
    assert statuses == [400] * 10 + [429]


# Hostile text

HOSTILE = "<script>alert(1)</script>\"'{{7*7}}"


def test_hostile_text_is_shown_as_text(hub: Hub) -> None:
    hub.sql(
        "INSERT INTO jobs (id, name, cron_expr, handler_path, tags)"
        " VALUES ($1, $1, '0 * * * *', $1, ARRAY[$1])",
        HOSTILE,
    )
    hub.sql("INSERT INTO users (username, password_hash) VALUES ($1, 'x')", HOSTILE)
    hub.sql(
        "INSERT INTO audit (username, action, object, detail) VALUES ($1, $1, $1,"
        " jsonb_build_object($1::text, $1::text))",
        HOSTILE,
    )
    hub.sql("UPDATE hub_state SET paused_at = now(), paused_by = $1", HOSTILE)
    for path in ("/admin/jobs/list", "/admin/users/list", "/admin/audit", "/admin/account", "/admin/more"):
        text = hub.client.get(path).text
        assert "<script>alert" not in text and "49" not in re.findall(r"alert\(1\).{0,40}", text), path
        assert escape("<script>alert(1)") in text, path
    answer = hub.post(
        "/admin/login?lang=%22%3E%3Cscript%3E", username=HOSTILE, password="wrong", next=HOSTILE
    )
    assert "<script>alert" not in answer.text and answer.status_code == 400
    for path in ("/admin/audit?user=", "/admin/audit?from=", "/admin/search?q=", "/admin/users/list?q="):
        assert "<script>alert" not in hub.client.get(path + HOSTILE).text


def test_csv_holds_no_formula(hub: Hub) -> None:
    for text in ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1"):
        assert defused(text).startswith("'"), text
        hub.sql("INSERT INTO audit (username, action, object) VALUES ($1, 'job.run', $1)", text)
    answer = hub.client.get("/admin/audit.csv")
    assert (
        answer.headers["content-type"].startswith("text/csv")
        and "attachment" in answer.headers["content-disposition"]
    )
    rows = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert len(rows) == 10 and not [
        cell for row in rows for cell in row if cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))
    ]


def test_a_charset_of_the_form_breaks_nothing(stranger: Hub) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n+2AA-\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x; charset=utf-7"
    answer = stranger.client.post("/admin/login", content=body, headers={**OWN, "Content-Type": kind})
    assert answer.status_code == 400


def test_nobody_can_send_without_end(stranger: Hub) -> None:
    def endless() -> Iterator[bytes]:
        yield b"username="
        for _ in range(100):
            yield b"x" * 64 * 1024

    headers = {**OWN, "Content-Type": "application/x-www-form-urlencoded"}
    answer = stranger.client.post("/admin/login", content=endless(), headers=headers)
    assert answer.status_code == 413 and "too large" in answer.text


def test_settings_of_the_doors_are_checked() -> None:
    for name, value in (
        ("ALLOWED_HOSTS", '["http://x"]'),
        ("TRUSTED_PROXIES", '["*"]'),
        ("ALLOWED_HOSTS", '["a:1"]'),
    ):
        with pytest.raises(Exception, match="must hold"):
            load_settings(None, {f"CONNECTHUB_SERVER__{name}": value})
