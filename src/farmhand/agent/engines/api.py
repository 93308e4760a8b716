"""The `api` engine: one streamed request to the Messages API through the meter, without a process.

The other engines use its parts: messages as results, the check of structured answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from farmhand.agent.engines import EngineError
from farmhand.agent.engines.reader import MessageReader
from farmhand.core.readable import CUT_OFF
from farmhand.core.request_body import request_body
from farmhand.core.schemas import MAX_ANSWER, POOL, Unchecked
from farmhand.core.task import Result, Task
from farmhand.meter import loose_json
from farmhand.meter.grants import Grant
from farmhand.meter.meter import Meter
from farmhand.meter.sse import EventDecoder

HEADERS = {"anthropic-version": "2023-06-01", "content-type": "application/json", "accept": "text/event-stream"}
_FENCED = re.compile(r"\s*```[a-z]*\n(.*?)\n?```\s*", re.DOTALL)


class ApiEngine:
    """The engine that runs text tasks directly on the Messages API."""

    makes_requests = False

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def run(self, task: Task, grant: Grant, on_text: Callable[[str], None], timeout_s: float) -> Result:
        """Send one request; see `Engine.run`. The answer is read as what comes, a stream or a whole message."""
        reader = MessageReader(on_text if task.schema is None else lambda _text: None)
        events, body = EventDecoder(), bytearray()
        # The request may be large: only the meter has it.
        sending = self._meter.send(
            grant, "/v1/messages", msgspec.json.encode(request_body(task, grant.model) | {"stream": True}), HEADERS
        )
        async with sending as exchange:
            while piece := await exchange.piece():
                if exchange.streamed:
                    reader.take(events.feed(piece))
                else:
                    body += piece
            if exchange.streamed:
                reader.take(events.flush())
                reader.close()
            else:
                message = None
                with suppress(ValueError):
                    message = loose_json.decode(bytes(body))
                reader.whole(message)
        return await result_of(task, reader)


async def result_of(task: Task, reader: MessageReader) -> Result:
    """Return the task's result: the message's text, or the input of the tool that stands for the schema.

    Raise EngineError if the message is not an answer.
    """
    stop_reason = reader.stop_reason
    if stop_reason == "refusal":
        raise EngineError("refusal", "the model declined to answer this prompt", hint="rephrase the prompt")
    if task.schema is None:
        return Result(id=task.id, state="succeeded", text=reader.text, stop_reason=stop_reason)
    if stop_reason in CUT_OFF:  # structured output is incomplete then
        raise EngineError("no_answer", f"the answer was cut off at {CUT_OFF[stop_reason]}", hint="raise --max-tokens")
    written = reader.tool_input
    if not written:
        # A model that was not forced to use the tool may have put the JSON into its text, perhaps in a Markdown fence.
        fenced = _FENCED.fullmatch(reader.text)
        written = fenced[1] if fenced else reader.text
    try:
        value = loose_json.decode(written.encode("utf-8", "surrogatepass"))
    except ValueError:
        raise EngineError("no_answer", "the model gave no structured answer", retryable=True) from None
    structured = await check_answer(task.schema, value)
    return Result(id=task.id, state="succeeded", structured=structured, stop_reason=stop_reason)


async def check_answer(schema: dict[str, Any], given: Any) -> Any:
    """Return the answer inside `given`, the input of a tool with the schema `as_object(schema)`.

    Raise EngineError if it does not match `schema`; `no_answer` is retryable. An answer that is too large, or takes too
    long to check, ends the task: it has been paid for, and the next one would likely fail in the same way.
    """
    wrapped = schema.get("type") != "object" and isinstance(given, dict) and "answer" in given
    answer = given["answer"] if wrapped else given
    try:
        size = len(msgspec.json.encode(answer))
    except (UnicodeEncodeError, RecursionError):
        raise EngineError("no_answer", "the model's answer is no text that can be kept", retryable=True) from None
    if size > MAX_ANSWER:
        message = f"the structured answer has {size} bytes, the limit is {MAX_ANSWER}"
        raise EngineError("no_answer", message, hint="ask for less")
    try:
        code, message = await POOL.checked(schema, answer=answer)
    except Unchecked as unchecked:
        raise EngineError(
            "schema_limit" if unchecked.too_hard else "agent_error",
            f"the answer cannot be checked against the schema: {unchecked.message}",
            hint="make the schema's patterns simpler: nested repetitions such as (a+)+ take for ever",
        ) from None
    if code:
        hint = "make the schema or the prompt simpler, or take a larger model" if code == "no_answer" else ""
        raise EngineError(code, message, hint=hint, retryable=code == "no_answer")
    return answer
