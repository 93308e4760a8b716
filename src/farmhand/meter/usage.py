"""Counting tokens from the API's own answer, plain or streamed, while it passes."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from farmhand.task import Usage

#: Bytes of one SSE line or of one plain answer that are looked at; an answer within `max_tokens` stays far below.
_MAX_LOOK = 32 * 1024 * 1024
_COUNTED = frozenset({"input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"})


class UsageCounter:
    """Feed it the body of one answer in any pieces; `usage` is right once the body has ended.

    A stream reports in `message_start` and, cumulatively, in each `message_delta`; a plain answer in its `usage`.
    Source: the provider's streaming reference.
    """

    def __init__(self, *, streamed: bool) -> None:
        self.usage = Usage(requests=1)
        self.stopped = False
        self._streamed = streamed
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the body."""
        self._rest += chunk
        if not self._streamed:
            if len(self._rest) > _MAX_LOOK:
                raise ValueError(f"a plain answer is larger than {_MAX_LOOK} bytes")
            return
        *lines, last = self._rest.split(b"\n")
        self._rest = bytearray(last)
        for line in lines:
            self._line(bytes(line))

    def finish(self) -> Usage:
        """The body has ended, or will not go on: the usage as far as the API told it."""
        if self._streamed:
            self._line(bytes(self._rest))
        else:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, AttributeError):
                self._count(msgspec.json.decode(bytes(self._rest)).get("usage"))
                self.stopped = True
        self._rest = bytearray()
        return self.usage

    def _line(self, line: bytes) -> None:
        # Text deltas are most of a stream and hold no usage: they are not parsed.
        if not line.startswith(b"data:") or b'"message_' not in line:
            return
        try:
            event = msgspec.json.decode(line[5:])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if not isinstance(event, dict):
            return
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                self._count(message.get("usage") if isinstance(message, dict) else None)
            case "message_delta":
                self._count(event.get("usage"))
            case "message_stop":
                self.stopped = True

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        for name in _COUNTED & usage.keys():
            value = usage[name]
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                setattr(self.usage, name, value)
