"""`farmhand status`: the state of the farm hosts, once or live (`--watch`, also `farmhand top`)."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import termios
import time
import tty
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from farmhand.cli import colour, render, statusline
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.cli.verb import VerbResult, verb
from farmhand.cli.waiting import waits_for
from farmhand.core import settings
from farmhand.core.errors import UsageError
from farmhand.core.money import pico_of
from farmhand.offline.spool import open_spool
from farmhand.places import hosts
from farmhand.places.watch import HostWatch, ask_all, followed

#: The longest time between two redraws, so that the age of the figures is right. Seconds.
_DRAW_S = 0.5
_INTERVAL = click.FloatRange(0.2, 3600)


@verb("status", "place", "connect_timeout_s", json_help="Print one JSON object: hosts by name, and the queue here.")
@click.option("--host", metavar="HOST", help="Only this farm host.")
@click.option("--watch", is_flag=True, help="Show it live; q ends it. Into a pipe: one line for each host, once.")
@click.option("--interval", type=_INTERVAL, default=2.0, metavar="SECONDS", help="How often --watch asks. Default: 2.")
def command(conf: settings.Settings, *, as_json: bool, watch: bool, interval: float) -> VerbResult | int:
    """Show what the farm hosts are doing. The exit status is 0 if all could be asked."""
    if math.isnan(interval):
        raise UsageError("--interval nan: not a number of seconds", hint="2, or 0.5")
    known = hosts.known_hosts(conf)
    # --host shows only that host. The setting `host`, which is just a preference, does not hide the others.
    wanted = click.get_current_context().params["host"]
    chosen = known if wanted is None else {wanted: hosts.choose_host(known, wanted, conf.hosts_path)}
    watches = [HostWatch(name, entry, conf.connect_timeout_s) for name, entry in chosen.items()]
    if watch and not as_json and sys.stdout.isatty() and not colour.is_dumb():
        return _live(conf, watches, interval)
    with waits_for("connecting"):
        ask_all(watches)
    if wanted is None:
        statusline.keep(conf, {each.name: None if each.error else each.status for each in watches})
    kept = spooled(conf)
    shown = {each.name: render.error_object(each.error) if each.error else each.status for each in watches}
    errors = [each.error for each in watches if each.error is not None]

    def show() -> None:
        from farmhand.cli import status_view

        lines = spool_notes(kept)
        lines += pots_left(conf, watches)
        if watch:
            lines = list(filter(None, map(status_view.line, watches)))
        else:
            status_view.write_table(watches)
        for line in lines:
            render.write_bytes(line)

    return VerbResult({"hosts": shown, "spool": kept}, show, errors[-1].exit_code if errors else 0)


def pots_left(conf: settings.Settings, watches: Sequence[HostWatch]) -> list[str]:
    """Return a line for each pot: what is left by the ledgers of the hosts that tell, and which ones do not.

    A host that has started again tells it once it has the pot's key and funding, with the next task.
    """
    if not conf.pots:
        return []
    from farmhand.core import pots

    spent: Counter[str] = Counter()
    closed: dict[str, float | None] = {}
    silent = {pot.name: [watch.name for watch in watches] for pot in conf.pots}
    for host, pot in ((watch.name, pot) for watch in watches for pot in (watch.status or {}).get("pots") or []):
        spent[pot["name"]] += pico_of(pot.get("spent_usd") or 0)
        if pot.get("state") == "spent":
            closed[pot["name"]] = pot.get("api_closed_at") or closed.get(pot["name"])
        if "spent_usd" in pot and pot["name"] in silent:
            silent[pot["name"]].remove(host)
    return [
        f"{one.said}; not counted: {', '.join(untold)} (farmhand cost counts all hosts)"
        if (untold := silent[one.name])
        else one.said
        for one in pots.left(conf.pots, spent, time.time(), closed)
    ]


def spooled(conf: settings.Settings) -> list[dict[str, Any]]:
    """Count the spooled tasks of each hosts file: queued ones, and ones sent to a host."""
    spool = open_spool(conf)
    entries = [*spool.waiting(), *spool.elsewhere()]
    found = []
    for farm in sorted({entry.farm for entry in entries}):
        sent = [bool(entry.sent) for entry in entries if entry.farm == farm]
        found.append({"hosts_file": farm or None, "queued": sent.count(False), "sent": sent.count(True)})
    return found


def spool_notes(kept: list[dict[str, Any]]) -> list[str]:
    """Return a line for each hosts file that has spooled tasks here."""
    return [
        f"kept here for {settings.hosts_of(one['hosts_file'] or '')}: {one['queued']} queued,"
        f" {one['sent']} sent (farmhand flush shows them)"
        for one in kept
    ]


def _live(conf: settings.Settings, watches: list[HostWatch], interval: float) -> int:
    from rich.live import Live

    screen = Live(console=colour.console(sys.stdout), screen=True, auto_refresh=False)
    try:
        with Stoppable(), followed(watches, interval), screen, _keys() as pressed:
            while True:
                screen.update(_screen(conf, watches, interval, screen.console.width), refresh=True)
                if pressed(min(interval, _DRAW_S)) in ("q", "Q", "\x03", "\x1b"):
                    return 0
    except Stopped as stopped:
        return 0 if stopped.exit_code == 128 + signal.SIGINT else stopped.exit_code


def _screen(conf: settings.Settings, watches: list[HostWatch], interval: float, width: int) -> Any:
    from farmhand.cli import status_view

    return status_view.screen(watches, interval, width, pots_left(conf, watches))


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits up to a number of seconds for a key; without a terminal it only waits."""
    watched = [sys.stdin.fileno()] if sys.stdin is not None and sys.stdin.isatty() else []
    before = [termios.tcgetattr(number) for number in watched]

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select(watched, [], [], seconds)
        return os.read(ready[0], 1).decode("latin-1") if ready else ""

    for number in watched:
        tty.setcbreak(number)
    try:
        yield pressed
    finally:
        for number, mode in zip(watched, before, strict=True):
            termios.tcsetattr(number, termios.TCSADRAIN, mode)
