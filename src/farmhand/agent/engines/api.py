"""The `api` engine: one streamed request to the Messages API through the meter, without a process."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from farmhand.agent.engines import Answer, EngineError
from farmhand.agent.engines.answers import as_object, check_answer, from_object
from farmhand.agent.engines.reader import MessageReader
from farmhand.core.task import ALWAYS_THINKING, Task
from farmhand.meter import Exchange, Grant, Meter, loose_json
from farmhand.meter.sse import EventDecoder

_HEADERS = {"anthropic-version": "2023-06-01", "content-type": "application/json", "accept": "text/event-stream"}
_ANSWER_TOOL = "answer"
#: Stop reasons of an unfinished answer. Structured output is incomplete then.
_CUT_OFF = {"max_tokens": "max_tokens", "model_context_window_exceeded": "the end of the model's context"}
_FENCED = re.compile(r"\s*```[a-z]*\n(.*?)\n?```\s*", re.DOTALL)


def request_body(task: Task, model: str, *, stream: bool = True) -> dict[str, Any]:
    """Return the Messages API request for `task`.

    A schema is requested as the input of one tool, which is forced if the model allows it. This supports any schema;
    the provider's own structured outputs support a subset. Source: its tool use and structured outputs references.
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
        schema = without_dialect(as_object(task.schema))
        tool = {"name": _ANSWER_TOOL, "description": "Give the answer.", "input_schema": schema}
        body["tools"] = [tool]
        body["tool_choice"] = {"type": "auto"} if thinks else {"type": "tool", "name": _ANSWER_TOOL}
        if thinks:
            system.append(f"Give your answer by calling the tool {_ANSWER_TOOL}, once.")
    if system:
        body["system"] = "\n\n".join(system)
    return body


def without_dialect(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` without `$schema`: the API reads 2020-12, the CLI draft-07, and each refuses the other's URL."""
    return {name: value for name, value in schema.items() if name != "$schema"}


async def read(exchange: Exchange, reader: MessageReader) -> None:
    """Read the answer, a stream or a whole message, whichever comes. Raise ApiError if it is incomplete."""
    events, body = EventDecoder(), bytearray()
    while piece := await exchange.piece():
        if exchange.streamed:
            for event in events.feed(piece):
                reader.take(*event)
        else:
            body += piece
    if exchange.streamed:
        for event in events.flush():
            reader.take(*event)
        reader.close()
        return
    try:
        message = loose_json.decode(bytes(body))
    except ValueError:
        message = None
    reader.whole(message)


class ApiEngine:
    """The engine that runs text tasks directly on the Messages API."""

    makes_requests = False

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Answer:
        """Send one request; see `Engine.run`. Tasks with a schema stream no text."""
        reader = MessageReader(on_text if task.schema is None else lambda _text: None)
        body = msgspec.json.encode(request_body(task, grant.model))
        async with self._meter.send(grant, "/v1/messages", body, _HEADERS) as exchange:
            await read(exchange, reader)
        return await answer_of(task, reader)


async def answer_of(task: Task, reader: MessageReader) -> Answer:
    """Return the answer to `task`: the message's text, or the input of the tool that stands for the schema.

    Raise EngineError if the message is not an answer.
    """
    stop_reason = reader.stop_reason
    if stop_reason == "refusal":
        raise EngineError("refusal", "the model declined to answer this prompt", hint="rephrase the prompt")
    if task.schema is None:
        return Answer(text=reader.text, stop_reason=stop_reason)
    if stop_reason in _CUT_OFF:
        raise EngineError("no_answer", f"the answer was cut off at {_CUT_OFF[stop_reason]}", hint="raise --max-tokens")
    # A model that was not forced to use the tool may have put the JSON into its text.
    written = reader.tool_input or _unfenced(reader.text)
    try:
        value = loose_json.decode(written.encode("utf-8", "surrogatepass"))
    except ValueError:
        raise EngineError("no_answer", "the model gave no structured answer", retryable=True) from None
    return Answer(
        text="", structured=await check_answer(task.schema, from_object(task.schema, value)), stop_reason=stop_reason
    )


def _unfenced(text: str) -> str:
    """Return the content of the Markdown fence if the whole text is one, otherwise the text."""
    fenced = _FENCED.fullmatch(text)
    return fenced[1] if fenced else text
