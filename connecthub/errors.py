"""The errors of ConnectHub, one small tree by cause.

    ConnectHubError
    ├── StartupError            the hub cannot start as configured: one line, exit status 2
    │   ├── ConfigError         a setting is unknown, missing or wrong
    │   ├── KeyFileError        the Fernet key file cannot be used, or does not fit the database
    │   ├── DatabaseError       the database cannot be reached, or not used as it is
    │   └── EmbeddedError       the embedded PostgreSQL cannot run here
    ├── ScheduleError           a cron expression or time zone is invalid      -> reason bad_schedule
    ├── HandlerError            a handler_path cannot be loaded as a Job class -> reason bad_handler
    ├── SecretError             a secret_cfg cannot be read                    -> reason bad_secret
    ├── NotFoundError           what a person asked for is not there, or not any more
    ├── RefusedError            what a person asked for is not possible in this state
    └── IntegrationError        a call to an outside system failed
        ├── ConfigurationError  our side: parameters, client, company, sign, clock
        ├── CredentialsError    log-in refused, or the token is refused even when fresh
        ├── AccessError         the account or this address lacks a permission
        ├── RateError           too frequent, still so after the delays
        ├── RemoteError         their side: 5xx, timeouts, broken answers, busy
        └── DataError           this one record is refused

A message says what happened, where, and what to do next, in one line, and never holds a secret.
"""

from __future__ import annotations


class ConnectHubError(Exception):
    """Base of everything that ConnectHub raises on purpose."""


class StartupError(ConnectHubError):
    """The hub cannot start as it is configured; the message is the one line a person sees."""


class ConfigError(StartupError):
    """A setting is unknown, missing or wrong."""


class KeyFileError(StartupError):
    """The Fernet key file cannot be used, or does not fit the secrets in the database."""


class DatabaseError(StartupError):
    """The database cannot be reached, or cannot be used as it is."""


class EmbeddedError(StartupError):
    """The embedded PostgreSQL cannot run here."""


class ScheduleError(ConnectHubError):
    """A cron expression or a time zone is invalid, or never fires."""


class HandlerError(ConnectHubError):
    """A handler_path cannot be loaded as a Job class."""


class SecretError(ConnectHubError):
    """A secret_cfg cannot be read."""


class NotFoundError(ConnectHubError):
    """What a person asked for is not there, or not any more."""


class RefusedError(ConnectHubError):
    """What a person asked for is not possible in the present state."""


class IntegrationError(ConnectHubError):
    """A call to an outside system failed.

    `code` is the remote system's own error code as text, `request_id` its id of the request: either may be
    empty where the system sent none.
    """

    def __init__(self, message: str, *, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


class ConfigurationError(IntegrationError):
    """Our side is wrong: parameters, client, company, sign or clock."""


class CredentialsError(IntegrationError):
    """The log-in is refused, or a fresh token is."""


class AccessError(IntegrationError):
    """The account, or the address of this machine, lacks a permission."""


class RateError(IntegrationError):
    """Called too frequently, and still so after the delays."""


class RemoteError(IntegrationError):
    """The other system is at fault: 5xx, timeout, broken answer, busy."""


class DataError(IntegrationError):
    """This one record is refused by the other system."""
