"""Reading the output of a task's sandbox. A task with tools can write anything there, so all of it is bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from farmhand.agent.engines import EngineError
from farmhand.core.schemas import MAX_ANSWER
from farmhand.meter.loose_json import REFUSED, decode_as

#: Longest line: a whole message with the output of a tool. The daemon holds up to two of them per task.
MAX_LINE = 16 * 1024 * 1024
#: Maximum text of one attempt. Each piece also counts for its memory overhead.
_MAX_TEXT = 64 * 1024 * 1024
_PIECE = 256
#: Longest structured answer to decode. The checks have their own limit (see `farmhand.core.schemas`).
_MAX_STRUCTURED = 2 * MAX_ANSWER


class _StreamLine(msgspec.Struct):
    type: str = ""
    event: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: _Delta | None = None
    content_block: _Delta | None = None


class CliResult(msgspec.Struct):
    """The fields of the CLI's result line that are used."""

    result: str | None = None
    is_error: bool = False
    num_turns: int = 0
    structured_output: msgspec.Raw = msgspec.Raw()

    def structured(self) -> Any:
        """Return the structured answer. Raise EngineError if there is none; that is retryable."""
        raw = bytes(self.structured_output)
        if len(raw) > _MAX_STRUCTURED:
            # This output has been paid for already: do not retry.
            raise EngineError("no_answer", f"the structured answer has {len(raw)} bytes, more than any answer has")
        try:
            if raw:
                return decode_as(raw, object)
        except REFUSED:
            pass
        raise EngineError("no_answer", "the model gave no structured answer", retryable=True)


class SandboxEnd(msgspec.Struct):
    """The sandbox's exit line (`agent/sandbox.py`)."""

    rc: int = 1
    signal: int = 0
    oom: bool = False
    stderr: str = ""


class CliOutput:
    """A parser of the CLI's stream-json lines and the sandbox's exit line. Other lines are ignored."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.said: CliResult | None = None
        self.ended: SandboxEnd | None = None
        self.stop_reason = ""
        self.text: list[str] = []
        self._on_text = on_text
        self._weight = 0

    def take(self, line: bytes) -> None:
        """Process the next line. Raise EngineError if there is more text than an answer can have."""
        try:
            match (head := decode_as(line, _StreamLine)).type:
                case "stream_event":
                    event = decode_as(bytes(head.event), _Event)
                case "result":
                    self.said = decode_as(line, CliResult)
                    return
                case "farmhand.exit":
                    self.ended = decode_as(line, SandboxEnd)
                    return
                case _:
                    return
        except REFUSED:
            return
        self._stream(event.type, event.delta or event.content_block or _Delta())

    def _stream(self, kind: str, delta: _Delta) -> None:
        match kind:
            case "message_start" if self.text:
                # The next message, after a tool's result.
                self._tell("\n\n")
                self.text.clear()
            case "content_block_delta" | "content_block_start" if delta.type in ("text_delta", "text") and delta.text:
                self.text.append(delta.text)
                self._tell(delta.text)
            case "message_delta":
                self.stop_reason = delta.stop_reason or self.stop_reason

    def _tell(self, text: str) -> None:
        self._weight += len(text) + _PIECE
        if self._weight > _MAX_TEXT:
            raise too_much()
        self._on_text(text)


def too_much() -> EngineError:
    """Return the error for a task that has written more than an answer can have."""
    return EngineError("output_limit", "the task wrote more output than an answer can have", hint="ask for less")
