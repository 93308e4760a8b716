"""Server-sent events as they are written to clients. They are read by farmhand.meter.sse."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"
#: A comment, which every reader of events passes over.
COMMENT = b": ping\n\n"


def data(value: Any) -> bytes:
    """Return an event without a name; bytes are its data as they are."""
    return b"data: %b\n\n" % (value if isinstance(value, bytes) else _encode(value))


def event(value: dict[str, Any]) -> bytes:
    """Return an event that is named for its type."""
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), _encode(value))
