"""An answer in Messages for a client of Messages: passed on as it comes, and watched for its usage and its end."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from farmhand.gateway.backends import BackendError
from farmhand.gateway.dialects import errors
from farmhand.gateway.dialects.parts import MOST_TOKENS, ChatUsage
from farmhand.gateway.dialects.sse import event
from farmhand.meter.sse import EventDecoder

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)] | None


class _Used(msgspec.Struct):
    """Counts; the API's own schema has null for what is not counted."""

    input_tokens: _Tokens = 0
    output_tokens: _Tokens = 0
    cache_read_input_tokens: _Tokens = 0


class _NativeEvent(msgspec.Struct):
    """What is looked at in an event, and in a whole message."""

    type: str = ""
    message: Any = None
    usage: _Used | None = None


class _NativeMessage(msgspec.Struct):
    usage: _Used = msgspec.field(default_factory=_Used)
    content: msgspec.Raw = msgspec.Raw()
    error: Any = None


class NativeStream:
    """A Messages stream for a client of the same dialect; see `from_chat`."""

    def __init__(self) -> None:
        self.usage: ChatUsage | None = None
        self.failed: BackendError | None = None
        self._decoder = EventDecoder()
        self._ended = False

    def feed(self, piece: bytes) -> bytes:
        """Return the piece, and look at what it completes."""
        for name, raw in self._decoder.feed(piece):
            self._ended |= name == "message_stop" or name == "error"
            if name in ("message_start", "message_delta"):
                self._count(raw)
        return piece

    def _count(self, raw: bytes) -> None:
        try:
            found = msgspec.json.decode(raw, type=_NativeEvent)
            used = found.usage or msgspec.convert(found.message or {}, _NativeMessage).usage
        except (msgspec.MsgspecError, RecursionError):
            return
        before = self.usage or ChatUsage()
        self.usage = ChatUsage(
            used.input_tokens or before.read,
            used.cache_read_input_tokens or before.cached,
            used.output_tokens or before.written,
        )

    def end(self) -> bytes:
        """Return nothing, or an error if the stream was cut."""
        return b"" if self._ended else self.fail(BackendError("the backend's stream ended before its answer did"))

    def fail(self, error: BackendError) -> bytes:
        """Return the end of an answer that failed. A blank line ends what was cut."""
        self.failed, self._ended = error, True
        start = b"" if self._decoder.between else b"\n\n"
        return start + event(errors.document("messages", error.status, str(error)))

    def ping(self) -> bytes:
        """Return what keeps a silent stream alive."""
        return b"" if self._ended else event({"type": "ping"})


def answer(body: bytes) -> tuple[bytes, ChatUsage | None]:
    """Return a whole message as it is, and its usage. Raise BackendError if it is none: some proxies say 200 to all."""
    try:
        found = msgspec.json.decode(body, type=_NativeMessage)
    except msgspec.ValidationError:
        return body, None  # a usage of another form
    except (msgspec.DecodeError, RecursionError):
        raise BackendError("the answer is no message") from None
    if not found.content:
        raise errors.instead(found.error)
    used = found.usage
    return body, ChatUsage(used.input_tokens or 0, used.cache_read_input_tokens or 0, used.output_tokens or 0)
