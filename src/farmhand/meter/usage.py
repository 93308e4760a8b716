"""Watching an answer of the API, plain or streamed, while it passes: what it used, how it ended."""

from __future__ import annotations

from typing import Any

import msgspec

from farmhand.meter.problems import ApiError, problem_from_event
from farmhand.task import Usage

#: Bytes of one plain answer, or of one line of a stream, that are looked at; any real answer is far smaller.
_MAX_LOOK = 32 * 1024 * 1024
_COUNTED = frozenset({"input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"})
#: What the events that count hold. Text deltas, most of a stream, do not, since quotes in their text are escaped.
_TELLING = (b'"message_', b'"error"')


class AnswerWatch:
    """Feed it the body of one answer in any pieces, then `finish` it.

    `usage` is right once the body has ended, and the best known before: a stream reports in `message_start` and,
    cumulatively, in each `message_delta`; a plain answer in its `usage`. `known`: there was any such report; `ended`:
    the answer is whole. `stop_reason` is the API's; `problem` is the error that a stream ended with. Source: the
    provider's streaming reference.
    """

    def __init__(self, *, streamed: bool) -> None:
        self.usage = Usage(requests=1)
        self.stop_reason = ""
        self.problem: ApiError | None = None
        self.known = False
        self.ended = False
        self.streamed = streamed
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the body. ApiError where it is larger than any real answer."""
        if self.streamed:
            lines, newline, chunk = chunk.rpartition(b"\n")
            if newline:
                self._lines(bytes(self._rest) + lines)
                self._rest.clear()
        self._rest += chunk
        if len(self._rest) > _MAX_LOOK:
            raise ApiError("api_error", f"the API's answer is larger than {_MAX_LOOK} bytes")

    def finish(self) -> Usage:
        """The body has ended, or will not go on: the usage as far as the API told it."""
        if self.streamed:
            self._lines(bytes(self._rest))
        else:
            message = _decode(bytes(self._rest))
            self._count(message.get("usage"))
            self.stop_reason = str(message.get("stop_reason") or "")
            self.ended = self.known
        self._rest = bytearray()
        return self.usage

    def _lines(self, lines: bytes) -> None:
        for telling in _TELLING:
            at = lines.find(telling)
            while at >= 0:
                start, end = lines.rfind(b"\n", 0, at) + 1, lines.find(b"\n", at)
                line = lines[start : end if end >= 0 else None]
                if line.startswith(b"data:"):
                    self._event(_decode(line[5:]))
                at = lines.find(telling, start + len(line))

    def _event(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                self._count(message.get("usage") if isinstance(message, dict) else None)
            case "message_delta":
                self._count(event.get("usage"))
                delta = event.get("delta")
                self.stop_reason = str((delta if isinstance(delta, dict) else {}).get("stop_reason") or "")
            case "message_stop":
                self.ended = self.known
            case "error":
                self.problem = problem_from_event(event)

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        self.known = True
        for name in _COUNTED & usage.keys():
            self._set(name, usage[name])
        # Source: the prompt caching reference; the part kept for an hour costs more than that kept for 5 minutes.
        written = usage.get("cache_creation")
        if isinstance(written, dict):
            self._set("cache_creation_1h_input_tokens", written.get("ephemeral_1h_input_tokens"))

    def _set(self, name: str, value: Any) -> None:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            setattr(self.usage, name, value)


def usage_of(told: Any) -> Usage:
    """What the `usage` of one whole message says, as decoded from JSON."""
    watch = AnswerWatch(streamed=False)
    watch._count(told)
    return watch.usage


def _decode(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
