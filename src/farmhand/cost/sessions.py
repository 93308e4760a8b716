"""The interactive side: what the CLI's own session logs say was used, and what that would have cost through the API.

All of it is an estimate. The logs are read and never written; each file from where it was left off. One answer of the
API stands in several lines (one per block of it, again in sessions that were resumed or branched off), of which the one
with the most tokens counts. The same answer are lines with the same message id and request id, anywhere; without a
request id, as gateways have it, those with the same message id in one session; and of a side chain, which repeats its
parent's answers under new request ids, those with the same message id. So does ccusage (its Rust source, 2026-09).
A line that looks like an answer and cannot be counted is named. Source of the format: lines of type `assistant` as
Claude Code 2.1.197 writes them.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core.files import xdg
from farmhand.core.prices import PriceTable
from farmhand.cost.session_lines import Found, SessionRow, lines
from farmhand.cost.store import CHUNK, CostStore

LABEL = "estimate: what the subscription's sessions would have cost through the API; never billed, never added in"
#: The rules above, by number: a store that was filled by others is filled again.
_RULES = "2"


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
    chosen = [Path(part.strip()).expanduser() for part in named.split(",") if part.strip()]
    usual = (Path(xdg("XDG_CONFIG_HOME", environ), "claude"), home / ".claude")
    return [path / "projects" for path in chosen or usual if (path / "projects").is_dir()]


def read(store: CostStore, places: list[Path]) -> list[str]:
    """Take in what is new in the logs below `places`. Returns what is not counted: files and lines, with the reason."""
    _by_these_rules(store)
    unread = []
    for place in places:
        for root, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                if not name.endswith(".jsonl"):
                    continue
                path = os.path.join(root, name)
                try:
                    _read_file(store, path, _session(Path(path).relative_to(place).parts))
                except OSError as error:
                    unread.append(f"{_shown(path)}: {error.strerror}")
    query = "SELECT path, count(*), min(offset), reason FROM session_uncounted GROUP BY path ORDER BY path"
    for path, count, offset, reason in store.rows(query):
        what = "a line is" if count == 1 else f"{count} lines are"
        unread.append(f"{path}: {what} not counted, the first at byte {offset}: {reason}")
    return unread


def _by_these_rules(store: CostStore) -> None:
    """Have what other rules have told apart read again. What is known by its ids stays, also of files that are gone."""
    if store.rows("SELECT 1 FROM meta WHERE name = 'session_rules' AND value = ?", (_RULES,)):
        return
    with store.transaction() as db:
        db.execute("DELETE FROM session_message WHERE key LIKE '/%'")
        db.execute("DELETE FROM session_file")
        db.execute("REPLACE INTO meta VALUES ('session_rules', ?)", (_RULES,))


def _session(parts: tuple[str, ...]) -> str:
    """The session of a log by its place: PROJECT/SESSION.jsonl, …/SESSION/subagents/AGENT.jsonl, …/SESSION/FILE."""
    if len(parts) == 2:
        return parts[1].removesuffix(".jsonl")
    return parts[-3] if len(parts) >= 4 and parts[-2] == "subagents" else "".join(parts[-2:-1])


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _read_file(store: CostStore, path: str, session: str) -> None:
    """What is behind the place where this file was left off; all of it again where it is another file by now."""
    name = _shown(path)
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        known = store.rows("SELECT inode, offset FROM session_file WHERE path = ?", (name,))
        offset = int(known[0][1]) if known and known[0][0] == status.st_ino and known[0][1] <= status.st_size else 0
        if offset == status.st_size and known:
            return
        file.seek(offset)
        if not offset:
            with store.transaction() as db:
                db.execute("DELETE FROM session_uncounted WHERE path = ?", (name,))
        found = lines(file, name, session, offset)
        while chunk := list(islice(found, CHUNK)):
            _keep(store, name, status.st_ino, chunk)


def _keep(store: CostStore, path: str, inode: int, chunk: list[Found]) -> None:
    with store.transaction() as db:
        for end, row in chunk:
            if isinstance(row, SessionRow):
                _keep_row(db, row)
            elif row is not None:
                db.execute("REPLACE INTO session_uncounted VALUES (?, ?, ?)", (path, end, str(row)))
        db.execute("REPLACE INTO session_file VALUES (?, ?, ?)", (path, inode, chunk[-1][0]))


def _keep_row(db: sqlite3.Connection, row: SessionRow) -> None:
    """Add a row, or what it has more than the one that is there for the same answer.

    A side chain's key has a `~`; it counts only as long as no other line has the answer.
    """
    key = row.key
    if row.message:
        # Of this message: from the blank behind its id up to the next character.
        span = (f"{row.message} ", f"{row.message}!")
        if row.side:
            query = "SELECT key FROM session_message WHERE key >= ? AND key < ? ORDER BY key = ? DESC LIMIT 1"
            found = db.execute(query, (*span, key)).fetchone()
            key = found[0] if found is not None else f"{row.message} ~"
        else:
            db.execute("DELETE FROM session_message WHERE key = ?", (f"{row.message} ~",))
    db.execute(
        "INSERT INTO session_message VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
        " at = min(at, excluded.at), model = excluded.model, fresh = excluded.fresh, output = excluded.output,"
        " written = excluded.written, written_1h = excluded.written_1h, read = excluded.read WHERE"
        " excluded.fresh + excluded.output + excluded.written + excluded.read > fresh + output + written + read",
        (key, *row.values),
    )


def interactive(
    store: CostStore, table: PriceTable, since: float, places: list[Path], unread: list[str]
) -> Interactive:
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
