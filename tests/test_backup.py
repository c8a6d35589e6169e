"""Backups and their restoring by the command line: all or nothing, and never without the key."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.fernet import Fernet

from connecthub.engine.spool import Spool
from connecthub.errors import RefusedError
from connecthub.operations.archive import DUMP, Manifest, new_archive, write_manifest
from connecthub.security.keyfile import read_keys
from connecthub.security.vault import Vault
from connecthub.storage.programs import Programs, find_programs
from connecthub.storage.runs import Ending
from connecthub.storage.schema import MIGRATION_LOCK
from tests import cluster
from tests.installation import Site
from tests.program import Program
from tests.web_hub import fetch, run

pytest_plugins = ["tests.installation"]

CANARY = "canary-1d94b7aa"
# Not even a session that begins reads it, as it does most catalogs where their cache on disk has just gone.
PG_DUMP_ALONE_READS = "pg_catalog.pg_description"


@pytest.fixture
def filled(site: Site) -> Site:
    """Two Jobs, one of them with a secret, and a run of each state."""
    site.job("a", secret_cfg=site.vault.encrypt({"token": CANARY}), public_cfg='{"text": "O\'\'Hara; 你好"}')
    site.job("b")
    site.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, message, finished_at)"
        " SELECT id, revision_id, 'manual', 'SUCCESS', 'k1', E'tab\\t\\\\. end', now()"
        " FROM jobs WHERE id = 'a'",
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
        " SELECT id, revision_id, 'manual', 'QUEUED', 'k2' FROM jobs WHERE id = 'a'",
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, worker_id,"
        " lease_expires_at) SELECT id, revision_id, 'manual', 'RUNNING', 'k3', gen_random_uuid(),"
        " now() + interval '1 hour'"
        " FROM jobs WHERE id = 'b'",
        "INSERT INTO users (username, password_hash, role) VALUES ('li.na', 'x', 'admin')",
        "INSERT INTO sessions (token_hash, username, expires_at)"
        " VALUES ('x', 'li.na', now() + interval '1 day')",
    )
    site.leave_canary()
    return site


@pytest.fixture
def elsewhere(server: str, site: Site, tmp_path: Path) -> Iterator[Site]:
    """Another installation, with an empty database and no key file."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    name = "empty_" + site.dsn.partition("test_")[2][:16]
    there = Site(folder, cluster.create_database(server, name))
    (there.data / "fernet.key").unlink()
    yield there
    cluster.drop_database(server, name)


def backup(site: Site, *options: str) -> Path:
    done = site.command("backup", "b.zip", *options)
    assert done.returncode == 0, done.stderr
    assert "2 Jobs, 3 runs, 1 users" in done.stdout
    return site.folder / "b.zip"


def everything(site: Site) -> dict[str, list[Any]]:
    tables = run(fetch(site.dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"))
    return {
        row["tablename"]: [
            tuple(one)
            for one in run(fetch(site.dsn, f'SELECT * FROM "{row["tablename"]}" t ORDER BY t::text'))
        ]
        for row in tables
    }


def refused(site: Site, *words: str, **environ: str) -> str:
    """The one line of a command that does nothing."""
    before = everything(site), sorted(site.data.iterdir())
    done = site.command(*words, **environ)
    assert done.returncode == 2 and not done.stdout, done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert (everything(site), sorted(site.data.iterdir())) == before
    return done.stderr


def test_a_backup_without_key_is_restored_where_the_key_was_put(filled: Site, elsewhere: Site) -> None:
    file = backup(filled)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with zipfile.ZipFile(file) as archive:
        assert sorted(archive.namelist()) == ["database.dump", "manifest.json"]
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["counts"]["job_revisions"] == 2 and manifest["going"] == 2
    assert manifest["key_ids"] == [key.id for key in read_keys(filled.data / "fernet.key")]

    assert f"key {manifest['key_ids'][0]}" in refused(elsewhere, "restore", str(file))
    (elsewhere.data / "fernet.key").write_bytes((filled.data / "fernet.key").read_bytes())
    (elsewhere.data / "fernet.key").chmod(0o600)
    done = elsewhere.command("restore", str(file))
    assert done.returncode == 0, done.stderr
    assert "2 runs that were queued or running" in done.stdout and "connecthub resume" in done.stdout

    was, is_now = everything(filled), everything(elsewhere)
    for table in ("jobs", "job_revisions", "users", "alembic_version"):
        assert was[table] == is_now[table]
    rows = run(
        fetch(elsewhere.dsn, "SELECT status, reason, lease_expires_at, message FROM job_logs ORDER BY id")
    )
    assert [tuple(row)[:3] for row in rows] == [
        ("SUCCESS", None, None), ("LOST", "restored", None), ("LOST", "restored", None)
    ]  # fmt: skip
    assert rows[0]["message"] == "tab\t\\. end" and is_now["sessions"] == []
    audit = run(fetch(elsewhere.dsn, "SELECT action, object FROM audit ORDER BY id"))
    assert [tuple(row) for row in audit] == [("hub.restore", "b.zip"), ("hub.pause", "")]
    found = elsewhere.check()
    assert "by restore: connecthub resume" in found["pause"][0] and found["secrets"][0].startswith("ok")
    # What the database itself does is there again.
    elsewhere.sql("UPDATE jobs SET priority = 3 WHERE id = 'b'")
    assert run(fetch(elsewhere.dsn, "SELECT max(number) AS number FROM job_revisions"))[0]["number"] == 2


def test_the_key_comes_along_where_it_was_asked_for(filled: Site, elsewhere: Site) -> None:
    assert filled.command("key", "rotate").returncode == 0
    done = filled.command("backup", "with.zip", "--with-key")
    assert done.returncode == 0 and "holds the key file" in done.stdout
    done = elsewhere.command("restore", str(filled.folder / "with.zip"))
    assert done.returncode == 0, done.stderr
    key = elsewhere.data / "fernet.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and read_keys(key) == read_keys(
        filled.data / "fernet.key"
    )
    token = run(fetch(elsewhere.dsn, "SELECT secret_cfg FROM jobs WHERE id = 'a'"))[0]["secret_cfg"]
    assert Vault.open(key, may_create=False).decrypt(token) == {"token": CANARY}


def test_ends_in_the_spool_that_was_taken_along_are_stored_beside_the_restored_rows(
    filled: Site, elsewhere: Site
) -> None:
    (row,) = run(fetch(filled.dsn, "SELECT id, worker_id FROM job_logs WHERE status = 'RUNNING'"))
    spool = Spool(elsewhere.data / "spool", row["worker_id"])
    spool.write([Ending(row["id"], "SUCCESS", result='{"n": 3}')])
    spool.close()
    assert elsewhere.command("restore", str(backup(filled, "--with-key"))).returncode == 0
    there = "SELECT status, result FROM job_logs WHERE idempotency_key = 'k3'"
    assert run(fetch(elsewhere.dsn, there))[0]["status"] == "LOST"
    environ = {name: value for name, value in elsewhere.environ.items() if name.startswith("CONNECTHUB_")}
    with Program(elsewhere.folder, environ) as program:
        until = time.monotonic() + 60
        while list((elsewhere.data / "spool").iterdir()):
            assert program.process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        assert program.stop() == 0
    (row,) = run(fetch(elsewhere.dsn, there))
    assert (row["status"], json.loads(row["result"])) == ("SUCCESS", {"n": 3})


def test_a_reminder_stands_where_the_key_is_left_out(filled: Site) -> None:
    done = filled.command("backup", "b.zip")
    assert f"back up {filled.data / 'fernet.key'} too" in done.stdout
    assert CANARY.encode() not in (filled.folder / "b.zip").read_bytes()
    again = filled.command("backup", "b.zip")
    assert again.returncode == 2 and "exists already" in again.stderr


@contextmanager
def waiting_backup(site: Site, server: str, table: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A backup to b.zip that waits for `table` while this is entered."""
    name = site.dsn.partition("?")[0].rpartition("/")[2]
    waits = f"SELECT FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"
    with asyncio.Runner() as loop:
        connection = loop.run(asyncpg.connect(server.replace("/postgres?", f"/{name}?")))
        loop.run(connection.execute(f"BEGIN; LOCK TABLE {table}"))
        backing_up = subprocess.Popen(
            [sys.executable, "-m", "connecthub", "backup", "b.zip", *options],
            cwd=site.folder, env=site.environ, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            while not run(fetch(server, waits)):
                assert backing_up.poll() is None
            yield backing_up
        finally:
            loop.run(connection.close())


def test_keys_that_are_retired_while_the_dump_is_written_are_in_the_backup(
    filled: Site, elsewhere: Site, server: str
) -> None:
    with waiting_backup(filled, server, PG_DUMP_ALONE_READS, "--with-key") as backing_up:
        for word in ("rotate", "retire"):
            done = filled.command("key", word)
            assert done.returncode == 0, done.stderr
    _, said = backing_up.communicate(timeout=60)
    assert backing_up.returncode == 0, said
    done = elsewhere.command("restore", str(filled.folder / "b.zip"))
    assert done.returncode == 0, done.stderr
    token = run(fetch(elsewhere.dsn, "SELECT secret_cfg FROM jobs WHERE id = 'a'"))[0]["secret_cfg"]
    assert Vault.open(elsewhere.data / "fernet.key", may_create=False).decrypt(token) == {"token": CANARY}


def test_a_backup_is_refused_where_keys_are_changed_as_it_begins(filled: Site, server: str) -> None:
    """Its snapshot is taken, and its rows are being counted."""
    with waiting_backup(filled, server, "sessions") as backing_up:
        for word in ("rotate", "retire"):
            done = filled.command("key", word)
            assert done.returncode == 0, done.stderr
    _, said = backing_up.communicate(timeout=60)
    assert backing_up.returncode == 2 and "was changed as the backup began" in said, said
    assert not [file.name for file in filled.folder.iterdir() if "zip" in file.name]


@pytest.mark.parametrize("has_links", [True, False], ids=["links", "no links"])
def test_of_two_backups_to_one_name_the_first_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError(errno.EPERM, "as exFAT says")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    file = tmp_path / "b.zip"
    with pytest.raises(RefusedError, match="exists already"), new_archive(file) as later:
        later.writestr("who", "later")
        with new_archive(file) as first:
            first.writestr("who", "first")
    with zipfile.ZipFile(file) as archive:
        assert archive.read("who") == b"first"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and list(tmp_path.iterdir()) == [file]


def damaged(change: Callable[[bytearray], None]) -> Callable[[bytes], bytes]:
    def act(content: bytes) -> bytes:
        text = bytearray(content)
        change(text)
        return bytes(text)

    return act


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        damaged(lambda text: text.__setitem__(len(text) // 3, text[len(text) // 3] ^ 1)),
        damaged(lambda text: text.__setitem__(10, text[10] ^ 1)),  # a time stamp that unzip does not look at
        damaged(lambda text: text.__setitem__(-1, text[-1] ^ 1)),
    ],
    ids=["half", "one byte short", "empty", "one bit", "one bit of a header", "one bit of the checksum"],
)
def test_a_cut_or_altered_archive_changes_nothing(filled: Site, damage: Callable[[bytes], bytes]) -> None:
    file = backup(filled)
    file.write_bytes(damage(file.read_bytes()))
    line = refused(filled, "restore", str(file), "--replace", "--yes")
    assert str(file) in line and "take another copy" in line


def test_what_is_there_is_replaced_only_after_a_yes(filled: Site) -> None:
    file = backup(filled)
    filled.sql(
        "DELETE FROM jobs WHERE id = 'none'",
        "UPDATE jobs SET priority = 7",
        "CREATE TABLE of_a_newer_version (job_id text REFERENCES jobs (id))",
        "CREATE VIEW newer AS SELECT id FROM job_logs",
        "CREATE FUNCTION newer(jobs) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    assert "add --replace" in refused(filled, "restore", str(file))
    before = everything(filled)
    no = filled.command("restore", str(file), "--replace", stdin="n\n")
    assert no.returncode == 1 and "of_a_newer_version" in no.stdout and everything(filled) == before
    yes = filled.command("restore", str(file), "--replace", stdin="y\n")
    assert yes.returncode == 0, yes.stderr
    after = everything(filled)
    assert "of_a_newer_version" not in after
    assert [row["priority"] for row in run(fetch(filled.dsn, "SELECT priority FROM jobs"))] == [0, 0]


def test_another_key_is_refused_and_nothing_is_changed(filled: Site, elsewhere: Site) -> None:
    file = backup(filled)
    own = filled.command("backup", "own.zip", "--with-key")
    assert own.returncode == 0
    key = elsewhere.data / "fernet.key"
    key.write_bytes(Fernet.generate_key())
    key.chmod(0o600)
    assert "put the right one there" in refused(elsewhere, "restore", str(file))
    assert "move it away" in refused(elsewhere, "restore", str(filled.folder / "own.zip"))
    (filled.data / "fernet.key").write_bytes(Fernet.generate_key())
    assert "does not fit" in refused(filled, "backup", "wrong.zip", "--with-key")
    assert not (filled.folder / "wrong.zip").exists()


def test_a_hub_that_may_be_alive_is_not_taken_its_database(filled: Site) -> None:
    file = backup(filled)
    filled.sql(
        "INSERT INTO hubs (worker_id, name, version, places) VALUES (gen_random_uuid(), 'host:7', '0.1.0', 4)"
    )
    assert "host:7 may be alive: stop it" in refused(filled, "restore", str(file), "--replace", "--yes")


def edited(file: Path, **changes: Any) -> Path:
    """The backup with another manifest, sealed as a real one is."""
    other = file.with_name("edited.zip")
    with zipfile.ZipFile(file) as source, new_archive(other) as target:
        manifest = json.loads(source.read("manifest.json"))
        target.writestr(DUMP, changes.pop("dump", None) or source.read(DUMP))
        write_manifest(target, Manifest(**{**manifest, **changes}))
    return other


def test_rows_that_are_missing_undo_the_whole_restore(filled: Site) -> None:
    file = backup(filled)
    with zipfile.ZipFile(file) as archive:
        counts = json.loads(archive.read("manifest.json"))["counts"]
    short = edited(file, counts={**counts, "job_logs": 4})
    line = refused(filled, "restore", str(short), "--replace", "--yes")
    assert "the table job_logs got 3 rows instead of 4" in line and "database is as it was" in line


def test_a_dump_that_ends_early_undoes_the_whole_restore(filled: Site) -> None:
    file = backup(filled)
    with zipfile.ZipFile(file) as archive:
        dump = archive.read("database.dump")
    short = edited(file, dump=dump[:-60])
    assert "nothing was restored" in refused(filled, "restore", str(short), "--replace", "--yes")


def test_a_restore_that_is_killed_at_its_last_moment_undoes_itself(filled: Site) -> None:
    file = backup(filled)
    filled.sql("UPDATE jobs SET priority = 7")
    before = everything(filled)
    filled.killed("restore.before_commit", "restore", str(file), "--replace", "--yes")
    assert everything(filled) == before  # waits until the database has noticed
    assert filled.command("restore", str(file), "--replace", "--yes").returncode == 0


def test_a_backup_of_a_newer_version_is_refused(filled: Site) -> None:
    newer = edited(backup(filled), schema="9999", connecthub="9.0")
    line = refused(filled, "restore", str(newer), "--replace", "--yes")
    assert "ConnectHub 9.0" in line and "restore it with that version" in line


def test_a_role_without_rights_is_told(filled: Site, elsewhere: Site, server: str) -> None:
    file = filled.folder / "with.zip"
    assert filled.command("backup", "with.zip", "--with-key").returncode == 0
    name = elsewhere.dsn.partition("?")[0].rpartition("/")[2]
    owner = server.replace("/postgres?", f"/{name}?")
    run(fetch(owner, "ALTER SCHEMA public OWNER TO postgres"))
    line = refused(elsewhere, "restore", str(file))
    assert "permission denied for schema public; the role of [database] url must own the database" in line
    assert not (elsewhere.data / "fernet.key").exists()


@pytest.mark.parametrize("whole_terminal", [True, False], ids=["Ctrl-C", "this process alone"])
def test_a_signal_leaves_a_restore_whole_or_undone(
    filled: Site, elsewhere: Site, server: str, whole_terminal: bool
) -> None:
    assert filled.command("backup", "with.zip", "--with-key").returncode == 0
    before = everything(elsewhere)
    name = elsewhere.dsn.partition("?")[0].rpartition("/")[2]
    waits = f"SELECT FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'advisory'"

    with asyncio.Runner() as loop:
        connection = loop.run(asyncpg.connect(elsewhere.dsn))
        loop.run(connection.execute("SELECT pg_advisory_lock($1::bigint)", MIGRATION_LOCK))
        restoring = subprocess.Popen(
            [sys.executable, "-m", "connecthub", "restore", str(filled.folder / "with.zip")],
            cwd=elsewhere.folder, env=elsewhere.environ, start_new_session=True,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not run(fetch(server, waits)):
            assert restoring.poll() is None
        (os.killpg if whole_terminal else os.kill)(restoring.pid, signal.SIGINT)
        if whole_terminal:
            restoring.wait(60)  # while the lock is held
        loop.run(connection.close())
        _, said = restoring.communicate(timeout=60)
    assert restoring.returncode == (2 if whole_terminal else 0)
    assert len(said.splitlines()) == whole_terminal and ("nothing was restored" in said) == whole_terminal, (
        said
    )
    assert (elsewhere.data / "fernet.key").exists() != whole_terminal
    assert (everything(elsewhere) == before) == whole_terminal


@pytest.mark.parametrize("whole_terminal", [True, False], ids=["Ctrl-C", "this process alone"])
def test_a_signal_leaves_a_whole_backup_or_none(filled: Site, server: str, whole_terminal: bool) -> None:
    with waiting_backup(filled, server, PG_DUMP_ALONE_READS) as backing_up:
        (os.killpg if whole_terminal else os.kill)(backing_up.pid, signal.SIGINT)
        if whole_terminal:
            backing_up.wait(60)
    _, said = backing_up.communicate(timeout=60)
    assert backing_up.returncode == (2 if whole_terminal else 0)
    assert len(said.splitlines()) == whole_terminal and ("not be dumped" in said) == whole_terminal, said
    left = [file.name for file in filled.folder.iterdir() if "zip" in file.name]
    assert left == ([] if whole_terminal else ["b.zip"])


def test_a_database_of_somebody_else_is_not_replaced(filled: Site, elsewhere: Site) -> None:
    file = filled.folder / "with.zip"
    assert filled.command("backup", "with.zip", "--with-key").returncode == 0
    elsewhere.sql("CREATE TABLE jobs (id int)", "CREATE TABLE job_logs (id int)")
    line = refused(elsewhere, "restore", str(file), "--replace", "--yes")
    assert "holds tables that are not ConnectHub's (job_logs, jobs)" in line and "[database] url" in line


@pytest.mark.parametrize("how", ["cut", "overwritten"])
def test_an_archive_that_changes_while_it_is_restored_changes_nothing(filled: Site, how: str) -> None:
    file = backup(filled)
    before = everything(filled)
    restoring = subprocess.Popen(
        [sys.executable, "-u", "-m", "connecthub", "restore", str(file), "--replace"],
        cwd=filled.folder, env=filled.environ, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert restoring.stdout is not None
    asked = ""
    while not asked.endswith("[y/N]: "):  # the archive has been found whole by now
        asked += restoring.stdout.read(1)
    middle = file.stat().st_size // 2
    if how == "cut":
        os.truncate(file, middle)
    else:
        with file.open("r+b") as archive:
            archive.seek(middle)
            archive.write(b"\xff" * 4096)
    _, said = restoring.communicate("y\n", timeout=60)
    assert restoring.returncode == 2 and len(said.splitlines()) == 1, said
    assert "the archive cannot be read any more" in said and "take another copy" in said
    assert everything(filled) == before


def test_an_empty_database_has_nothing_to_back_up(elsewhere: Site) -> None:
    assert "nothing to back up" in refused(elsewhere, "backup", "b.zip")
    assert not (elsewhere.folder / "b.zip").exists()
    missing = refused(elsewhere, "restore", "nowhere.zip")
    assert "nowhere.zip cannot be read: No such file" in missing


def test_an_embedded_folder_of_another_major_is_left_alone(site: Site) -> None:
    cluster_folder = site.data / "postgres"
    cluster_folder.mkdir(mode=0o700)
    (cluster_folder / "PG_VERSION").write_text("11\n")
    embedded = {"CONNECTHUB_DATABASE__URL": ""}
    for words in (["backup", "b.zip"], ["key", "rotate"], ["migrate"]):
        done = site.command(*words, **embedded)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "was made by PostgreSQL 11" in done.stderr and "make a backup with" in done.stderr
    assert not (site.folder / "b.zip").exists() and len(read_keys(site.data / "fernet.key")) == 1
    assert "PostgreSQL 11" in site.check(status=1, **embedded)["database"][0]
    assert [file.name for file in cluster_folder.iterdir()] == ["PG_VERSION"]


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        ("postgresql://u:p%40ss@h:5432/db", "postgresql://u@h:5432/db"),
        (
            "postgresql://u@h1,h2/db?password=p%40ss&sslmode=require",
            "postgresql://u@h1,h2/db?sslmode=require",
        ),
        ("postgresql://u:p%40ss@/db?host=/a%20b%2Bc", "postgresql://u@/db?host=/a%20b%2Bc"),
    ],
)
def test_the_password_is_no_argument_of_a_program(tmp_path: Path, dsn: str, url: str) -> None:
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$@ $PGPASSWORD"\n')
    program.chmod(0o755)
    said, _ = Programs(tmp_path, 18).popen("psql", dsn=dsn).communicate()
    assert said.decode() == f"--no-password --dbname {url} p@ss\n"


def test_the_password_of_a_clients_key_is_no_argument_either(tmp_path: Path) -> None:
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$@"; echo "$PGSERVICE"; cat "$PGSERVICEFILE"\n')
    program.chmod(0o755)
    dsn = "postgresql://u@h/db?sslkey=/k.pem&sslpassword=p%40ss"
    said, _ = Programs(tmp_path, 18).popen("psql", dsn=dsn).communicate()
    arguments, service, *file = said.decode().splitlines()
    assert arguments == "--no-password --dbname postgresql://u@h/db?sslkey=/k.pem"
    assert file == [f"[{service}]", "sslpassword=p@ss"]


def test_programs_that_are_too_old_are_named() -> None:
    with pytest.raises(RefusedError, match=r"PostgreSQL 99 or newer; found: 1\d in /.* postgresql-client-99"):
        find_programs(99)
