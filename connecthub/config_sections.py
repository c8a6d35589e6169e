"""The sections of the settings: what each setting may be, and its default."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _no_bool(value: object) -> object:
    # TOML's `true` would otherwise pass as the number 1.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _one_line(value: str) -> str:
    if CONTROL.search(value):
        raise ValueError("must not contain control characters or line breaks")
    return value


def _json_list(value: object) -> object:
    """A list from the environment arrives as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('must be a list; in the environment as JSON, such as ["extensions"]') from None


def _dotted(value: str) -> str:
    if not all(part.isidentifier() for part in value.split(".")):
        raise ValueError("must hold names of Python packages, such as extensions or company.jobs")
    return value


def _host_name(value: str) -> str:
    name = value.strip().lower()
    if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]|[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:.]*", name):
        raise ValueError("must hold host names without port and scheme, such as hub.example.com")
    return name.strip("[]")


def _network(value: str) -> str:
    try:
        return str(ip_network(value.strip(), strict=False))
    except ValueError:
        raise ValueError("must hold addresses or networks, such as 127.0.0.1 or 10.0.0.0/8") from None


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[Text, Field(min_length=1)]
Whole = Annotated[int, BeforeValidator(_no_bool)]
Seconds = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False, ge=0)]
Packages = Annotated[
    tuple[Annotated[str, AfterValidator(_dotted)], ...],
    BeforeValidator(_json_list),
    Field(min_length=1),
]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host_name)], ...], BeforeValidator(_json_list)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_json_list)]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class AppSettings(_Section):
    """[app]"""

    name: Name = Field("ConnectHub", max_length=100)


class ServerSettings(_Section):
    """[server]: where the admin listens (port 0: the system chooses), which names and proxies it believes."""

    host: Name = "127.0.0.1"
    port: Whole = Field(8000, ge=0, le=65535)
    allowed_hosts: Hosts = ()
    trusted_proxies: Networks = ()


class DatabaseSettings(_Section):
    """[database]: `url` is empty for the embedded PostgreSQL."""

    url: SecretStr = SecretStr("")

    @field_validator("url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr) -> SecretStr:
        _dsn(url.get_secret_value())
        return url

    @property
    def dsn(self) -> str:
        """The URL as asyncpg and libpq read it, or "" for the embedded one. Never print it."""
        return _dsn(self.url.get_secret_value())


class DataSettings(_Section):
    """[data]"""

    dir: Name = "data"


class SecuritySettings(_Section):
    """[security]: an empty path is <data>/fernet.key, an empty password a random one at first start."""

    fernet_key_path: Text = ""
    admin_password: SecretStr = SecretStr("")

    @field_validator("fernet_key_path")
    @classmethod
    def _is_no_key(cls, path: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9_-]{43}=", path):
            raise ValueError("must be the path of the key file, not the key itself")
        return path


class LogSettings(_Section):
    """[logs]: an empty `dir` is <data>/logs, "off" is none."""

    dir: Text = ""
    level: Level = "INFO"
    format: Literal["text", "json"] = "text"
    runs: bool = False


class SchedulerSettings(_Section):
    """[scheduler]: the zone of Jobs that name none."""

    timezone: Name = "Asia/Shanghai"

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (LookupError, ValueError, OSError):  # OSError: "Asia" is a folder of the zone database
            raise ValueError("must be a time zone such as Asia/Shanghai or UTC") from None
        return name


class PoolSettings(_Section):
    """[pool]: `heartbeat_s` 0 is a quarter of the lease, `timeout_s` 0 is no time limit."""

    size: Whole = Field(32, ge=1, le=10_000)
    lease_s: Seconds = Field(60, ge=2, le=86_400)
    heartbeat_s: Seconds = 0
    timeout_s: Seconds = 3600
    shutdown_grace_s: Seconds = 60

    @field_validator("heartbeat_s")
    @classmethod
    def _beats_twice_in_a_lease(cls, beat: float, info: ValidationInfo) -> float:
        lease = info.data.get("lease_s")  # missing where lease_s itself is wrong, which is reported then
        if lease is not None and beat >= lease / 2:
            raise ValueError(f"must be less than half of lease_s ({lease:g})")
        return beat


class RetentionSettings(_Section):
    """[retention]: days that runs and failed ones are kept (0: for ever), and how many of each Job anyway."""

    days: Whole = Field(90, ge=0, le=36_500)
    failure_days: Whole = Field(365, ge=0, le=36_500)
    keep_last: Whole = Field(100, ge=0, le=10_000)

    @field_validator("failure_days")
    @classmethod
    def _is_not_shorter(cls, failure_days: int, info: ValidationInfo) -> int:
        days = info.data.get("days")  # missing where days itself is wrong, which is reported then
        if days is not None and 0 < failure_days < days:
            raise ValueError(f"must be 0 (for ever) or at least days ({days})")
        return failure_days


class MetricsSettings(_Section):
    """[metrics]: who may read /metrics from another machine."""

    token: SecretStr = SecretStr("")


class PluginSettings(_Section):
    """[plugins]: the packages that Jobs may come from, and the folder that holds them."""

    packages: Packages = ("extensions",)
    path: Name = "."


def _dsn(url: str) -> str:
    """`url` in the form of asyncpg and libpq, "" for "". Raises ValueError, which does not show the URL."""
    url = url.strip()
    if not url:
        return ""
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"postgres(ql)?(\+\w+)?", scheme.lower()):
        raise ValueError("must begin with postgresql:// (ConnectHub stores in PostgreSQL only)")
    try:
        parts = urlsplit(f"postgresql://{rest}")
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port  # raises where it is no number
        _one_line(rest)
        if parts.query:
            parse_qs(parts.query, strict_parsing=True)  # as asyncpg does, whose complaint would show it
        # Such an @ ends an unquoted password, of which a part would be taken for the host and be shown.
        if parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query:
            raise ValueError("an unquoted # or @")
    except ValueError:
        raise ValueError(
            "cannot be read as postgresql://user:password@host:port/database; "
            "write characters such as @ : / # ? % in the password as %40 %3A %2F %23 %3F %25"
        ) from None
    # SQLAlchemy's asyncpg dialect spells libpq's sslmode as `ssl`.
    return "postgresql://" + re.sub(r"([?&])ssl=", r"\1sslmode=", rest)
