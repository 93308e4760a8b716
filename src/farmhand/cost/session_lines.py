"""The lines of the CLI's session logs: which are answers of the API, and what is kept of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple

import msgspec

#: No line of a log is longer; a longer one is named.
MAX_LINE = 64 * 1024 * 1024
#: What the CLI writes in place of an answer that it made itself, such as an error.
_NOT_A_MODEL = frozenset({"", "<synthetic>"})
#: What the counts of one answer can be.
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
    """An answer: the key that identifies it, its message, whether a side chain has it, and what is kept of it."""

    key: str
    message: str
    side: bool
    values: tuple[Any, ...]


class Uncounted(Exception):
    """A line looks like an answer and cannot be counted; its text says why."""


_LINE = msgspec.json.Decoder(_LogLine)


#: (where the line ends, its row, or why there is none, or None where it is no answer of the API)
Found = tuple[int, SessionRow | Uncounted | None]


def lines(file: BinaryIO, path: str, session: str, offset: int) -> Iterator[Found]:
    """Every line. The last one may be still being written: it is read again the next time."""
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
        # The standard library's decoder bears a lone half of a surrogate pair.
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
    """`text` with U+FFFD for each lone half of a surrogate pair, which no file can hold."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _line(raw: bytes) -> _LogLine | None:
    """A line that the fast decoder refuses; None where it is no answer. Raises Uncounted."""
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
    """A number of tokens, 0 for null. Raises Uncounted."""
    if value is None:
        return 0
    if not 0 <= value <= _MOST or int(value) != value:
        raise Uncounted(f"{value!r:.30} is no number of tokens")
    return int(value)


def _moment(value: datetime | int | float) -> float:
    """Unix seconds of a time of the log: RFC 3339, UTC where it names no zone, or a number of (milli)seconds."""
    if isinstance(value, datetime):
        seconds = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    else:
        seconds = value / 1000 if 1e11 < value < 1e14 else value
    # What has a zone may lie beyond the years that a date can have; so may a number.
    if not 0 < seconds < 1e11:
        raise Uncounted(f"{value!s:.30} is no time")
    return float(seconds)
