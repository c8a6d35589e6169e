"""The settings: config.toml and the environment, checked once at start.

`load_settings` is the only door. Every setting has a default (config.example.toml lists them all), the file
overrides defaults, and `CONNECTHUB_<SECTION>__<NAME>` (lists as JSON) overrides the file. What is unknown or
out of bounds is a ConfigError of one line that names the file or the variable; it never shows a secret.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from connecthub.config_sections import (
    CONTROL,
    AppSettings,
    DatabaseSettings,
    DataSettings,
    LogSettings,
    MetricsSettings,
    PluginSettings,
    PoolSettings,
    RetentionSettings,
    SchedulerSettings,
    SecuritySettings,
    ServerSettings,
)
from connecthub.errors import ConfigError

_PREFIX = "CONNECTHUB_"
_DEFAULT_FILE = Path("config.toml")
# Settings whose value no message may show. A path may be shown, but people paste the key itself there.
_SECRET = {
    ("database", "url"),
    ("security", "admin_password"),
    ("security", "fernet_key_path"),
    ("metrics", "token"),
}


class Settings(BaseModel):
    """All settings, frozen; `repr` hides the database URL and the password.

    Relative paths are relative to the folder that was current when the settings were loaded, so that a plugin
    which changes the folder moves nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app: AppSettings = AppSettings()
    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    data: DataSettings = DataSettings()
    security: SecuritySettings = SecuritySettings()
    logs: LogSettings = LogSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    pool: PoolSettings = PoolSettings()
    plugins: PluginSettings = PluginSettings()
    retention: RetentionSettings = RetentionSettings()
    metrics: MetricsSettings = MetricsSettings()

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        return self._absolute(self.data.dir)

    @property
    def fernet_key_path(self) -> Path:
        """The key file, absolute."""
        given = self.security.fernet_key_path
        return self._absolute(given) if given else self.data_dir / "fernet.key"

    @property
    def log_dir(self) -> Path | None:
        """The folder of connecthub.log, absolute; None when file logging is off."""
        if self.logs.dir.lower() == "off":
            return None
        return self._absolute(self.logs.dir) if self.logs.dir else self.data_dir / "logs"

    @property
    def plugin_path(self) -> Path:
        """The folder that holds the plugin packages, absolute; joins sys.path."""
        return self._absolute(self.plugins.path)

    @property
    def heartbeat_seconds(self) -> float:
        """Seconds between two renewals of the leases."""
        return self.pool.heartbeat_s or self.pool.lease_s / 4

    def _absolute(self, given: str) -> Path:
        # Symbolic links stay: messages then show the path that a person knows.
        return self._folder / os.path.expanduser(given)


def load_settings(config_file: Path | None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in `environ`, over those in `config_file`, else CONNECTHUB_CONFIG, else ./config.toml.

    Raises ConfigError, one line, for a file that is missing or broken and for settings unknown or wrong.
    """
    environ = os.environ if environ is None else environ
    file, named_by = _which_file(config_file, environ)
    from_file = _read_file(file, named_by) if file else {}
    from_environ = _read_environ(environ)
    merged = {
        section: {**from_file.get(section, {}), **from_environ.get(section, {})}
        for section in from_file.keys() | from_environ.keys()
    }
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        problems = [
            _describe(
                problem["loc"], problem["type"], problem["msg"], problem.get("input"), file, from_environ
            )
            for problem in error.errors(include_url=False)
        ]
    # Raised out here so that the ValidationError, which holds the values, is no part of the chain.
    raise ConfigError("; ".join(problems))


def _which_file(config_file: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, str]:
    """The file to read, if any, and what named it."""
    if config_file is not None:
        return config_file, "--config"
    if environ.get("CONNECTHUB_CONFIG"):
        return Path(environ["CONNECTHUB_CONFIG"]), "CONNECTHUB_CONFIG"
    return (_DEFAULT_FILE, "") if os.path.exists(_DEFAULT_FILE) else (None, "")


def _read_file(file: Path, named_by: str) -> dict[str, dict[str, Any]]:
    """The tables of a TOML file by section."""
    if not os.path.isfile(file):  # which, unlike Path, is False where one may not look
        origin = f" (named by {named_by})" if named_by else ""
        raise ConfigError(
            f"config file {file}{origin} does not exist, is no file, or lies in a folder that this user may "
            "not enter: copy config.example.toml there, or correct the path"
        )
    try:
        # utf-8-sig: some editors put a byte order mark in front, which TOML itself refuses.
        tables = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"config file {file} cannot be read: {error.strerror}; make it readable for this user"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {file} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"config file {file} is not valid TOML: {_with_line(error, file)}; correct it there"
        ) from None
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"config file {file}: {section!r} stands in no section; {_section_hint(section)}"
            )
    return tables


def _with_line(error: tomllib.TOMLDecodeError, file: Path) -> str:
    """The parser's message, with a line and a column also where it only says `end of document`."""
    lines = file.read_text("utf-8-sig").split("\n")
    return str(error).replace(
        "end of document", f"line {len(lines)}, column {len(lines[-1]) + 1}, the end of the file"
    )


def _read_environ(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The settings in the environment by section; raises ConfigError for a variable that is no setting."""
    known = {
        _variable(section, name): (section, name)
        for section, field in Settings.model_fields.items()
        for name in type(field.default).model_fields
    }
    # CONNECTHUB_DATABASE_URL would silently start on another database. Kubernetes makes variables of that
    # shape for its services (CONNECTHUB_SERVER_PORT=tcp://10.0.0.1:80); those are not meant for us.
    near = {name.replace("__", "_"): name for name in known}
    tables: dict[str, dict[str, Any]] = {}
    for name, value in environ.items():
        if name in known:
            section, setting = known[name]
            tables.setdefault(section, {})[setting] = value
        elif name in near and not value.startswith(("tcp://", "udp://", "sctp://")):
            raise ConfigError(
                f"environment variable {name} is no setting: write {near[name]}, with two underscores"
            )
        elif name.upper().startswith(_PREFIX) and "__" in name:
            raise ConfigError(f"environment variable {name} is an unknown setting: {_guess(name, known)}")
    return tables


def _describe(
    loc: tuple[int | str, ...],
    kind: str,
    message: str,
    given: object,
    file: Path | None,
    environ: Mapping[str, Any],
) -> str:
    """One problem in words: where it stands and what is wrong; the value only where it is no secret."""
    # A quoted key of TOML can hold a line break.
    section, name = (CONTROL.sub("?", str(part)) for part in (*loc, "")[:2])
    if name in environ.get(section, {}):
        place = f"environment variable {_variable(section, name)}"
    else:
        place = f"config file {file}: [{section}] {name}".rstrip()
    if kind == "extra_forbidden":
        if not name:
            return f"{place} is an unknown section: {_section_hint(section)}"
        names = ", ".join(type(Settings.model_fields[section].default).model_fields)
        return f"{place} is an unknown setting: [{section}] has {names}"
    if kind == "too_short":
        message = "must not be empty"
    text = message.removeprefix("Value error, ").replace("Input should", "must").split(", unable to parse")[0]
    shown = (
        "" if (section, name) in _SECRET else f" = {json.dumps(given, default=str, ensure_ascii=False)[:80]}"
    )
    return f"{place}{shown}: {text}"


def _variable(section: str, name: str) -> str:
    return f"{_PREFIX}{section}__{name}".upper()


def _section_hint(section: str) -> str:
    return _guess(f"[{section}]", [f"[{name}]" for name in Settings.model_fields])


def _guess(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question, or a pointer to the list."""
    close = difflib.get_close_matches(name, known, 1, 0.8)
    return f"did you mean {close[0]}?" if close else "config.example.toml lists every setting"
