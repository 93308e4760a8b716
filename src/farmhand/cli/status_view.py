"""Output of `farmhand status`: a table, once or live, or a line for each host."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from farmhand.cli import colour
from farmhand.cli.say import note, one_line
from farmhand.core import pushed
from farmhand.core.engines import SLOTTED
from farmhand.core.plural import counted
from farmhand.places.watch import HostWatch

if TYPE_CHECKING:
    from rich.console import RenderableType

_FREE = tuple(f"{engine}\nfree" for engine in SLOTTED)
_COLUMNS = ("host", "agent", "state", "running", "queued", "awaiting\nkey", *_FREE, "key")
_LIVE_COLUMNS = ("host", "state", "running", "queued", "no key", *SLOTTED, "tasks/s", "")
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
    return [name, *about, *_counts(status), *_slots(status, "free"), str(status.get("key") or "none")[:24]]


def live_row(watch: HostWatch) -> list[str]:
    """Return one host's cells of the live table: name, state, counts, slots in use, tasks per second."""
    status = watch.status
    if status is None:
        return [watch.name, "no answer" if watch.error else "asking", *("" for _ in _LIVE_COLUMNS[3:])]
    state = "no answer" if watch.error else str(status.get("state", "?"))[:24]
    return [watch.name, state, *_counts(status), *_slots(status, "used"), f"{_rate(status):g}"]


def _counts(status: dict[str, Any]) -> list[str]:
    return [str(status.get(name, "?")) for name in _COUNTS]


def _slots(status: dict[str, Any], what: str) -> list[str]:
    """Return the slots of each engine as free/total or used/total."""
    cells = []
    for engine in SLOTTED:
        slots = (status.get("slots") or {}).get(engine)
        count = slots and (slots["free"] if what == "free" else slots["total"] - slots["free"])
        cells.append(f"{count}/{slots['total']}" if slots else "?")
    return cells


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
        lines.append(f"{name}: US$ {day['spent_usd']:.4f} of {day['limit_usd']:g} of the day's budget is spent")
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
        table = Table(*_COLUMNS, box=None, pad_edge=False, header_style="bold")
        for name, status in answered:
            table.add_row(*(Text(one_line(cell), no_wrap=True) for cell in row(name, status)))
        colour.console(sys.stdout).print(table)
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


def screen(watches: Sequence[HostWatch], interval: float) -> RenderableType:
    """Return the whole live screen."""

    def text(value: str, style: str = "") -> Text:
        return Text(one_line(value), style=style, overflow="ellipsis")

    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for number, head in enumerate(_LIVE_COLUMNS):
        table.add_column(head, justify="right" if 2 <= number < len(_LIVE_COLUMNS) - 1 else "left", no_wrap=True)
    now = time.monotonic()
    for watch in watches:
        late = watch.at and now - watch.at > _OLD * max(1.0, interval)
        style = "red" if watch.error else "dim" if late else ""
        table.add_row(*(text(cell, style) for cell in live_row(watch)), text(spark(watch.per_s), "cyan"))
    if len(watches) > 1:
        table.add_section()
        table.add_row(*(text(cell, "bold") for cell in _total(watches)), "")
    below = []
    for watch in watches:
        below += [str(watch.error)] if watch.error is not None else notes(watch.name, watch.status or {})
    title = text(f"farmhand status, {time.strftime('%H:%M:%S')}, every {interval:g} s; q ends", "dim")
    return Group(title, Text(), table, Text(), *map(text, below))
