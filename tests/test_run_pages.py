"""The page of a run, its live log, both retries, and the list of runs, over HTTP."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from typing import Any

import pytest

from connecthub.run_log import parse
from connecthub.storage.database import Database
from connecthub.web.csv_file import csv_lines
from connecthub.web.run_log import stream
from connecthub.web.run_words import last_frame
from tests.web_hub import CANARY, Hub, insert_job, insert_run

pytest_plugins = ["tests.web_hub"]
LOG = "2026-11-24T06:05:00.123Z INFO app: one\n2026-11-24T06:05:01.000Z ERROR app: <b>two</b>\n"


def change(hub: Hub, run_id: int, **columns: Any) -> None:
    for name, value in columns.items():
        hub.sql(f"UPDATE job_logs SET {name} = $2 WHERE id = $1", run_id, value)


def events(text: str) -> list[tuple[str, str]]:
    return re.findall(r"event: (\w+)\ndata: (.*)\n", text)


def test_a_run_says_what_happened_first(hub: Hub) -> None:
    insert_job(hub)
    path = "/admin/joblogs/details/{}"
    for status, columns, says in [
        ("FAILURE", {"reason": "exception", "message": "Boom: it broke\nmore"}, "Exception: Boom: it broke"),
        ("FAILURE", {"reason": "bad_secret"}, "Save the secrets again."),
        ("LOST", {"meta": '{"lease_expired_at": "2026-01-02T03:04:05+00:00"}'}, "Result unknown: the hub stopped answering"),  # noqa: E501
        ("CANCELLED", {"reason": "cancelled", "meta": '{"cancelled_by": "li.na"}'}, "Cancelled by li.na"),
        ("SKIPPED", {"reason": "missed", "meta": '{"missed": {"from": "2026-01-02T03:00:00+00:00",'
         ' "to": "2026-01-02T04:00:00+00:00", "count": 13}}'}, "13 fire times from"),
        ("SKIPPED", {"reason": "missed", "meta": '{"missed": {"from": 7}}'}, "Skipped: Missed"),
        ("QUEUED", {}, "Waiting for a place"),
    ]:  # fmt: skip
        run_id = insert_run(hub, status)
        change(hub, run_id, **columns)
        assert says in hub.page(path.format(run_id)), says
        hub.sql("DELETE FROM job_logs")


def test_a_run_tells_its_facts_and_its_attempts(hub: Hub) -> None:
    insert_job(hub)
    [made] = hub.sql(
        "INSERT INTO hubs (worker_id, name, version, places) VALUES (gen_random_uuid(), 'vm-1:7', '1', 4)"
        " RETURNING worker_id"
    )
    hub.sql("UPDATE jobs SET max_attempts = 3")
    first = insert_run(hub, "FAILURE")
    hub.sql(
        "UPDATE job_logs SET trigger = 'schedule', scheduled_for = '2020-01-01 00:00Z',"
        " queued_at = '2020-01-01 00:00:01Z', started_at = '2020-01-01 00:00:03.5Z', reason = 'timeout',"
        " finished_at = '2020-01-01 00:01:36.5Z', worker_id = $1, params = NULL",
        made["worker_id"],
    )
    hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, scheduled_for, attempt, retry_of,"
        " idempotency_key, not_before) SELECT job_id, revision_id, trigger, 'QUEUED', scheduled_for, 2, id,"
        " idempotency_key, now() + interval '5 min' FROM job_logs WHERE id = $1",
        first,
    )
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", hub.page(f"/admin/joblogs/details/{first}")))
    for fact in (
        "Fire time 2020-01-01 08:00", "Started 2020-01-01 08:00", "+2.5 s", "Duration 1 min 33 s",
        "Trigger schedule", "Worker vm-1:7", "webjobs.jobs:PlainJob", "attempt 1 of 3", "Attempt 2 by itself",
    ):  # fmt: skip
        assert fact in page, fact


def test_what_has_ended_and_still_holds_its_place_says_so(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub, "FAILURE")
    hub.sql(
        "UPDATE job_logs SET lease_expires_at = clock_timestamp() + interval '1 min',"
        " worker_id = gen_random_uuid()"
    )
    page = hub.page(f"/admin/joblogs/details/{run_id}")
    assert "Still running after timeout" in page and "/retry" not in page, "a going run cannot be retried"


def test_the_log_is_text_with_numbers_and_levels(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub)
    change(hub, run_id, run_log=LOG)
    page = hub.client.get(f"/admin/joblogs/details/{run_id}").text
    assert 'id="L2" data-level="ERROR"' in page and "&lt;b&gt;two&lt;/b&gt;" in page
    file = hub.client.get(f"/admin/joblogs/{run_id}/log")
    assert file.text == LOG and f"run-{run_id}.log" in file.headers["content-disposition"]
    assert file.headers["content-type"].startswith("text/plain")
    assert [line.level for line in parse("odd\n[TRUNCATED]\n" + LOG, None)] == ["", "", "INFO", "ERROR"]


def test_the_stream_goes_on_after_the_last_line_seen(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub)
    change(hub, run_id, run_log=LOG)
    whole = hub.client.get(f"/admin/joblogs/{run_id}/log/stream")
    assert whole.headers["content-type"].startswith("text/event-stream") and "id: 2\n" in whole.text
    [(first, data), (last, _)] = events(whole.text)
    assert (first, last) == ("lines", "end") and [line["text"] for line in json.loads(data)] == [
        "one",
        "<b>two</b>",
    ]
    rest = hub.client.get(f"/admin/joblogs/{run_id}/log/stream", headers={"Last-Event-ID": "1"})
    assert [line["n"] for line in json.loads(events(rest.text)[0][1])] == [2]
    change(hub, run_id, run_log=f"a\n[TRUNCATED]\n{LOG}")
    cut = events(hub.client.get(f"/admin/joblogs/{run_id}/log/stream?line=3").text)
    assert cut[0][0] == "replace" and [line["n"] for line in json.loads(cut[0][1])] == [2, 3, 4]
    for path, status in (
        (f"{run_id}/log/stream?line=x", 400),
        ("x/log/stream", 400),
        ("7777/log/stream", 404),
        ("7777/log", 404),
    ):
        assert hub.client.get(f"/admin/joblogs/{path}").status_code == status, path


def test_a_page_that_was_drawn_just_before_a_change_hears_of_it(hub: Hub) -> None:
    """The stream cannot know what the page shows: of a run that goes it tells once in any case."""
    insert_job(hub)
    run_id = insert_run(hub, "QUEUED")

    async def heard() -> list[str]:
        database = await Database.open(hub.dsn)
        told = stream(database, run_id, 0)
        texts = [await anext(told) for _ in range(3)]
        await database.close()
        return texts

    assert "event: state\n" in asyncio.run(heard())[2]


def test_the_two_retries_differ_in_what_they_run(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub, "FAILURE")
    hub.sql("UPDATE job_logs SET scheduled_for = '2026-11-24 06:05+00'")
    hub.sql(
        'UPDATE jobs SET public_cfg = \'{"new": "<i>"}\', secret_cfg = $1',
        hub.vault.encrypt({"token": CANARY + "2", "more": "v" * 9}),
    )
    page = hub.page(f"/admin/joblogs/details/{run_id}?confirm=retry")
    for text in (
        "<code>only</code>",
        "<code>new</code>",
        "<code>token</code>",
        "<code>more</code>",
        "4 differences",
    ):
        assert text in page, text
    assert CANARY not in page and "<dialog" in page and " open>" in page
    for fields, revision, params in (({}, 1, '{"only": "once"}'), ({"settings": "today"}, 2, None)):
        answer = hub.post(f"/admin/joblogs/{run_id}/retry", **fields)
        again = int(answer.headers["location"].rsplit("/", 1)[1])
        [row] = hub.sql(
            "SELECT l.*, r.number FROM job_logs l JOIN job_revisions r ON r.id = revision_id WHERE l.id = $1",
            again,
        )
        assert (row["trigger"], row["number"], row["params"], row["retry_of"]) == (
            "retry",
            revision,
            params,
            run_id,
        )
        assert row["idempotency_key"] == "key-1" and row["scheduled_for"] is not None
        hub.post(f"/admin/joblogs/{again}/cancel")
    assert f"#{again}" in hub.page(f"/admin/joblogs/details/{run_id}"), "the chain links its retries"


def test_a_second_click_on_a_retry_leads_to_the_run_of_the_first(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub, "FAILURE")
    hub.sql("UPDATE jobs SET public_cfg = '{\"new\": 1}'")

    def click(seen: str, **fields: str) -> int:
        answer = hub.post(f"/admin/joblogs/{run_id}/retry", seen=seen, **fields)
        assert answer.status_code == 303, answer.text
        return int(answer.headers["location"].rsplit("/", 1)[1])

    def seen() -> str:
        forms = re.findall(
            r'/retry".*?name="seen" value="(\d+)"', hub.page(f"/admin/joblogs/details/{run_id}")
        )
        assert len(forms) == 2 and len(set(forms)) == 1
        return str(forms[0])

    first_page = seen()
    first = click(first_page)
    assert click(first_page) == first, "while it is going"
    assert hub.post(f"/admin/joblogs/{run_id}/retry").status_code == 409, "who has seen no page is refused"
    hub.sql("UPDATE job_logs SET status = 'SUCCESS', finished_at = now() WHERE id = $1", first)
    assert click(first_page) == first, "although it has ended at once"
    other = click(first_page, settings="today")
    assert other != first, "the other button asks for something else"
    hub.post(f"/admin/joblogs/{other}/cancel")
    assert click(seen()) not in (first, other), "a page that shows the first one asks anew"
    for odd in ("x", "-1", "9" * 30, "9" * 18):
        assert hub.post(f"/admin/joblogs/{run_id}/retry", seen=odd).status_code == 409, odd
    [row] = hub.sql("SELECT count(*) FROM audit WHERE action = 'run.retry'")
    assert row["count"] == 3


def test_a_result_is_tiles_and_tables(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub)
    change(
        hub,
        run_id,
        message=None,
        result='{"total": 1250, "failed": 2, "errors": [{"id": "u1", "error": "<i>"}]}',
    )
    page = hub.client.get(f"/admin/joblogs/details/{run_id}?tab=result").text
    assert "<dd>1,250</dd>" in page and "<th>error</th>" in page and "<td>&lt;i&gt;</td>" in page
    listed = hub.page("/admin/joblogs/list")
    assert "total 1,250" in listed and "some failed" in listed
    for odd in ("[]", "7", '"text"', "null", '{"a": {"b": []}}', '{"errors": [{}, {"x": null}]}'):
        change(hub, run_id, result=odd)
        hub.page(f"/admin/joblogs/details/{run_id}")
        hub.page("/admin/joblogs/list")


def shown(hub: Hub, query: str) -> list[int]:
    return [int(key) for key in re.findall(r'data-key="(\d+)"', hub.page(f"/admin/joblogs/list?{query}"))]


def test_filters_find_what_they_name(hub: Hub) -> None:
    insert_job(hub)
    insert_job(hub, "sync-10")
    good, bad, other = insert_run(hub), insert_run(hub, "FAILURE"), insert_run(hub, job_id="sync-10")
    change(hub, bad, reason="timeout", message="100% of_it\\ broke")
    hub.sql("UPDATE job_logs SET queued_at = now() - interval '3 days' WHERE id = $1", good)
    for query, expected in [
        ("", [other, bad, good]), ("job=sync-1", [bad, good]), ("search=sync-1", [bad, good]),
        ("status=FAILURE", [bad]), ("status=SUCCESS&job=sync-10", [other]), ("reason=timeout", [bad]),
        ("reason=timeout&job=sync-10", []), ("trigger=manual", [other, bad, good]), ("trigger=api", []),
        ("span=24h", [other, bad]), ("span=7d&status=SUCCESS", [other, good]), ("q=100%25", [bad]),
        ("q=of_it%5C", [bad]), ("q=ofxit", []), ("to=2001-01-01T00:00", []), ("from=2001-01-01", [other, bad, good]),  # noqa: E501
        (f"before={bad}", [good]), (f"after={bad}", [other]), ("before=1", []), ("q=%3Cb%3E", []),
        (f"after={other}", []), (f"after={2**63 - 1}", []), (f"before={2**63 - 1}", [other, bad, good]),
    ]:  # fmt: skip
        assert shown(hub, query) == expected, query
    for query in (
        "status=x",
        "trigger=x",
        "span=1y",
        "from=yesterday",
        "to=99999-01-01",
        "to=9999-12-31T23:59:59%2B00:00",
        "from=0001-01-01T00:00:00%2B00:00",
        "before=x",
        "after=-1",
    ):
        hub.page(f"/admin/joblogs/list?{query}", 400)
    assert "No run matches" in hub.page("/admin/joblogs/list?q=none")


def test_pages_follow_each_other_without_gap_or_double(hub: Hub) -> None:
    insert_job(hub)
    assert "Nothing has run yet" in hub.page("/admin/joblogs/list")
    hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key,"
        " started_at, finished_at)"
        " SELECT id, revision_id, 'api', 'SUCCESS', g::text, now(), now() FROM jobs,"
        " generate_series(1, 120) g"
    )
    pages, query = [], ""
    while True:
        page = hub.page(f"/admin/joblogs/list?{query}")
        pages.append([int(key) for key in re.findall(r'data-key="(\d+)"', page)])
        older = re.search(r'rel="next" href="\?([^"]*)"', page)
        if not older:
            break
        query = older[1]
    assert [len(page) for page in pages] == [50, 50, 20]
    ids = [key for page in pages for key in page]
    assert ids == sorted(set(ids), reverse=True)
    assert shown(hub, f"after={pages[2][0]}") == pages[1]
    assert "120 match" in hub.page("/admin/joblogs/list")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "\r=1"])
def test_no_cell_of_a_csv_is_a_formula(text: str) -> None:
    [[cell]] = csv.reader(io.StringIO(csv_lines([[text]]), newline=""))
    assert cell == f"'{text}"


def test_the_csv_has_what_matches(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub, "FAILURE")
    insert_run(hub)
    change(hub, run_id, message='=HYPERLINK("http://evil","x")' + "w" * 400)
    answer = hub.client.get("/admin/joblogs/csv?status=FAILURE")
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert [row["id"] for row in rows] == [str(run_id)] and rows[0]["message"].startswith("'=HYPERLINK")
    assert rows[0]["message"].endswith("w…")  # a cell says so where it leaves something out
    assert re.fullmatch(r"[\d-]+T[\d:.]+\+08:00", rows[0]["queued_at"])


def test_points_of_many_runs_are_the_worst_of_each_column(hub: Hub) -> None:
    insert_job(hub)
    hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key,"
        " queued_at, started_at, finished_at)"
        " SELECT id, revision_id, 'api', CASE WHEN g % 100 = 50 THEN 'FAILURE' ELSE"
        " 'SUCCESS' END, g::text, at, at,"
        " at + interval '3 s' FROM jobs, generate_series(1, 2500) g, LATERAL (SELECT now() -"
        " g * interval '1 min' AS at) t"
    )
    page = hub.page("/admin/joblogs/list")
    drawn = page.split('class="hub-svg hub-scatter"')[1].split("</section>")[0]
    assert 500 < drawn.count("<path") + drawn.count("<circle") <= 2000
    assert drawn.count('class="hub-m-failure"') == 25 and "worst run of each column" in page


def test_the_id_of_a_job_is_text_in_the_scatter(hub: Hub) -> None:
    insert_job(hub, "<b>odd</b>")
    _, run_id = (insert_run(hub, job_id="<b>odd</b>") for _ in range(2))
    raw = hub.client.get("/admin/joblogs/list").text
    assert f"<title>&lt;b&gt;odd&lt;/b&gt; #{run_id} " in raw and "<b>odd" not in raw


def test_the_innermost_call_is_named() -> None:
    text = (
        'Traceback\n  File "/a/x.py", line 1, in run\n    y()\n  File "b/y.py", line 88, in push\n    raise\n'
    )
    assert last_frame(text) == "b/y.py:88 in push" and last_frame("no frames") == ""


def test_the_page_of_a_run_says_which_code_it_was(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub)
    code = {"module": "webjobs.jobs", "sha256": "0123456789abcdef", "commit": "89abcdef0123"}
    hub.sql("UPDATE job_logs SET meta = $1", json.dumps({"code": code}))
    page = re.sub(r"<[^>]+>", "", hub.page(f"/admin/joblogs/details/{run_id}?tab=configuration"))
    assert "Codewebjobs.jobs SHA-256 0123456789abcdef · commit 89abcdef0123" in page


def test_a_retry_that_the_state_forbids_is_shown_with_the_reason(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub, "FAILURE")
    assert 'btn" disabled>Retry' not in hub.page(f"/admin/joblogs/details/{run_id}")
    hub.sql("UPDATE job_logs SET lease_expires_at = clock_timestamp() + interval '1 min'")
    page = hub.page(f"/admin/joblogs/details/{run_id}")
    assert 'btn" disabled>Retry as it ran</button>' in page and "still running: wait until" in page


def test_a_relative_span_offers_a_link_that_stays(hub: Hub) -> None:
    insert_job(hub)
    insert_run(hub)
    page = hub.page("/admin/joblogs/list?span=24h&status=SUCCESS")
    link = re.search(r'href="(\?[^"]*)">link with fixed times<', page)
    assert link and "span" not in link[1] and "status=SUCCESS" in link[1]
    fixed = hub.page(f"/admin/joblogs/list{link[1]}")
    assert "1 match" in fixed
    spans = dict(re.findall(r'step="1" name="(from|to)" value="([^"]*)"', fixed))
    assert set(spans) == {"from", "to"}
    again = hub.client.get("/admin/joblogs/list", params={**spans, "status": "SUCCESS"})
    assert "1 match" in again.text, "Search asks for the same span"
