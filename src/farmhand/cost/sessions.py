"""An estimate for interactive sessions: tokens from the CLI's own session logs, at API prices.

The logs are only read, never written; each file from where the last read stopped. One API answer appears in several
lines: one per content block, and again in resumed or branched sessions. The line with the most tokens counts. Lines
belong to the same answer if they have the same message id and request id, in any file. Without a request id, as behind
gateways, they need the same message id and session. A side chain repeats its parent's answers under new request ids, so
there the message id alone decides. ccusage does the same (its Rust source, 2026-09). A line that looks like an answer
but cannot be counted is reported. Source of the format: lines of type `assistant` written by Claude Code 2.1.197.
"""

from __future__ import annotations

import os
import sqlite3
from itertools import islice
from operator import itemgetter
from pathlib import Path

import msgspec

from farmhand.core.files import xdg
from farmhand.core.prices import PriceTable
from farmhand.core.task import Usage
from farmhand.cost.queries import DAY_S, PROMPT, band, day_text
from farmhand.cost.session_lines import Found, SessionRow, lines
from farmhand.cost.store import CHUNK, TOKENS, CostStore

LABEL = "estimate: what the subscription's sessions would have cost through the API; never billed, never added in"


class OnDay(msgspec.Struct, kw_only=True):
    """The answers of one model on one day (UTC). `estimate_pico` is None if no price is known."""

    day: str
    model: str
    messages: int
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    estimate_pico: int | None


class Interactive(msgspec.Struct, kw_only=True):
    """An estimate of the API cost of the interactive sessions' tokens. None of it was billed.

    `unpriced` lists models without a price; no sum includes their answers.
    """

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
    chosen = [Path(part.strip()).expanduser() for part in named.split(",") if part.strip()]
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
    counted = [name for name in TOKENS if "_1h_" not in name]
    db.execute(
        "INSERT INTO session_message VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"  # noqa: S608  (names)
        f" at = min(at, excluded.at), model = excluded.model, {', '.join(f'{n} = excluded.{n}' for n in TOKENS)}"
        f" WHERE {' + '.join(f'excluded.{name}' for name in counted)} > {' + '.join(counted)}",
        (key, *row.values),
    )


def interactive(
    store: CostStore, table: PriceTable, since: float, places: list[Path], unread: list[str]
) -> Interactive:
    """Return the estimate for all answers since a time (Unix seconds), by day and model."""
    found: dict[tuple[int, str], tuple[Usage, list[int | None]]] = {}
    query = (
        f"SELECT CAST(at / {DAY_S} AS INTEGER), model, max({PROMPT}), count(*),"  # noqa: S608  (names and numbers)
        f" {', '.join(f'sum({name})' for name in TOKENS)}"
        f" FROM session_message WHERE at >= ? GROUP BY 1, 2, {band(table.thresholds)}"
    )
    for day, name, prompt, messages, *sizes in store.rows(query, (since,)):
        # The CLI marks the long context with a suffix.
        model = table.resolve(name.removesuffix("[1m]"))
        rates = table.rates(model, prompt, at=day * DAY_S)
        usage = Usage(requests=messages, **dict(zip(TOKENS, sizes, strict=True)))
        total, costs = found.setdefault((day, model), (Usage(), []))
        total.add(usage)
        costs.append(None if rates is None else rates.cost(usage))
    days = [
        OnDay(
            day=day_text(day),
            model=model,
            messages=usage.requests,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_creation_input_tokens=usage.cache_creation_input_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            estimate_pico=None if None in costs else sum(cost or 0 for cost in costs),
        )
        for (day, model), (usage, costs) in sorted(found.items(), key=itemgetter(0))
    ]
    return Interactive(
        label=LABEL,
        directories=[str(place) for place in places],
        messages=sum(day.messages for day in days),
        estimate_pico=sum(day.estimate_pico or 0 for day in days),
        unpriced=sorted({day.model for day in days if day.estimate_pico is None}),
        unread=unread,
        days=days,
    )
