"""Assembling a message from the events of a stream, or from one whole message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from farmhand.meter import ApiError, loose_json
from farmhand.meter.errors import problem_from_event

#: Blocks of tools that run at the API. Their input is not part of the task's answer.
_THEIRS = frozenset({"server_tool_use", "mcp_tool_use"})
#: Marks a damaged event that would have contained a part of the answer.
_CONTENT = b"content_block"
_BLOCK_STOP = b"content_block_stop"
#: Events whose text may mention the end of a block.
_PARTS = (b"content_block_start", b"content_block_delta")
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
        self._inputs: dict[Any, list[str]] = {}
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
        inputs = {place: loose_json.well_formed("".join(parts)) for place, parts in self._inputs.items()}
        texts = [text for place, joined in inputs.items() if (text := joined or self._given.get(place, ""))]
        return next((text for text in texts if _is_json(text)), texts[0] if texts else "")

    def take(self, name: str, data: bytes) -> None:
        """Process the next event of a stream: its name ("" for none) and its data. Raise ApiError for an error."""
        if self.ended:
            return
        try:
            event = loose_json.decode_halves(data)
        except ValueError:
            # `[DONE]` and the like carry nothing. A damaged event may have contained a part of the answer.
            self._damaged = self._damaged or _brings_content(name, data)
            return
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
        if isinstance(message, dict) and "error" in message and "content" not in message:
            raise problem_from_event(message)
        if not isinstance(message, dict) or not isinstance(message.get("content"), list | str):
            raise ApiError("api_error", "the API sent something that is no message", retryable=True)
        content = message["content"]
        for index, block in enumerate([{"type": "text", "text": content}] if isinstance(content, str) else content):
            self._start(index, block)
        self.stop_reason = _word(message.get("stop_reason"))
        self.ended = True

    def _event(self, event: dict[str, Any], kind: Any) -> None:
        delta = event.get("delta")
        match kind:
            case "message_start":
                self._begin(event.get("message"))
            case "content_block_start":
                self._start(event.get("index"), event.get("content_block"))
            case "content_block_delta" if isinstance(delta, dict):
                self._delta(event.get("index"), delta)
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
            self._inputs.clear()
            self._given.clear()
            self._half = self.stop_reason = ""
            self._damaged = False
        self._id = found

    def _start(self, index: Any, block: Any) -> None:
        if not isinstance(block, dict):
            return
        kind = block.get("type")
        if kind == "text":
            self._say(block.get("text"))
        elif kind in ("tool_use", *_THEIRS):
            if kind in _THEIRS:
                self._theirs.add(_place(index))
                return
            self._inputs.setdefault(_place(index), [])
            self._give(index, block.get("input"))

    def _delta(self, index: Any, delta: dict[str, Any]) -> None:
        match delta.get("type"):
            case "text_delta" | None:
                self._say(delta.get("text"))
            case "input_json_delta" if _place(index) not in self._theirs:
                parts, part = self._inputs.setdefault(_place(index), []), delta.get("partial_json")
                if isinstance(part, str):
                    parts.append(part)
                else:
                    self._give(index, part)

    def _give(self, index: Any, given: Any) -> None:
        """Store a tool's complete input, an object or its JSON text. An empty one replaces nothing."""
        if isinstance(given, dict):
            given = msgspec.json.encode(loose_json.clean(given)).decode()
        if isinstance(given, str) and given and (given != "{}" or _place(index) not in self._given):
            self._given[_place(index)] = loose_json.well_formed(given)

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
    stops = _BLOCK_STOP in told and not any(part in told for part in _PARTS)
    return bool(data) and _CONTENT in told and not stops


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
