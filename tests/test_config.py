"""The settings: where they come from, what wins, and what a person reads when one is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from connecthub.config import Settings, load_settings
from connecthub.errors import ConfigError

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "config.toml") -> Path:
    path = Path(name)
    path.write_text(text, "utf-8")
    return path


def error_of(text: str = "", environ: dict[str, str] | None = None) -> str:
    """The message that loading ends in: one line, with nothing of the values behind it."""
    with pytest.raises(ConfigError) as caught:
        load_settings(write(text), environ or {})
    message = str(caught.value)
    assert "\n" not in message
    return message


def values(settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings as config.toml would write them."""
    return {
        section: {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in getattr(settings, section)
        }
        for section in Settings.model_fields
    }


# Sources


def test_the_defaults(folder: Path) -> None:
    settings = load_settings(None, {})
    assert settings.app.name == "ConnectHub"
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)
    assert settings.database.dsn == ""
    assert settings.data_dir == folder / "data"
    assert settings.fernet_key_path == folder / "data/fernet.key"
    assert settings.security.admin_password.get_secret_value() == ""
    assert (settings.log_dir, settings.logs.level) == (folder / "data/logs", "INFO")
    assert settings.scheduler.timezone == "Asia/Shanghai"
    assert (settings.pool.size, settings.pool.lease_s, settings.pool.timeout_s) == (32, 60, 3600)
    assert settings.heartbeat_seconds == 15
    assert (settings.plugins.packages, settings.plugin_path) == (("extensions",), folder)


def test_the_example_names_every_setting_with_its_default() -> None:
    settings = load_settings(EXAMPLE, {})
    in_example = tomllib.loads(EXAMPLE.read_text("utf-8"))
    for table in in_example.values():
        table.update({name: tuple(value) for name, value in table.items() if isinstance(value, list)})
    assert values(settings) == values(Settings())
    assert in_example == values(Settings())


def test_every_setting_of_the_example_has_a_comment_in_both_languages() -> None:
    lines = EXAMPLE.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        if line and line[0] not in "#[":
            above: list[str] = []
            while lines[number - 1 - len(above)].startswith("#"):
                above.append(lines[number - 1 - len(above)])
            assert any(part.isascii() for part in above), line
            assert any(not part.isascii() for part in above), line


@pytest.mark.parametrize("section", Settings.model_fields)
def test_each_setting_has_an_environment_form_that_wins(section: str) -> None:
    other: dict[str, Any] = {
        "app.name": ("蓝色枢纽", "蓝色枢纽"),
        "server.host": ("::1", "::1"),
        "server.port": ("0", 0),
        "server.allowed_hosts": ('["Hub.example.com", "[::1]"]', ("hub.example.com", "::1")),
        "server.trusted_proxies": ('["127.0.0.1", "10.0.0.1/8"]', ("127.0.0.1/32", "10.0.0.0/8")),
        "database.url": ("postgresql://h/d", SecretStr("postgresql://h/d")),
        "data.dir": ("d", "d"),
        "security.fernet_key_path": ("k", "k"),
        "security.admin_password": ("p w", SecretStr("p w")),
        "logs.dir": ("off", "off"),
        "logs.level": ("debug", "DEBUG"),
        "logs.format": ("json", "json"),
        "logs.runs": ("true", True),
        "scheduler.timezone": ("Europe/Berlin", "Europe/Berlin"),
        "pool.size": ("4", 4),
        "pool.lease_s": ("2.5", 2.5),
        "pool.heartbeat_s": ("0.5", 0.5),
        "pool.timeout_s": ("0", 0),
        "pool.shutdown_grace_s": ("2.5", 2.5),
        "plugins.packages": ('["a", "b.c"]', ("a", "b.c")),
        "plugins.path": ("p", "p"),
        "retention.days": ("0", 0),
        "retention.failure_days": ("400", 400),
        "retention.keep_last": ("0", 0),
        "metrics.token": ("t", SecretStr("t")),
    }
    for name in type(Settings.model_fields[section].default).model_fields:
        given, expected = other[f"{section}.{name}"]
        variable = f"CONNECTHUB_{section}__{name}".upper()
        settings = load_settings(EXAMPLE, {variable: given})
        assert getattr(getattr(settings, section), name) == expected


def test_environment_and_file_mix_within_a_section() -> None:
    settings = load_settings(write("[pool]\nsize = 5\nlease_s = 10"), {"CONNECTHUB_POOL__SIZE": "6"})
    assert (settings.pool.size, settings.pool.lease_s) == (6, 10)


def test_an_empty_variable_is_a_value() -> None:
    settings = load_settings(write('[database]\nurl = "postgresql://h/d"'), {"CONNECTHUB_DATABASE__URL": ""})
    assert settings.database.dsn == ""


def test_which_file_is_read() -> None:
    write('[app]\nname = "default"')
    write('[app]\nname = "variable"', "v.toml")
    option = write('[app]\nname = "option"', "o.toml")
    environ = {"CONNECTHUB_CONFIG": "v.toml"}
    assert load_settings(option, environ).app.name == "option"
    assert load_settings(None, environ).app.name == "variable"
    assert load_settings(None, {"CONNECTHUB_CONFIG": ""}).app.name == "default"
    assert load_settings(None, {}).app.name == "default"


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTHUB_APP__NAME", "from the process")
    assert load_settings(None).app.name == "from the process"


def test_a_byte_order_mark_is_no_error() -> None:
    assert load_settings(write("\ufeff[app]\nname = 'x'"), {}).app.name == "x"


def test_what_is_meant_for_others_in_the_environment() -> None:
    load_settings(
        None,
        {
            "CONNECTHUB_FAILPOINT": "claim",
            "CONNECTHUB_HOME": "/opt",
            "CONNECTHUB_SERVER_PORT": "tcp://10.0.0.1:8000",  # Kubernetes, for a service connecthub-server
            "OTHER__NAME": "x",
        },
    )


# Derived values


def test_paths_stay_where_they_were_when_the_folder_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(None, {"CONNECTHUB_LOGS__DIR": "l", "CONNECTHUB_PLUGINS__PATH": "/abs"})
    monkeypatch.chdir("/")
    assert (settings.data_dir, settings.log_dir) == (folder / "data", folder / "l")
    assert settings.plugin_path == Path("/abs")


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load_settings(write('[data]\ndir = "~/hub"'), {}).data_dir == Path("/home/someone/hub")


def test_no_log_folder_and_a_heartbeat() -> None:
    settings = load_settings(write('[logs]\ndir = "OFF"\n[pool]\nlease_s = 10\nheartbeat_s = 1.5'), {})
    assert settings.log_dir is None
    assert settings.heartbeat_seconds == 1.5


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql://u:p@h:5432/d"),
        ("postgres://u@h/d", "postgresql://u@h/d"),
        ("postgresql://u%40x:p%3F@h/d?", "postgresql://u%40x:p%3F@h/d?"),
        ("postgresql://u@h/d?password=&host=%40x", "postgresql://u@h/d?password=&host=%40x"),
        ("PostgreSQL+asyncpg://u:p%40@h/d?ssl=require&x=1", "postgresql://u:p%40@h/d?sslmode=require&x=1"),
        ("postgresql+psycopg2:///d?host=/run/pg", "postgresql:///d?host=/run/pg"),
        (" postgresql://[::1]:5/d?x=1&ssl=prefer\n", "postgresql://[::1]:5/d?x=1&sslmode=prefer"),
        ("postgresql://u:p@[::1]:5433,h1:5432,h3/d", "postgresql://u:p@[::1]:5433,h1:5432,h3/d"),
        ("  ", ""),
    ],
)
def test_the_database_url_is_normalised(url: str, dsn: str) -> None:
    assert load_settings(None, {"CONNECTHUB_DATABASE__URL": url}).database.dsn == dsn


def test_a_list_of_hosts_is_taken_where_the_driver_can_read_it() -> None:
    url = "postgresql://u:p@h1:5432,[::1]:5433,h3/d"
    environ = {"CONNECTHUB_DATABASE__URL": url}
    try:
        urlsplit(url)  # as asyncpg does; Python before 3.11.4 wants such an address first
    except ValueError:
        with pytest.raises(ConfigError, match="cannot be read"):
            load_settings(None, environ)
    else:
        assert load_settings(None, environ).database.dsn == url


def test_settings_are_frozen() -> None:
    settings = load_settings(None, {})
    for target, name in ((settings, "pool"), (settings.pool, "size")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(target, name, 1)


# Errors


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[pool]\nsise = 3", "[pool] sise", "unknown setting"),
        ("[pool.more]\nx = 3", "[pool] more", "unknown setting"),
        ("[pol]\nsize = 3", "[pol]", "did you mean [pool]?"),
        ('["po\\nol"]\nsize = 3', "[po?ol]", "did you mean [pool]?"),
        ('[pool]\n"si\\nze" = 3', "[pool] si?ze", "unknown setting"),
        ("[[pool]]\nsize = 3", "'pool'", "stands in no section"),
        ("size = 3", "'size'", "stands in no section"),
        ("[server]\nport = 65536", "[server] port = 65536", "less than or equal to 65535"),
        ("[server]\nport = -1", "[server] port = -1", "greater than or equal to 0"),
        ("[server]\nport = true", "[server] port = true", "must be a number"),
        ("[server]\nhost = ''", '[server] host = ""', "must not be empty"),
        ("[data]\ndir = ''", '[data] dir = ""', "must not be empty"),
        ("[data]\ndir = 'a\\u0000b'".replace("'", '"'), "[data] dir", "control characters"),
        ("[app]\nname = 5", "[app] name = 5", "must be a valid string"),
        ("[pool]\nsize = 0", "[pool] size = 0", "greater than or equal to 1"),
        ("[pool]\nsize = 10001", "[pool] size", "less than or equal to 10000"),
        ("[pool]\nlease_s = 1.9", "[pool] lease_s", "greater than or equal to 2"),
        ("[pool]\ntimeout_s = inf", "[pool] timeout_s", "finite"),
        ("[pool]\nheartbeat_s = -1", "[pool] heartbeat_s", "greater than or equal to 0"),
        ("[retention]\nfailure_days = 30", "[retention] failure_days = 30", "at least days (90)"),
        ("[retention]\nkeep_last = -1", "[retention] keep_last", "greater than or equal to 0"),
        ("[pool]\nheartbeat_s = 30", "[pool] heartbeat_s = 30", "less than half of lease_s (60)"),
        ("[pool]\ntimeout_s = -1", "[pool] timeout_s", "greater than or equal to 0"),
        ("[scheduler]\ntimezone = 'Asia'", "[scheduler] timezone", "such as Asia/Shanghai"),
        ("[scheduler]\ntimezone = '../x'", "[scheduler] timezone", "such as Asia/Shanghai"),
        ("[logs]\nlevel = 'LOUD'", "[logs] level", "'DEBUG', 'INFO'"),
        ("[plugins]\npackages = []", "[plugins] packages", "must not be empty"),
        ("[plugins]\npackages = ['a b']", "[plugins] packages", "names of Python packages"),
    ],
)
def test_an_error_says_what_and_where(text: str, where: str, what: str) -> None:
    message = error_of(text)
    assert "config.toml" in message
    assert where in message
    assert what in message


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("CONNECTHUB_POOL__SIZE", "many", '= "many": must be a valid integer'),
        ("CONNECTHUB_POOL__SIZ", "3", "unknown setting: did you mean CONNECTHUB_POOL__SIZE?"),
        ("CONNECTHUB_QUEUE__WIDTH_M", "3", "unknown setting: config.example.toml lists"),
        ("CONNECTHUB_pool__size", "3", "unknown setting"),
        ("CONNECTHUB_POOL__SIZE__X", "3", "unknown setting"),
        ("CONNECTHUB_POOL_SIZE", "3", "write CONNECTHUB_POOL__SIZE, with two underscores"),
        ("CONNECTHUB_PLUGINS__PACKAGES", "extensions", 'as JSON, such as ["extensions"]'),
        ("CONNECTHUB_PLUGINS__PACKAGES", "{}", "must be"),
        ("CONNECTHUB_SERVER__PORT", "", "must be a valid integer"),
    ],
)
def test_an_error_of_the_environment_names_the_variable(name: str, value: str, what: str) -> None:
    message = error_of('[app]\nname = "x"', {name: value})
    assert f"environment variable {name} " in message
    assert what in message


def test_all_wrong_settings_are_named_at_once() -> None:
    message = error_of("[pool]\nsize = 0\nlease_s = 1", {"CONNECTHUB_SERVER__PORT": "x"})
    for place in ("[pool] size", "[pool] lease_s", "CONNECTHUB_SERVER__PORT"):
        assert place in message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[pool]\nsize = = 3", "line 2, column 8"),
        ("[pool]\nsize =", "line 2, column 7"),
        ('[app]\nname = "x', "line 2, column 10"),
    ],
)
def test_a_broken_file_says_line_and_column(text: str, place: str) -> None:
    message = error_of(text)
    assert "config.toml is not valid TOML" in message
    assert place in message


def test_files_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"no\.toml \(named by --config\) does not exist.*config\.example\.toml"
    ):
        load_settings(Path("no.toml"), {})
    with pytest.raises(ConfigError, match="named by CONNECTHUB_CONFIG"):
        load_settings(None, {"CONNECTHUB_CONFIG": str(folder)})
    Path("config.toml").write_bytes(b"[app]\nname = '\xff'")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_settings(None, {})

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read: Permission denied"):
        load_settings(None, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONNECTHUB_DATABASE__URL", "mysql://u:hunter22@h/d"),
        ("CONNECTHUB_DATABASE__URL", "hunter22"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:p/hunter22@h:5/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:12#hunter22@h/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:12/hunter22@h/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:12?hunter22@h/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:?%hunter22@h/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:12?x=1&hunter22@h/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:12?x=hunter22@h/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:p@x:hunter22@h/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u@h/d?password=p&hunter22"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:p@[hunter22/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:p@h:1,h:hunter22/d"),
        ("CONNECTHUB_DATABASE__URL", "postgresql://u:hunter22@h/d\n\x00x"),
        ("CONNECTHUB_SECURITY__FERNET_KEY_PATH", "hunter22" + "k" * 35 + "="),
        ("CONNECTHUB_SECURITY__ADMIN_PASWORD", "hunter22"),  # misspelled, so unknown
    ],
)
def test_an_error_never_shows_a_secret(name: str, value: str) -> None:
    message = error_of("", {name: value})
    assert name in message
    assert "hunter22" not in message
    file_error = error_of(f"[security]\nadmin_password = ['{value[-8:]}']\n[database]\nurl = ['hunter22']")
    assert "hunter22" not in file_error


def test_nor_does_the_chain_of_exceptions() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write("[security]\nadmin_password = ['hunter22']"), {})
    assert caught.value.__context__ is None


def test_settings_never_show_a_secret() -> None:
    settings = load_settings(
        None,
        {
            "CONNECTHUB_DATABASE__URL": "postgresql://u:hunter22@h/d",
            "CONNECTHUB_SECURITY__ADMIN_PASSWORD": "hunter22",
        },
    )
    assert settings.database.dsn == "postgresql://u:hunter22@h/d"
    shown = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())]
    shown += [repr(settings.database), repr(settings.security)]
    assert not [text for text in shown if "hunter22" in text]
