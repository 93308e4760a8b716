"""The economy engine: many tasks together through the provider's Message Batches, at half price, within 24 hours.

Waiting tasks are gathered for a moment and go out as one batch per key and batch of ours. Each batch has a watcher that
asks how it stands, less and less often, and records what became of its requests once it has ended. All that is known of
it is in the ledger, so that a restart goes on where it was. A task's own time does not count here, and the number of
tasks at once of its batch neither: the provider decides when they run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec

from farmhand.agent.config import Config
from farmhand.agent.context import RunContext
from farmhand.agent.engines.api import request_body
from farmhand.agent.engines.message_batches_results import MessageBatchResults
from farmhand.agent.engines.message_batches_watch import RETRY, BatchWatcher
from farmhand.agent.store.ledger import STUCK_S, AttemptEnd, Ledger, LedgerDamaged, LedgerStuck, insist
from farmhand.agent.store.outbox import BatchedAttempt, MessageBatchStore, SentBatch
from farmhand.agent.store.queries import QueuedTask
from farmhand.agent.store.rows import WaitReason
from farmhand.core.task import Result, State, Task, TaskError, resolve_model
from farmhand.core.terms import DEAREST
from farmhand.meter import ApiError, BudgetSpent, Key, Reservation, policy, reserve
from farmhand.meter.message_batches import MessageBatches

log = logging.getLogger("jada-agent")
#: What goes into one batch at most: few enough that the ledger takes it in one step, and that it is small in memory.
MOST_REQUESTS = 2000
MOST_BYTES = 16 * 1024 * 1024
#: How soon news of the scheduler are looked at; it tells of every task that ends.
_CALM_S = 0.2
#: Refusals after which a batch surely was not made; after others, or none, it is looked for.
_NOT_MADE = frozenset({400, 401, 402, 403, 404, 413, 429, 529})


class MessageBatchesEngine:
    """See `EconomyEngine`. `start` comes before all others."""

    def __init__(self, config: Config, ledger: Ledger, provider: MessageBatches) -> None:
        self._config = config
        self._ledger = ledger
        self._provider = provider
        self.outbox = MessageBatchStore(ledger)
        self._news = asyncio.Event()
        self._work: set[asyncio.Task[None]] = set()
        self._reserved: dict[tuple[int, int], Reservation] = {}

    def start(self, room: RunContext, may_send: Callable[[], bool], key_refused: Callable[[], None]) -> None:
        """Go on with what is at the provider, and send what waits while `may_send`."""
        self._room = room
        self._may_send = may_send
        self._key_refused = key_refused
        self._results = MessageBatchResults(room, self.outbox, self._reserved, key_refused)
        self._watcher = BatchWatcher(
            room, self._provider, self.outbox, self._results, news=self.wake, key_refused=key_refused
        )
        for sent in self.outbox.unended():
            self._spawn(self._watcher.watch(sent))
        self._spawn(self._send_all())

    async def close(self) -> None:
        """Leave everything as it is; the next start goes on."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def wake(self) -> None:
        """See `EconomyEngine.wake`."""
        self._news.set()

    def waits(self, batch: str | None) -> Sequence[WaitReason]:
        """See `EconomyEngine.waits`."""
        queued = self.outbox.queued(batch)
        return [WaitReason(reason="economy", tasks=queued, detail="they go out together in a Message Batch")]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guard(work), name="economy")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    @staticmethod
    async def _guard(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LedgerDamaged:
            return  # the agent ends
        except Exception as error:
            # A restart finds everything in the ledger; the other batches go on.
            log.exception("economy: %s", type(error).__name__)

    async def _send_all(self) -> None:
        attempt = 0
        while True:
            self._news.clear()
            if not (self._may_send() and self._next()):
                await self._news.wait()
                await asyncio.sleep(_CALM_S)
                continue
            await self._gather()
            key, portion = self._next() or (None, [])
            if key is None:
                continue
            try:
                await self._send(key, portion)
                attempt = 0
            except LedgerDamaged:
                raise
            except LedgerStuck as error:
                log.error("%s; trying again", error)
                await asyncio.sleep(STUCK_S)
            except ApiError as problem:
                attempt += 1
                log.warning("a Message Batch was not taken: %s", problem.message)
                await asyncio.sleep(RETRY.delay_s(attempt, problem.retry_after_s))

    async def _gather(self) -> None:
        """Wait while more tasks come in."""
        before = -1
        for _ in range(5):
            count = self.outbox.queued(None)
            if count == before or count >= MOST_REQUESTS:
                return
            before = count
            await asyncio.sleep(self._config.economy_linger_s)

    def _next(self) -> tuple[Key, list[QueuedTask]] | None:
        """The first tasks in line that can go out together: those of one batch of ours, on one key."""
        line = self._ledger.line("economy", MOST_REQUESTS)
        keyed = [(self._room.keys.of(task.key_fingerprint), task) for task in line]
        first = next(((key, task) for key, task in keyed if key is not None), None)
        if first is None:
            return None
        key, task = first
        if self._room.keys.on_trial(key):
            # One of them tells whether the key is accepted again.
            return key, [task]
        return key, [other for found, other in keyed if found is key and other.batch == task.batch]

    async def _send(self, key: Key, portion: list[QueuedTask]) -> None:
        bodies: dict[int, bytes] = {}
        reserved: dict[int, Reservation] = {}
        most: dict[int, int | None] = {}
        size = 0
        for waiting in portion:
            task = self._ledger.spec(waiting.seq)
            body = msgspec.json.encode(request_body(task, resolve_model(task.model), stream=False))
            size += len(body)
            if bodies and size > MOST_BYTES:
                break
            try:
                most[waiting.seq] = self._most(task, body)
                reserved[waiting.seq] = Reservation(self._room.budgets.of(task), most[waiting.seq] or 0)
            except ApiError as problem:
                await self._refuse(waiting, problem)
                continue
            bodies[waiting.seq] = body
        try:
            sent, out = await self.outbox.begin({seq: most[seq] for seq in bodies}, key.fingerprint)
        except BaseException:
            for unused in reserved.values():
                unused.settle(0)
            raise
        for one in out:
            self._reserved[one.seq, one.number] = reserved.pop(one.seq)
        for unused in reserved.values():
            unused.settle(0)
        if not out:
            await insist(partial(self.outbox.ended, sent.no))
            return
        for one in out:
            self._tell(one.task_id, "running")
        try:
            view = await self._provider.create(key, [(self.outbox.custom_id(one), bodies[one.seq]) for one in out])
        except ApiError as problem:
            if problem.status not in _NOT_MADE:
                log.warning("no answer to a new Message Batch, which is looked for: %s", problem.message)
                self._spawn(self._watcher.watch(sent))
                return
            await self._not_made(sent, out, key, problem)
            return
        self._room.keys.prove(key)
        # From here on nobody else sees to the batch before the next start, so a full disk is waited for.
        await insist(partial(self.outbox.opened, sent.no, view.id))
        log.info("Message Batch %s: %d tasks", view.id, len(out))
        self._spawn(
            self._watcher.watch(SentBatch(sent.no, view.id, key.fingerprint, False, sent.requests, sent.created_at))
        )

    def _most(self, task: Task, body: bytes) -> int | None:
        """The most that it may cost, in pico-dollars. BudgetSpent where that is not known and a budget limits it."""
        budgets = self._room.budgets.of(task)
        model = resolve_model(task.model)
        request = policy.read(body, model=model, max_tokens=task.max_tokens)
        most = reserve.cost(request, partial(self._room.prices.cost, model, terms=DEAREST, economy=True))
        limited = next((budget.name for budget in budgets if budget.limit_pico is not None), None)
        if most is None and limited is not None:
            raise BudgetSpent(f"the price of {task.model} is not known: the budget of the {limited} has no room for it")
        return most

    async def _refuse(self, waiting: QueuedTask, problem: ApiError) -> None:
        error = TaskError(code=problem.code, message=problem.message, hint=problem.hint)
        await self._results.finish(waiting.seq, waiting.id, waiting.batch, None, _failed(waiting.id, error))

    async def _not_made(self, sent: SentBatch, out: list[BatchedAttempt], key: Key, problem: ApiError) -> None:
        """The API refused the batch. Raises `problem` where it may pass."""
        self._results.drop(out)
        end = AttemptEnd(outcome="parked", price_version=self._room.prices.version)
        if problem.parks_key:
            self._room.keys.refuse(key, problem)
            await insist(partial(self.outbox.take_back, sent.no, end, "awaiting_key"))
            self._key_refused()
            return
        if problem.retryable:
            await insist(partial(self.outbox.take_back, sent.no, end, "queued"))
            raise problem
        error = TaskError(code=problem.code, message=problem.message, hint=problem.hint)
        for one in out:
            end = AttemptEnd(outcome=problem.code, price_version=self._room.prices.version)
            failed = _failed(one.task_id, error)
            await insist(partial(self._results.finish, one.seq, one.task_id, one.batch, end, failed))
        await insist(partial(self.outbox.ended, sent.no))

    def _tell(self, task_id: str, state: State) -> None:
        live = self._room.stage.get(task_id)
        if live is not None:
            live.tell(self._room.stage.state_event(state))


def _failed(task_id: str, error: TaskError) -> Result:
    return Result(id=task_id, state="failed", error=error)
