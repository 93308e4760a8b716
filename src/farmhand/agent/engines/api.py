"""The `api` engine: one streamed request to the Messages API, through the meter, no process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from farmhand.agent.engines import Answer, EngineError
from farmhand.agent.engines.answers import as_object, check_answer, from_object
from farmhand.meter import ApiError, Exchange, Grant, Meter
from farmhand.meter.problems import problem_from_event
from farmhand.task import ALWAYS_THINKING, Task

_HEADERS = {"anthropic-version": "2023-06-01", "content-type": "application/json", "accept": "text/event-stream"}
_ANSWER_TOOL = "answer"


def request_body(task: Task, model: str, *, stream: bool = True) -> dict[str, Any]:
    """The Messages API request for `task`.

    A schema is asked for as the input of one tool, forced where the model allows it: this takes any schema, where the
    provider's own structured outputs take a subset. Source: its tool use and structured outputs references.
    """
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": task.max_tokens,
        "messages": [{"role": "user", "content": task.prompt}],
    }
    if stream:
        body["stream"] = True
    thinks = model in ALWAYS_THINKING
    if not thinks:
        body["thinking"] = {"type": "disabled"}
    system = [task.system] if task.system else []
    if task.schema is not None:
        tool = {"name": _ANSWER_TOOL, "description": "Give the answer.", "input_schema": as_object(task.schema)}
        body["tools"] = [tool]
        body["tool_choice"] = {"type": "auto"} if thinks else {"type": "tool", "name": _ANSWER_TOOL}
        if thinks:
            system.append(f"Give your answer by calling the tool {_ANSWER_TOOL}, once.")
    if system:
        body["system"] = "\n\n".join(system)
    return body


async def events(exchange: Exchange) -> AsyncIterator[dict[str, Any]]:
    """The data of each server-sent event of a streamed answer."""
    rest = b""
    while piece := await exchange.piece():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                try:
                    event = msgspec.json.decode(line[5:])
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise ApiError("api_error", "the API sent an event that is not JSON", retryable=True) from None
                if isinstance(event, dict):
                    yield event


class _Reader:
    """Puts the pieces of one streamed message together."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.text: list[str] = []
        self.json: list[str] = []
        self.stop_reason = ""
        self.ended = False
        self._on_text = on_text

    def take(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "content_block_delta":
                self._delta(event.get("delta") or {})
            case "message_delta":
                self.stop_reason = str((event.get("delta") or {}).get("stop_reason") or "")
            case "message_stop":
                self.ended = True
            case "error":
                raise problem_from_event(event)

    def _delta(self, delta: dict[str, Any]) -> None:
        if delta.get("type") == "text_delta":
            text = str(delta.get("text", ""))
            self.text.append(text)
            self._on_text(text)
        elif delta.get("type") == "input_json_delta":
            self.json.append(str(delta.get("partial_json", "")))


class ApiEngine:
    """Runs text tasks straight on the Messages API."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Answer:
        """One request; see `Engine.run`. Schema tasks stream no text."""
        reader = _Reader(on_text if task.schema is None else lambda _text: None)
        body = msgspec.json.encode(request_body(task, grant.model))
        async with self._meter.send(grant, "/v1/messages", body, _HEADERS) as exchange:
            if not exchange.streamed:
                raise ApiError("api_error", "the API did not answer with a stream", retryable=True)
            async for event in events(exchange):
                reader.take(event)
        if not reader.ended:
            raise ApiError(
                "connection", "the connection to the API was cut while the answer was under way", retryable=True
            )
        return await answer_of(task, "".join(reader.text), "".join(reader.json), reader.stop_reason)


async def answer_of(task: Task, text: str, tool_input: str, stop_reason: str) -> Answer:
    """The answer to `task` in a whole message: its text, or the input of the tool that a schema is asked for with.

    Raises EngineError where the message is no answer.
    """
    if stop_reason == "refusal":
        raise EngineError("refusal", "the model declined to answer this prompt", hint="rephrase the prompt")
    if task.schema is None:
        return Answer(text=text, stop_reason=stop_reason)
    if stop_reason == "max_tokens":
        raise EngineError("no_answer", "the answer was cut off at max_tokens", hint="raise --max-tokens")
    try:
        # A model that was not forced may have put the JSON into its text.
        value = msgspec.json.decode(tool_input or text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise EngineError("no_answer", "the model gave no structured answer", retryable=True) from None
    return Answer(
        text="", structured=await check_answer(task.schema, from_object(task.schema, value)), stop_reason=stop_reason
    )
