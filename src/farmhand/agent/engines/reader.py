"""Puts a message together from the events of a stream, or reads it from one whole message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from farmhand.meter import loose_json
from farmhand.meter.errors import ApiError, problem_from_event

#: Blocks of tools that run at the API. Their input is not part of the task's answer.
_THEIRS = frozenset({"server_tool_use", "mcp_tool_use"})
_MAX_WORD = 64


class MessageReader:
    """A reader of the events of one message. `ended`: it is complete, and later events are ignored.

    `stop_reason` is the API's, or "" if it gave none. Text is passed to `on_text` as it arrives.
    """

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.stop_reason = ""
        self.ended = False
        self._on_text = on_text
        self._text: list[str] = []
        self._half = ""
        #: By the index of a tool's block: its streamed parts, and its input if it came complete.
        self._parts: dict[Any, list[str]] = {}
        self._given: dict[Any, str] = {}
        self._theirs: set[Any] = set()
        self._id: Any = None
        self._damaged = False

    @property
    def text(self) -> str:
        """Return the text; half a surrogate pair at its end becomes U+FFFD."""
        return "".join(self._text) + loose_json.well_formed(self._half)

    @property
    def tool_input(self) -> str:
        """Return the input of the first tool with a complete one, as JSON; otherwise that of the first tool, or ""."""
        joined = {place: loose_json.well_formed("".join(parts)) for place, parts in self._parts.items()}
        inputs = [text for place in joined if (text := joined[place] or self._given.get(place, ""))]
        return next(filter(_is_json, inputs), inputs[0] if inputs else "")

    def take(self, events: Iterable[tuple[str, bytes]]) -> None:
        """Process the next events of a stream: their names ("" for none) and data. Raise ApiError for an error."""
        for name, data in events:
            if self.ended:
                return
            try:
                event = loose_json.decode_halves(data)
            except ValueError:
                # `[DONE]` and the like carry nothing. A damaged event may have contained a part of the answer.
                self._damaged = self._damaged or _brings_content(name, data)
                continue
            if isinstance(event, dict):
                self._event(event, event.get("type") or name or ("error" if "error" in event else ""))

    def close(self) -> None:
        """Check at the regular end of the stream that the message is complete. Raise ApiError if it is not."""
        if self._damaged:
            raise ApiError("api_error", "the API sent an event that is not JSON", retryable=True)
        if not self.ended and not self.stop_reason:
            raise ApiError(
                "connection", "the connection to the API was cut while the answer was under way", retryable=True
            )

    def whole(self, message: Any) -> None:
        """Read a whole message. Raise ApiError if it is not one."""
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(message, dict) and "error" in message and "content" not in message:
            raise problem_from_event(message)
        if not isinstance(content, list | str):
            raise ApiError("api_error", "the API sent something that is no message", retryable=True)
        for index, block in enumerate([{"type": "text", "text": content}] if isinstance(content, str) else content):
            self._start(index, block)
        self.stop_reason = _word(message.get("stop_reason"))
        self.ended = True

    def _event(self, event: dict[str, Any], kind: Any) -> None:
        delta, index = event.get("delta"), event.get("index")
        match kind:
            case "message_start":
                self._begin(event.get("message"))
            case "content_block_start":
                self._start(index, event.get("content_block"))
            case "content_block_delta" if isinstance(delta, dict):
                self._delta(index, delta)
            case "message_delta" if isinstance(delta, dict):
                self.stop_reason = _word(delta.get("stop_reason")) or self.stop_reason
            case "message_stop":
                self.ended = True
            case "error" if self.stop_reason:
                # It came in place of `message_stop`: the whole answer had arrived.
                self.ended = True
            case "error":
                raise problem_from_event(loose_json.clean(event))

    def _begin(self, message: Any) -> None:
        """Handle a message start. A second one repeats the first, or starts another message that a proxy requested."""
        found = message.get("id") if isinstance(message, dict) else None
        if self._id is not None and found != self._id:
            self._text.clear()
            self._parts.clear()
            self._given.clear()
            self._half = self.stop_reason = ""
            self._damaged = False
        self._id = found

    def _start(self, index: Any, block: Any) -> None:
        match block:
            case {"type": "text"}:
                self._say(block.get("text"))
            case {"type": "tool_use"}:
                self._tool(index, block.get("input"))
            case {"type": str(kind)} if kind in _THEIRS:
                self._theirs.add(_place(index))

    def _delta(self, index: Any, delta: dict[str, Any]) -> None:
        match delta.get("type"):
            case "text_delta" | None:
                self._say(delta.get("text"))
            case "input_json_delta" if _place(index) not in self._theirs:
                part = delta.get("partial_json")
                self._tool(index, None if isinstance(part, str) else part)
                if isinstance(part, str):
                    self._parts[_place(index)].append(part)

    def _tool(self, index: Any, given: Any) -> None:
        """Store a tool's complete input, an object or its JSON text. An empty one replaces nothing."""
        place = _place(index)
        self._parts.setdefault(place, [])
        if isinstance(given, dict):
            given = msgspec.json.encode(loose_json.clean(given)).decode()
        if isinstance(given, str) and given and (given != "{}" or place not in self._given):
            self._given[place] = loose_json.well_formed(given)

    def _say(self, text: Any) -> None:
        if not isinstance(text, str) or not text:
            return
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            # The first half of a surrogate pair: the other may come with the next piece.
            text, self._half = text[:-1], text[-1]
        if text := loose_json.well_formed(text):
            self._text.append(text)
            self._on_text(text)


def _brings_content(name: str, data: bytes) -> bool:
    """Return whether an event that is not JSON would have contained a part of the answer, unlike the end of a block."""
    told = name.encode("utf-8", "replace") + b" " + data
    # The text of a start or a delta may mention the end of a block.
    stops = b"content_block_stop" in told and b"content_block_start" not in told and b"content_block_delta" not in told
    return bool(data) and b"content_block" in told and not stops


def _place(index: Any) -> Any:
    return index if isinstance(index, int | str) else None


def _word(value: Any) -> str:
    return loose_json.well_formed(value[:_MAX_WORD]) if isinstance(value, str) else ""


def _is_json(text: str) -> bool:
    try:
        loose_json.decode(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return False
    return True
