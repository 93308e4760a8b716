"""The progress of `farmhand batch` on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from farmhand.cli import colour
from farmhand.cli.say import note
from farmhand.core.readable import dollars, duration, printable

#: The least time between two plain lines. Seconds.
LINE_EVERY_S = 5.0
#: So many characters of the bar stay on a narrow terminal.
_BAR = 4


class ProgressDisplay:
    """The batch's progress on stderr. `mode` is bar, lines or quiet: then it prints messages only.

    `on_wait` is told what the batch waits for ("": nothing that is worth it) as that changes: `farmhand.cli.mcp_job`.
    """

    on_wait: Callable[[str], None] = staticmethod(lambda _what: None)

    def __init__(self, mode: str = "quiet", total: int = 0) -> None:
        self._shown = -1
        self._waits = ""
        self._bar: Any = None
        self.begin(mode, total)

    def begin(self, mode: str, total: int) -> None:
        """Begin to show the progress of `total` tasks."""
        self.mode = mode
        self._began = self._line_at = time.monotonic()
        if mode == "bar":
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
            self._bar = Progress(*columns, console=colour.console(sys.stderr), transient=True)
            self._row = self._bar.add_task("batch", total=total, words="")
            self._bar.start()

    def words(self, now: dict[str, Any], room: int = 0) -> str:
        """Return the text beside the bar: failures, rate, cost, remaining time, and why the batch waits.

        With `room` the last of these are left out until the text fits.
        """
        took = time.monotonic() - self._began
        rate = now["finished_now"] / took if took > 0 else 0.0
        left = now["total"] - _finished(now)
        named = [
            f"{now['failed']} failed" if now["failed"] else "",
            f"{rate:.1f}/s",
            dollars(now["cost_usd"]),
            f"{duration(left / rate)} left" if rate and left else "",
            printable(str(now.get("waiting") or "")),
        ]
        parts = [part for part in named if part]
        while room and len(parts) > 1 and len(" · ".join(parts)) > room:
            parts.pop()
        return " · ".join(parts)

    def show(self, now: dict[str, Any]) -> None:
        """Draw these figures: in the bar, or as a line if it is time for one and the count has changed."""
        finished, waits = _finished(now), printable(str(now.get("waiting") or ""))
        if waits != self._waits:
            self._waits = waits
            self.on_wait(waits)
        if self._bar is not None:
            room = max(1, self._bar.console.width - len(f" {now['total']}/{now['total']} ") - _BAR)
            self._bar.update(self._row, completed=finished, words=self.words(now, room))
        elif self.mode == "lines" and time.monotonic() - self._line_at >= LINE_EVERY_S and finished != self._shown:
            self._line_at, self._shown = time.monotonic(), finished
            print(f"{finished} of {now['total']} · {self.words(now)}", file=sys.stderr, flush=True)  # noqa: T201

    def say(self, text: str) -> None:
        """Print a message, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False)
        else:
            note(text)

    def close(self) -> None:
        """Remove the bar and restore the terminal."""
        if self._bar is not None:
            self._bar.stop()


def _finished(now: dict[str, Any]) -> int:
    return int(now["succeeded"] + now["failed"] + now["cancelled"])
