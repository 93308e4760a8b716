"""The usage of an API answer, plain or streamed, read while it passes; its terms, and how it ended.

Figures in a stream are cumulative, and gateways repeat some of them as zeros, so the highest value of each counts. A
figure that no answer can have (negative, a fraction, text, beyond any model, far beyond the request) is ignored, and
the answer's cost is then unknown. Source: the provider's streaming reference.
"""

from __future__ import annotations

import re
from typing import Any

from farmhand.core.task import Usage
from farmhand.core.terms import KINDS, STANDARD, Terms
from farmhand.meter import loose_json
from farmhand.meter.errors import ApiError, problem_from_event
from farmhand.meter.sse import EventDecoder

#: Above any real answer: contexts hold up to a million tokens, answers have up to 300,000.
_MOST_INPUT = 10_000_000
_MOST_OUTPUT = 1_000_000
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_CACHED, _CACHED_1H = "cache_creation_input_tokens", "cache_creation_1h_input_tokens"
#: Output tokens allowed above twice the request's limit: a pass may add some of its own.
_SLACK_OUTPUT = 1000
#: Source: the prompt caching reference. Caching for an hour costs more than for 5 minutes.
_KEPT = frozenset({"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"})
#: Passes over the prompt at the price of the request's model. Source: the compaction guide.
_PASSES = (None, "message", "compaction")
_MAX_PASSES = 100
#: A term, such as `not_available`.
_WORD = re.compile(r"[A-Za-z0-9._:-]{1,40}")

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


class UsageFigures:
    """The usage reports of one answer. `told`: there was one. `max_tokens`: the request's, or 0 for any."""

    def __init__(self, max_tokens: int = 0) -> None:
        asked = 2 * max_tokens + _SLACK_OUTPUT
        self._most = dict.fromkeys(_INPUT, _MOST_INPUT)
        self._most["output_tokens"] = min(asked, _MOST_OUTPUT) if max_tokens else _MOST_OUTPUT
        self.told = False
        self._counts: dict[str, int] = {}
        self._odd: set[str] = set()
        self._terms: dict[str, str] = {}
        self._output_told = False

    def take(self, told: Any, *, first: bool = False) -> None:
        """Add a report. `first`: it is a stream's start, whose output tokens are only those so far."""
        if not isinstance(told, dict):
            return
        self.told = True
        counts, odd = _counts(told, self._most)
        sums, more = _passes(told.get("iterations"), self._most)
        for name, number in (*counts.items(), *sums.items()):
            if number > self._counts.get(name, 0):
                self._counts[name] = number
        # The latest report of a figure decides whether it is plausible.
        self._odd = {name for name in self._odd if told.get(name) is None} | odd | more
        self._output_told = self._output_told or (not first and "output_tokens" in counts)
        for kind in KINDS:
            value = told.get(kind)
            if isinstance(value, str) and _WORD.fullmatch(value):
                self._terms[kind] = value
            elif value not in (None, ""):
                self._odd.add(kind)

    def doubt(self, name: str) -> None:
        """Mark the figures as incomplete, with `name` as the reason."""
        self._odd.add(name)

    def usage(self, seen: int = 0) -> Usage:
        """Return the counts, with at least `seen` output tokens."""
        usage = Usage(requests=1, **self._counts)
        usage.output_tokens = max(usage.output_tokens, seen)
        return usage

    def terms(self, *, whole: bool, wrote: bool) -> Terms:
        """Return the terms of the answer. `whole`: it is complete. `wrote`: it has content."""
        unknown = set(self._odd)
        if not any(self._counts.get(name) for name in _INPUT):
            unknown.add("input_tokens")
        if not whole:
            unknown.discard("output_tokens")
        elif not self._output_told or (wrote and not self._counts.get("output_tokens")):
            unknown.add("output_tokens")
        return Terms(unknown=tuple(sorted(unknown)), estimated=not whole, **self._terms)


def usage_of(told: Any, *, wrote: bool = True, max_tokens: int = 0) -> tuple[Usage, Terms]:
    """Return usage and terms from the decoded `usage` of one whole message. `wrote`: the message has content."""
    figures = UsageFigures(max_tokens)
    figures.take(told)
    return figures.usage(), figures.terms(whole=True, wrote=wrote)


def _count(value: Any, most: int) -> int | None:
    """Return `value` if it is a plausible token count up to `most` (12.0 is 12), otherwise None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def _counts(told: dict[str, Any], bounds: dict[str, int]) -> tuple[dict[str, int], set[str]]:
    """Return the counts of one report, and the names of implausible ones. A null is treated as missing."""
    given = {name: _count(told[name], most) for name, most in bounds.items() if told.get(name) is not None}
    counts = {name: number for name, number in given.items() if number is not None}
    odd = given.keys() - counts
    kept = told.get("cache_creation")
    if kept is not None:
        parts = (
            {name: _count(value or 0, _MOST_INPUT) for name, value in kept.items()} if isinstance(kept, dict) else {}
        )
        if not isinstance(kept, dict) or None in parts.values() or any(parts[name] for name in parts.keys() - _KEPT):
            odd.add("cache_creation")
        else:
            counts[_CACHED] = max(counts.get(_CACHED, 0), sum(part or 0 for part in parts.values()))
            counts[_CACHED_1H] = parts.get("ephemeral_1h_input_tokens") or 0
    # Tools that run at the API have prices that token counts do not show.
    used = told.get("server_tool_use")
    if used is not None and (not isinstance(used, dict) or any(used.values())):
        odd.add("server_tool_use")
    return counts, odd


def _passes(told: Any, bounds: dict[str, int]) -> tuple[dict[str, int], set[str]]:
    """Return the sums over an answer's passes: the tokens of a compaction are reported nowhere else."""
    if told is None:
        return {}, set()
    if not isinstance(told, list) or len(told) > _MAX_PASSES:
        return {}, {"iterations"}
    sums: dict[str, int] = {}
    odd: set[str] = set()
    for one in told:
        if not isinstance(one, dict) or one.get("type") not in _PASSES or one.get("model") is not None:
            odd.add("iterations")
            continue
        counts, wrong = _counts(one, bounds)
        odd |= {"iterations"} if wrong else set()
        for name, value in counts.items():
            sums[name] = sums.get(name, 0) + value
    if any(value > bounds.get(name, _MOST_INPUT) for name, value in sums.items()):
        return {}, {"iterations"}
    return sums, odd


class UsageParser:
    """A parser of one answer: feed it the body in any pieces, then `finish` it.

    `usage` is exact once the body has ended, and the best estimate before. If a stream breaks off, its output is
    estimated from the received text, up to the request's `max_tokens`; far higher figures are not believed. `terms`,
    once finished, say so. `known`: there was a report. `ended`: the answer is complete; data after `message_stop`, and
    errors between the `stop_reason` and it, change nothing. `problem` is the error that ended a stream. `streamed`
    follows the answer's head until its first byte shows otherwise.
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
        if not self._sniffed and (first := chunk.lstrip(_LEADING)[:1]):
            self._sniffed = True
            self.streamed = first in _STREAM or (self.streamed and first not in _PLAIN)
        if self.streamed:
            quiet = self._quiet(chunk)
            self._uncounted += chunk[:quiet]
            if quiet < len(chunk):
                self._take(self._events.feed(chunk[quiet:]))
            if len(self._uncounted) > _MAX_UNCOUNTED:
                self._count_text()
        else:
            self._body += chunk
        self._seen += len(chunk)
        if max(len(self._body), self._events.pending) > _MAX_LOOK or self._seen > _MAX_BODY:
            raise ApiError("api_error", f"the API's answer is larger than any: {self._seen} bytes until now")

    def close(self) -> None:
        """Handle the end of the body. A stream with a stop reason is complete even without `message_stop`."""
        if self.streamed:
            self._take(self._events.flush())
            self.ended = self.ended or (bool(self.stop_reason) and self.problem is None)

    def finish(self) -> Usage:
        """Return the usage as reported by the API, after the body has ended or was given up."""
        if self.streamed:
            self._take(self._events.flush())
        elif self._body:
            self._plain(_object(bytes(self._body)))
            self._body.clear()
        self.terms = self._figures.terms(whole=self.ended, wrote=self._wrote())
        return self.usage

    def _plain(self, message: dict[str, Any]) -> None:
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
        match event.get("type") or name or ("error" if "error" in event else ""):
            case "message_start":
                self._start(event.get("message"))
            case "message_delta":
                self._figures.take(event.get("usage"))
                delta = event.get("delta")
                self.stop_reason = (
                    _word(delta.get("stop_reason")) if isinstance(delta, dict) else ""
                ) or self.stop_reason
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
        if message.get("id") != self._id:
            if self._wrote():
                # A proxy has repeated the request: the usage of the first message is unknown.
                self._figures.doubt("message_start")
            self.stop_reason = ""
        self._id = message.get("id")
        self._figures.take(message.get("usage"), first=True)

    def _wrote(self) -> bool:
        """Return whether the model has written anything yet."""
        known = self._content or self._narrow or self._wide
        return bool(known) or any(found[1] for found in _WRITTEN.finditer(self._uncounted))

    def _count_text(self) -> None:
        """Count the text of the events so far."""
        text = b"".join(_WRITTEN.findall(self._uncounted))
        self._uncounted.clear()
        wide = 0 if text.isascii() else len(text.translate(None, _ASCII))
        self._narrow += len(text) - wide
        self._wide += wide

    def _passed(self) -> int:
        """Return a high estimate of the received output tokens: one per two ASCII characters or one other byte."""
        self._count_text()
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
