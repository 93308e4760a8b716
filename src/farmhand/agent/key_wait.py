"""Moves tasks between `queued` and `awaiting_key` as usable keys come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from farmhand.agent.context import RunContext
from farmhand.agent.store.commands import CHUNK
from farmhand.agent.store.damage import LedgerStuck
from farmhand.meter import Key

log = logging.getLogger("jada-agent")


class KeyWait:
    """Moves tasks in portions, so that a long queue does not delay other work. `moved` is called after each portion."""

    def __init__(self, context: RunContext, moved: Callable[[], None]) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._moved = moved
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._untidy = False

    def close(self) -> None:
        """Cancel the background work."""
        for job in self._jobs.values():
            job.cancel()

    def _begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if name not in self._jobs or self._jobs[name].done():
            self._jobs[name] = asyncio.create_task(work(), name=name)

    async def resume(self, key: Key) -> int:
        """Queue tasks that await a key, now with `key`. Return how many; a long queue continues in the background."""
        waiting = self._ledger.counts()["awaiting_key"]
        if waiting and self._keys.of(key.fingerprint) is not None:
            await self._resume_some(key)
        if waiting > CHUNK:
            self._begin("resume", self._resume_all)
        return waiting

    async def _resume_some(self, key: Key) -> int:
        some = await self._ledger.resume(key.fingerprint)
        self._moved()
        return some

    async def _resume_all(self) -> None:
        """Resume until no task is left or the key is refused."""
        try:
            while (key := self._keys.default) is not None and await self._resume_some(key):
                pass
        except LedgerStuck as error:
            log.error("%s; the rest waits until a key is brought again", error)

    def tidy(self) -> None:
        """Move tasks without a usable key to `awaiting_key`, in the background."""
        self._untidy = True
        self._begin("park", self._park)

    async def _park(self) -> None:
        keys, refusal = self._keys, self._keys.refusal
        if refusal is not None:
            log.warning("tasks wait: the API refused their key: %s (%s)", refusal.message, refusal.hint)
        try:
            while self._untidy:
                self._untidy = False
                while await self._ledger.park(keys.held, keys.unusable, default=keys.default is not None):
                    pass
        except LedgerStuck as error:
            log.error("%s", error)
        self._moved()
