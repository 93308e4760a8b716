"""What a running API knows and can be told: keys, faults, rules, latency, limits, batches, log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from tests.support.messages_api.admin_keys import KeyRing
from tests.support.messages_api.batches import Batches
from tests.support.messages_api.books import Books
from tests.support.messages_api.faults import Fault, Queue
from tests.support.messages_api.limits import Limits, RateLimits
from tests.support.messages_api.log import Log
from tests.support.messages_api.oauth import Federation, Tokens
from tests.support.messages_api.rules import Rules
from tests.support.messages_api.usage import PromptCache
from tests.support.messages_api.windows import Windows

DEFAULT_KEY = "sk-ant-test-loopback-0000000000000000"
DEFAULT_ADMIN_KEY = "sk-ant-admin01-test-loopback-0000000000000000"


class State:
    """Everything but the sockets."""

    def __init__(
        self,
        *,
        keys: Iterable[str] = (DEFAULT_KEY,),
        keys_file: Path | None = None,
        latency_s: float = 0.0,
        event_s: float = 0.0,
        log_file: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.keys = frozenset(keys)
        self.keys_file = keys_file
        self._keys_seen = (0, 0)
        self.latency_s = latency_s
        self.event_s = event_s
        self.hold(0.0)
        self.faults: Queue[Fault] = Queue()
        self.rules = Rules()
        self.cache = PromptCache()
        self.log = Log(log_file)
        self.admin_keys: frozenset[str] = frozenset({DEFAULT_ADMIN_KEY})
        self.key_ring = KeyRing()
        self.federation = Federation()
        self.tokens = Tokens()
        self.books = Books()
        self.log.on_close = self.books.add
        self.limits = RateLimits(limits)
        self.windows: Windows | None = None
        self.batches = Batches(self.rules, self.cache, self.log)

    def hold(self, per_s: float) -> None:
        """Hold the requests from now on: so many a second go on. 0 holds none."""
        self._per_s, self._turn_at = per_s, 0.0

    def turn_s(self) -> float:
        """How long the next request is held."""
        if not self._per_s:
            return 0.0
        now = time.monotonic()
        self._turn_at = max(self._turn_at, now) + 1 / self._per_s
        return self._turn_at - now

    def current_keys(self) -> frozenset[str]:
        """The accepted keys and tokens. The file, one key a line, is read again whenever it has changed."""
        return self._keys_now() | self.tokens.valid()

    def _keys_now(self) -> frozenset[str]:
        if self.keys_file is not None:
            try:
                stat = self.keys_file.stat()
            except FileNotFoundError:
                return frozenset()
            if (stat.st_mtime_ns, stat.st_size) != self._keys_seen:
                self._keys_seen = (stat.st_mtime_ns, stat.st_size)
                lines = (line.strip() for line in self.keys_file.read_text().splitlines())
                self.keys = frozenset(line for line in lines if line and not line.startswith("#"))
        return self.keys

    def reset(self) -> None:
        """Forget faults, rules, cache, batches, books and log; set keys, latency and limits to their defaults."""
        self.faults.clear()
        self.rules.clear()
        self.cache.clear()
        self.batches.clear()
        self.limits.set(None)
        self.windows = None
        self.log.clear()
        self.books.clear()
        self.key_ring.clear()
        self.federation = Federation()
        self.tokens.clear()
        self.admin_keys = frozenset({DEFAULT_ADMIN_KEY})
        self.keys = frozenset({DEFAULT_KEY})
        self._keys_seen = (0, 0)
        self.latency_s = self.event_s = 0.0
        self.hold(0.0)
