"""Clients of the stand-ins, for tests: the right account, no delays between tries."""

from __future__ import annotations

from typing import Any

from connecthub.integrations import DidiClient, ExportQuery, SeeyonClient
from connecthub.integrations.loop import runtime
from tests.standins.didi import SECRETS as DIDI
from tests.standins.didi import DidiStandin
from tests.standins.oa import SECRETS as OA
from tests.standins.oa import TEMPLATE, OaStandin

QUERY = ExportQuery(templateCode=TEMPLATE)


def oa_client(
    oa: OaStandin,
    password: str = OA["rest_password"],
    login_name: str | None = OA["loginName"],
    **options: Any,
) -> SeeyonClient:
    options.setdefault("retry_delays", (0, 0))
    return SeeyonClient(oa.url, OA["rest_user"], password, login_name, **options)


def didi_client(didi: DidiStandin, **options: Any) -> DidiClient:
    options.setdefault("retry_delays", (0, 0))
    return DidiClient(didi.url, **(DIDI | options))


def forget_tokens() -> None:
    """Between tests: a port may come round again, and with it the token of a stand-in that is gone."""
    runtime().slots.clear()
    runtime().pacers.clear()
