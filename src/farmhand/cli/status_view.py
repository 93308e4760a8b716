"""Output of `farmhand status`: a table, once or live, or a line for each host."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from farmhand.cli import colour
from farmhand.cli.say import note, one_line
from farmhand.cli.sheet import kept_columns
from farmhand.core import pushed
from farmhand.core.engines import SLOTTED
from farmhand.core.money import pico, pico_of
from farmhand.core.readable import counted, money
from farmhand.places.watch import HostWatch

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Slots in use of all: one meaning everywhere, in these words.
_IN_USE = tuple(f"{engine}\nin use" for engine in SLOTTED)
_COLUMNS = ("host", "agent", "state", "running", "queued", "awaiting\nkey", *_IN_USE, "key")
_LIVE_COLUMNS = ("host", "state", "running", "queued", "awaiting\nkey", *_IN_USE, "tasks/s", "")
_BATCH_COLUMNS = ("batch", "done", "failed", "US$", "")
#: The columns that a narrow terminal goes without, first to last.
_DROP, _LIVE_DROP, _BATCH_DROP = (8, 1, 5, 7, 6, 4, 3, 2), (8, 4, 6, 7, 5, 3, 2, 1), (4, 3, 2, 1)
#: Characters of a batch's bar.
_BAR = 20
_COUNTS = ("running", "queued", "awaiting_key")
_SPARKS = "▁▂▃▄▅▆▇█"
#: Figures older than this many intervals are dimmed.
_OLD = 3
#: The most reasons for waiting that are shown for one host; an agent has about ten.
MOST_WAITS = 20
#: The provider's own address; any other is shown in a line.
_USUAL_UPSTREAM = "https://api.anthropic.com"


def row(name: str, status: dict[str, Any]) -> list[str]:
    """Return one host's cells, in the order of the columns."""
    about = [str(status.get(what, "?"))[:24] for what in ("version", "state")]
    return [name, *about, *_counts(status), *_slots(status), str(status.get("key") or _in_pots(status) or "none")[:24]]


def _in_pots(status: dict[str, Any]) -> str:
    """Return the pots whose keys the host has."""
    return ", ".join(pot["name"] for pot in status.get("pots") or [] if pot.get("key"))


def live_row(watch: HostWatch) -> list[str]:
    """Return one host's cells of the live table: name, state, counts, slots in use, tasks per second."""
    status = watch.status
    if status is None:
        return [watch.name, "no answer" if watch.error else "asking", *("" for _ in _LIVE_COLUMNS[3:])]
    state = "no answer" if watch.error else str(status.get("state", "?"))[:24]
    return [watch.name, state, *_counts(status), *_slots(status), f"{_rate(status):g}"]


def _counts(status: dict[str, Any]) -> list[str]:
    return [str(status.get(name, "?")) for name in _COUNTS]


def _slots(status: dict[str, Any]) -> list[str]:
    """Return the slots of each engine as used/total."""
    all_slots = status.get("slots") or {}
    each = [all_slots.get(engine) for engine in SLOTTED]
    return [f"{slots['total'] - slots['free']}/{slots['total']}" if slots else "?" for slots in each]


def _rate(status: dict[str, Any]) -> float:
    return float((status.get("throughput") or {}).get("per_s") or 0)


def notes(name: str, status: dict[str, Any]) -> list[str]:
    """Return the lines below the table: why tasks wait, the daily budget, metrics that do not get out, an
    unusual upstream."""
    lines = []
    for wait in (status.get("waiting") or [])[:MOST_WAITS]:
        until = wait.get("until")
        until_text = f", until {_moment(until)}" if isinstance(until, int | float) else ""
        tasks = counted(wait.get("tasks") or 0, "task waits", "tasks wait")
        lines.append(f"{name}: {tasks}: {wait.get('detail') or wait['reason']:.200}{until_text}")
    day = status.get("budget_day")
    if day:
        spent, limit = (money(pico_of(day[what])) for what in ("spent_usd", "limit_usd"))
        lines.append(f"{name}: {spent} of {limit} of the day's budget is spent")
    if late := pushed.trouble(status):
        lines.append(f"{name}: {late:.500}")
    upstream = str(status.get("upstream", _USUAL_UPSTREAM)).rstrip("/")
    if upstream != _USUAL_UPSTREAM:
        lines.append(f"{name} sends its requests to {upstream:.200}")
    return lines


def _moment(at: float) -> str:
    """Format the local time of day, with the date unless it is today's."""
    moment = datetime.fromtimestamp(at)
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def write_table(watches: Sequence[HostWatch]) -> None:
    """Print a table of the hosts that answer, with notes, and a line on stderr for each that does not."""
    answered = [(watch.name, watch.status) for watch in watches if watch.status is not None]
    if answered:
        rows = [[one_line(cell) for cell in row(name, status)] for name, status in answered]
        console = colour.console(sys.stdout)
        kept = kept_columns([_COLUMNS, *rows], console.width, _DROP)
        table = Table(*(_COLUMNS[one] for one in kept), box=None, pad_edge=False, header_style="bold")
        for cells in rows:
            table.add_row(*(Text(cells[one], overflow="fold") for one in kept))
        console.print(table)
    console = colour.console(sys.stdout, soft_wrap=True)
    for name, status in answered:
        rate = _rate(status)
        for line in [*([f"{name}: {rate:g} tasks end per second"] if rate else []), *notes(name, status)]:
            console.print(Text(one_line(line)))
    for watch in watches:
        if watch.error is not None:
            colour.console(sys.stderr, soft_wrap=True).print(Text(one_line(str(watch.error))))


def line(watch: HostWatch) -> str:
    """Return one line for a host that answers. For one that does not, print why on stderr and return ""."""
    if watch.error is not None:
        note(str(watch.error))
        return ""
    name, state, running, queued, awaiting, *slots, rate = live_row(watch)
    used = ", ".join(map(" ".join, zip(SLOTTED, slots, strict=True)))
    text = f"{name}: {state}, {running} running, {queued} queued, {awaiting} awaiting a key"
    return one_line(f"{text}, slots in use: {used}, {rate} tasks/s")


def spark(values: Iterable[float]) -> str:
    """Return the values as a line of bars, scaled to the highest one."""
    kept = list(values)
    most = max(kept, default=0.0)
    if most <= 0:
        return _SPARKS[0] * len(kept)
    return "".join(_SPARKS[round(value / most * (len(_SPARKS) - 1))] for value in kept)


def _total(watches: Sequence[HostWatch]) -> list[str]:
    """Return the cells of the sums over the hosts that answer."""
    known = [watch.status for watch in watches if watch.status is not None and watch.error is None]
    counts = [str(sum(int(status.get(name) or 0) for status in known)) for name in _COUNTS]
    slots = ("" for _ in SLOTTED)
    return ["all", f"{len(known)} of {len(watches)}", *counts, *slots, f"{sum(map(_rate, known)):g}"]


def today(watches: Sequence[HostWatch]) -> str:
    """Return what the hosts have spent today (UTC), and what is left of their budgets; "" if none of them says it."""
    known = [watch.status for watch in watches if watch.status is not None]
    spent = [status["spent_today_usd"] for status in known if status.get("spent_today_usd") is not None]
    days = [status["budget_day"] for status in known if status.get("budget_day")]
    if not spent:
        return ""
    text = f"today (UTC): {money(pico(sum(map(Decimal, map(str, spent)), Decimal(0))))} spent"
    if len(spent) < len(watches):
        text += f" on {len(spent)} of {counted(len(watches), 'host')}"
    if days:
        limit, gone = (
            sum((Decimal(str(day.get(name) or 0)) for day in days for name in names), Decimal(0))
            for names in (("limit_usd",), ("spent_usd", "reserved_usd"))
        )
        text += f", {money(pico(max(Decimal(0), limit - gone)))} left of {money(pico(limit))}"
        text += f" on {counted(len(days), 'host')}" if len(days) < len(watches) else ""
    return text


def batches(watches: Sequence[HostWatch]) -> list[list[str]]:
    """Return the rows of the unfinished batches: what all hosts were given of each, and have done."""
    sums: dict[str, Counter[str]] = {}
    for batch in (batch for watch in watches for batch in (watch.status or {}).get("batches") or []):
        one = sums.setdefault(one_line(str(batch["name"])), Counter())
        for name in ("tasks", "done", "failed"):
            one[name] += int(batch.get(name) or 0)
        one["pico"] += pico_of(batch.get("cost_usd") or 0)
    rows = []
    for name, one in sorted(sums.items()):
        full = _BAR * one["done"] // one["tasks"] if one["tasks"] else 0
        cells = [f"{one['done']:,} of {one['tasks']:,}", str(one["failed"]), money(one["pico"])[4:]]
        rows.append([name, *cells, "█" * full + "░" * (_BAR - full)])
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[Text]], width: int, drop: Sequence[int], left: int) -> Table:
    """Return a table of the columns that fit; the first `left` and the last are left-justified."""
    kept = kept_columns([head, *([cell.plain for cell in row] for row in rows)], width, drop)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for one in kept:
        right = left <= one < len(head) - 1
        table.add_column(head[one], justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(row[one] for one in kept))
    return table


def screen(watches: Sequence[HostWatch], interval: float, width: int = 80, pots: Sequence[str] = ()) -> RenderableType:
    """Return the whole live screen: the day's money, that in the pots, the hosts, the batches, and what waits."""

    def text(value: str, style: str = "") -> Text:
        return Text(one_line(value), style=style, overflow="fold")

    rows, now = [], time.monotonic()
    for watch in watches:
        late = watch.at and now - watch.at > _OLD * max(1.0, interval)
        style = "red" if watch.error else "dim" if late else ""
        rows.append([*(text(cell, style) for cell in live_row(watch)), text(spark(watch.per_s), "cyan")])
    if len(watches) > 1:
        rows.append([*(text(cell, "bold") for cell in _total(watches)), text("")])
    parts: list[RenderableType] = [
        text(f"farmhand status, {time.strftime('%H:%M:%S')}, every {interval:g} s; q ends", "dim")
    ]
    parts += [text(line, "bold") for line in filter(None, [today(watches), *pots])]
    parts += [Text(), _table(_LIVE_COLUMNS, rows, width, _LIVE_DROP, 2), Text()]
    if found := batches(watches):
        shown = [[*map(text, cells)] for cells in found]
        parts += [_table(_BATCH_COLUMNS, shown, width, _BATCH_DROP, 1), Text()]
    for watch in watches:
        below = [str(watch.error)] if watch.error is not None else notes(watch.name, watch.status or {})
        parts += map(text, below)
    return Group(*parts)
