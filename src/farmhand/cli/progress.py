"""Progress of a batch on stderr: a bar on a terminal, a line every few seconds elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Any

from farmhand.cli.say import note, printable

#: The least time between two plain lines. Seconds.
LINE_EVERY_S = 5.0


def dollars(usd: float) -> str:
    """Format an amount with four decimals, or more if four would show almost nothing."""
    if usd and usd < 0.001:
        return f"${usd:.2g}" if usd < 1e-6 else f"${usd:.6f}"
    return f"${usd:.4f}"


def clock(seconds: float) -> str:
    """Format a remaining time: 42 s, 3:07, 1:02:09."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{whole % 60:02d}"


def summary(whole: dict[str, Any]) -> str:
    """Return the last line: counts, cost, time and rate."""
    counts = f"{whole['total']} tasks: {whole['done']} done, {whole['failed']} failed, {whole['cancelled']} cancelled"
    if whole["left"]:
        counts += f", {whole['left']} left"
    unpriced = f" ({whole['unpriced']} unpriced)" if whole["unpriced"] else ""
    parts = [
        counts,
        dollars(whole["cost_usd"]) + unpriced,
        f"{whole['seconds']:.1f} s",
        f"{whole['per_s']:.1f} tasks/s",
    ]
    if whole["twice"]:
        parts.insert(2, f"{whole['twice']} ran twice, {dollars(whole['twice_usd'])} of it")
    if whole["uncertain"]:
        parts.insert(2, f"{whole['uncertain']} requests may have cost something besides")
    return " · ".join(parts)


class ProgressDisplay:
    """The batch's progress on stderr. `mode` is bar, lines or quiet. `update` takes new figures, `tick` draws them."""

    def __init__(self, mode: str, standing: dict[str, Any]) -> None:
        self.mode = mode
        self._standing = standing
        self._began = time.monotonic()
        self._line_at = self._began
        self._shown: object = None
        self._bar: Any = None
        self._row: Any = None
        if mode == "bar":
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._row = self._bar.add_task("batch", total=standing["total"], words="")
            self._bar.start()

    def update(self, standing: dict[str, Any]) -> None:
        """Store new figures; `tick` draws them."""
        self._standing = standing

    def words(self) -> str:
        """Return the text beside the bar: failures, rate, cost, remaining time, and why the batch waits."""
        now = self._standing
        took = time.monotonic() - self._began
        rate = now["finished_now"] / took if took > 0 else 0.0
        parts = [f"{rate:.1f}/s", dollars(now["cost_usd"])]
        if now["failed"]:
            parts.insert(0, f"{now['failed']} failed")
        left = now["total"] - now["succeeded"] - now["failed"] - now["cancelled"]
        if rate and left:
            parts.append(f"ETA {clock(left / rate)}")
        if now.get("waiting"):
            parts.append(printable(str(now["waiting"])))
        return " · ".join(parts)

    def tick(self) -> None:
        """Draw the bar, or print a line if it is time for one and the count has changed."""
        now = self._standing
        finished = now["succeeded"] + now["failed"] + now["cancelled"]
        if self._bar is not None:
            self._bar.update(self._row, completed=finished, words=self.words())
        elif self.mode == "lines" and time.monotonic() - self._line_at >= LINE_EVERY_S and finished != self._shown:
            self._line_at, self._shown = time.monotonic(), finished
            print(f"{finished} of {now['total']} · {self.words()}", file=sys.stderr, flush=True)  # noqa: T201

    def say(self, text: str) -> None:
        """Print a message, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False)
        else:
            note(text)

    def close(self) -> None:
        """Remove the bar and restore the terminal."""
        if self._bar is not None:
            self.tick()
            self._bar.stop()
            self._bar = None
