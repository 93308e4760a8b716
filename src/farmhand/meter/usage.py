"""A parser of an API answer, plain or streamed, while it passes: its usage, its terms, and how it ended."""

from __future__ import annotations

import re
from typing import Any

from farmhand.core.task import Usage
from farmhand.core.terms import STANDARD, Terms
from farmhand.meter import loose_json
from farmhand.meter.errors import ApiError, problem_from_event
from farmhand.meter.figures import UsageFigures, usage_of
from farmhand.meter.sse import EventDecoder

__all__ = ["UsageParser", "usage_of"]
#: Bytes to examine of one plain answer or one event of a stream; any real answer is far smaller.
_MAX_LOOK = 32 * 1024 * 1024
#: Bytes of events whose text is not counted yet. It never is if the answer completes before.
_MAX_UNCOUNTED = 64 * 1024
#: Bytes of one whole answer: 300,000 tokens, each an event of its own, are about 60 MB.
_MAX_BODY = 128 * 1024 * 1024
#: Markers of the events that matter. Text deltas, most of a stream, lack them, since quotes in their text are escaped.
_TELLING = (b'"message_', b'"error"')
_TELLING_NAMES = frozenset({"message_start", "message_delta", "message_stop", "error"})
#: Substrings that occur in each of them, in the data or in the name.
_MAY_TELL = (b"message_", b"error")
#: Text that a model has written, as it appears in an event. Possessive quantifiers: linear for any input.
_WRITTEN = re.compile(rb'"(?:text|thinking|partial_json)"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_ASCII = bytes(range(128))
#: First bytes of an answer whose type cannot be trusted: JSON or HTML; the field names of an event stream.
_PLAIN, _STREAM = b'{["<', b":edir"
_LEADING = b"\xef\xbb\xbf \t\r\n"


class UsageParser:
    """A parser of one answer: feed it the body in any pieces, then `finish` it.

    `usage` is exact once the body has ended, and the best estimate before. A stream reports in `message_start` and,
    cumulatively, in each `message_delta`; a plain answer reports in its `usage`. If a stream breaks off, its output is
    estimated from the received text, up to the request's `max_tokens`; far higher figures are not believed. `terms`,
    once finished, say so. `known`: there was a report. `ended`: the answer is complete; data after `message_stop`, and
    errors between the `stop_reason` and it, change nothing. `stop_reason` is the API's. `problem` is the error that
    ended a stream. `streamed` follows the answer's head until its first byte shows otherwise.

    Source: the provider's streaming reference.
    """

    def __init__(self, *, streamed: bool, max_tokens: int = 0) -> None:
        self.terms: Terms = STANDARD
        self.stop_reason = ""
        self.problem: ApiError | None = None
        self.ended = False
        self.streamed = streamed
        self._figures = UsageFigures(max_tokens)
        self._events = EventDecoder()
        self._body = bytearray()
        self._id: Any = None
        self._max_tokens = max_tokens
        self._sniffed = self._content = False
        self._uncounted = bytearray()
        self._narrow = self._wide = self._seen = 0

    @property
    def usage(self) -> Usage:
        """Return the usage reported so far; for an incomplete answer, at least what has been received."""
        return self._figures.usage(0 if self.ended else self._passed())

    @property
    def known(self) -> bool:
        """Return whether there was any report."""
        return self._figures.told

    def feed(self, chunk: bytes) -> None:
        """Process the next bytes of the body. Raise ApiError if it is larger than any real answer."""
        if not self._sniffed:
            self._sniff(chunk)
        if self.streamed:
            quiet = self._quiet(chunk)
            self._uncounted += chunk[:quiet]
            if quiet < len(chunk):
                self._take(self._events.feed(chunk[quiet:]))
            if len(self._uncounted) > _MAX_UNCOUNTED:
                self._count()
        else:
            self._body += chunk
        self._seen += len(chunk)
        if max(len(self._body), self._events.pending) > _MAX_LOOK or self._seen > _MAX_BODY:
            raise ApiError("api_error", f"the API's answer is larger than any: {self._seen} bytes until now")

    def close(self) -> None:
        """Handle the end of the body. A stream with a stop reason is complete even without `message_stop`."""
        if self.streamed:
            self._flush()
            self.ended = self.ended or (bool(self.stop_reason) and self.problem is None)

    def finish(self) -> Usage:
        """Return the usage as reported by the API, after the body has ended or was given up."""
        if self.streamed:
            self._flush()
        elif self._body:
            self._plain(bytes(self._body))
            self._body.clear()
        self.terms = self._figures.terms(whole=self.ended, wrote=self._wrote())
        return self.usage

    def _sniff(self, chunk: bytes) -> None:
        first = chunk.lstrip(_LEADING)[:1]
        if first:
            self._sniffed = True
            self.streamed = first in _STREAM or (self.streamed and first not in _PLAIN)

    def _flush(self) -> None:
        self._take(self._events.flush())

    def _plain(self, body: bytes) -> None:
        message = _object(body)
        if "error" in message and "content" not in message:
            self.problem = problem_from_event(message)
            return
        self._figures.take(message.get("usage"))
        self._content = bool(message.get("content"))
        self.stop_reason = _word(message.get("stop_reason"))
        self.ended = self.known or "content" in message

    def _quiet(self, chunk: bytes) -> int:
        """Return how much of `chunk` is whole events with only text, most of a stream. They are not parsed."""
        if not self._events.between:
            return 0
        ends = [at for mark in _MAY_TELL if (at := chunk.find(mark)) >= 0]
        blank = chunk.rfind(b"\n\n", 0, min(ends, default=len(chunk)))
        return blank + 2 if blank >= 0 else 0

    def _take(self, events: list[tuple[str, bytes]]) -> None:
        for name, data in events:
            if name not in _TELLING_NAMES and _TELLING[0] not in data and _TELLING[1] not in data:
                self._uncounted += data
            elif not self.ended:
                self._event(name, data)

    def _event(self, name: str, data: bytes) -> None:
        event = _object(data)
        delta = event.get("delta")
        match event.get("type") or name or ("error" if "error" in event else ""):
            case "message_start":
                self._start(event.get("message"))
            case "message_delta":
                self._figures.take(event.get("usage"))
                stop_reason = delta.get("stop_reason") if isinstance(delta, dict) else None
                self.stop_reason = _word(stop_reason) or self.stop_reason
            case "message_stop":
                self.ended = True
            case "error" if self.stop_reason:
                self.ended = True
            case "error":
                self.problem = problem_from_event(event)
            case _:
                self._uncounted += data

    def _start(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        if message.get("id") != self._id and self._wrote():
            # A proxy has repeated the request: the usage of the first message is unknown.
            self._figures.doubt("message_start")
        if message.get("id") != self._id:
            self.stop_reason = ""
        self._id = message.get("id")
        self._figures.take(message.get("usage"), first=True)

    def _wrote(self) -> bool:
        """Return whether the model has written anything yet."""
        known = self._content or self._narrow or self._wide
        return bool(known) or any(found[1] for found in _WRITTEN.finditer(self._uncounted))

    def _count(self) -> None:
        """Count the text of the events so far."""
        text = b"".join(_WRITTEN.findall(self._uncounted))
        self._uncounted.clear()
        wide = 0 if text.isascii() else len(text.translate(None, _ASCII))
        self._narrow += len(text) - wide
        self._wide += wide

    def _passed(self) -> int:
        """Return a high estimate of the received output tokens: one per two ASCII characters or one other byte."""
        self._count()
        passed = -(-self._narrow // 2) + self._wide
        return min(passed, self._max_tokens) if self._max_tokens else passed


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = loose_json.decode(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    return value[:64] if isinstance(value, str) else ""
