"""The Admin API's reports: /v1/organizations/usage_report/messages and /v1/organizations/cost_report.

Source: the provider's pages of these endpoints, read 2026-11-24. Assumed, since they do not say: an ordinary key is
refused as an unknown one is, and parameters that are not known are refused.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from tests.support.messages_api import catalog, validate
from tests.support.messages_api.books import KINDS, Line, Posting, cents, usage_row
from tests.support.messages_api.control import STATE, json_response, read_as
from tests.support.messages_api.errors import bad
from tests.support.messages_api.state import State

USAGE = "/v1/organizations/usage_report/messages"
COST = "/v1/organizations/cost_report"
PATHS = (USAGE, COST)
#: Seconds, default and greatest number of buckets, by width.
_WIDTHS = {"1d": (86400, 7, 31), "1h": (3600, 24, 168), "1m": (60, 60, 1440)}
_TIERS = (
    "standard", "batch", "priority", "priority_on_demand", "flex", "flex_discount",
)  # fmt: skip
_WINDOWS = ("0-200k", "200k-1M")
_USAGE_GROUPS = (
    "account_id", "api_key_id", "context_window", "inference_geo", "model", "service_account_id", "service_tier",
    "workspace_id",
)  # fmt: skip
_COST_GROUPS = ("description", "workspace_id")
_COMMON = ("starting_at", "ending_at", "bucket_width", "limit", "page", "group_by[]")
_FILTERS = ("models[]", "service_tiers[]", "context_window[]", "api_key_ids[]", "workspace_ids[]")
_WORDS = {
    KINDS[0]: "Input Tokens",
    KINDS[1]: "Output Tokens",
    KINDS[2]: "Input Tokens, Cache Write",
    KINDS[3]: "Input Tokens, Cache Write 1h",
    KINDS[4]: "Input Tokens, Cache Hit",
}


def report(path: str, query: MultiMapping[str], headers: Any, state: State) -> dict[str, Any]:
    """The answer of one of the reports. Raises ApiError."""
    validate.check_headers(headers, frozenset(state.admin_keys))
    known = (*_COMMON, *(_FILTERS if path == USAGE else ()))
    for name in query:
        if name not in known:
            raise bad(name, "Extra inputs are not permitted")
    width, most, default = _width(query, ("1d", "1h", "1m") if path == USAGE else ("1d",))
    limit = _integer(query, "limit", default, most)
    start = _start(query) // width * width
    end = _moment(query["ending_at"], "ending_at") if "ending_at" in query else int(time.time()) + 1
    if "ending_at" in query and end <= _start(query):
        raise bad("ending_at", "ending date must be after starting date")
    groups = _several(query, "group_by[]", _USAGE_GROUPS if path == USAGE else _COST_GROUPS)
    at = _page(query, start)
    buckets: list[dict[str, Any]] = []
    while at < end and len(buckets) < limit:
        lines = [line for line in state.books.between(at, at + width) if _wanted(line, query)]
        results = _usage(lines, groups) if path == USAGE else _cost(lines, groups)
        buckets.append({"starting_at": _text(at), "ending_at": _text(at + width), "results": results})
        at += width
    more = at < end
    token = "page_" + base64.b64encode(_text(at).encode()).decode()
    return {"data": buckets, "has_more": more, "next_page": token if more else None}


def _width(query: MultiMapping[str], allowed: tuple[str, ...]) -> tuple[int, int, int]:
    name = query.get("bucket_width", "1d")
    if name not in allowed:
        raise bad("bucket_width", f"Input should be {' or '.join(map(repr, allowed))}")
    seconds, default, most = _WIDTHS[name]
    return seconds, most, default


def _integer(query: MultiMapping[str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdecimal():
        raise bad(name, "Input should be a valid integer, unable to parse string as an integer")
    if int(text) < 1:
        raise bad(name, "Input should be greater than or equal to 1")
    if int(text) > most:
        raise bad(name, f"Input should be less than or equal to {most}")
    return int(text)


def _start(query: MultiMapping[str]) -> int:
    if "starting_at" not in query:
        raise bad("starting_at", "Field required")
    return _moment(query["starting_at"], "starting_at")


def _moment(text: str, name: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or "T" not in text or moment.tzinfo is None:
        raise bad(name, "Input should be a valid datetime")
    return int(moment.timestamp())


def _text(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _page(query: MultiMapping[str], start: int) -> int:
    token = query.get("page")
    if token is None:
        return start
    try:
        at = _moment(base64.b64decode(token.removeprefix("page_"), validate=True).decode(), "page")
    except (binascii.Error, UnicodeDecodeError):
        at = -1
    if not token.startswith("page_") or at < start:
        raise bad("page", "Invalid page token")
    return at


def _several(query: MultiMapping[str], name: str, allowed: Iterable[str]) -> list[str]:
    given = query.getall(name, [])
    for value in given:
        if value not in allowed:
            raise bad(f"{name}.{given.index(value)}", f"Input should be one of {', '.join(map(repr, allowed))}")
    return given


def _wanted(line: Line, query: MultiMapping[str]) -> bool:
    tiers = _several(query, "service_tiers[]", _TIERS)
    windows = _several(query, "context_window[]", _WINDOWS)
    models = query.getall("models[]", [])
    return (
        (not models or line.model in models)
        and (not tiers or line.tier in tiers)
        and (not windows or line.window in windows)
        # There is one workspace, the default one, and keys have no ids here.
        and not query.getall("api_key_ids[]", [])
        and not query.getall("workspace_ids[]", [])
    )


def _usage(lines: list[Line], groups: list[str]) -> list[dict[str, Any]]:
    """One result per group; fields that are not grouped by are null."""

    def key(line: Line) -> tuple[str, str, str]:
        return (
            line.model if "model" in groups else "",
            line.tier if "service_tier" in groups else "",
            line.window if "context_window" in groups else "",
        )

    answers = []
    for (model, tier, window), members in groupby(sorted((x for x in lines if x.model), key=key), key=key):
        unknown = dict.fromkeys(("account_id", "api_key_id", "service_account_id", "workspace_id", "inference_geo"))
        named = {"model": model or None, "service_tier": tier or None, "context_window": window or None}
        answers.append({**usage_row(list(members)), **unknown, **named})
    return answers


def _cost(lines: list[Line], groups: list[str]) -> list[dict[str, Any]]:
    empty = dict.fromkeys(
        ("context_window", "cost_type", "description", "inference_geo", "model", "service_tier", "token_type",
         "workspace_id")
    )  # fmt: skip
    if "description" not in groups:
        total = sum(sum(line.pico.values()) for line in lines)
        return [{**empty, "currency": "USD", "amount": cents(total)}] if lines else []
    sums: dict[tuple[str, str, str, str], int] = {}
    for line in lines:
        for kind, pico in line.pico.items():
            place = (line.model, line.tier, line.window, kind)
            sums[place] = sums.get(place, 0) + pico
    return [
        {**empty, "currency": "USD", "amount": cents(pico), **_described(*place)}
        for place, pico in sorted(sums.items())
        if pico
    ]


def _described(model: str, tier: str, window: str, kind: str) -> dict[str, Any]:
    if kind == "other":
        return {"description": "Web Search Usage", "cost_type": "web_search"}
    known = catalog.find(model)
    batch = ", Batch" if tier == "batch" else ""
    return {
        "description": f"{known.name if known else model} Usage - {_WORDS[kind]}{batch}",
        "cost_type": "tokens",
        "model": model,
        "service_tier": tier,
        "context_window": window,
        "token_type": kind,
    }


async def post_books(request: web.Request) -> web.Response:
    """Bill what did not come through this API: a list of `Posting`."""
    postings: list[Posting] = await read_as(request, list[Posting])
    for posting in postings:
        request.app[STATE].books.post(posting)
    return json_response(postings)


async def put_admin_keys(request: web.Request) -> web.Response:
    """Set the accepted Admin keys."""
    state = request.app[STATE]
    state.admin_keys = frozenset(await read_as(request, list[str]))
    return json_response(sorted(state.admin_keys))


ROUTES = [web.post("/_control/books", post_books), web.put("/_control/admin_keys", put_admin_keys)]
