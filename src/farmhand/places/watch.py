"""Polling of farm hosts' status, once or repeatedly."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from farmhand.core.errors import FarmhandError, WireError
from farmhand.places.hosts import Host
from farmhand.wire.client import Client

#: The number of samples of a host's throughput that are drawn.
HISTORY = 24
#: Seconds to wait at the end for a host that is being polled.
_LEAVE_S = 1.0


@dataclass
class HostWatch:
    """One host: its last status, the time of that status, and its current error. Its connection is kept open."""

    name: str
    host: Host
    connect_timeout_s: float
    status: dict[str, Any] | None = None
    at: float = 0.0
    error: FarmhandError | None = None
    per_s: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _client: Client | None = None

    def ask(self) -> None:
        """Request the status once."""
        try:
            if self._client is None:
                self._client = Client(self.host.transport(self.connect_timeout_s))
            self.status = self._client.status()
        except WireError as error:
            self.close()
            self.error = error.at(self.name)
        else:
            self.at, self.error = time.monotonic(), None
            self.per_s.append(float((self.status.get("throughput") or {}).get("per_s") or 0.0))

    def follow(self, interval: float, stop: threading.Event) -> None:
        """Request the status every `interval` seconds until `stop` is set."""
        with contextlib.closing(self):
            while not stop.is_set():
                self.ask()
                stop.wait(interval)

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


def ask_all(watches: Sequence[HostWatch]) -> None:
    """Poll all hosts in parallel, so that a slow one does not delay the others."""

    def ask(watch: HostWatch) -> None:
        with contextlib.closing(watch):
            watch.ask()

    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(ask, watches))


@contextlib.contextmanager
def followed(watches: Sequence[HostWatch], interval: float) -> Iterator[None]:
    """Poll each host in its own thread, so that a silent one delays neither the others nor the caller."""
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
