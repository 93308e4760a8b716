"""The events of a stream, checked one by one: what all ways to the client share, and those of a Chat stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import errors
from farmhand.gateway.dialects.parts import ChatUsage, usage_of
from farmhand.meter.sse import EventDecoder

#: Bytes of one event. A tool call that writes a file may come in one.
MAX_EVENT = 16 * 1024 * 1024
_CUT = "the local server's stream ended before its answer did"


class EventStream:
    """Reads a stream of events. Its kinds say what they make of an event, of the end, and of an error."""

    #: Who sends the stream, for messages.
    sender = "the local server"

    def __init__(self) -> None:
        self.usage: ChatUsage | None = None
        self.failed: BackendError | None = None
        self._ended = False
        self._decoder = EventDecoder()
        #: What is to be sent.
        self._out: list[bytes] = []

    def feed(self, piece: bytes) -> bytes:
        """Return what follows from a piece of the body."""
        if not self._ended:
            self._take(self._decoder.feed(piece))
        if not self._ended and self._decoder.pending > MAX_EVENT:
            return self.fail(broken("an event of more than 16 MB", self.sender))
        return self._sent()

    def fail(self, error: BackendError) -> bytes:
        """Return the end of an answer that failed."""
        if not self._ended:
            self._ended, self.failed = True, error
            self._fail(error)
        return self._sent()

    def _sent(self) -> bytes:
        found = b"".join(self._out)
        self._out.clear()
        return found

    def _take(self, events: list[tuple[str, bytes]]) -> None:
        try:
            for _, raw in events:
                if raw and not self._ended:
                    self._event(raw)
        except BackendError as error:
            self._ended, self.failed = True, error
            self._fail(error)

    def _decoded(self, raw: bytes) -> dict[str, Any]:
        try:
            event = msgspec.json.decode(raw)
        except (ValueError, RecursionError):
            raise broken("an event that is no JSON", self.sender) from None
        if not isinstance(event, dict):
            raise broken("an event that is no JSON object", self.sender)
        return event

    def _event(self, raw: bytes) -> None:
        raise NotImplementedError

    def _fail(self, error: BackendError) -> None:
        raise NotImplementedError


class ChatEvents(EventStream):
    """Reads a Chat stream. A way to the client says what it makes of a chunk, of the end, and of an error."""

    def __init__(self) -> None:
        super().__init__()
        self.finish: Any = None

    def end(self) -> bytes:
        """Return what is left at the end of the server's body."""
        if not self._ended:
            self._take([*self._decoder.flush(), ("", b"[DONE]")])
        return self._sent()

    def _event(self, raw: bytes) -> None:
        if raw == b"[DONE]":
            if self.finish is None:
                raise BackendError(_CUT)
            self._finish()
            self._ended = True
            return
        chunk = self._decoded(raw)
        if chunk.get("error"):
            raise errors.from_server(200, raw)
        self.usage = usage_of(chunk.get("usage")) or self.usage
        choice = choice_of(chunk)
        # Some servers write "" for "not yet" (ollama#4357, sglang#3912).
        if choice is not None and choice.get("finish_reason") not in (None, ""):
            self.finish = choice["finish_reason"]
        self._chunk(raw, chunk, choice)

    def _chunk(self, raw: bytes, chunk: dict[str, Any], choice: dict[str, Any] | None) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError


def choice_of(chunk: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the one choice of an answer or a chunk; None if it has none. Raise BackendError if there are several."""
    choices = chunk.get("choices")
    if not choices:
        return None
    if not isinstance(choices, list) or not isinstance(first := choices[0], dict):
        raise broken("choices that are no list of objects")
    if len(choices) > 1 or first.get("index") not in (None, 0):
        raise broken("several answers to one request")
    return first


def broken(what: str, sender: str = EventStream.sender) -> BackendError:
    """Return the error for what a server may not send."""
    return BackendError(f"{sender} sent {what}")
