"""The interactive side: what the CLI's own session logs say was used, and what that would have cost through the API.

All of it is an estimate. The logs are read and never written; each file from where it was left off. One answer of the
API stands in several lines (one per block of it, again in sessions that were resumed or branched off): lines with the
same message id and request id are merged, and the one with the most output counts, which is the last that was written.
Source of the format: lines of type `assistant` as Claude Code 2.1.197 writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from farmhand.cost.prices import PriceTable
from farmhand.cost.store import CHUNK, Store

#: No line of a log is longer; a longer one is left out.
MAX_LINE = 64 * 1024 * 1024
LABEL = "estimate: what the subscription's sessions would have cost through the API; never billed, never added in"
#: What the CLI writes in place of an answer that it made itself, such as an error.
_NOT_A_MODEL = frozenset({"", "<synthetic>"})


class _Cache(msgspec.Struct):
    ephemeral_1h_input_tokens: int = 0


class _Usage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    cache_creation: _Cache | None = None


class _Message(msgspec.Struct):
    usage: _Usage
    model: str = ""
    id: str | None = None


class _Line(msgspec.Struct):
    message: _Message
    timestamp: datetime
    requestId: str | None = None  # noqa: N815  (the log's own name)


_LINE = msgspec.json.Decoder(_Line)


class OnDay(msgspec.Struct, kw_only=True):
    """The answers of one model on one day (UTC); `estimate_pico` is None where no price is known for it."""

    day: str
    model: str
    messages: int
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    estimate_pico: int | None


class Interactive(msgspec.Struct, kw_only=True):
    """An estimate: what the interactive sessions' tokens would have cost through the API. Nothing of it was billed so.

    `unpriced` are the models without a price: their answers are in no sum.
    """

    label: str
    directories: list[str]
    messages: int
    estimate_pico: int
    unpriced: list[str]
    unread: list[str]
    days: list[OnDay]


def directories(environ: dict[str, str] | None = None) -> list[Path]:
    """Where the CLI keeps session logs: below CLAUDE_CONFIG_DIR (comma-separated), or in the two usual places."""
    environ = dict(os.environ) if environ is None else environ
    named = environ.get("CLAUDE_CONFIG_DIR", "")
    home = Path(environ.get("HOME") or Path.home())
    base = environ.get("XDG_CONFIG_HOME", "")
    config = Path(base) if base.startswith("/") else home / ".config"
    chosen = [Path(part.strip()).expanduser() for part in named.split(",") if part.strip()]
    return [
        path / "projects" for path in chosen or (config / "claude", home / ".claude") if (path / "projects").is_dir()
    ]


def read(store: Store, places: list[Path]) -> list[str]:
    """Take in what is new in the logs below `places`. Returns the files that cannot be read, with the reason."""
    unread = []
    for place in places:
        for root, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                if not name.endswith(".jsonl"):
                    continue
                path = os.path.join(root, name)
                try:
                    _read_file(store, path)
                except OSError as error:
                    unread.append(f"{path}: {error.strerror}")
    return unread


def _read_file(store: Store, path: str) -> None:
    """What is behind the place where this file was left off; all of it again where it is another file by now."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        known = store.rows("SELECT inode, offset FROM session_file WHERE path = ?", (path,))
        offset = int(known[0][1]) if known and known[0][0] == status.st_ino and known[0][1] <= status.st_size else 0
        if offset == status.st_size and known:
            return
        file.seek(offset)
        lines = _lines(file, path, offset)
        while chunk := list(islice(lines, CHUNK)):
            _keep(store, path, status.st_ino, chunk)


def _lines(file: BinaryIO, path: str, offset: int) -> Iterator[tuple[int, tuple[Any, ...] | None]]:
    """(where the line ends, its row) of every whole line; the row is None where it is no answer of the API."""
    while raw := file.readline(MAX_LINE):
        if not raw.endswith(b"\n"):
            return  # still being written
        start, offset = offset, offset + len(raw)
        yield offset, _row(raw, f"{path}@{start}") if b'"usage"' in raw else None


def _row(raw: bytes, place: str) -> tuple[Any, ...] | None:
    try:
        line = _LINE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    message, usage = line.message, line.message.usage
    if message.model in _NOT_A_MODEL:
        return None
    # What has no ids cannot be told from its copies: each line counts, as in ccusage.
    key = f"{message.id} {line.requestId}" if message.id and line.requestId else place
    at = line.timestamp if line.timestamp.tzinfo else line.timestamp.replace(tzinfo=UTC)
    hour = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else 0
    written = usage.cache_creation_input_tokens or 0
    counts = (usage.input_tokens, usage.output_tokens, written, min(hour, written), usage.cache_read_input_tokens or 0)
    return key, at.timestamp(), message.model, *counts


def _keep(store: Store, path: str, inode: int, chunk: list[tuple[int, tuple[Any, ...] | None]]) -> None:
    with store.transaction() as db:
        db.executemany(
            "INSERT INTO session_message VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
            " at = min(at, excluded.at), model = excluded.model, fresh = excluded.fresh, output = excluded.output,"
            " written = excluded.written, written_1h = excluded.written_1h, read = excluded.read"
            " WHERE (excluded.output, excluded.fresh, excluded.read) > (output, fresh, read)",
            [row for _, row in chunk if row is not None],
        )
        db.execute("REPLACE INTO session_file VALUES (?, ?, ?)", (path, inode, chunk[-1][0]))


def interactive(store: Store, table: PriceTable, since: float, places: list[Path], unread: list[str]) -> Interactive:
    """The estimate for all answers since a time (Unix seconds), by day and model."""
    days = [_on_day(table, row) for row in store.rows(_query(table), (since,))]
    merged: dict[tuple[str, str], OnDay] = {}
    for found in days:
        known = merged.setdefault((found.day, found.model), found)
        if known is not found:
            _add(known, found)
    answers = sorted(merged.values(), key=lambda found: (found.day, found.model))
    return Interactive(
        label=LABEL,
        directories=[str(place) for place in places],
        messages=sum(found.messages for found in answers),
        estimate_pico=sum(found.estimate_pico or 0 for found in answers),
        unpriced=sorted({found.model for found in answers if found.estimate_pico is None}),
        unread=unread,
        days=answers,
    )


def _query(table: PriceTable) -> str:
    """Sums by day, model and band of prompt length, so that long prompts get their own prices."""
    band = " + ".join(f"(fresh + written + read > {edge:d})" for edge in table.thresholds) or "0"
    return (
        f"SELECT CAST(at / 86400 AS INTEGER), model, max(fresh + written + read), count(*), sum(fresh), sum(output),"  # noqa: S608  (numbers of the price table)
        f" sum(written), sum(written_1h), sum(read) FROM session_message WHERE at >= ? GROUP BY 1, 2, {band}"
    )


def _on_day(table: PriceTable, row: tuple[Any, ...]) -> OnDay:
    day, name, prompt, messages, fresh, output, written, written_1h, read_ = row
    # The CLI writes the long context as a suffix.
    model = table.resolve(name.removesuffix("[1m]"))
    rates = table.rates(model, prompt, at=day * 86400)
    return OnDay(
        day=datetime.fromtimestamp(day * 86400, UTC).date().isoformat(),
        model=model,
        messages=messages,
        input_tokens=fresh,
        output_tokens=output,
        cache_creation_input_tokens=written,
        cache_read_input_tokens=read_,
        estimate_pico=None if rates is None else rates.of(fresh, output, written, written_1h, read_),
    )


def _add(known: OnDay, more: OnDay) -> None:
    for name in OnDay.__struct_fields__[2:]:
        mine, theirs = getattr(known, name), getattr(more, name)
        setattr(known, name, None if mine is None or theirs is None else mine + theirs)
