"""Looking at one handler in a child process: whether it loads, and what its models refuse."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from connecthub.errors import HandlerError
from connecthub.plugins.api import BaseJob
from connecthub.plugins.child import Answer, Child, end_after, not_started, serve
from connecthub.plugins.loader import Loader, one_line

Section = Literal["public_cfg", "secret_cfg"]

_ERRORS_LIMIT = 50  # short lines, so that an answer stays below the limit of a line
_KINDS = frozenset(
    "missing extra_forbidden string_type int_type int_parsing int_from_float float_type float_parsing "
    "bool_type bool_parsing list_type dict_type greater_than greater_than_equal less_than less_than_equal "
    "string_too_short string_too_long literal_error enum".split()
)
_LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length", "expected")  # of a model, never of a value
_GRAM = 4  # so many characters in a row of a secret make a message unfit to be shown


@dataclass(frozen=True)
class FieldError:
    """One field that the class's `Params` or `Secrets` refuses; nothing here holds a value of a secret."""

    section: Section
    field: str  # dotted, `company.id`; empty where the section as a whole is refused
    message: str  # English
    kind: str = ""  # pydantic's word for it, `missing`, for those who say it in another language
    limits: dict[str, Any] = dataclasses.field(default_factory=dict)  # the rule of the model: {"ge": 1}


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

    Everything that is wrong is in the report, also that no process can be started: raised, that would pass
    for a lost database. Cancelling the caller kills the child.
    """
    request = {
        "handler_path": handler_path,
        "packages": packages,
        "path": str(path),  # the child has the same current folder
        "public_cfg": public_cfg,
        "secret_cfg": secret_cfg,
        "timeout_s": timeout_s,
    }
    child = Child("connecthub.plugins.inspect", request)
    try:
        async with asyncio.timeout(timeout_s), child:
            answer = _parsed(await child.line())
    except TimeoutError:
        return HandlerReport(f"{handler_path}: did not finish loading within {timeout_s:g} s")
    except OSError as error:
        return HandlerReport(f"{handler_path}: {not_started(error)}")
    if answer is None:
        return HandlerReport(
            f"{handler_path}: the process that loaded it ended ({child.end()}) without an answer; "
            "something in the module or in what it imports ends the process"
        )
    return answer


def _parsed(line: bytes) -> HandlerReport | None:
    """The report in the child's line; None where it is none."""
    try:
        answer = json.loads(line)
        errors = tuple(FieldError(**error) for error in answer["field_errors"])
        return HandlerReport(answer["error"], answer["doc"], errors)
    except (ValueError, TypeError, KeyError):
        return None


# --- in the child -----------------------------------------------------------------------------------------


def _work(request: Mapping[str, Any], answer: Answer) -> None:
    end_after(request["timeout_s"] + 5)
    answer(dataclasses.asdict(_look(request)))


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
    errors = field_errors(cls, request["public_cfg"], request["secret_cfg"])
    return HandlerReport(None, _doc(cls), tuple(errors[:_ERRORS_LIMIT]))


def field_errors(
    cls: type[BaseJob], public_cfg: dict[str, Any] | None, secret_cfg: dict[str, Any] | None
) -> list[FieldError]:
    """What the models of `cls` refuse in the configurations that are given."""
    return [
        *_field_errors("public_cfg", cls.Params, public_cfg),
        *_field_errors("secret_cfg", cls.Secrets, secret_cfg),
    ]


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
        for error in refused.errors(include_url=False, include_input=False):
            field = ".".join(str(part) for part in error["loc"])
            context = error.get("ctx", {})
            limits = {
                name: context[name] for name in _LIMITS if isinstance(context.get(name), int | float | str)
            }
            yield FieldError(section, field, fit(error["msg"]), error["type"], limits)
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
    serve(_work)
