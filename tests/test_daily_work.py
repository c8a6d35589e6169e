"""Jobs and runs from the command line, as people and their scripts use it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.fernet import Fernet

from connecthub.errors import RefusedError
from connecthub.operations.job_file import read_jobs
from connecthub.security.vault import Vault
from tests import web_hub
from tests.installation import Site
from tests.program import Program

pytest_plugins = ["tests.installation"]

CANARY = "canary-4d1f70ab"
MORE_PLUGINS = """
import logging

from pydantic import BaseModel

class TypedJob(GoodJob):
    class Params(BaseModel):
        limit: int

    class Secrets(BaseModel):
        token: str

class TellingJob(BaseJob):
    def run(self, params, secrets):
        logging.getLogger(__name__).info("limit is %s \\x1b[31m", params.get("limit"))
        if params.get("fail"):
            raise ValueError("asked to fail")
        return {"message": "told"}
"""
FILE = """
[jobs.sync-1]
name = "同步"
tags = ["oa"]
cron_expr = "*/5 * * * *"
handler_path = "checkjobs.job:TypedJob"
timeout_s = 60
[jobs.sync-1.public_cfg]
limit = 10
[jobs.sync-1.secret_cfg]
token = "env:SYNC_TOKEN"
"""


def fetch(site: Site, statement: str) -> list[dict[str, Any]]:
    async def work() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(site.dsn)
        rows = await connection.fetch(statement)
        await connection.close()
        return [dict(row) for row in rows]

    return asyncio.run(work())


def done(site: Site, *words: str, **environ: str) -> str:
    """What a command prints that succeeds."""
    ended = site.command(*words, **environ)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert CANARY not in ended.stdout + ended.stderr
    return ended.stdout


def refused(site: Site, *words: str, **environ: str) -> str:
    """What a command says that is refused: lines, and no traceback."""
    ended = site.command(*words, **environ)
    assert ended.returncode == 2 and not ended.stdout, ended.stdout + ended.stderr
    assert CANARY not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if "Type " not in line]
    assert all(line.startswith("connecthub: ") for line in lines), ended.stderr
    return ended.stderr


def add_plugins(site: Site) -> None:
    with (site.folder / "checkjobs" / "job.py").open("a") as file:
        file.write(MORE_PLUGINS)


def write(site: Site, text: str, name: str = "jobs.toml") -> Path:
    file = site.folder / name
    file.write_text(text)
    return file


def test_jobs_are_listed_switched_and_deleted_as_in_the_admin(site: Site) -> None:
    site.job("sync-1", name="同步", secret_cfg=site.vault.encrypt({"token": CANARY}))
    site.job("other", enabled="false")
    lines = done(site, "job", "list").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["other", "other", "disabled"],
        ["sync-1", "同步", "enabled"],
    ]
    shown = json.loads(done(site, "job", "show", "sync-1", "--json"))
    assert shown["secret_keys"] == ["token"] and "secret_cfg" not in shown and shown["public_cfg"] == {}
    (site.data / "fernet.key").rename(site.data / "away")
    assert "cannot be read with the key here" in done(site, "job", "show", "sync-1")
    (site.data / "away").rename(site.data / "fernet.key")
    assert "no Job nope" in refused(site, "job", "enable", "other", "nope")
    assert json.loads(done(site, "job", "enable", "other", "sync-1", "--json"))["changed"] == ["other"]
    assert done(site, "job", "run", "sync-1") == "run 1 is queued\n"
    assert "still running" in refused(site, "run", "retry", "1")
    assert "run 1 of Job sync-1 is still going" in refused(site, "job", "delete", "sync-1", "--yes")
    done(site, "run", "cancel", "1")
    assert "has ended already" in refused(site, "run", "cancel", "1")
    assert "was not typed" in refused(site, "job", "delete", "sync-1")
    assert done(site, "job", "clear", "sync-1", "--yes") == "1 runs are deleted\n"
    done(site, "job", "delete", "sync-1", "--yes")
    assert [row["id"] for row in json.loads(done(site, "job", "list", "--json"))] == ["other"]
    audit = fetch(site, "SELECT action, username, address FROM audit ORDER BY id")
    assert [row["action"] for row in audit] == [
        "job.enable", "job.run", "run.cancel", "job.clear", "job.delete",
    ]  # fmt: skip
    assert all(row["username"].endswith(" (command line)") and row["address"] is None for row in audit)


def test_a_run_is_waited_for_followed_and_tried_again(site: Site) -> None:
    add_plugins(site)
    site.job("telling", cron="0 0 29 2 *", handler="checkjobs.job:TellingJob")
    settings = {name: value for name, value in site.environ.items() if name.startswith("CONNECTHUB_")}
    with Program(site.folder, settings):
        told = site.command("job", "run", "telling", "--params", '{"limit": 7}', "--follow")
        assert told.returncode == 0 and told.stdout.endswith("limit is 7 \\x1b[31m\n"), told
        assert told.stderr == "run 1: SUCCESS\ntold\n"
        failed = site.command("job", "run", "telling", "--params", '{"fail": true}', "--wait", "--json")
        assert failed.returncode == 1
        assert json.loads(failed.stdout)["message"] == "ValueError: asked to fail"
        assert site.command("run", "retry", "2", "--wait").returncode == 1
        assert site.command("run", "retry", "2", "--wait", "--today").returncode == 0
        assert done(site, "run", "log", "-f", "1").endswith("limit is 7 \\x1b[31m\n")
    rows = json.loads(done(site, "run", "list", "--status", "FAILURE", "--json"))
    assert [(row["id"], row["trigger"], row["reason"]) for row in rows] == [
        (3, "retry", "exception"),
        (2, "manual", "exception"),
    ]
    assert "ValueError: asked to fail" in done(site, "run", "show", "3")
    assert "limit" in json.loads(done(site, "run", "show", "1", "--json"))["params"]
    assert "there is no run 99" in refused(site, "run", "log", "99")
    assert "--params must be a JSON object" in refused(site, "job", "run", "telling", "--params", "[1]")


def test_a_long_log_is_followed_behind_what_is_left_out_of_it(site: Site) -> None:
    """Such a log keeps its length, and what stands behind the cut moves; each line is printed once."""

    def log(first: int) -> str:
        behind = "".join(f"2026-11-24T10:00:0{n}.000Z INFO a: line {n}\n" for n in range(first, first + 3))
        return f"2026-11-24T10:00:00.000Z INFO a: line 0\n[TRUNCATED]\n{behind}"

    site.job("long")
    done(site, "job", "run", "long")
    site.sql(
        "UPDATE job_logs SET status = 'RUNNING', started_at = now(), worker_id = gen_random_uuid(),"
        f" lease_expires_at = now() + interval '1 hour', run_log = '{log(1)}'"
    )
    follower = site.start("run", "log", "-f", "1")
    assert follower.stdout is not None
    too_long = threading.Timer(60, follower.kill)  # a line that does not come would be waited for without end
    too_long.start()
    assert [follower.stdout.readline().split()[-1] for _ in range(5)] == ["0", "[TRUNCATED]", "1", "2", "3"]
    site.sql(f"UPDATE job_logs SET run_log = '{log(2)}'")
    assert follower.stdout.readline().endswith("line 4\n")
    site.sql("UPDATE job_logs SET status = 'SUCCESS', finished_at = now(), lease_expires_at = NULL")
    rest, _ = follower.communicate(timeout=30)
    too_long.cancel()
    assert (follower.returncode, rest) == (0, "")


@pytest.mark.parametrize("option", ["--wait", "--follow"])
def test_a_run_is_named_where_the_database_goes_once_it_is_queued(
    site: Site, server: str, option: str
) -> None:
    name = site.dsn.partition("?")[0].rpartition("/")[2]
    site.job("waiting")
    site.sql(
        "CREATE FUNCTION go() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN ALTER DATABASE {name} CONNECTION LIMIT 0; RETURN NULL; END $$",
        "CREATE TRIGGER go AFTER INSERT ON job_logs EXECUTE FUNCTION go()",
    )
    for run_id, words in enumerate((["job", "run", "waiting"], ["run", "retry", "1"]), 1):
        lost = site.command(*words, option)
        asyncio.run(web_hub.fetch(server, f"ALTER DATABASE {name} CONNECTION LIMIT -1"))
        said, complained = lost.stderr.splitlines()
        assert lost.returncode == 2 and complained.startswith("connecthub: database cannot be used")
        assert said == f"run {run_id} goes on: connecthub run log -f {run_id}"
        done(site, "run", "cancel", str(run_id))
    assert fetch(site, "SELECT count(*) AS runs FROM job_logs") == [{"runs": 2}]


def test_jobs_move_as_files_with_secrets_as_references(site: Site) -> None:
    add_plugins(site)
    file = write(site, FILE)
    tried = done(site, "job", "import", "--dry-run", str(file), SYNC_TOKEN=CANARY)
    assert "public_cfg.limit: - -> 10" in tried and "secret_cfg.token: added" in tried
    assert not fetch(site, "SELECT FROM jobs")
    done(site, "job", "import", str(file), SYNC_TOKEN=CANARY)
    exported = tomllib.loads(done(site, "job", "export", "sync-1"))["jobs"]["sync-1"]
    assert (
        exported["name"] == "同步" and exported["timeout_s"] == 60 and exported["public_cfg"] == {"limit": 10}
    )
    assert exported["secret_cfg"] == {"token": "env:SYNC_1_TOKEN"}
    again = write(site, done(site, "job", "export"), "again.toml")
    assert "1 are as they were" in done(site, "job", "import", str(again), SYNC_1_TOKEN=CANARY)
    (site.folder / "token").write_text(CANARY[::-1] + "\n")
    changed = again.read_text().replace("env:SYNC_1_TOKEN", "file:token").replace("limit = 10", "limit = 11")
    again.write_text(changed)
    answer = json.loads(done(site, "job", "import", str(again), "--json"))
    assert [change["field"] for change in answer[0]["changes"]] == ["public_cfg", "secret_cfg"]
    token = fetch(site, "SELECT secret_cfg FROM jobs")[0]["secret_cfg"]
    assert site.vault.decrypt(token) == {"token": CANARY[::-1]}
    actions = fetch(site, "SELECT action, detail::text FROM audit ORDER BY id")
    assert [row["action"] for row in actions] == ["job.create", "job.update"]
    assert CANARY not in str(actions) and CANARY[::-1] not in str(actions)


def test_encrypted_secrets_are_good_under_the_same_key_only(site: Site) -> None:
    add_plugins(site)
    token = site.vault.encrypt({"token": CANARY})
    public = '{"limit": 1, "none": null}'
    site.job("sync-1", handler="checkjobs.job:TypedJob", public_cfg=public, secret_cfg=token)
    file = write(site, done(site, "job", "export", "--secrets", "encrypted"))
    assert token in file.read_text()
    site.sql("DELETE FROM jobs")
    done(site, "job", "import", str(file))
    row = fetch(site, "SELECT public_cfg::text, secret_cfg FROM jobs")[0]
    assert json.loads(row["public_cfg"]) == {"limit": 1, "none": None}
    assert site.vault.decrypt(row["secret_cfg"]) == {"token": CANARY}
    strange = Vault([Fernet(Fernet.generate_key())]).encrypt({"token": CANARY})
    write(site, file.read_text().replace(token, strange))
    said = refused(site, "job", "import", str(file))
    assert (
        "jobs.toml: jobs.sync-1.secret_cfg: secret_cfg was saved with another key" in said
        and "env:NAME" in said
    )


def test_a_bad_file_is_refused_whole(site: Site) -> None:
    add_plugins(site)
    good = FILE.replace("sync-1", "good").replace("env:SYNC_TOKEN", "file:/dev/null")
    several = {
        "*/5 * * * *": "61 * * * *",
        "timeout_s = 60": 'timezone = "Mars/Base"',
        "limit = 10": 'limit = "ten"',
        "jobs.sync-1": 'jobs."a b"',
    }
    text = FILE
    for wrong, right in several.items():
        text = text.replace(wrong, right)
    said = refused(site, "job", "import", str(write(site, good + text)), SYNC_TOKEN=CANARY)
    for key in ("id: ", "cron_expr: ", "timezone: ", "public_cfg: limit: Must be a whole number."):
        assert f'jobs.toml: jobs."a b".{key}' in said
    for wrong, right, words in (
        ('tags = ["oa"]', 'tags = ["oa"', "jobs.toml: Unclosed array (at line 5, column 1)"),
        ("timeout_s = 60", 'timeout_s = "60"', "jobs.sync-1.timeout_s: must be a whole number"),
        ("timeout_s = 60", "timeout = 60", "jobs.sync-1.timeout: there is no such setting"),
        ("limit = 10", "limit = 2026-01-01", "jobs.sync-1.public_cfg: holds a date"),
        ("env:SYNC_TOKEN", CANARY, "jobs.sync-1.secret_cfg.token: must be env:NAME or file:PATH"),
        ("env:SYNC_TOKEN", "env:NOWHERE", "jobs.sync-1.secret_cfg.token: the environment has no NOWHERE"),
        ("env:SYNC_TOKEN", "file:nowhere", "nowhere cannot be read: No such file"),
    ):
        assert wrong in FILE
        file = write(site, FILE.replace(wrong, right))
        with pytest.raises(RefusedError) as error:
            read_jobs("jobs.toml", file.read_text(), site.folder, site.vault)
        assert words in str(error.value), right
        assert CANARY not in str(error.value)
    twice = write(site, FILE), write(site, FILE, "twice.toml")
    assert "in these files twice" in refused(site, "job", "import", *map(str, twice), SYNC_TOKEN=CANARY)
    assert "cannot be read" in refused(site, "job", "import", "nowhere.toml")
    assert not fetch(site, "SELECT FROM jobs")


def test_who_reads_only_the_first_lines_is_not_told_of_a_lost_database(site: Site) -> None:
    site.job("a")
    site.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, finished_at, run_log)"
        " SELECT id, revision_id, 'manual', 'SUCCESS', 'k', now(), 'a line' FROM jobs"
    )
    number = str(fetch(site, "SELECT id FROM job_logs")[0]["id"])
    for words in (
        ["run", "log", number],
        ["run", "log", "-f", number],
        ["run", "show", number],
        ["job", "list"],
    ):
        reading, writing = os.pipe()
        os.close(reading)  # as `| head` does, when it has enough
        ended = subprocess.run(
            [sys.executable, "-m", "connecthub", *words],
            cwd=site.folder, env=site.environ, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (1, "")


def test_pause_says_whether_it_was_so_already(site: Site) -> None:
    assert "no Job starts" in done(site, "pause")
    assert json.loads(done(site, "pause", "--json")) == {"paused": True, "changed": False}
    assert json.loads(done(site, "resume", "--json")) == {"paused": False, "changed": True}
    assert "already" in done(site, "resume")
