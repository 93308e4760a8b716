"""What a running API knows and can be told: keys, faults, rules, latency, log, rate limits."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tests.support.messages_api.faults import Faults
from tests.support.messages_api.log import Log
from tests.support.messages_api.rules import Rules
from tests.support.messages_api.usage import PromptCache

DEFAULT_KEY = "sk-ant-test-loopback-0000000000000000"
#: Limits a minute that the headers tell of. They are not enforced; ask for a 429 with a fault.
LIMITS = {"requests": 4000, "tokens": 4_800_000, "input-tokens": 4_000_000, "output-tokens": 800_000}


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
    ) -> None:
        self.keys = frozenset(keys)
        self.keys_file = keys_file
        self._keys_seen = (0, 0)
        self.latency_s = latency_s
        self.event_s = event_s
        self.faults = Faults()
        self.rules = Rules()
        self.cache = PromptCache()
        self.log = Log(log_file)
        self._window = 0.0
        self._used = dict.fromkeys(LIMITS, 0)

    def current_keys(self) -> frozenset[str]:
        """The accepted keys. The file, one key a line, is read again whenever it has changed."""
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

    def use(self, input_tokens: int, output_tokens: int) -> None:
        """Count a request against the minute's limits."""
        self._roll()
        self._used["requests"] += 1
        self._used["input-tokens"] += input_tokens
        self._used["output-tokens"] += output_tokens
        self._used["tokens"] += input_tokens + output_tokens

    def _roll(self) -> None:
        if time.time() - self._window >= 60:
            self._window = time.time()
            self._used = dict.fromkeys(LIMITS, 0)

    def limit_headers(self) -> dict[str, str]:
        """The anthropic-ratelimit-* headers."""
        self._roll()
        reset = datetime.fromtimestamp(self._window + 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers: dict[str, str] = {}
        for name, limit in LIMITS.items():
            prefix = f"anthropic-ratelimit-{name}"
            headers[f"{prefix}-limit"] = str(limit)
            headers[f"{prefix}-remaining"] = str(max(0, limit - self._used[name]))
            headers[f"{prefix}-reset"] = reset
        return headers

    def reset(self) -> None:
        """Forget faults, rules, cache and log; set keys and latency to their defaults."""
        self.faults.clear()
        self.rules.clear()
        self.cache.clear()
        self.log.clear()
        self.keys = frozenset({DEFAULT_KEY})
        self._keys_seen = (0, 0)
        self.latency_s = self.event_s = 0.0
