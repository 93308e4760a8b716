"""`farmhand top`: what all farm hosts do, again and again, until q."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

from farmhand.cli import render, top_view
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.core import settings
from farmhand.core.errors import FarmhandError, UsageError, WireError
from farmhand.places import hosts
from farmhand.wire import problems
from farmhand.wire.client import Client

#: Samples of a host's throughput that are drawn.
HISTORY = 24
#: How often the screen is drawn at least, so that the age of the figures is right. Seconds.
_DRAW_S = 0.5
#: How long the end waits for a host that is being asked. Seconds.
_LEAVE_S = 1.0


@click.command("top", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--interval", type=click.FloatRange(0.2, 3600), default=2.0, metavar="SECONDS", help="Default: 2.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, once, as farmhand status does.")
@click.option("--host", metavar="NAME", help="Only this farm host.")
@click.option("--connect-timeout", type=float, metavar="SECONDS", help="How long reaching a farm host may take.")
@click.option("--config", metavar="FILE", help="The settings file.")
def command(interval: float, as_json: bool, host: str | None, connect_timeout: float | None, config: str | None) -> int:
    """Show what the farm hosts are doing, live; q ends it. Into a pipe: one line for each host, once."""
    try:
        if math.isnan(interval):
            raise UsageError("--interval nan: not a number of seconds", hint="2, or 0.5")
        conf = settings.load(config, host=host, connect_timeout_s=connect_timeout)
        known = hosts.load_hosts(conf.hosts_path)
        chosen = known if host is None else {host: hosts.choose_host(known, host, conf.hosts_path)}
    except FarmhandError as error:
        if as_json:
            render.write_json(render.error_object(error))
        raise
    watches = [HostWatch(name, entry, conf.connect_timeout_s) for name, entry in chosen.items()]
    if as_json or not sys.stdout.isatty():
        return _once(watches, as_json)
    return _live(watches, interval)


@dataclass
class HostWatch:
    """One host: what it said last, when, and why it does not answer now. Its connection is kept between calls."""

    name: str
    host: hosts.Host
    connect_timeout_s: float
    status: dict[str, Any] | None = None
    at: float = 0.0
    error: FarmhandError | None = None
    per_s: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _client: Client | None = None

    def ask(self) -> None:
        """Ask once."""
        try:
            if self._client is None:
                self._client = Client(self.host.transport(self.connect_timeout_s))
            self.status = self._client.status()
        except WireError as error:
            self.close()
            self.error = problems.from_wire(error, self.name)
            return
        self.at, self.error = time.monotonic(), None
        self.per_s.append(float((self.status.get("throughput") or {}).get("per_s") or 0.0))

    def follow(self, interval: float, stop: threading.Event) -> None:
        """Ask again and again until `stop`."""
        while not stop.is_set():
            self.ask()
            stop.wait(interval)
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


@contextmanager
def _followed(watches: list[HostWatch], interval: float) -> Iterator[None]:
    """Each host is asked by a thread of its own: one that does not answer holds up no other, nor the screen."""
    stop = threading.Event()
    threads = [threading.Thread(target=watch.follow, args=(interval, stop), daemon=True) for watch in watches]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        until = time.monotonic() + _LEAVE_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _once(watches: list[HostWatch], as_json: bool) -> int:
    """A line for each host, or one object."""
    threads = [threading.Thread(target=watch.ask, daemon=True) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for watch in watches:
        watch.close()
        if not as_json:
            top_view.plain(watch)
    if as_json:
        shown = {watch.name: render.error_object(watch.error) if watch.error else watch.status for watch in watches}
        render.write_json({"hosts": shown})
    errors = [watch.error for watch in watches if watch.error is not None]
    return errors[-1].exit_code if errors else 0


def _live(watches: list[HostWatch], interval: float) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    try:
        with (
            Stoppable(),
            _followed(watches, interval),
            Live(console=console, screen=True, auto_refresh=False) as live,
            _keys() as pressed,
        ):
            while True:
                live.update(top_view.screen(watches, interval), refresh=True)
                if pressed(min(interval, _DRAW_S)) in ("q", "Q", "\x03", "\x1b"):
                    return 0
    except Stopped as stopped:
        return 0 if stopped.exit_code == 128 + signal.SIGINT else stopped.exit_code


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key; without a keyboard it only waits."""

    def wait(seconds: float) -> str:
        if not has_keys:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([number], [], [], seconds)
        return os.read(number, 1).decode("latin-1") if ready else ""

    has_keys = sys.stdin is not None and sys.stdin.isatty()
    if not has_keys:
        yield wait
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield wait
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
