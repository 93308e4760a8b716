"""Clients for the tests: the official SDKs on our output, and a state machine that knows what they may not be sent."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import msgspec
import openai

from farmhand.gateway.dialects import from_chat
from farmhand.gateway.turn import Carries, Dialect, Turn
from farmhand.meter.sse import EventDecoder
from tests.unit.gateway.player import Seen


def turn_of(dialect: Dialect, **fields: Any) -> Turn:
    """A streamed turn of a dialect."""
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    return Turn(dialect=dialect, model="alias", streamed=True, fields=raw, carries=Carries(), tokens=1)


def play(dialect: Dialect, body: bytes, *, size: int = 0, **fields: Any) -> bytes:
    """What a client gets of a local server's stream, which comes in pieces of `size` bytes; 0: in one."""
    stream = from_chat.stream(turn_of(dialect, **fields), "1")
    step = size or max(len(body), 1)
    pieces = [stream.feed(body[at : at + step]) for at in range(0, len(body), step)]
    return b"".join([*pieces, stream.end()])


def events(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream that we wrote, each whole and on its own."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
        assert len(data) == (1 if lines else 0), block
        if data and data != ["[DONE]"]:
            found.append(msgspec.json.decode(data[0], type=dict[str, Any]))
            assert names in ([], [found[-1].get("type")])
    assert body.endswith(b"\n\n")
    assert EventDecoder().feed(body)
    return found


def check_messages(stream: list[dict[str, Any]]) -> str:
    """Walk the states of a Messages stream: return its stop reason, or "error"; fail at what no client expects."""
    assert stream[0]["type"] == "message_start"
    start = stream[0]["message"]
    assert start["model"]
    assert {"input_tokens", "output_tokens"} <= set(start["usage"])
    index, opened, stop = -1, "", ""
    deltas = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}
    for number, one in enumerate(stream[1:], 1):
        kind = one["type"]
        if kind == "ping":
            continue
        if kind == "error":
            assert number == len(stream) - 1
            return "error"
        assert not stop or kind == "message_stop", "something after the message_delta"
        if kind == "content_block_start":
            assert not opened, "a block within a block"
            index, opened = index + 1, one["content_block"]["type"]
            assert opened != "tool_use" or (one["content_block"]["id"] and one["content_block"]["name"])
        elif kind == "content_block_delta":
            assert one["delta"]["type"] == deltas[opened]
        elif kind == "content_block_stop":
            assert opened, "an end without a beginning"
            opened = ""
        elif kind == "message_delta":
            assert not opened
            stop = one["delta"]["stop_reason"]
        else:
            assert (kind, bool(stop), number) == ("message_stop", True, len(stream) - 1)
        if "index" in one:
            assert one["index"] == index
    assert stream[-1]["type"] == "message_stop"
    return stop


def check_responses(stream: list[dict[str, Any]]) -> str:
    """Walk the states of a Responses stream: return its last event's type."""
    assert [one["sequence_number"] for one in stream] == list(range(len(stream)))
    assert [one["type"] for one in stream[:2]] == ["response.created", "response.in_progress"]
    opened: str | None = None
    items: list[Any] = []
    for one in stream[2:-1]:
        kind = one["type"]
        if kind == "response.output_item.added":
            assert opened is None
            opened = one["item"]["id"]
        elif kind == "response.output_item.done":
            assert one["item"]["id"] == opened
            items.append(one["item"])
            opened = None
        else:
            assert one["item_id"] == opened
        assert one["output_index"] == len(items) - (kind == "response.output_item.done")
    final = stream[-1]
    if final["type"] != "response.failed":
        assert opened is None
        assert final["response"]["output"] == items
    return str(final["type"])


def _served(body: bytes, kind: str) -> httpx2.Client:
    answer = httpx2.Response(200, headers={"content-type": kind}, content=body)
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: answer))


def _anthropic(body: bytes, kind: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="sk-ant-test-1", base_url="http://gateway.test", max_retries=0, http_client=_served(body, kind)
    )


def _openai(body: bytes, kind: str) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="sk-test-1", base_url="http://gateway.test/v1", max_retries=0, http_client=_served(body, kind)
    )


def of_message(message: Any) -> tuple[list[Seen], str, tuple[int, int, int]]:
    parts: list[Seen] = []
    for block in message.content:
        if block.type == "tool_use":
            parts.append(("tool", block.name, block.input))
        else:
            parts.append((block.type, getattr(block, block.type)))
    used = message.usage
    return parts, message.stop_reason, (used.input_tokens, used.cache_read_input_tokens, used.output_tokens)


def anthropic_stream(body: bytes) -> tuple[list[Seen], str, tuple[int, int, int]]:
    """What the official SDK makes of a Messages stream."""
    ask: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    with _anthropic(body, "text/event-stream").messages.stream(**ask) as stream:
        return of_message(stream.get_final_message())


def anthropic_whole(body: bytes) -> tuple[list[Seen], str, tuple[int, int, int]]:
    ask: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    return of_message(_anthropic(body, "application/json").messages.create(**ask))


def of_response(response: Any) -> tuple[list[Seen], str, tuple[int, int, int]]:
    parts: list[Seen] = []
    for item in response.output:
        if item.type == "function_call":
            parts.append(("tool", item.name, msgspec.json.decode(item.arguments)))
        else:
            kind = {"message": "text", "reasoning": "thinking"}[item.type]
            parts.append((kind, "".join(part.text for part in item.content)))
    cached = response.usage.input_tokens_details.cached_tokens
    used = (response.usage.input_tokens - cached, cached, response.usage.output_tokens)
    return parts, response.incomplete_details.reason if response.incomplete_details else "", used


def responses_stream(body: bytes) -> tuple[list[Seen], str, tuple[int, int, int]]:
    """What the official SDK makes of a Responses stream."""
    with _openai(body, "text/event-stream").responses.stream(model="m", input="hi") as stream:
        for event in stream:
            last = event
        response: Any = getattr(last, "response", None)
        return of_response(response)


def responses_whole(body: bytes) -> tuple[list[Seen], str, tuple[int, int, int]]:
    return of_response(_openai(body, "application/json").responses.create(model="m", input="hi"))


def chat_stream(body: bytes) -> list[Any]:
    """The chunks that the official SDK finds in a Chat stream. It raises APIError at an error."""
    ask: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    return list(_openai(body, "text/event-stream").chat.completions.create(**ask))
