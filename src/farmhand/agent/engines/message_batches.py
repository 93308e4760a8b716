"""The economy engine: sends many tasks together as Message Batches, at half price, answered within 24 hours.

All state is in the ledger, so a restart continues where the last run stopped. Economy tasks hold no slot and have no
timeout: the provider decides when they run. A task that was sent is `running`; one that is cancelled meanwhile is final
at once, and any later cost is recorded with the end of its attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import msgspec

from farmhand.agent.context import RunContext
from farmhand.agent.engines import failure
from farmhand.agent.engines.message_batches_results import MessageBatchResults
from farmhand.agent.pots import Pot
from farmhand.agent.store.damage import LedgerDamaged
from farmhand.agent.store.ledger import insist
from farmhand.agent.store.outbox import MessageBatchStore, SentBatch
from farmhand.agent.store.queries import QueuedTask
from farmhand.core.request_body import request_body
from farmhand.core.task import Task, resolve_model
from farmhand.core.terms import DEAREST
from farmhand.meter import policy, reserve
from farmhand.meter.budget import Budget, BudgetSpent, Reservation
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Key
from farmhand.meter.message_batches import MessageBatches
from farmhand.meter.meter import RetryPolicy

log = logging.getLogger("jada-agent")
T = TypeVar("T")
#: Limits of one Message Batch: small enough that the ledger takes it in one step and that it fits in memory.
MOST_REQUESTS = 2000
MOST_BYTES = 16 * 1024 * 1024
#: Delays between retries after a transient refusal of the provider.
_RETRY = RetryPolicy(base_s=1.0, cap_s=60.0)
#: Statuses after which the batch certainly was not created. After any other, or no answer, the agent searches for it.
_NOT_MADE = frozenset({400, 401, 402, 403, 404, 413, 429, 529})
#: Delay before reacting to scheduler events, which come with every ended task, and before looking for a key again.
_CALM_S = 0.2
#: Tolerance in seconds for a difference of the provider's clock and for the time that a lost answer took.
_AROUND_S = 900.0
_FIRST_POLL_S = 1.0
#: Number of 404 answers before a batch counts as lost: an early 404 may be transient.
_LOST_AFTER = 10


class MessageBatchesEngine:
    """The engine that takes economy tasks from the ledger's queue and records their results there. Call `start` first.

    Waiting tasks are collected for a moment and sent as one Message Batch per key, pot and Farmhand batch. Each has a
    watcher that polls its status and, once it has ended, records its results. `key_refused` is called when the API has
    refused a key.
    """

    def __init__(self, context: RunContext, provider: MessageBatches, key_refused: Callable[[], None]) -> None:
        self._context = context
        self._ledger = context.ledger
        self._pots = context.pots
        self._provider = provider
        self.store = MessageBatchStore(context.ledger)
        self._results = MessageBatchResults(context, self.store, key_refused)
        self._poll_s = context.config.economy_poll_s
        self._news = asyncio.Event()
        self._work: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Resume watching open batches, and send waiting tasks while tasks may start."""
        for sent in self.store.unended():
            self._spawn(self._watch(sent))
        self._spawn(self._send_all())

    async def close(self) -> None:
        """Stop the background work and leave all state as it is; the next start continues."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def wake(self) -> None:
        """Look for work again: tasks were queued or cancelled, a key came, or the drain changed. Return at once."""
        self._news.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="economy")
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, LedgerDamaged):
            # After a restart everything is still in the ledger; the other batches continue.
            log.error("economy: %s", type(error).__name__, exc_info=error)

    # --- sending --------------------------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        attempt = 0
        while True:
            self._news.clear()
            if not (self._context.may_start and self._next()):
                await self._news.wait()
                await asyncio.sleep(_CALM_S)
                continue
            await self._gather()
            try:
                if (found := self._next()) is not None:
                    await self._send(*found)
                attempt = 0
            except ApiError as problem:
                attempt += 1
                log.warning("a Message Batch was not taken: %s", problem.message)
                await asyncio.sleep(_RETRY.delay_s(attempt, problem.retry_after_s))

    async def _gather(self) -> None:
        """Wait until no more tasks arrive."""
        before = -1
        for _ in range(5):
            count = self.store.queued(None)
            if count == before or count >= MOST_REQUESTS:
                return
            before = count
            await asyncio.sleep(self._context.config.economy_linger_s)

    def _next(self) -> tuple[Pot, Key, list[QueuedTask]] | None:
        """Return the first queued tasks that can be sent together: those of one Farmhand batch, on one key."""
        line = self._ledger.line("economy", MOST_REQUESTS)
        found = ((*self._pots.key(task.pot, task.key_fingerprint), task) for task in line)
        keyed = [(pot, key, task) for pot, key, task in found if key is not None]
        if not keyed:
            return None
        pot, key, first = keyed[0]
        if pot.keys.on_trial(key):
            # One task tests whether the key is accepted again.
            return pot, key, [first]
        return pot, key, [task for _, one, task in keyed if one is key and task.batch == first.batch]

    async def _send(self, pot: Pot, key: Key, portion: list[QueuedTask]) -> None:
        """Send as much of `portion` as fits into one Message Batch. Raise ApiError if it is transient."""
        bodies: dict[int, bytes] = {}
        reserved: dict[int, Reservation] = {}
        most_pico: dict[int, int | None] = {}
        registry, size = self._context.registry, 0
        for waiting in portion:
            task = self._ledger.spec(waiting.seq)
            body = msgspec.json.encode(request_body(task, resolve_model(task.model)))
            size += len(body)
            if bodies and size > MOST_BYTES:
                break
            limits = self._context.budgets.of(task, pot.budget)
            try:
                most = self._most(task, body, limits)
                if not pot.budget.fits(most or 0):
                    break  # once what is out has come back
                reserved[waiting.seq] = Reservation(limits, most or 0)
            except ApiError as problem:
                if pot.stops(key, problem):
                    self._results.key_refused()
                    break
                if await insist(partial(self._ledger.end, waiting.seq, None, failure(waiting.id, problem))):
                    registry.done(waiting.batch, waiting.id)
                continue
            bodies[waiting.seq], most_pico[waiting.seq] = body, most
        sent, out = await insist(partial(self.store.begin, most_pico, key.fingerprint, pot.name))
        for one in out:
            self._results.reserved[one.seq, one.number] = reserved.pop(one.seq)
            registry.publish(one.task_id, registry.state_event("running"))
        for unused in reserved.values():
            unused.settle(0)
        if not out:
            return
        try:
            view = await self._provider.create(key, [(self.store.custom_id(one), bodies[one.seq]) for one in out])
        except ApiError as problem:
            if problem.status in _NOT_MADE:
                await self._not_made(sent, key, problem)
                return
            log.warning("no answer to a new Message Batch, which is looked for: %s", problem.message)
        else:
            pot.keys.prove(key)
            # No one else handles this batch before the next start, so wait for disk space if the disk is full.
            await insist(partial(self.store.opened, sent.no, view.id))
            log.info("Message Batch %s: %d tasks", view.id, len(out))
            sent = replace(sent, id=view.id)
        self._spawn(self._watch(sent))

    def _most(self, task: Task, body: bytes, budgets: tuple[Budget, ...]) -> int | None:
        """Return the worst-case cost in pico-dollars. Raise BudgetSpent if a budget limits it and has no room."""
        model = resolve_model(task.model)
        request = policy.read(body, model=model, max_tokens=task.max_tokens)
        price = partial(self._context.prices.cost, model, terms=DEAREST, economy=True)
        most = reserve.cost(request, price)
        limits = [budget for budget in budgets if budget.limit_pico is not None]
        if request.tokens is None and limits:
            raise BudgetSpent("only the API knows a PDF's tokens, and with --economy it is not asked: leave one out")
        if most is None and limits:
            name = limits[0].name
            raise BudgetSpent(f"the price of {task.model} is not known: the budget of the {name} has no room for it")
        for budget in limits:
            if most is not None and not budget.may_fit(most):
                room = (budget.limit_pico or 0) - budget.spent_pico
                raise budget.spent(most, reserve.longest(request, price, room))
        return most

    async def _not_made(self, sent: SentBatch, key: Key, problem: ApiError) -> None:
        """Handle a refusal of the batch. Raise `problem` if it is transient."""
        if problem.rejects_key:
            self._results.refuse(sent, key, problem)
        if problem.rejects_key or problem.retryable:
            await insist(partial(self._results.take_back, sent))
        else:
            await insist(partial(self._results.fail, sent.no, problem))
        await insist(partial(self.store.ended, sent.no))
        if problem.retryable:
            raise problem

    # --- watching -------------------------------------------------------------------------------------------------

    async def _watch(self, sent: SentBatch) -> None:
        """Watch a batch until it ends, and record the outcome of its requests."""
        foreign: set[str] = set()
        while True:
            batch_id = sent.id or await self._find(sent, foreign)
            if batch_id is None:
                await insist(partial(self._results.take_back, sent))
                break
            if await self._to_its_end(sent, batch_id):
                break
            foreign.add(batch_id)
        await insist(partial(self.store.ended, sent.no))
        self.wake()

    async def _find(self, sent: SentBatch, foreign: set[str]) -> str | None:
        """Return the id of a batch that may be this one, after the answer to its creation was lost.

        It has the same size and about the same creation time, and is not known here. Only its results give certainty:
        see `MessageBatchResults.collect`. Return None if the provider has none in two queries.
        """
        for turn in range(2):
            if turn:
                await asyncio.sleep(self._poll_s)
            views = await self._ask(sent, lambda key: self._provider.newest(key, sent.created_at - _AROUND_S))
            known = self.store.known() | foreign
            for view in reversed(views or []):
                late = view.created > sent.created_at + _AROUND_S
                if view.id not in known and view.requests == sent.requests and not late:
                    return view.id
        return None

    async def _to_its_end(self, sent: SentBatch, batch_id: str) -> bool:
        """Wait for the batch's end and collect its results. Return False if the batch is not this agent's."""
        loop, first_s = asyncio.get_running_loop(), min(_FIRST_POLL_S, self._poll_s)
        pause_s, cancelled = first_s, bool(sent.cancelled)
        provider, collect = self._provider, self._results.collect
        while (view := await self._ask(sent, lambda key: provider.retrieve(key, batch_id))) and not view.ended:
            until = loop.time() + pause_s
            pause_s = min(pause_s * 1.5, self._poll_s)
            while (left := until - loop.time()) > 0:
                if sent.id and not cancelled and not self.store.wanted(sent.no):
                    await self._ask(sent, lambda key: self._cancel(key, batch_id))
                    await insist(partial(self.store.cancelled, sent.no))
                    cancelled, pause_s = True, first_s
                    break
                await asyncio.sleep(min(left, 1.0))
        ours: bool | None = None
        if view is not None:
            collected = partial(self._ask, sent, lambda key: collect(sent, provider.results(key, batch_id)))
            ours = await insist(collected)
        if ours is None:
            await insist(partial(self._results.fail, sent.no))
        return ours is not False

    async def _cancel(self, key: Key, batch_id: str) -> None:
        try:
            await self._provider.cancel(key, batch_id)
        except ApiError as problem:
            if problem.status != 400:  # 400: it ended at that moment
                raise

    async def _ask(self, sent: SentBatch, call: Callable[[Key], Awaitable[T]]) -> T | None:
        """Retry `call` until it succeeds. Return its value, or None if the provider does not know the batch."""
        attempt = unknown = 0
        while True:
            keys = self._pots[sent.pot].keys
            key = keys.of(sent.key_fingerprint) or keys.default
            if key is None:
                await asyncio.sleep(_CALM_S)
                continue
            try:
                return await call(key)
            except ApiError as problem:
                attempt += 1
                if problem.rejects_key:
                    self._results.refuse(sent, key, problem)
                    continue
                unknown += problem.status == 404
                if unknown >= _LOST_AFTER:
                    return None
                log.warning("Message Batch %s: %s", sent.id or "(looked for)", problem.message)
                delay = max(min(self._poll_s, _RETRY.delay_s(attempt, None)), problem.retry_after_s or 0.0)
            await asyncio.sleep(delay)
