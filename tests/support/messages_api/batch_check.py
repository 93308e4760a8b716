"""Checks of a request to create a Message Batch.

The batch's own shape is checked at once; `params` only when the request is processed, where a mistake makes it
`errored`: the provider's guide says so ("validation of the params object is performed asynchronously").
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tests.support.messages_api import validate
from tests.support.messages_api.batch import Item
from tests.support.messages_api.errors import ApiError, bad
from tests.support.messages_api.fields import Object, a_string, an_integer, an_object, only, required

MAX_BYTES = 256 * 1024 * 1024
MAX_REQUESTS = 100_000
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_RawObject = dict[str, msgspec.Raw]


def parse(raw: bytes) -> list[Item]:
    """The requests of a body, their params unread: a body of 256 MB is not unfolded into objects."""
    if b"\\ud" in raw or b"\\uD" in raw:
        validate.parse(raw)  # lone surrogates, which the decoder below lets pass in what it leaves unread
    try:
        raw.decode()
        msgspec.json.decode(raw, type=msgspec.Raw)
        if raw.lstrip()[:1] != b"{":
            raise ApiError(400, "Input should be a valid dictionary or object to extract fields from")
        body = msgspec.json.decode(raw, type=_RawObject)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}") from error
    required(body, "", ("requests",))
    only(body, "", ("requests",))
    return _items(body["requests"])


def _items(raw: msgspec.Raw) -> list[Item]:
    try:
        given = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.ValidationError as error:
        raise bad("requests", "Input should be a valid array") from error
    if not given:
        raise bad("requests", "List should have at least 1 item after validation, not 0")
    if len(given) > MAX_REQUESTS:
        raise bad("requests", f"List should have at most {MAX_REQUESTS} items after validation, not {len(given)}")
    items = [_item(part, f"requests.{i}") for i, part in enumerate(given)]
    seen: set[str] = set()
    for i, item in enumerate(items):
        if item.custom_id in seen:
            raise bad(f"requests.{i}.custom_id", f"Duplicate custom_id '{item.custom_id}': it must be unique")
        seen.add(item.custom_id)
    return items


def _item(raw: msgspec.Raw, path: str) -> Item:
    try:
        found = msgspec.json.decode(raw, type=_RawObject)
    except msgspec.ValidationError as error:
        raise bad(path, "Input should be a valid dictionary") from error
    required(found, path, ("custom_id", "params"))
    only(found, path, ("custom_id", "params"))
    custom_id = a_string(msgspec.json.decode(found["custom_id"]), f"{path}.custom_id")
    if not custom_id:
        raise bad(f"{path}.custom_id", "String should have at least 1 character")
    if len(custom_id) > 64:
        raise bad(f"{path}.custom_id", "String should have at most 64 characters")
    if not _CUSTOM_ID.fullmatch(custom_id):
        raise bad(f"{path}.custom_id", "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'")
    if bytes(found["params"])[:1] != b"{":
        an_object(msgspec.json.decode(found["params"]), f"{path}.params")
    return Item(custom_id, found["params"])


def check_params(body: Object) -> None:
    """What /v1/messages takes and a batch does not: `stream`, `speed`, and `max_tokens` 0."""
    if body.get("stream") is True:
        raise bad("stream", "Streaming is not supported in batch requests")
    if body.get("speed") is not None:
        raise bad("speed", "Fast mode is not supported in batch requests")
    if body.get("max_tokens") == 0:
        an_integer(body["max_tokens"], "max_tokens", least=1)


def list_query(query: Any) -> tuple[int, str, str]:
    """`limit`, `after_id`, `before_id` of the list's query."""
    text = query.get("limit", "20")
    if not re.fullmatch(r"[+-]?\d{1,9}", text):
        raise bad("limit", "Input should be a valid integer, unable to parse string as an integer")
    limit = an_integer(int(text), "limit", least=1)
    if limit > 1000:
        raise bad("limit", "Input should be less than or equal to 1000")
    if query.get("after_id") and query.get("before_id"):
        raise ApiError(400, "after_id and before_id cannot both be specified")
    return limit, query.get("after_id", ""), query.get("before_id", "")
