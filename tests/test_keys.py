"""Keys are rotated and retired by the command line, under a running hub and through a kill."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from connecthub.errors import SecretError
from connecthub.security.keyfile import read_keys
from connecthub.security.vault import Vault
from tests.installation import Site
from tests.program import Program
from tests.web_hub import fetch, run

pytest_plugins = ["tests.installation"]

CANARY = "canary-7be1f04c"


def tokens(site: Site) -> list[tuple[str, str]]:
    return [
        (row["job_id"], row["secret_cfg"])
        for row in run(
            fetch(
                site.dsn,
                "SELECT job_id, secret_cfg FROM job_revisions WHERE secret_cfg <> ''"
                " UNION ALL SELECT id, secret_cfg FROM jobs WHERE secret_cfg <> '' ORDER BY 1",
            )
        )
    ]


def fill(site: Site, jobs: int) -> None:
    for number in range(jobs):
        site.job(f"job-{number:03}", secret_cfg=site.vault.encrypt({"token": f"{CANARY}-{number}"}))
    site.sql("UPDATE jobs SET priority = 1")  # a second revision with the same secret
    site.leave_canary()


def audited(site: Site) -> list[tuple[str, str]]:
    rows = run(fetch(site.dsn, "SELECT action, object FROM audit ORDER BY id"))
    return [(row["action"], row["object"]) for row in rows]


def ids(site: Site) -> list[str]:
    return [key.id for key in read_keys(site.data / "fernet.key")]


def test_a_rotation_writes_all_secrets_anew_and_no_revision(site: Site) -> None:
    fill(site, 3)
    (old,) = ids(site)
    before = run(fetch(site.dsn, "SELECT id, revision_id, updated_at FROM jobs ORDER BY id"))
    done = site.command("key", "rotate")
    assert done.returncode == 0, done.stderr
    new, kept = ids(site)
    assert kept == old and f"key {new} is new" in done.stdout and "3 secrets" in done.stdout
    assert stat.S_IMODE((site.data / "fernet.key").stat().st_mode) == 0o600
    assert before == run(fetch(site.dsn, "SELECT id, revision_id, updated_at FROM jobs ORDER BY id"))
    newest = Vault([read_keys(site.data / "fernet.key")[0].fernet])
    after = tokens(site)
    assert len(after) == 9 and all(newest.decrypt(token)["token"].startswith(CANARY) for _, token in after)
    assert len({token for _, token in after}) == 3, "Job and revisions go on sharing one token"
    assert audited(site) == [("key.rotate", new)]

    gone = site.command("key", "retire")
    assert gone.returncode == 0 and old in gone.stdout
    assert ids(site) == [new] and site.check()["key"][0].startswith("ok")
    assert "only one key" in site.command("key", "retire").stdout


def test_ids_and_ages_are_shown_and_never_a_key(site: Site) -> None:
    assert site.command("key", "rotate").returncode == 0
    shown = site.command("key", "show").stdout + site.command("key", "show", "--json").stdout
    first, second = shown.splitlines()[:2]
    assert first.startswith(ids(site)[0]) and "encrypts" in first and "0 days ago" in first
    assert second.startswith(ids(site)[1]) and "only decrypts" in second
    for line in (site.data / "fernet.key").read_text().splitlines():
        assert line.startswith("# made") or line[:8] not in shown


@pytest.mark.parametrize("point", ["keys.after_file", "keys.after_batch", "keys.before_canary"])
def test_a_rotation_that_was_killed_goes_on_with_its_key(site: Site, point: str) -> None:
    fill(site, 60)  # more than one batch
    old = Vault.open(site.data / "fernet.key", may_create=False)
    site.killed(point, "key", "rotate")
    assert len(ids(site)) == 2
    for job_id, token in tokens(site):  # a hub that had the old keys notices the file
        assert old.decrypt(token)["token"] == f"{CANARY}-{int(job_id[4:])}"
    refused = site.command("key", "retire")
    assert refused.returncode == 2 and "connecthub key rotate" in refused.stderr
    assert len(ids(site)) == 2, "nothing went"
    done = site.command("key", "rotate")
    assert done.returncode == 0 and "went on" in done.stdout, done.stderr
    new, first = ids(site)  # and no third key
    assert site.command("key", "retire").returncode == 0
    assert audited(site) == [("key.rotate", new), ("key.retire", first)]
    newest = Vault.open(site.data / "fernet.key", may_create=False)
    assert all(newest.decrypt(token) for _, token in tokens(site))


def test_keys_that_are_gone_are_in_the_audit_wherever_retire_was_killed(site: Site) -> None:
    fill(site, 1)
    assert site.command("key", "rotate").returncode == 0
    new, old = ids(site)
    site.killed("keys.after_file", "key", "retire")
    assert ids(site) == [new] and "only one key" in site.command("key", "retire").stdout
    assert audited(site) == [("key.rotate", new), ("key.retire", old)]


def test_a_rotation_whose_database_goes_says_so_in_one_line_and_goes_on_later(
    site: Site, server: str
) -> None:
    fill(site, 2)
    site.sql(
        "INSERT INTO hubs (worker_id, name, version, places) VALUES (gen_random_uuid(), 'host:7', '0.1.0', 4)"
    )
    rotating = subprocess.Popen(
        [sys.executable, "-u", "-m", "connecthub", "key", "rotate"],
        cwd=site.folder, env=site.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert rotating.stdout is not None
    assert "waiting for host:7 to notice key" in rotating.stdout.readline()
    name = site.dsn.partition("?")[0].rpartition("/")[2]
    run(fetch(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
    run(fetch(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name))
    _, said = rotating.communicate(timeout=60)
    run(fetch(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    assert rotating.returncode == 2 and len(said.splitlines()) == 1, said
    assert "the database was lost meanwhile" in said
    site.sql("DELETE FROM hubs")
    assert "went on" in site.command("key", "rotate").stdout and len(ids(site)) == 2


def test_retire_says_what_needs_the_old_key_and_drops_nothing(site: Site) -> None:
    fill(site, 2)
    assert site.command("key", "rotate").returncode == 0
    old = read_keys(site.data / "fernet.key")[1]
    late = Vault([old.fernet]).encrypt({"token": CANARY})
    site.sql(f"UPDATE jobs SET secret_cfg = '{late}' WHERE id = 'job-001'")
    refused = site.command("key", "retire")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert f"key {old.id} by 1 Jobs (job-001) and 1 revisions" in refused.stderr
    assert len(ids(site)) == 2 and CANARY not in refused.stderr


def test_a_secret_that_no_key_reads_is_named_and_left(site: Site) -> None:
    fill(site, 1)
    foreign = Vault([Fernet(Fernet.generate_key())]).encrypt({"token": CANARY})
    site.job("foreign", secret_cfg=foreign)
    done = site.command("key", "rotate")
    assert done.returncode == 0 and "no key reads secrets of foreign" in done.stdout
    assert ("foreign", foreign) in tokens(site)
    assert site.command("key", "retire").returncode == 0


def test_wrong_keys_and_files_that_cannot_be_written_change_nothing(site: Site, tmp_path: Path) -> None:
    fill(site, 1)
    before = tokens(site)
    wrong = tmp_path / "wrong.key"
    wrong.write_bytes(Fernet.generate_key())
    wrong.chmod(0o600)
    refused = site.command("key", "rotate", CONNECTHUB_SECURITY__FERNET_KEY_PATH=str(wrong))
    assert refused.returncode == 2 and "does not fit" in refused.stderr
    missing = site.command("key", "rotate", CONNECTHUB_SECURITY__FERNET_KEY_PATH=str(tmp_path / "none" / "k"))
    assert missing.returncode == 2 and len(missing.stderr.splitlines()) == 1
    gone = site.command("key", "rotate", CONNECTHUB_SECURITY__FERNET_KEY_PATH=str(tmp_path / "gone"))
    assert gone.returncode == 2 and "restore the key file" in gone.stderr
    site.sql("UPDATE hub_state SET key_canary = NULL", "DELETE FROM jobs")
    none = site.command("key", "rotate", CONNECTHUB_SECURITY__FERNET_KEY_PATH=str(tmp_path / "gone"))
    assert none.returncode == 2 and "there is no key yet" in none.stderr
    site.job("again", secret_cfg=before[0][1])
    assert {token for _, token in tokens(site)} == {before[0][1]} and len(wrong.read_text().splitlines()) == 1


def test_a_vault_notices_its_file_and_keeps_its_keys_where_that_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "fernet.key"
    vault = Vault.open(path, may_create=True)
    token = vault.encrypt({"a": 1})
    first = path.read_text()
    path.write_text("rubbish")
    assert vault.decrypt(token) == {"a": 1} and not vault.look()
    key = Fernet.generate_key().decode()
    path.write_text(f"{key}\n{first}")
    assert Vault([Fernet(key)]).decrypt(vault.encrypt({"b": 2})) == {"b": 2}
    assert vault.decrypt(token) == {"a": 1}
    path.write_text(key)
    assert vault.look()
    with pytest.raises(SecretError):
        vault.decrypt(token)


def test_a_running_hub_takes_the_new_key_and_one_that_cannot_holds_the_rotation(
    site: Site, tmp_path: Path
) -> None:
    fill(site, 1)
    environ = {name: value for name, value in site.environ.items() if name.startswith("CONNECTHUB_")}
    with Program(tmp_path / "hub", environ) as program:
        done = site.command("key", "rotate")
        assert done.returncode == 0, done.stderr
        known = run(fetch(site.dsn, "SELECT key_ids FROM hubs"))[0]["key_ids"]
        assert known == ids(site)
        assert site.command("key", "retire").returncode == 0
        # Its next beat says that the old key is gone; a hub with another file would not have the new one.
        copy = tmp_path / "copy.key"
        copy.write_bytes((site.data / "fernet.key").read_bytes())
        copy.chmod(0o600)
        assert program.stop() == 0
    other = {**environ, "CONNECTHUB_SECURITY__FERNET_KEY_PATH": str(copy)}
    with Program(tmp_path / "hub", other) as program:
        before = tokens(site)
        waiting = site.start("key", "rotate")
        assert waiting.stdout is not None
        line = waiting.stdout.readline()
        assert "waiting for" in line and f":{program.process.pid}" in line
        assert tokens(site) == before
        copy.write_bytes((site.data / "fernet.key").read_bytes())
        assert waiting.wait(60) == 0
        assert tokens(site) != before
        waiting = site.start("key", "rotate")
        assert waiting.stdout is not None and "waiting for" in waiting.stdout.readline()
        assert program.stop() == 0  # as systemd does, to start it with the file of now
        assert waiting.wait(60) == 0
