"""Seeing Message Batches to their end: how they stand, what is cancelled, and one whose creation was never answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from farmhand.agent.context import RunContext
from farmhand.agent.engines.message_batches_results import MessageBatchResults
from farmhand.agent.store.ledger import STUCK_S, AttemptEnd, LedgerDamaged, LedgerStuck, insist
from farmhand.agent.store.outbox import MessageBatchStore, SentBatch
from farmhand.core.task import State
from farmhand.meter import ApiError, Key, RetryPolicy
from farmhand.meter.message_batches import MessageBatches, MessageBatchView

log = logging.getLogger("jada-agent")
#: How far the provider's clock may be off, and how long a lost answer may have been under way. Seconds.
_AROUND_S = 900.0
_FIRST_POLL_S = 1.0
#: How soon it is looked whether there is a key again.
_KEYLESS_S = 0.2
#: A batch that the provider does not know is asked for this often before it counts as lost: an early 404 may pass.
_LOST_AFTER = 10
T = TypeVar("T")
#: Between two tries of what the provider refuses for the moment.
RETRY = RetryPolicy(base_s=1.0, cap_s=60.0)


class BatchWatcher:
    """Any number of batches. `news` is called when tasks may go out again, `key_refused` after a refused key."""

    def __init__(
        self,
        room: RunContext,
        provider: MessageBatches,
        outbox: MessageBatchStore,
        results: MessageBatchResults,
        *,
        news: Callable[[], None],
        key_refused: Callable[[], None],
    ) -> None:
        self._room = room
        self._provider = provider
        self._outbox = outbox
        self._results = results
        self._news = news
        self._key_refused = key_refused
        self._poll_s = room.config.economy_poll_s

    async def watch(self, sent: SentBatch) -> None:
        """See a batch to its end, and record what became of its requests."""
        foreign: set[str] = set()
        batch_id = sent.id
        while True:
            if not sent.id:
                found = await self._find(sent, foreign)
                if found is None:
                    self._results.drop(self._outbox.out(sent.no))
                    end = AttemptEnd(outcome="parked", price_version=self._room.prices.version)
                    await insist(partial(self._outbox.take_back, sent.no, end, self._waiting_state(sent)))
                    self._news()
                    return
                batch_id = found
            if await self._to_its_end(sent, batch_id):
                break
            foreign.add(batch_id)
        await insist(partial(self._outbox.ended, sent.no))
        self._news()

    def _waiting_state(self, sent: SentBatch) -> State:
        return "queued" if self._room.keys.of(sent.key_fingerprint) is not None else "awaiting_key"

    async def _find(self, sent: SentBatch, foreign: set[str]) -> str | None:
        """The id of a batch that may be this one, whose answer was lost: of its size, made at its time, not ours yet.

        Only its results show for sure: see `MessageBatchResults.collect`. None: the provider has none, asked twice.
        """
        for turn in range(2):
            views = await self._ask(sent, lambda key: self._provider.newest(key, sent.created_at - _AROUND_S))
            known = self._outbox.known() | foreign
            for view in reversed(views or []):
                late = view.created > sent.created_at + _AROUND_S
                if view.id not in known and view.requests == sent.requests and not late:
                    return view.id
            if not turn:
                await asyncio.sleep(self._poll_s)
        return None

    async def _to_its_end(self, sent: SentBatch, batch_id: str) -> bool:
        """Wait for the batch's end and collect its results. False: it is not ours."""
        pause, told = _FIRST_POLL_S, sent.cancelled
        while True:
            view = await self._ask(sent, lambda key: self._provider.retrieve(key, batch_id))
            if view is None:
                await insist(partial(self._results.lost, sent.no))
                return True
            if view.ended:
                break
            if sent.id and not told and not self._outbox.wanted(sent.no):
                await self._ask(sent, lambda key: self._cancel(key, batch_id))
                await insist(partial(self._outbox.cancelled, sent.no))
                told, pause = True, _FIRST_POLL_S
                continue
            pause = min(pause, self._poll_s)
            await self._pause(sent, pause, watch_for_cancel=not told)
            pause *= 1.5
        ours = await self._ask(sent, lambda key: self._results.collect(sent, self._provider.results(key, batch_id)))
        if ours is None:
            await insist(partial(self._results.lost, sent.no))
        return ours is not False

    async def _cancel(self, key: Key, batch_id: str) -> MessageBatchView:
        try:
            return await self._provider.cancel(key, batch_id)
        except ApiError as problem:
            if problem.status == 400:
                # It ended in that moment.
                return await self._provider.retrieve(key, batch_id)
            raise

    async def _pause(self, sent: SentBatch, seconds: float, *, watch_for_cancel: bool) -> None:
        """Wait, or less where nobody waits for the batch any more."""
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 1.0))
            if watch_for_cancel and not self._outbox.wanted(sent.no):
                return

    async def _ask(self, sent: SentBatch, call: Callable[[Key], Coroutine[Any, Any, T]]) -> T | None:
        """What `call` brings, as often as it takes; None where the provider does not know the batch (any more)."""
        attempt = unknown = 0
        while True:
            key = self._room.keys.of(sent.key_fingerprint) or self._room.keys.default
            if key is None:
                await asyncio.sleep(_KEYLESS_S)
                continue
            try:
                return await call(key)
            except LedgerDamaged:
                raise
            except LedgerStuck as error:
                log.error("%s; trying again", error)
                delay = STUCK_S
            except ApiError as problem:
                attempt += 1
                if problem.parks_key:
                    self._room.keys.refuse(key, problem)
                    self._key_refused()
                    continue
                if problem.status == 404:
                    unknown += 1
                    if unknown >= _LOST_AFTER:
                        return None
                log.warning("Message Batch %s: %s", sent.id or "(looked for)", problem.message)
                delay = max(min(self._poll_s, RETRY.delay_s(attempt, None)), problem.retry_after_s or 0.0)
            await asyncio.sleep(delay)
