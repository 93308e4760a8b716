"""The gateway in the test's own process, before the stand-in for the provider's API: what it asks is paid for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from tests.support.gateway_inside import TOKEN, GatewayInside, gateway_inside
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.messages_api.log import Entry

HAIKU = "claude-haiku-5-5"
VARIABLE = "FARMHAND_GATEWAY_KEY"
RULES = '[[rule]]\ntry = ["local", "metered"]\n'


def settings(api: MessagesApi, *, day: str = "2", enabled: bool = True, rules: str = RULES, more: str = "") -> str:
    """gateway.toml with the metered backend before the stand-in; every class has the cheapest model."""
    classes = ("planning", "review", "chat", "quick-edit", "agent")
    models = ", ".join(f'{name} = "haiku"' for name in classes)
    budget = f'budget_day_usd = "{day}"' if day else ""
    on = str(enabled).lower()
    return f'[metered]\nenabled = {on}\nurl = "{api.url}"\n{budget}\nmodels = {{ {models} }}\n{more}\n{rules}'


@asynccontextmanager
async def paid(
    directory: Path, api: MessagesApi, monkeypatch: pytest.MonkeyPatch, **given: Any
) -> AsyncIterator[GatewayInside]:
    """A gateway with these settings and the stand-in's key."""
    monkeypatch.setenv(VARIABLE, DEFAULT_KEY)
    async with gateway_inside(directory, settings(api, **given)) as inside:
        yield inside


async def post(
    inside: GatewayInside, body: bytes | dict[str, Any], path: str = "/v1/messages", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of one turn."""
    given = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"} | headers
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(inside.url + path, data=sent, headers=given) as answer,
    ):
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.read()


def asked(api: MessagesApi, path: str = "/v1/messages") -> list[Entry]:
    """What the stand-in was asked on a path."""
    return [entry for entry in api.log if entry.path == path]


def charges(path: Path) -> list[dict[str, Any]]:
    """The charges in a ledger."""
    with sqlite3.connect(path) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM charge ORDER BY charge_id")]


def billed(entry: Entry) -> int:
    """What the stand-in bills for a request, in pico-dollars, at the price of its model."""
    used = entry.usage
    split = used.get("cache_creation") or {}
    usage = Usage(
        input_tokens=used["input_tokens"],
        output_tokens=used["output_tokens"],
        cache_read_input_tokens=used.get("cache_read_input_tokens", 0),
        cache_creation_input_tokens=sum(split.values()),
        cache_creation_1h_input_tokens=split.get("ephemeral_1h_input_tokens", 0),
    )
    cost = price_table().cost(entry.model, usage, at=entry.time)
    assert cost is not None
    return cost


def turn(**more: Any) -> dict[str, Any]:
    """A turn in Messages."""
    return {"model": "claude-opus-9", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]} | more
