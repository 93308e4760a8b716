"""An estimate for interactive sessions: tokens from the CLI's own session logs, at API prices.

One API answer is in several lines: one per content block, and again in resumed or branched sessions. The line with the
most tokens counts. Lines belong to the same answer if they have the same message id and request id, in any file;
without a request id, as behind gateways, the same message id and session. A side chain repeats its parent's answers
under new request ids, so there the message id alone decides. ccusage does the same (its Rust source, 2026-09). Source
of the format: lines of type `assistant` written by Claude Code 2.1.197.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from farmhand.core.files import xdg
from farmhand.core.prices import PriceTable
from farmhand.core.task import Usage
from farmhand.cost.queries import DAY_S, PROMPT, band, day_text
from farmhand.cost.store import CHUNK, TOKENS, CostStore

LABEL = "estimate: what the subscription's sessions would have cost through the API; never billed, never added in"
#: Maximum length of a line; longer ones are reported.
MAX_LINE = 64 * 1024 * 1024
#: Model names that the CLI writes for messages of its own, such as errors.
_NOT_A_MODEL = frozenset({"", "<synthetic>"})
#: Maximum count of tokens in one answer.
_MOST = 10**12
_BOM = b"\xef\xbb\xbf"
_ANSWER = re.compile(rb'"type"\s*:\s*"assistant"')
#: Tokens written for an hour are already among those written.
_COUNTED = tuple(name for name in TOKENS if "_1h_" not in name)
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
    """An answer: its unique key, its message id, whether it is in a side chain, and its values in the store."""

    key: str
    message: str
    side: bool
    values: tuple[Any, ...]


class Uncounted(Exception):
    """An error for a line that looks like an answer but cannot be counted; the message says why."""


_LINE = msgspec.json.Decoder(_LogLine)
#: The end of a line, and its row, the reason why it is not counted, or None if it is not an API answer.
_Found = tuple[int, SessionRow | Uncounted | None]


def _lines(file: BinaryIO, path: str, session: str, offset: int) -> Iterator[_Found]:
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
        whole = raw.endswith(b"\n")
        try:
            row = _row(raw, f"{path}@{start}", session) if b'"usage"' in raw else None
        except Uncounted as why:
            if whole:
                yield offset, why
        else:
            yield (offset if whole else start), row


def _row(raw: bytes, place: str, session: str) -> SessionRow | None:
    raw = raw.removeprefix(_BOM)
    try:
        line: _LogLine | None = _LINE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        line = _odd_line(raw)
    if line is None or line.message.model in _NOT_A_MODEL:
        return None
    message, usage = line.message, line.message.usage
    written = _count(usage.cache_creation_input_tokens)
    hour = _count(usage.cache_creation.ephemeral_1h_input_tokens) if usage.cache_creation else 0
    counts = (_count(usage.input_tokens), _count(usage.output_tokens), written, min(hour, written))
    key = f"{message.id} {line.requestId or '@' + (line.sessionId or session)}" if message.id else place
    values = (_moment(line.timestamp), _text(message.model), *counts, _count(usage.cache_read_input_tokens))
    return SessionRow(_text(key), _text(message.id or ""), line.isSidechain is True, values)


def _text(text: str) -> str:
    """Replace each lone surrogate by U+FFFD, since no file can store it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _odd_line(raw: bytes) -> _LogLine | None:
    """Decode a line that msgspec rejects (json accepts lone surrogates); None if it is no answer. Raises Uncounted."""
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


class OnDay(msgspec.Struct, kw_only=True):
    """The answers of one model on one day (UTC). `estimate_pico` is None if no price is known."""

    day: str
    model: str
    messages: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    estimate_pico: int | None = 0


class Interactive(msgspec.Struct, kw_only=True):
    """An estimate of the API cost of the sessions' tokens. No sum includes the answers of models without a price."""

    label: str
    directories: list[str]
    messages: int
    estimate_pico: int
    unpriced: list[str]
    unread: list[str]
    days: list[OnDay]


def directories(environ: dict[str, str] | None = None) -> list[Path]:
    """Return the CLI's session log directories: below CLAUDE_CONFIG_DIR (comma-separated), or the two default ones."""
    environ = dict(os.environ) if environ is None else environ
    named = environ.get("CLAUDE_CONFIG_DIR", "")
    home = Path(environ.get("HOME") or Path.home())
    chosen = [Path(os.path.expanduser(part.strip())) for part in named.split(",") if part.strip()]
    usual = (Path(xdg("XDG_CONFIG_HOME", environ), "claude"), home / ".claude")
    return [path / "projects" for path in chosen or usual if (path / "projects").is_dir()]


def read(store: CostStore, places: list[Path]) -> list[str]:
    """Read the new log lines below `places`. Return the files and lines that are not counted, each with the reason."""
    unread = []
    for place in places:
        for path in sorted(place.rglob("*.jsonl")):
            try:
                if not path.is_dir():
                    _read_file(store, path, _session(path.relative_to(place).parts))
            except OSError as error:
                unread.append(f"{_shown(path)}: {error.strerror}")
    query = "SELECT path, count(*), min(offset), reason FROM session_uncounted GROUP BY path ORDER BY path"
    for path, count, offset, reason in store.rows(query):
        what = "a line is" if count == 1 else f"{count} lines are"
        unread.append(f"{path}: {what} not counted, the first at byte {offset}: {reason}")
    return unread


def _session(parts: tuple[str, ...]) -> str:
    """Return a log's session from its path: PROJECT/SESSION.jsonl, …/SESSION/subagents/AGENT.jsonl, …/SESSION/FILE."""
    if len(parts) == 2:
        return parts[1].removesuffix(".jsonl")
    return parts[-3] if len(parts) >= 4 and parts[-2] == "subagents" else "".join(parts[-2:-1])


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _read_file(store: CostStore, path: Path, session: str) -> None:
    """Read the file from where the last read stopped, or all of it if it has been replaced."""
    name = _shown(path)
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        known = store.rows("SELECT inode, offset FROM session_file WHERE path = ?", (name,))
        offset = int(known[0][1]) if known and known[0][0] == status.st_ino and known[0][1] <= status.st_size else 0
        if offset == status.st_size and known:
            return
        file.seek(offset)
        if not offset:
            with store.transaction() as db:
                db.execute("DELETE FROM session_uncounted WHERE path = ?", (name,))
        found = _lines(file, name, session, offset)
        while chunk := list(islice(found, CHUNK)):
            with store.transaction() as db:
                for end, row in chunk:
                    if isinstance(row, SessionRow):
                        _keep(db, row)
                    elif row is not None:
                        db.execute("REPLACE INTO session_uncounted VALUES (?, ?, ?)", (name, end, str(row)))
                db.execute("REPLACE INTO session_file VALUES (?, ?, ?)", (name, status.st_ino, chunk[-1][0]))


def _keep(db: sqlite3.Connection, row: SessionRow) -> None:
    """Insert a row, or update the row of the same answer if this one has more tokens.

    A side chain's key contains `~`; it counts only until another line has the same answer.
    """
    key = row.key
    if row.message:
        # All keys of this message: from the space after its id up to the next character.
        span = (f"{row.message} ", f"{row.message}!")
        if row.side:
            query = "SELECT key FROM session_message WHERE key >= ? AND key < ? ORDER BY key = ? DESC LIMIT 1"
            found = db.execute(query, (*span, key)).fetchone()
            key = found[0] if found is not None else f"{row.message} ~"
        else:
            db.execute("DELETE FROM session_message WHERE key = ?", (f"{row.message} ~",))
    db.execute(
        "INSERT INTO session_message VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"  # noqa: S608  (names)
        f" at = min(at, excluded.at), model = excluded.model, {', '.join(f'{n} = excluded.{n}' for n in TOKENS)}"
        f" WHERE {' + '.join(f'excluded.{name}' for name in _COUNTED)} > {' + '.join(_COUNTED)}",
        (key, *row.values),
    )


def interactive(
    store: CostStore, table: PriceTable, since: float, places: list[Path], unread: list[str]
) -> Interactive:
    """Return the estimate for all answers since a time (Unix seconds), by day and model."""
    found: dict[tuple[int, str], OnDay] = {}
    query = (
        f"SELECT CAST(at / {DAY_S} AS INTEGER), model, max({PROMPT}), count(*),"  # noqa: S608  (names and numbers)
        f" {', '.join(f'sum({name})' for name in TOKENS)}"
        f" FROM session_message WHERE at >= ? GROUP BY 1, 2, {band(table.thresholds)}"
    )
    for number, name, prompt, messages, *sizes in store.rows(query, (since,)):
        # The CLI marks the long context with a suffix.
        model = table.resolve(name.removesuffix("[1m]"))
        rates = table.rates(model, prompt, at=number * DAY_S)
        usage = Usage(**dict(zip(TOKENS, sizes, strict=True)))
        day = found.setdefault((number, model), OnDay(day=day_text(number), model=model))
        day.messages += messages
        for kind in _COUNTED:
            setattr(day, kind, getattr(day, kind) + getattr(usage, kind))
        cost = None if rates is None else rates.cost(usage)
        day.estimate_pico = None if cost is None or day.estimate_pico is None else day.estimate_pico + cost
    days = [found[place] for place in sorted(found)]
    return Interactive(
        label=LABEL,
        directories=[str(place) for place in places],
        messages=sum(day.messages for day in days),
        estimate_pico=sum(day.estimate_pico or 0 for day in days),
        unpriced=sorted({day.model for day in days if day.estimate_pico is None}),
        unread=unread,
        days=days,
    )
