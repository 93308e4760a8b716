"""The lines of the CLI's session logs: which lines are API answers, and which values are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple

import msgspec

#: Maximum length of a line; longer ones are reported.
MAX_LINE = 64 * 1024 * 1024
#: Model names that the CLI writes for messages of its own, such as errors.
_NOT_A_MODEL = frozenset({"", "<synthetic>"})
#: Maximum count of tokens in one answer.
_MOST = 10**12
_BOM = b"\xef\xbb\xbf"
_ANSWER = re.compile(rb'"type"\s*:\s*"assistant"')
_Count = int | float | None


class _Cache(msgspec.Struct):
    ephemeral_1h_input_tokens: _Count = 0


class _Usage(msgspec.Struct):
    input_tokens: _Count
    output_tokens: _Count
    cache_creation_input_tokens: _Count = 0
    cache_read_input_tokens: _Count = 0
    cache_creation: _Cache | None = None


class _Message(msgspec.Struct):
    usage: _Usage
    model: str = ""
    id: str | None = None


class _LogLine(msgspec.Struct):
    message: _Message
    timestamp: datetime | int | float
    requestId: str | None = None  # noqa: N815  (the log's own names)
    sessionId: str | None = None  # noqa: N815
    isSidechain: bool | None = None  # noqa: N815


class SessionRow(NamedTuple):
    """An answer: its unique key, its message id, whether it is in a side chain, and the values kept."""

    key: str
    message: str
    side: bool
    values: tuple[Any, ...]


class Uncounted(Exception):
    """An error for a line that looks like an answer but cannot be counted; the message says why."""


_LINE = msgspec.json.Decoder(_LogLine)


#: (end of the line, and its row, the reason it is not counted, or None if it is not an API answer)
Found = tuple[int, SessionRow | Uncounted | None]


def lines(file: BinaryIO, path: str, session: str, offset: int) -> Iterator[Found]:
    """Yield every line. The last line may still be incomplete; it is then read again the next time."""
    while raw := file.readline(MAX_LINE):
        start, offset = offset, offset + len(raw)
        if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
            has_usage = b'"usage"' in raw
            while not raw.endswith(b"\n"):
                if not (raw := file.readline(MAX_LINE)):
                    return
                has_usage = has_usage or b'"usage"' in raw
                offset += len(raw)
            yield offset, Uncounted(f"it is longer than {MAX_LINE} bytes") if has_usage else None
            continue
        try:
            row = _row(raw, f"{path}@{start}", session) if b'"usage"' in raw else None
        except Uncounted as why:
            if raw.endswith(b"\n"):
                yield offset, why
            continue
        yield (offset if raw.endswith(b"\n") else start), row


def _row(raw: bytes, place: str, session: str) -> SessionRow | None:
    raw = raw.removeprefix(_BOM)
    try:
        line = _LINE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The standard library's decoder accepts lone surrogates.
        if (found := _line(raw)) is None:
            return None
        line = found
    message, usage = line.message, line.message.usage
    if message.model in _NOT_A_MODEL:
        return None
    written = _count(usage.cache_creation_input_tokens)
    hour = _count(usage.cache_creation.ephemeral_1h_input_tokens) if usage.cache_creation else 0
    counts = (_count(usage.input_tokens), _count(usage.output_tokens), written, min(hour, written))
    side = line.isSidechain is True
    key = place
    if message.id:
        key = f"{message.id} {line.requestId or '@' + (line.sessionId or session)}"
    values = (_moment(line.timestamp), _text(message.model), *counts, _count(usage.cache_read_input_tokens))
    return SessionRow(_text(key), _text(message.id or ""), side, values)


def _text(text: str) -> str:
    """Replace each lone surrogate by U+FFFD, since no file can store it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _line(raw: bytes) -> _LogLine | None:
    """Decode a line that the fast decoder rejects; None if it is not an answer. Raises Uncounted."""
    try:
        value = json.loads(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        if _ANSWER.search(raw):
            raise Uncounted("it is no JSON") from None
        return None
    message = value.get("message") if isinstance(value, dict) else None
    if not isinstance(message, dict) or value.get("type") != "assistant" or "usage" not in message:
        return None
    if message.get("model") in _NOT_A_MODEL:
        return None
    try:
        return msgspec.convert(value, _LogLine)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise Uncounted(str(error)) from None


def _count(value: _Count) -> int:
    """Return a number of tokens, 0 for null. Raises Uncounted."""
    if value is None:
        return 0
    if not 0 <= value <= _MOST or int(value) != value:
        raise Uncounted(f"{value!r:.30} is no number of tokens")
    return int(value)


def _moment(value: datetime | int | float) -> float:
    """Return Unix seconds for a time in the log: RFC 3339, UTC without a zone, or a number of (milli)seconds."""
    if isinstance(value, datetime):
        seconds = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    else:
        seconds = value / 1000 if 1e11 < value < 1e14 else value
    # A time with a zone, or a number, may lie outside the range of dates.
    if not 0 < seconds < 1e11:
        raise Uncounted(f"{value!s:.30} is no time")
    return float(seconds)
