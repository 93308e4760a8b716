"""`farmhand statusline`: one short line for a prompt, or for the claude CLI's status line. It waits for no host."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec

from farmhand.cli.verb import VerbResult, verb
from farmhand.core import files
from farmhand.core.money import pico
from farmhand.core.readable import counted, duration, money, printable
from farmhand.core.settings import Settings

#: Seconds: figures that are older are asked for again, behind the scenes; from the second age on, the age is shown.
_FRESH_S, _SHOWN_S = 30.0, 120.0
#: Seconds and bytes in which the CLI's JSON has to be on stdin.
_STDIN_S, _STDIN_BYTES = 0.1, 1_000_000
#: Windows of a plan, by the names that the CLI gives them. A limit of spending is no plan.
_WINDOWS = {"five_hour": "5 h", "seven_day": "7 days"}
_COUNTS = ("running", "queued", "awaiting_key")


class HostNote(msgspec.Struct):
    """What was last seen of a host; `spent_usd` and `left_usd` are of the day (UTC), None if the host does not say."""

    running: int = 0
    queued: int = 0
    awaiting_key: int = 0
    spent_usd: str | None = None
    left_usd: str | None = None


class StatusNote(msgspec.Struct):
    """What `farmhand status` last saw of the hosts of a hosts file (None: no answer), and when (Unix seconds)."""

    farm: str
    at: float
    hosts: dict[str, HostNote | None]


def _path(name: str) -> Path:
    return Path(files.xdg("XDG_STATE_HOME"), "farmhand", name)


def keep(conf: Settings, statuses: Mapping[str, dict[str, Any] | None]) -> None:
    """Keep what was seen of all hosts for the next status line. A file that cannot be written is nobody's loss."""
    hosts = {name: None if status is None else _host(status) for name, status in statuses.items()}
    path = _path("status.json")
    with suppress(OSError, ValueError, ArithmeticError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, msgspec.json.encode(StatusNote(str(conf.hosts_path), time.time(), hosts)), mode=0o600)


def _host(status: dict[str, Any]) -> HostNote:
    spent, day = status.get("spent_today_usd"), status.get("budget_day")
    left = None
    if day:
        gone = sum(Decimal(str(day.get(name) or 0)) for name in ("spent_usd", "reserved_usd"))
        left = str(max(Decimal(0), Decimal(str(day["limit_usd"])) - gone))
    counts = {name: int(status.get(name) or 0) for name in _COUNTS}
    return HostNote(**counts, spent_usd=None if spent is None else str(spent), left_usd=left)


@verb("statusline", json_help="Print one JSON object: the line, and what it is made of.")
@click.option("--no-refresh", is_flag=True, help="Do not have the hosts asked behind the scenes.")
def command(conf: Settings, *, as_json: bool, no_refresh: bool) -> VerbResult:
    """Print one short line: hosts, tasks, the day's money, and who pays for this claude where that is seen.

    It shows what `farmhand status` last saw, with its age, and never waits for a host: figures of more than 30 s are
    asked for again in the background. The claude CLI gives its session as JSON on stdin; without one that is left out.
    """
    note, now = _note(conf), time.time()
    if not no_refresh and (note is None or not 0 <= now - note.at < _FRESH_S):
        _refresh(conf)
    parts = [*_farm(note, now), *_session(_stdin())]
    width = shutil.get_terminal_size((1000, 1)).columns
    while len(parts) > 1 and len(" · ".join(parts)) > width:
        parts.pop()
    line = printable(" ".join(" · ".join(parts).split()))
    document: dict[str, Any] = {"line": line, "at": None if note is None else note.at, "hosts": {}}
    if note is not None:
        document["hosts"] = {name: host and msgspec.to_builtins(host) for name, host in note.hosts.items()}
    return VerbResult(document, line)


def _note(conf: Settings) -> StatusNote | None:
    """Return what is kept of this farm; None if there is nothing."""
    try:
        note = msgspec.json.decode(_path("status.json").read_bytes(), type=StatusNote)
    except (OSError, ValueError):
        return None
    return note if note.farm == str(conf.hosts_path) else None


def _farm(note: StatusNote | None, now: float) -> list[str]:
    if note is None:
        return ["farm: not asked yet"]
    up = [host for host in note.hosts.values() if host is not None]
    running, queued, awaiting = (sum(getattr(host, name) for host in up) for name in _COUNTS)
    down = len(note.hosts) - len(up)
    tasks = f"{running} running, {queued} queued" + (f", {awaiting} awaiting a key" if awaiting else "")
    parts = [f"farm: {tasks}" if up else "farm: no answer"]
    parts += [f"{counted(down, 'host')} down"] if down and up else []
    age = now - note.at
    # A day's money is of that day only.
    if int(note.at // 86400) == int(now // 86400):
        spent = [Decimal(host.spent_usd) for host in up if host.spent_usd is not None]
        left = [Decimal(host.left_usd) for host in up if host.left_usd is not None]
        said = f"today {money(pico(sum(spent, Decimal(0))))}" if spent else ""
        said += f", {money(pico(sum(left, Decimal(0))))} left" if left and said else ""
        parts += [said] if said else []
    return [*parts, f"{duration(age)} ago"] if age >= _SHOWN_S else parts


def _stdin() -> dict[str, Any]:
    """Return the CLI's session from stdin, {} if there is none: on a terminal, or not there in time."""
    if sys.stdin is None or sys.stdin.isatty():
        return {}
    data, until = b"", time.monotonic() + _STDIN_S
    with suppress(OSError, ValueError, RecursionError):
        number = sys.stdin.fileno()
        while len(data) < _STDIN_BYTES and select.select([number], [], [], max(0.0, until - time.monotonic()))[0]:
            if not (more := os.read(number, 65536)):
                break
            data += more
        found = msgspec.json.decode(data)
        return found if isinstance(found, dict) else {}
    return {}


def _session(session: dict[str, Any]) -> list[str]:
    """Return who pays for this claude, where it is seen: a plan's limits, or a key here. Else nothing is said."""
    limits = session.get("rate_limits")
    limits = limits if isinstance(limits, dict) else {}
    used, most = [], 0.0
    for name, said in _WINDOWS.items():
        window = limits.get(name)
        if isinstance(window, dict) and isinstance(ends := window.get("resets_at"), int | float) and ends < time.time():
            continue  # it has begun again since, and nothing is known of the new one
        share = window.get("used_percentage") if isinstance(window, dict) else None
        if isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1000:
            used.append(f"{said}: {share:.0f} %")
            most = max(most, share)
    if used:
        # Nothing that a hook says is shown when a plan reaches its limit; this line is.
        says = "your plan pays ({})" if most < 100 else "your plan is used up ({}): ! claude-cheap goes on"
        return [says.format(", ".join(used))]
    return ["a metered key is set in this shell"] if os.environ.get("ANTHROPIC_API_KEY") else []


def _refresh(conf: Settings) -> None:
    """Have `farmhand status` ask the hosts, in a process of its own; once in 30 s at the most."""
    mark = _path("status.asked")
    with suppress(OSError):
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if mark.exists() and 0 <= time.time() - mark.stat().st_mtime < _FRESH_S:
            return
        mark.touch(mode=0o600)
        config = ["--config", str(conf.config_file)] if Path(conf.config_file).exists() else []
        subprocess.Popen(
            [sys.executable, "-c", "from farmhand.cli import main; main()", "status", "--json", *config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
