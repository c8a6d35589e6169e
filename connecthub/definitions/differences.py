"""What differs between two definitions of a Job, without a secret: of those only which keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from connecthub.definitions.fields import json_object
from connecthub.errors import SecretError
from connecthub.security.vault import Vault
from connecthub.storage.jobs import Row

PLAIN = (
    "name", "tags", "enabled", "cron_expr", "timezone", "handler_path", "misfire", "misfire_window_s",
    "overlap", "timeout_s", "max_attempts", "retry_delays", "rerun_lost", "priority",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One difference. `field` is a column of jobs, `key` a key of public_cfg or secret_cfg.

    `before` and `after` are texts, None where there is nothing, and always None for secrets, whose `kind`
    tells what happened to the key.
    """

    field: str
    key: str
    kind: Literal["added", "removed", "changed", "unreadable"]
    before: str | None = None
    after: str | None = None

    @property
    def name(self) -> str:
        """`timeout_s`, or `public_cfg.base_url`."""
        return f"{self.field}.{self.key}" if self.key else self.field


def differences(before: Mapping[str, Any], after: Mapping[str, Any], vault: Vault) -> list[Change]:
    """From one definition to another, in the order of the form. Both have the columns of a revision."""
    changes = [
        Change(name, "", "changed", shown(before[name]), shown(after[name]))
        for name in PLAIN
        if before[name] != after[name]
    ]
    changes += _public(json.loads(before["public_cfg"]), json.loads(after["public_cfg"]))
    if before["secret_cfg"] != after["secret_cfg"]:
        changes += _secret(before["secret_cfg"], after["secret_cfg"], vault)
    return changes


def for_audit(changes: list[Change]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [asdict(change) for change in changes]


def shown(value: Any) -> str | None:
    """A value as people read it: texts as they are, lists with commas, the rest as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False)


def shown_param(value: Any) -> str:
    """A parameter as people read it; null is a value, too."""
    text = shown(value)
    return "null" if text is None else text


def _public(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for key in [*before, *(key for key in after if key not in before)]:
        if key not in after:
            yield Change("public_cfg", key, "removed", shown_param(before[key]))
        elif key not in before:
            yield Change("public_cfg", key, "added", None, shown_param(after[key]))
        elif _text(before[key]) != _text(after[key]):
            yield Change("public_cfg", key, "changed", shown_param(before[key]), shown_param(after[key]))


def _secret(before: str | None, after: str | None, vault: Vault) -> Iterator[Change]:
    try:
        old, new = (vault.decrypt(token) if token else {} for token in (before, after))
    except SecretError:
        yield Change("secret_cfg", "", "unreadable")
        return
    yield from secret_changes(old, new)


def secret_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Which keys were added, removed or given another value."""
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new:
            yield Change("secret_cfg", key, "removed")
        elif key not in old:
            yield Change("secret_cfg", key, "added")
        elif _text(old[key]) != _text(new[key]):
            yield Change("secret_cfg", key, "changed")


def overrides(stored: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """What one run changes in the stored parameters: keys with other values. None where nothing differs."""
    changed = {
        key: value
        for key, value in wanted.items()
        if key not in stored or json.dumps(stored[key]) != json.dumps(value)
    }
    return changed or None


def both(was: str, mine: str, theirs: str) -> str:
    """Parameters as JSON: `theirs` with what `mine` changed of what `was`: values, new keys, those that went.

    Where `mine` is no JSON object it stays as it was typed.
    """
    typed = json_object(mine)
    if typed is None:
        return mine
    before = json.loads(was)
    left = {key: value for key, value in json.loads(theirs).items() if key in typed or key not in before}
    return json.dumps(left | (overrides(before, typed) or {}), ensure_ascii=False, indent=2)


def last_changed(revisions: Sequence[Row], vault: Vault) -> dict[str, Row]:
    """The revision that each key of the newest secrets has its value from; `revisions` come newest first.

    Of a key that is older than what is kept, the oldest one that has it.
    """
    found: dict[str, Row] = {}
    waiting: dict[str, str] | None = None
    for revision in revisions:
        try:
            secrets = vault.decrypt(revision["secret_cfg"]) if revision["secret_cfg"] else {}
        except SecretError:
            break
        if waiting is None:
            waiting = {key: _text(value) for key, value in secrets.items()}
        waiting = {
            key: text for key, text in waiting.items() if _text(secrets.get(key)) == text and key in secrets
        }
        found |= dict.fromkeys(waiting, revision)
        if not waiting:
            break
    return found


def _text(value: Any) -> str:
    """For comparing: 1 and true are equal in Python, and the order of keys means nothing in JSON."""
    return json.dumps(value, sort_keys=True)
