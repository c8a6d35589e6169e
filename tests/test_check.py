"""`connecthub check` as people run it: the acceptance list of an installation."""

from __future__ import annotations

import json
import subprocess
import sys

from cryptography.fernet import Fernet

from connecthub.security.vault import Vault
from tests.installation import Site
from tests.program import AS_OTHERS
from tests.web_hub import fetch, run

pytest_plugins = ["tests.installation"]


def test_every_item_has_its_line_and_all_is_well(site: Site) -> None:
    site.job("a", secret_cfg=site.vault.encrypt({"token": "canary-51d0"}))
    site.leave_canary()
    site.sql(
        "INSERT INTO hubs (worker_id, name, version, places, ticked_at)"
        " VALUES (gen_random_uuid(), 'host:1', '0.1.0', 4, now())"
    )
    found = site.check()
    names = (
        "configuration,server,data folder,disk,database,clock,schema,key,packages,handlers,schedules,secrets"
    )
    assert list(found) == [*names.split(","), "hubs", "pause"]
    careless = [name for name, lines in found.items() if not lines[0].startswith("ok")]
    assert careless == ["database"], found  # the server of the tests runs without fsync
    assert "fsync" in found["database"][0] and "PostgreSQL" in found["database"][0]
    assert "1 handlers" in found["packages"][0] and "host:1" in found["hubs"][0]


def test_it_makes_nothing_not_even_the_data_folder(site: Site) -> None:
    nowhere = site.folder / "nowhere"
    key = str(site.data / "fernet.key")
    found = site.check(CONNECTHUB_DATA__DIR=str(nowhere), CONNECTHUB_SECURITY__FERNET_KEY_PATH=key)
    assert "is not there yet" in found["data folder"][0] and not nowhere.exists()


def test_a_database_of_another_encoding_is_a_warning(server: str, site: Site) -> None:
    name = "latin_" + site.dsn.partition("test_")[2][:16]
    options = "OWNER connecthub ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    run(fetch(server, f"CREATE DATABASE {name} {options}"))
    there = site.dsn.replace(site.dsn.partition("?")[0].rpartition("/")[2], name)
    found = site.check(CONNECTHUB_DATABASE__URL=there)["database"]
    assert found[0].startswith("warning: ") and "its encoding is LATIN1" in found[0]
    run(fetch(server, f"DROP DATABASE {name}"))


def test_each_broken_job_says_what_to_do(site: Site) -> None:
    site.job("gone", handler="checkjobs.nowhere:GoodJob")
    site.job("never", cron="0 0 30 2 *")
    site.job("zone", timezone="Mars/Base")
    site.job("locked", secret_cfg=Vault([Fernet(Fernet.generate_key())]).encrypt({"token": "canary-51d0"}))
    site.job("cut", secret_cfg=site.vault.encrypt({"token": "x"})[:-7], enabled="false")
    (site.folder / "checkjobs" / "broken.py").write_text("class X(1): pass")
    site.leave_canary()
    found = site.check(status=1)
    assert [line for line in found["handlers"] if line.startswith("fault: Job gone: ") and "nowhere" in line]
    assert [line.split(":")[1] for line in found["schedules"]] == [" Job never", " Job zone"]
    assert all("correct its cron" in line for line in found["schedules"])
    cut, locked = found["secrets"]
    assert cut.startswith("warning: Job cut (disabled)") and "save the secrets again" in cut
    assert locked.startswith("fault: Job locked") and "another key" in locked
    assert found["packages"][0].startswith("warning: checkjobs.broken cannot be loaded")
    assert "canary-51d0" not in str(found)


def test_a_key_that_does_not_fit_is_a_fault(site: Site) -> None:
    site.job("a", secret_cfg=site.vault.encrypt({"token": "x"}))
    site.leave_canary()
    (site.data / "fernet.key").write_bytes(Fernet.generate_key())
    assert site.check(status=1)["key"][0].startswith("fault: key file")
    (site.data / "fernet.key").chmod(0o640)
    assert "chmod 600" in site.check(status=1)["key"][0]
    (site.data / "fernet.key").unlink()
    assert "restore the key file" in site.check(status=1)["key"][0]
    assert not (site.data / "fernet.key").exists()


def test_what_this_user_may_not_enter_has_its_line(site: Site) -> None:
    closed = site.folder / "closed"
    closed.mkdir(mode=0)
    (site.data / "postgres").mkdir()
    site.data.chmod(0)
    for folder, said in ((closed / "data", "may not enter"), (site.data, "cannot be written")):
        done = subprocess.run(
            [*AS_OTHERS, sys.executable, "-m", "connecthub", "check"],
            cwd=site.folder, capture_output=True, text=True, check=False,
            env=site.environ | {"CONNECTHUB_DATA__DIR": str(folder), "CONNECTHUB_DATABASE__URL": ""},
        )  # fmt: skip
        assert done.returncode == 1 and not done.stderr, done.stderr
        lines = {line.split()[1]: line for line in done.stdout.splitlines()}
        assert lines["data"].startswith("fault ") and said in lines["data"]
        assert "this user may not enter its folder" in lines["database:"]
    key = site.folder / "checkjobs" / "__init__.py" / "fernet.key"
    assert "cannot be read" in site.check(status=1, CONNECTHUB_SECURITY__FERNET_KEY_PATH=str(key))["key"][0]


def test_what_a_person_should_judge_is_a_warning(site: Site) -> None:
    site.sql("UPDATE hub_state SET paused_at = now(), paused_by = 'li.na'")
    site.data.chmod(0o755)
    found = site.check(
        CONNECTHUB_SERVER__HOST="0.0.0.0", CONNECTHUB_PLUGINS__PACKAGES='["checkjobs", "lost"]'
    )
    assert "li.na: connecthub resume" in found["pause"][0]
    assert f"chmod 700 {site.data}" in found["data folder"][0]
    assert "allowed_hosts" in found["server"][0] and found["server"][0].startswith("warning")
    assert "no package lost" in found["packages"][0]
    assert "none is alive" in found["hubs"][0]
    named = site.check(CONNECTHUB_SERVER__HOST="0.0.0.0", CONNECTHUB_SERVER__ALLOWED_HOSTS='["hub.example"]')
    assert named["server"][0].startswith("ok")


def test_hubs_that_do_not_tick_and_schemas_of_other_versions(site: Site) -> None:
    site.sql(
        "INSERT INTO hubs (worker_id, name, version, places, ticked_at)"
        " VALUES (gen_random_uuid(), 'host:1', '0.1.0', 4, now() - interval '10 minutes')",
        "UPDATE hubs SET changed_modules = '{checkjobs.job}'",
    )
    found = site.check(status=1)
    assert "restart the hub" in found["hubs"][0] and "files of checkjobs.job" in found["code"][0]
    site.sql("UPDATE alembic_version SET version_num = '0001'")
    older = site.check()
    assert "connecthub migrate" in older["schema"][0] and "handlers" not in older
    site.sql("UPDATE alembic_version SET version_num = '9999'")
    assert "start the version that made it" in site.check(status=1)["schema"][0]
    site.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    assert "connecthub serve" in site.check()["schema"][0]


def test_what_cannot_be_read_is_the_last_line(site: Site) -> None:
    no_server = "postgresql://u:canary-password@127.0.0.1:1/x"
    found = site.check(status=1, CONNECTHUB_DATABASE__URL=no_server)
    assert list(found)[-1] == "database" and "canary-password" not in str(found)
    wrong = site.check(status=1, CONNECTHUB_POOL__SIZE="many")
    assert "CONNECTHUB_POOL__SIZE" in wrong["configuration"][0] and len(wrong) == 1
    fresh = site.check(CONNECTHUB_DATABASE__URL="", CONNECTHUB_DATA__DIR=str(site.folder / "new"))
    assert "first start makes it" in fresh["database"][0] and not (site.folder / "new").exists()


def test_json_says_the_same(site: Site) -> None:
    done = site.command("check", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and answer["ok"] is True
    assert {"name": "pause", "state": "ok", "text": "none"} in answer["checks"]
