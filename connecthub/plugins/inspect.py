"""Looking at a handler in a child process, so that no plugin module can harm the hub by being looked at.

The child is `python -m connecthub.plugins.inspect <fd>`. It reads one request as JSON from stdin, which keeps
secrets out of the command line and the environment, and answers with one line of JSON on a socket of its own,
which keeps out whatever the module prints. Whatever happens, its whole process group is killed in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from connecthub.errors import HandlerError
from connecthub.plugins.api import BaseJob
from connecthub.plugins.loader import Loader, one_line

Section = Literal["public_cfg", "secret_cfg"]

_ANSWER_LIMIT = 1 << 20  # bytes; an answer holds at most _ERRORS_LIMIT short lines
_ERRORS_LIMIT = 50
_GRAM = 4  # so many characters in a row of a secret make a message unfit to be shown


@dataclass(frozen=True)
class FieldError:
    """One field that the class's `Params` or `Secrets` refuses. `message` never holds a value of a secret."""

    section: Section
    field: str  # dotted, `company.id`; empty where the section as a whole is refused
    message: str


@dataclass(frozen=True)
class HandlerReport:
    """What looking at a handler found: `error` is the one line of why it cannot run, or None."""

    error: str | None
    doc: str = ""  # first line of the class's docstring
    field_errors: tuple[FieldError, ...] = ()


async def inspect_handler(
    handler_path: str,
    *,
    packages: tuple[str, ...],
    path: Path,
    public_cfg: dict[str, Any] | None = None,
    secret_cfg: dict[str, Any] | None = None,
    timeout_s: float = 20,
) -> HandlerReport:
    """Load `handler_path` in a child process and check the configurations that are given against its models.

    Everything that is wrong with the plugin is in the report; raises only OSError where no process can be
    started. Cancelling the caller kills the child.
    """
    request = {
        "handler_path": handler_path,
        "packages": packages,
        "path": str(path),  # the child has the same current folder
        "sys_path": [str(entry) for entry in sys.path],  # the child must find what the hub would find
        "public_cfg": public_cfg,
        "secret_cfg": secret_cfg,
        "timeout_s": timeout_s,
    }
    try:
        async with asyncio.timeout(timeout_s):
            answer, status = await _ask(json.dumps(request).encode())
    except TimeoutError:
        return HandlerReport(f"{handler_path}: did not finish loading within {timeout_s:g} s")
    if answer is None:
        return HandlerReport(
            f"{handler_path}: the process that loaded it ended ({_ended(status)}) without an answer; "
            "something in the module or in what it imports ends the process"
        )
    return answer


async def _ask(request: bytes) -> tuple[HandlerReport | None, int | None]:
    """The child's report, or None with its exit status where it ended without one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connecthub.plugins.inspect", str(theirs.fileno())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        try:
            theirs.close()  # or the end of the child would not be seen
            line = await _exchange(process, ours, request)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what the module started
            await process.wait()
    return _parsed(line), process.returncode


async def _exchange(process: asyncio.subprocess.Process, ours: socket.socket, request: bytes) -> bytes:
    """Send the request and read the answer's line; empty or cut where the child ended instead."""
    reader, writer = await asyncio.open_connection(sock=ours, limit=_ANSWER_LIMIT)
    reading = asyncio.ensure_future(reader.readline())
    ending = asyncio.ensure_future(process.wait())
    try:
        assert process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(ConnectionError):  # a child that is gone already is seen below
            process.stdin.write(request)
            await process.stdin.drain()
        process.stdin.close()
        await asyncio.wait([reading, ending], return_when=asyncio.FIRST_COMPLETED)
        # What the child wrote before its end is in the socket. Its end alone does not close the socket, where
        # a process that the module forked still holds it.
        await asyncio.wait([reading], timeout=0.5)
        return reading.result() if reading.done() else b""
    except (OSError, ValueError):  # reset, or a line beyond the limit
        return b""
    finally:
        reading.cancel()
        ending.cancel()
        writer.close()


def _parsed(line: bytes) -> HandlerReport | None:
    """The report in the child's line; None where it is none."""
    try:
        answer = json.loads(line)
        errors = tuple(FieldError(**error) for error in answer["field_errors"])
        return HandlerReport(answer["error"], answer["doc"], errors)
    except (ValueError, TypeError, KeyError):
        return None


def _ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"signal {-status}"
    return f"exit status {status}"


# --- in the child -----------------------------------------------------------------------------------------


def main() -> None:
    """Answer the one request on stdin. Never returns: no thread or exit handler of a module is waited for."""
    answer_fd = int(sys.argv[1])
    os.set_inheritable(answer_fd, False)  # what the module starts must not keep the socket open
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the secrets
    request = json.loads(sys.stdin.buffer.read())
    # Should the hub be killed meanwhile, nobody would end this process: the kernel does.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request["timeout_s"] + 5)
    sys.path[:] = request["sys_path"]
    report = _look(request)
    with open(answer_fd, "wb") as answer:
        answer.write(json.dumps(dataclasses.asdict(report)).encode() + b"\n")
    os._exit(0)


def _look(request: Mapping[str, Any]) -> HandlerReport:
    handler_path: str = request["handler_path"]
    loader = Loader(tuple(request["packages"]), Path(request["path"]))
    try:
        cls = loader.load(handler_path)
    except HandlerError as error:
        return HandlerReport(str(error))
    for name in ("Params", "Secrets"):
        model = getattr(cls, name, None)
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            return HandlerReport(
                f"{handler_path}: {name} is no pydantic model; derive it from pydantic.BaseModel"
            )
    errors = [
        *_field_errors("public_cfg", cls.Params, request["public_cfg"]),
        *_field_errors("secret_cfg", cls.Secrets, request["secret_cfg"]),
    ]
    return HandlerReport(None, _doc(cls), tuple(errors[:_ERRORS_LIMIT]))


def _doc(cls: type[BaseJob]) -> str:
    """The first line of the class's own docstring; an inherited one would describe another class."""
    text = cls.__doc__
    return one_line(text.strip().partition("\n")[0]) if isinstance(text, str) else ""


def _field_errors(
    section: Section, model: type[BaseModel] | None, cfg: dict[str, Any] | None
) -> Iterator[FieldError]:
    """What `model` refuses in `cfg`. Values are never shown: pydantic's own error text holds them."""
    if model is None or cfg is None:
        return
    fit = _never_secret(cfg) if section == "secret_cfg" else one_line
    try:
        model.model_validate(cfg)
    except ValidationError as refused:
        for error in refused.errors(include_url=False, include_context=False, include_input=False):
            field = ".".join(str(part) for part in error["loc"])
            yield FieldError(section, field, fit(error["msg"]))
    except BaseException as error:  # a validator of the author may raise anything, with anything in it
        yield FieldError(
            section, "", f"{model.__name__} could not check it: {type(error).__name__} in a validator"
        )


def _never_secret(cfg: dict[str, Any]) -> Callable[[str], str]:
    """A filter for messages that a validator may have built from the values of `cfg`.

    A message that shares `_GRAM` characters in a row with a value, or the whole of a shorter value as a word,
    is replaced altogether: a cut or requoted value would slip past a plain replacement.
    """
    values = [str(value).casefold() for value in _leaves(cfg)]
    grams = {value[at : at + _GRAM] for value in values for at in range(len(value) - _GRAM + 1)}
    words = {value for value in values if 0 < len(value) < _GRAM}

    def fit(message: str) -> str:
        text = message.casefold()
        shared = any(text[at : at + _GRAM] in grams for at in range(len(text) - _GRAM + 1))
        if shared or words.intersection(re.findall(r"\w+", text)):
            return "is not valid (the reason would show a part of the secret)"
        return one_line(message)

    return fit


def _leaves(value: Any) -> Iterator[Any]:
    """Every string and number in a JSON value. True, False and None are no secrets, and words of messages."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield value


if __name__ == "__main__":
    main()
