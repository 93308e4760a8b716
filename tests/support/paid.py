"""The gateway in the test's own process, before the stand-in for the provider's API: what it asks is paid for."""

from __future__ import annotations

import asyncio
import json
import random
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
ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.332.18b; cc_entrypoint=cli;"
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
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


async def settled(path: Path, count: int) -> list[dict[str, Any]]:
    """The charges in the ledger of a gateway that runs, once `count` have ended: an answer comes first."""
    for _ in range(1200):
        rows = charges(path)
        if len(rows) == count and not any(row["outcome"] == "open" for row in rows):
            return rows
        await asyncio.sleep(0.05)
    raise AssertionError(f"not {count} charges that have ended: {rows}")


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


def some_turn(chance: random.Random) -> bytes:
    """A turn as a client may write it: fields in any order, white space or none, and the model's name elsewhere too."""
    fields: dict[str, Any] = turn(stream=chance.random() < 0.5)
    if chance.random() < 0.7:
        texts = [ATTRIBUTION, "You are a harness.", "\u00fcber 1.0e3 \U0001f600"]
        fields["system"] = [{"type": "text", "text": text} for text in texts]
    if chance.random() < 0.5:
        fields["tools"] = [TOOL | {"name": f"look{number}"} for number in range(chance.randint(1, 5))]
    if chance.random() < 0.5:
        fields["metadata"] = {"user_id": json.dumps({"model": "claude-opus-9", "session_id": str(chance.random())})}
    if chance.random() < 0.5:
        call = {"type": "tool_use", "id": "t1", "name": "look", "input": {"model": "claude-opus-9", "n": 1e2}}
        fields["tools"] = [TOOL]
        fields["messages"] = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}]},
        ]
    names = list(fields)
    chance.shuffle(names)
    ordered = {name: fields[name] for name in names}
    spaces: tuple[str, str] = chance.choice(((",", ":"), (", ", ": "), (" ,\n", " : ")))
    return json.dumps(ordered, separators=spaces, ensure_ascii=chance.random() < 0.5).encode()
