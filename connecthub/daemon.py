"""The composition root: builds everything, starts and stops it in order, and listens to signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from connecthub import systemd
from connecthub.clock import boottime
from connecthub.config import Settings
from connecthub.ending import on_signals
from connecthub.engine import capture
from connecthub.engine.hub import Hub
from connecthub.errors import ConfigError, StartupError
from connecthub.logs import setup_logging
from connecthub.metrics import Metrics, Reading
from connecthub.plugins.loader import Loader
from connecthub.security.vault import Vault
from connecthub.storage import keys, queue, retention
from connecthub.storage.database import ENGINE_SETTINGS, PAGE_SETTINGS, UNAVAILABLE, Database
from connecthub.storage.embedded import EmbeddedPostgres
from connecthub.storage.pending import migrate, require_schema
from connecthub.storage.rights import require_rights
from connecthub.storage.users import ensure_admin
from connecthub.web.app import create_app

log = logging.getLogger(__name__)

_ENGINE_CONNECTIONS = 8
_WEB_CONNECTIONS = 5
# The runs that go at a time hold thousands of objects: at Python's 700 they were looked through all the time.
_COLLECT_AT = 10_000
# How long a thread keeps the interpreter from the event loop, which gives it away with all that it sends.
_SWITCH_S = 0.001


def run(settings: Settings) -> None:
    """Run a hub until SIGTERM or SIGINT; the second of them ends it at once.

    Raises StartupError where it cannot start as configured.
    """
    _make_data_dir(settings.data_dir)
    _check_plugin_path(settings)
    sys.setswitchinterval(_SWITCH_S)
    logs = settings.logs
    hub_log = setup_logging(logs.level, settings.log_dir, logs.format)
    hub_log.exclude(capture.belongs_to_run)
    with (
        hub_log.printed() if logs.format == "json" else contextlib.nullcontext(),
        capture.capturing(hub_log.echo if logs.runs else None),
    ):
        asyncio.run(_serve(settings))
    hub_log.close()
    sys.stdout.flush()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        os._exit(0)  # a plugin's thread that never returns would hold the interpreter


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    on_signals(stop, settings.pool.shutdown_grace_s)
    with _listening(settings) as listener:
        async with AsyncExitStack() as stack:
            dsn = await stack.enter_async_context(database_url(settings, lasting=True))
            await migrate(dsn)
            web_db = await Database.open(dsn, size=_WEB_CONNECTIONS, settings=PAGE_SETTINGS)
            stack.push_async_callback(web_db.close)
            await require_rights(web_db)
            engine_db = await Database.open(
                dsn,
                size=_ENGINE_CONNECTIONS,
                settings=ENGINE_SETTINGS,
                # A beat that is given up must leave time for another one in the same lease.
                command_timeout_s=max(settings.pool.lease_s / 4, 2),
            )
            stack.push_async_callback(engine_db.close)
            vault = await open_vault(settings, web_db)
            password_file = await ensure_admin(
                web_db, settings.security.admin_password.get_secret_value(), settings.data_dir
            )
            loader = Loader(settings.plugins.packages, settings.plugin_path)
            metrics = Metrics()
            hub = Hub(engine_db, vault, loader, settings, metrics)
            app = create_app(
                settings,
                web_db,
                vault,
                lambda: _readiness(web_db, hub),
                lambda: _metrics(web_db, hub, metrics),
            )
            async with _web(app, listener):
                gc.collect()
                gc.freeze()  # what lives for as long as the hub is not looked through again and again
                gc.set_threshold(_COLLECT_AT)
                await hub.start()
                _greet(listener, password_file)
                async with systemd.told(lambda: hub.standstill(boottime()), settings.pool.shutdown_grace_s):
                    await stop.wait()
                await hub.stop()
    log.info("stopped")


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Bind first: a taken port should be known before anything else is started."""
    host, port = settings.server.host, settings.server.port
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Named, or asyncio would leave Nagle's delay on.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as error:
        raise StartupError(
            f"[server] host {host} cannot be used: {error.strerror}; set another one"
        ) from None
    with contextlib.closing(listener):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1024)
        except OSError as error:
            raise StartupError(
                f"address {host}:{port} cannot be listened at: {error.strerror}; "
                "set [server] port (CONNECTHUB_SERVER__PORT) to another one, or end what listens there"
            ) from None
        yield listener


@asynccontextmanager
async def database_url(settings: Settings, *, lasting: bool = False) -> AsyncIterator[str]:
    """The URL of the database that the settings name; the embedded one runs while this is entered.

    Should that end meanwhile, it is started again where this is `lasting`.
    """
    if settings.database.dsn:
        yield settings.database.dsn
        return
    _make_data_dir(settings.data_dir)
    postgres = await EmbeddedPostgres.start(settings.data_dir)
    try:
        async with postgres.kept_running() if lasting else contextlib.nullcontext():
            yield postgres.dsn
    finally:
        await postgres.stop()


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database with the schema of this version, made where it is empty, for a command."""
    async with database_url(settings) as dsn:
        await require_schema(dsn)
        async with _opened(dsn) as database:
            yield database


@asynccontextmanager
async def open_unchanged(settings: Settings) -> AsyncIterator[Database]:
    """The database with the schema that it has, which may be another version's, or none."""
    async with database_url(settings) as dsn, _opened(dsn) as database:
        yield database


@asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[Database]:
    database = await Database.open(dsn, size=1)
    try:
        yield database
    finally:
        await database.close()


def _make_data_dir(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = data_dir / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartupError(
            f"data folder {data_dir} cannot be written: {error.strerror}; make it writable for this user, "
            "or set [data] dir (CONNECTHUB_DATA__DIR) to another one"
        ) from None


def _check_plugin_path(settings: Settings) -> None:
    if not os.path.isdir(settings.plugin_path):  # which, unlike Path, is False where one may not look
        raise ConfigError(
            f"[plugins] path {settings.plugin_path} is no folder, or lies in one that this user may not "
            "enter; set it (CONNECTHUB_PLUGINS__PATH) to the one that holds the packages "
            f"{', '.join(settings.plugins.packages)}"
        )


async def open_vault(settings: Settings, db: Database) -> Vault:
    """The vault, whose key is made only while no secret waits for another one, and fits what is stored."""
    tokens = await keys.stored_tokens(db)
    vault = await asyncio.to_thread(Vault.open, settings.fernet_key_path, may_create=not tokens)
    vault.require_fit(tokens)
    await keys.store_canary(db, vault.canary())
    return vault


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        """`serve` returns after what is being answered."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """Once a second, for the date in the answers, and not ten times: an idle hub sleeps."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._ending.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the daemon's: runs are drained while pages still answer."""
        yield


@asynccontextmanager
async def _web(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        proxy_headers=False,  # would believe this whole machine; the app knows [server] trusted_proxies
        server_header=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="web")
    try:
        yield
    finally:
        server.end()
        await serving


async def _readiness(db: Database, hub: Hub) -> dict[str, str | None]:
    checks = hub.readiness()
    try:
        async with asyncio.timeout(5):
            read_only = await queue.is_read_only(db)
            waits = await queue.longest_wait(db)
        checks["database"] = "the database is read-only" if read_only else None
        long = waits is not None and waits > _QUEUED_TOO_LONG_S and hub.has_free_places
        checks["queue"] = f"a run has been queued for {waits:.0f} s" if long else None
    except (*UNAVAILABLE, TimeoutError):
        checks["database"] = checks["queue"] = "the database does not answer"
    return checks


async def _metrics(db: Database, hub: Hub, metrics: Metrics) -> bytes:
    """All figures; those of the queue are missing while the database does not answer."""
    readings = hub.readings()
    with contextlib.suppress(*UNAVAILABLE):
        async with asyncio.timeout(5):
            depth, age, paused = await queue.standing(db)
            kept = await retention.last_pass(db)
        readings += [
            Reading("queue_depth", "Runs that are queued and due.", depth),
            Reading("queue_age_seconds", "How long the first of them has waited.", age),
            Reading("paused", "1 while a person has paused all hubs.", paused),
            Reading("retention_age_seconds", "Since a whole pass of retention ended.", kept["age_s"]),
        ]
    return await asyncio.to_thread(metrics.text, readings)


_QUEUED_TOO_LONG_S = 300


def _greet(listener: socket.socket, password_file: Path | None) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"ConnectHub is at http://{shown}:{port}/admin (end it with Ctrl-C)", flush=True)
    if password_file is not None:
        secret = f": {password_file.read_text().strip()}" if sys.stdout.isatty() else ""
        print(f"Sign in as admin; the password is in {password_file}{secret}", flush=True)
