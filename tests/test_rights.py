"""A role that may not do what a hub does: one line, with what to do about it, and nothing half done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connecthub.security.keyfile import read_keys
from tests.installation import Site
from tests.test_start import refused
from tests.web_hub import fetch, run

pytest_plugins = ["tests.installation"]

WAY_OUT = "must own the database (ALTER DATABASE name OWNER TO role) and the tables in it"


def as_superuser(server: str, dsn: str, *statements: str) -> None:
    name = dsn.partition("?")[0].rpartition("/")[2]
    for statement in statements:
        run(fetch(server.replace("/postgres?", f"/{name}?"), statement))


@pytest.fixture
def reader(server: str, site: Site) -> Iterator[Site]:
    """An installation whose role may read the tables, which are somebody else's."""
    site.job("a")
    site.leave_canary()
    tables = [row["name"] for row in run(fetch(site.dsn, "SELECT tablename AS name FROM pg_tables"
                                                         " WHERE schemaname = 'public'"))]  # fmt: skip
    owned = [f'ALTER TABLE "{table}" OWNER TO postgres' for table in tables]
    as_superuser(server, site.dsn, *owned, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO connecthub")
    yield site


def one_line(site: Site, *words: str, **environ: str) -> str:
    done = site.command(*words, **environ)
    assert done.returncode == 2 and not done.stdout, done.stdout
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_role_that_may_only_read_is_told_by_whatever_writes(reader: Site) -> None:
    key = (reader.data / "fernet.key").read_bytes()
    (reader.folder / "jobs.toml").write_text(
        '[jobs.b]\ncron_expr = "@daily"\nhandler_path = "checkjobs.job:GoodJob"'
    )
    for words in (
        ["key", "rotate"], ["key", "retire"], ["pause"], ["job", "disable", "a"],
        ["job", "import", "jobs.toml"], ["user", "add", "li.na"], ["backup", "b.zip"],
    ):  # fmt: skip
        line = one_line(reader, *words)
        assert WAY_OUT in line and ("permission denied" in line or "may " in line), line
    assert not (reader.folder / "b.zip").exists() and (reader.data / "fernet.key").read_bytes() == key
    assert len(read_keys(reader.data / "fernet.key")) == 1, "a rotation begins only where it can end"
    line = refused(reader.folder, CONNECTHUB_DATABASE__URL=reader.dsn)
    assert "role connecthub may not read and write its tables audit, hub_state" in line and WAY_OUT in line
    assert reader.command("job", "list").returncode == 0
    assert "may not read and write" in reader.check(status=1)["schema"][0]


def test_a_role_that_may_not_even_read_is_told(server: str, reader: Site) -> None:
    as_superuser(server, reader.dsn, "REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM connecthub")
    for words in (["job", "list"], ["migrate"], ["backup", "b.zip"], ["key", "rotate"]):
        line = one_line(reader, *words)
        assert "permission denied for table alembic_version" in line and WAY_OUT in line
    assert "permission denied" in reader.check(status=1)["database"][-1]


@pytest.mark.parametrize(
    "taken", ["ALTER SCHEMA public OWNER TO postgres", "DROP SCHEMA public"], ids=["no right", "no schema"]
)
def test_a_role_that_may_not_make_tables_is_told(server: str, site: Site, bare: str, taken: str) -> None:
    as_superuser(server, bare, taken)
    there = {"CONNECTHUB_DATABASE__URL": bare}
    for words in (["migrate"], ["job", "list"], ["key", "rotate"]):
        assert WAY_OUT in one_line(site, *words, **there)
    assert "role connecthub may not create tables in it" in site.check(status=1, **there)["schema"][0]
