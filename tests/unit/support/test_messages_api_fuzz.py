"""Whatever the body, the loopback Messages API answers it or refuses it; it never breaks."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.support.messages_api.answer import compose
from tests.support.messages_api.errors import ApiError
from tests.support.messages_api.rules import Rules
from tests.support.messages_api.sse import encode, events
from tests.support.messages_api.usage import PromptCache
from tests.support.messages_api.validate import check

CACHED = {"type": "ephemeral", "ttl": "1h"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
BODY: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 2000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": CACHED}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "go", "cache_control": CACHED}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"a": "b"}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "seen"}]}],
        },
        {"role": "system", "content": "Now."},
    ],
    "tools": [{"name": "look", "input_schema": SCHEMA}, {"type": "web_search_20260318", "name": "web_search"}],
    "tool_choice": {"type": "tool", "name": "look"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["STOP"],
    "metadata": {"user_id": "x"},
    "stream": True,
}
HEADERS = {"anthropic-version": "2023-06-01", "anthropic-beta": "context-management-2025-06-27"}
NAMES = st.sampled_from(["type", "text", "name", "content", "$ref", "enum", "pattern", "a"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "system", "tool", "any", "auto", "object", "#/x", "adaptive", "disabled"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        found += places(inner, (*path, name))
    return found


PLACES = places(BODY)


def test_the_unchanged_body_is_answered() -> None:
    assert compose(check(copy.deepcopy(BODY), HEADERS), Rules())["stop_reason"] == "tool_use"


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES | st.just(...)), min_size=1, max_size=3))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_body_is_answered_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    body = copy.deepcopy(BODY)
    for path, value in changes:
        spot: Any = body
        try:
            for name in path[:-1]:
                spot = spot[name]
            if value is ...:
                del spot[path[-1]]
            else:
                spot[path[-1]] = value
        except (LookupError, TypeError):
            continue  # an earlier change took the place away
    try:
        request = check(body, HEADERS)
        usage = PromptCache().count(request, "key")
        message = compose(request, Rules())
    except ApiError as error:
        refused = error.status
        event("refused")
    else:
        event("answered")
        message["usage"] |= usage
        assert b"".join(encode(item) for item in events(message)).endswith(b"\n\n")
        return
    assert refused in (400, 404)
