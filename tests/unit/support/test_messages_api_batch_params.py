"""The requests inside a Message Batch: checked and answered as /v1/messages does it, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.support.messages_api import DEFAULT_KEY, BatchFault, MessagesApi, Plan, batch_check
from tests.support.messages_api.errors import ApiError

OLD = "claude-haiku-4-5"
ASK: Any = {"model": OLD, "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi(batch_plan=Plan(after_ms=None)) as running:
        yield running


@pytest.fixture
async def client(api: MessagesApi) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=DEFAULT_KEY, base_url=api.url, max_retries=0) as sdk:
        yield sdk


async def outcome(api: MessagesApi, client: anthropic.AsyncAnthropic, *params: Any, betas: Any = ()) -> list[Any]:
    requests: Any = [{"custom_id": f"ask-{i:03}", "params": each} for i, each in enumerate(params)]
    made = await client.beta.messages.batches.create(requests=requests, betas=betas)
    await api.advance(action="finish")
    found = [line async for line in await client.beta.messages.batches.results(made.id)]
    return [line.result for line in sorted(found, key=lambda line: line.custom_id)]


async def test_each_mistake_is_an_errored_request(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    wrong = [
        ({"stream": True}, "invalid_request_error", "stream: Streaming is not supported in batch requests"),
        ({"max_tokens": 0}, "invalid_request_error", "max_tokens: Input should be greater than or equal to 1"),
        ({"speed": "fast"}, "invalid_request_error", "speed: Fast mode is not supported in batch requests"),
        ({"model": "claude-9"}, "not_found_error", "model: claude-9"),
        ({"messages": []}, "invalid_request_error", "messages: at least one message is required"),
        ({"colour": "red"}, "invalid_request_error", "colour: Extra inputs are not permitted"),
        ({"messages": [{"role": "user", "content": "word " * 200_000}]}, "invalid_request_error", "prompt is too long"),
    ]
    good, *bad = await outcome(api, client, ASK | {"stream": False}, *[ASK | change for change, _, _ in wrong])
    assert good.type == "succeeded"
    for result, (_, type_, message) in zip(bad, wrong, strict=True):
        assert (result.type, result.error.type, result.error.error.type) == ("errored", "error", type_)
        assert result.error.error.message.startswith(message)
        assert result.error.request_id.startswith("req_")


async def test_betas_are_those_of_the_batch(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    params = ASK | {"context_management": {"edits": []}}
    [without] = await outcome(api, client, params)
    assert without.error.error.message == "context_management: Extra inputs are not permitted"
    [with_] = await outcome(api, client, params, betas=["context-management-2025-06-27"])
    assert with_.type == "succeeded"


async def test_prompt_cache(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    block = [{"type": "text", "text": "x" * 40_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    first, second = [r.message.usage for r in await outcome(api, client, *[ASK | {"system": block}] * 2)]
    assert (first.cache_creation.ephemeral_1h_input_tokens, first.cache_read_input_tokens) == (10_000, 0)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, 10_000)
    batch = api.batches.all()[0]
    assert batch.usage["cache_read_input_tokens"] == 10_000
    assert batch.usage["output_tokens"] == first.output_tokens + second.output_tokens


async def test_structured_answers_and_tools(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    tool = {"name": "look", "input_schema": schema}
    format_ = {"format": {"type": "json_schema", "schema": schema}}
    shaped, called = await outcome(
        api, client, ASK | {"output_config": format_}, ASK | {"tools": [tool], "tool_choice": {"type": "any"}}
    )
    assert json.loads(shaped.message.content[0].text) == {"n": 0}
    assert (called.message.stop_reason, called.message.content[0].name) == ("tool_use", "look")


async def test_a_fault_also_meets_params_that_are_wrong(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    api.batch_fault(BatchFault(result="expired", match='"colour"'))
    [result] = await outcome(api, client, ASK | {"colour": "red"})
    assert result.type == "expired"
    assert api.batches.faults.pending() == []


async def test_the_params_are_let_go_when_a_batch_ends(api: MessagesApi, client: anthropic.AsyncAnthropic) -> None:
    await outcome(api, client, ASK, ASK)
    batch = api.batches.all()[0]
    assert [(item.custom_id, bytes(item.params)) for item in batch.items] == [("ask-000", b""), ("ask-001", b"")]
    assert api.batches.waiting() == 0


NAMES = st.sampled_from(["requests", "custom_id", "params", "model", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
WELL = st.fixed_dictionaries(
    {"custom_id": st.text("abcdefgh_-9", min_size=1, max_size=4), "params": st.dictionaries(NAMES, VALUES, max_size=3)}
)
REQUESTS = st.lists(WELL, max_size=4) | st.lists(
    WELL | VALUES | st.fixed_dictionaries({"custom_id": VALUES, "params": VALUES}), max_size=4
)


@given(body=st.fixed_dictionaries({"requests": REQUESTS}) | VALUES, pretty=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_body_is_taken_or_refused(body: Any, *, pretty: bool) -> None:
    raw = json.dumps(body, indent=1 if pretty else None, ensure_ascii=pretty).encode("utf-8", "replace")
    refused = 0
    items = []
    try:
        items = batch_check.parse(raw)
    except ApiError as error:
        refused = error.status
    event("refused" if refused else "taken")
    if refused:
        assert refused == 400
        return
    given_ = json.loads(raw)["requests"]
    assert [(item.custom_id, msgspec.json.decode(item.params)) for item in items] == [
        (request["custom_id"], request["params"]) for request in given_
    ]
