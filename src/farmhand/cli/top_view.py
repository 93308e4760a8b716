"""What `farmhand top` shows: a row for each host, their sum, and why tasks wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from farmhand.cli.say import note, one_line
from farmhand.cli.status import notes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from farmhand.cli.top import HostWatch

_COUNTS = ("running", "queued", "awaiting_key")
_SPARKS = "▁▂▃▄▅▆▇█"
#: Figures older than so many intervals are marked.
_OLD = 3


def spark(values: Iterable[float]) -> str:
    """The values as a line of bars, the highest one full."""
    kept = list(values)
    most = max(kept, default=0.0)
    if most <= 0:
        return _SPARKS[0] * len(kept)
    return "".join(_SPARKS[round(value / most * (len(_SPARKS) - 1))] for value in kept)


def _slots(status: dict[str, Any], engine: str) -> str:
    slots = (status.get("slots") or {}).get(engine)
    return f"{slots['total'] - slots['free']}/{slots['total']}" if slots else "?"


def cells(watch: HostWatch) -> list[str]:
    """One host's cells: name, state, counts, slots in use, tasks a second."""
    status = watch.status
    if status is None:
        return [watch.name, "no answer" if watch.error else "asking", *("",) * 6]
    state = "no answer" if watch.error else str(status.get("state", "?"))[:24]
    counts = [str(status.get(name, "?")) for name in _COUNTS]
    rate = (status.get("throughput") or {}).get("per_s") or 0
    return [watch.name, state, *counts, _slots(status, "api"), _slots(status, "cli"), f"{rate:g}"]


def total(watches: Sequence[HostWatch]) -> list[str]:
    """The sums over the hosts that answer."""
    known = [watch.status for watch in watches if watch.status is not None and watch.error is None]
    counts = [str(sum(int(status.get(name) or 0) for status in known)) for name in _COUNTS]
    rate = sum(float((status.get("throughput") or {}).get("per_s") or 0) for status in known)
    return ["all", f"{len(known)} of {len(watches)}", *counts, "", "", f"{rate:g}"]


def lines(watch: HostWatch) -> list[str]:
    """What is worth a line each: why tasks wait, the day's budget, why the host does not answer."""
    if watch.error is not None:
        return [str(watch.error)]
    rate = f"{watch.name}: "
    said = [] if watch.status is None else notes(watch.name, watch.status)
    return [line for line in said if not (line.startswith(rate) and line.endswith("tasks end per second"))]


def plain(watch: HostWatch) -> None:
    """One line to stdout; why a host does not answer to stderr."""
    if watch.error is not None:
        note(str(watch.error))
        return
    name, state, running, queued, awaiting, api, cli, rate = cells(watch)
    text = f"{name}: {state}, {running} running, {queued} queued, {awaiting} awaiting a key"
    text += f", slots in use: api {api}, cli {cli}, {rate} tasks/s"
    sys.stdout.write(one_line(text) + "\n")


def screen(watches: Sequence[HostWatch], interval: float) -> RenderableType:
    """The whole screen."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def text(value: str, style: str = "") -> Text:
        return Text(one_line(value), style=style, overflow="ellipsis")

    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for number, head in enumerate(("host", "state", "running", "queued", "no key", "api", "cli", "tasks/s", "")):
        table.add_column(head, justify="right" if 2 <= number <= 7 else "left", no_wrap=True)
    now = time.monotonic()
    for watch in watches:
        late = watch.error is not None or (watch.at and now - watch.at > _OLD * max(1.0, interval))
        style = "red" if watch.error else "dim" if late else ""
        table.add_row(*(text(cell, style) for cell in cells(watch)), text(spark(watch.per_s), "cyan"))
    if len(watches) > 1:
        table.add_section()
        table.add_row(*(text(cell, "bold") for cell in total(watches)), "")
    below = [text(line) for watch in watches for line in lines(watch)]
    clock = time.strftime("%H:%M:%S")
    title = text(f"farmhand top, {clock}, every {interval:g} s; q ends", "dim")
    return Group(title, Text(), table, Text(), *below)
