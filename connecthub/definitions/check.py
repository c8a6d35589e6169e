"""What a person typed into the form of a Job: checked, merged with what is stored, compared with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from connecthub.config import Settings
from connecthub.definitions.differences import Change, differences, secret_changes
from connecthub.definitions.fields import (
    MISSING,
    Field,
    WrongField,
    fields_of,
    json_object,
    merge,
    parse_json,
    read,
)
from connecthub.definitions.form import Errors, Reader, Values, say_wrong
from connecthub.errors import SecretError
from connecthub.plugins.discover import Catalogue, Handler
from connecthub.plugins.inspect import FieldError, inspect_handler
from connecthub.security.vault import Vault
from connecthub.storage.jobs import JobDefinition, Row
from connecthub.words import LANGUAGES, say


@dataclass
class Checked:
    """A definition and what it changes, or the errors by field; `secret_keys`: names of secrets typed."""

    values: Values
    errors: Errors = field(default_factory=dict)
    definition: JobDefinition | None = None
    secret_keys: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True)
class Typed:
    """The parts of a post beside the plain fields: `p.KEY` parameters, `s.KEY` secrets, `r.KEY` removed ones.

    `nk.N` and `nv.N` are name and value of a secret that no field stands for.
    """

    params: dict[str, str]
    params_base: str  # the public_cfg that the parameter fields were drawn from
    secrets: dict[str, str]
    removed: list[str]
    asks_secrets: bool  # the page had fields for secrets

    @property
    def base(self) -> dict[str, Any]:
        """`params_base` as an object, an empty one where it is none."""
        return json_object(self.params_base) or {}

    @classmethod
    def of(cls, posted: Mapping[str, str]) -> Typed:
        """From the fields of a post."""
        secrets = {name[2:]: text for name, text in posted.items() if name.startswith("s.") and text}
        for name, key in posted.items():
            value = posted.get(f"nv.{name[3:]}", "")
            if name.startswith("nk.") and (key.strip() or value):
                secrets[key.strip()] = value
        return cls(
            {name[2:]: text for name, text in posted.items() if name.startswith("p.")},
            posted.get("params_base", "{}"),
            secrets,
            [name[2:] for name in posted if name.startswith("r.")],
            any(name.startswith("s.") for name in posted),
        )


def secrets_of(stored: Row | None, vault: Vault) -> dict[str, Any] | None:
    """The stored secrets, None where they cannot be read: a Job with a lost key can still be disabled."""
    token = None if stored is None else stored["secret_cfg"]
    if token is None:
        return {}
    try:
        return vault.decrypt(token)
    except SecretError:
        return None


class Checker:
    """Checks forms of Jobs."""

    def __init__(self, settings: Settings, vault: Vault, catalogue: Catalogue) -> None:
        self._settings, self._vault, self.catalogue = settings, vault, catalogue

    async def check(
        self, values: Values, typed: Typed, stored: Row | None, language: str, *, load: bool = True
    ) -> Checked:
        """`stored` is the Job being edited, None for a new one. Without `load` no plugin is loaded."""
        handler = (await self.catalogue.found()).get(values["handler_path"].strip())
        reader = Reader(values, language)
        public = merge_params(reader, handler, values, typed, language)
        old = secrets_of(stored, self._vault)
        keep = stored is not None and not values["secret_cfg"].strip()
        secret = old if keep else self._whole_secret(reader, values, typed)
        touched = sorted({*typed.secrets, *typed.removed})
        if touched:
            secret = _with_typed(reader, secret, typed, handler, language)
        draft = reader.definition(is_new=stored is None)
        if draft.handler_path and load:
            await self._inspect(reader, draft.handler_path, public, secret, handler, language)
        checked = Checked(values, reader.errors)
        checked.secret_keys = sorted(secret or {}) if not keep else touched
        if not reader.errors:
            self._define(checked, draft, secret, None if stored is None else old, keep and not touched)
        if stored is not None and checked.definition is not None:
            after = asdict(checked.definition)
            if checked.definition.keep_secret:
                after["secret_cfg"] = stored["secret_cfg"]
            checked.changes = differences(dict(stored), after, self._vault)
        return checked

    def _define(
        self,
        checked: Checked,
        draft: JobDefinition,
        secret: dict[str, Any] | None,
        old: dict[str, Any] | None,
        keep: bool,
    ) -> None:
        """A token of the same secrets would be another token, and so another revision: it stays."""
        same = old is not None and secret is not None and not list(secret_changes(old, secret))
        keep = keep or same
        token = self._vault.encrypt(secret) if secret and not keep else None
        checked.definition = replace(
            draft, public_cfg=checked.values["public_cfg"].strip(), secret_cfg=token, keep_secret=keep
        )

    def _whole_secret(self, reader: Reader, values: Values, typed: Typed) -> dict[str, Any] | None:
        """What the JSON editor says; where nothing is in it, the fields alone speak."""
        if not values["secret_cfg"].strip() and typed.asks_secrets:
            return {}
        return reader.json("secret_cfg")

    async def _inspect(
        self,
        reader: Reader,
        handler_path: str,
        public: dict[str, Any] | None,
        secret: dict[str, Any] | None,
        handler: Handler | None,
        language: str,
    ) -> None:
        report = await inspect_handler(
            handler_path,
            packages=self._settings.plugins.packages,
            path=self._settings.plugin_path,
            public_cfg=public,
            secret_cfg=secret,
        )
        if report.error:
            reader.wrong("handler_path", report.error)
        drawn = {
            "public_cfg": {one.name for one in fields_of(handler.params if handler else None)},
            "secret_cfg": {one.name for one in fields_of(handler.secrets if handler else None)},
        }
        told = set(reader.errors)
        for problem in report.field_errors:
            text = _in_words(problem, language)
            top = problem.field.split(".")[0]
            beside = f"{'p' if problem.section == 'public_cfg' else 's'}.{top}"
            if top not in drawn[problem.section]:
                reader.wrong(problem.section, ": ".join(filter(None, (problem.field, text))))
            elif beside not in told:  # there it was told already, and better
                reader.wrong(beside, text if top == problem.field else f"{problem.field}: {text}")


def merge_params(
    reader: Reader, handler: Handler | None, values: Values, typed: Typed, language: str
) -> dict[str, Any] | None:
    """The JSON object with what was changed in the fields; `values` get it too."""
    public = reader.json("public_cfg")
    if public is None or handler is None:
        return public
    before = json.dumps(public)
    wrong = merge(fields_of(handler.params), typed.base, typed.params, public)
    for name, error in wrong.items():
        reader.wrong(f"p.{name}", say_wrong(error, language))
    if json.dumps(public) != before:
        values["public_cfg"] = json.dumps(public, ensure_ascii=False, indent=2)
    return public


def beside_secret(key: str) -> str:
    """Where it is told what is wrong with a typed secret: each has a row, except one without a name."""
    return f"s.{key}" if key else "secret_cfg"


def _with_typed(
    reader: Reader, secret: dict[str, Any] | None, typed: Typed, handler: Handler | None, language: str
) -> dict[str, Any] | None:
    """The secrets with single keys replaced, added and removed."""
    if secret is None:
        if "secret_cfg" not in reader.errors:
            reader.wrong("secret_cfg", say(language, "error.secret_unreadable"))
        return None
    merged = {key: value for key, value in secret.items() if key not in typed.removed}
    fields = {one.name: one for one in fields_of(handler.secrets if handler else None)}
    for key, text in typed.secrets.items():
        beside = beside_secret(key)
        try:
            value = read(fields.get(key, Field(key, "text", False)), text)
            if value is MISSING or not key:
                lacks = "secret_empty" if key else "secret_nameless"
                reader.wrong(beside, say(language, f"error.{lacks}", name=key))
                continue
            parse_json(json.dumps(value))
        except WrongField:  # its words would show the value
            reader.wrong(beside, say(language, "error.secret_type"))
            continue
        merged[key] = value
    return merged


def _in_words(problem: FieldError, language: str) -> str:
    key = f"model.{problem.kind}"
    if key not in LANGUAGES[language]:
        return problem.message
    try:
        return say(language, key, **problem.limits)
    except KeyError:  # a limit of another form than ours
        return problem.message
