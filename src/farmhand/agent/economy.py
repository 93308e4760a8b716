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
from typing import Any, TypeVar

import msgspec

from farmhand.agent.attempts import Room
from farmhand.agent.config import Config
from farmhand.agent.economy_results import Results
from farmhand.agent.engines.api import request_body
from farmhand.agent.ledger import AttemptEnd, Ledger, LedgerStuck
from farmhand.agent.outbox import Out, Outbox, Sent
from farmhand.agent.reads import Waiting
from farmhand.agent.records import Wait
from farmhand.meter import ApiError, BudgetSpent, Key, Reservation, RetryPolicy
from farmhand.meter.message_batches import MessageBatches, View
from farmhand.meter.policy import at_most
from farmhand.task import Result, State, Task, TaskError, resolve_model

log = logging.getLogger("jada-agent")
#: What goes into one batch at most: few enough that the ledger takes it in one step, and that it is small in memory.
MOST_REQUESTS = 2000
MOST_BYTES = 16 * 1024 * 1024
#: How far the provider's clock may be off, and how long a lost answer may have been under way. Seconds.
_AROUND_S = 900.0
#: Refusals after which a batch surely was not made; after others, or none, it is looked for.
_NOT_MADE = frozenset({400, 401, 402, 403, 404, 413, 429, 529})
_FIRST_POLL_S = 1.0
#: A batch that the provider does not know is asked for this often before it counts as lost: an early 404 may pass.
_LOST_AFTER = 10
#: How soon news of the scheduler are looked at; it tells of every task that ends.
_CALM_S = 0.2
T = TypeVar("T")
_RETRY = RetryPolicy(base_s=1.0, cap_s=60.0)


class Economy:
    """See `EconomyEngine`. `start` comes before all others."""

    def __init__(self, config: Config, ledger: Ledger, provider: MessageBatches) -> None:
        self._config = config
        self._ledger = ledger
        self._provider = provider
        self.outbox = Outbox(ledger)
        self._news = asyncio.Event()
        self._work: set[asyncio.Task[None]] = set()
        self._reserved: dict[tuple[int, int], Reservation] = {}

    def start(self, room: Room, may_send: Callable[[], bool], key_refused: Callable[[], None]) -> None:
        """Go on with what is at the provider, and send what waits while `may_send`."""
        self._room = room
        self._may_send = may_send
        self._key_refused = key_refused
        self._results = Results(room, self.outbox, self._reserved)
        for sent in self.outbox.unended():
            self._spawn(self._watch(sent))
        self._spawn(self._send_all())

    async def close(self) -> None:
        """Leave everything as it is; the next start goes on."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def wake(self) -> None:
        """See `EconomyEngine.wake`."""
        self._news.set()

    def waits(self, batch: str | None) -> Sequence[Wait]:
        """See `EconomyEngine.waits`."""
        queued = self.outbox.queued(batch)
        return [Wait(reason="economy", tasks=queued, detail="they go out together in a Message Batch")]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guard(work), name="economy")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    @staticmethod
    async def _guard(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            # A restart finds everything in the ledger; the other batches go on.
            log.exception("economy: %s", type(error).__name__)

    # --- sending --------------------------------------------------------------------------------------------------

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
            except LedgerStuck as error:
                log.error("%s; trying again", error)
                await asyncio.sleep(_CALM_S * 10)
            except ApiError as problem:
                attempt += 1
                log.warning("a Message Batch was not taken: %s", problem.message)
                await asyncio.sleep(_RETRY.delay_s(attempt, problem.retry_after_s))

    async def _gather(self) -> None:
        """Wait while more tasks come in."""
        before = -1
        for _ in range(5):
            count = self.outbox.queued(None)
            if count == before or count >= MOST_REQUESTS:
                return
            before = count
            await asyncio.sleep(self._config.economy_linger_s)

    def _next(self) -> tuple[Key, list[Waiting]] | None:
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

    async def _send(self, key: Key, portion: list[Waiting]) -> None:
        bodies: dict[int, bytes] = {}
        reserved: dict[int, Reservation] = {}
        size = 0
        for waiting in portion:
            task = self._ledger.spec(waiting.seq)
            body = msgspec.json.encode(request_body(task, resolve_model(task.model), stream=False))
            size += len(body)
            if bodies and size > MOST_BYTES:
                break
            try:
                reserved[waiting.seq] = self._reserve(task, body)
            except BudgetSpent as spent:
                await self._refuse(waiting, spent)
                continue
            bodies[waiting.seq] = body
        try:
            sent, out = await self.outbox.begin(list(bodies), key.fingerprint)
        except BaseException:
            for unused in reserved.values():
                unused.settle(0)
            raise
        for one in out:
            self._reserved[one.seq, one.number] = reserved.pop(one.seq)
        for unused in reserved.values():
            unused.settle(0)
        if not out:
            await self._insist(partial(self.outbox.ended, sent.no))
            return
        for one in out:
            self._tell(one.task_id, "running")
        try:
            view = await self._provider.create(key, [(self.outbox.custom_id(one), bodies[one.seq]) for one in out])
        except ApiError as problem:
            if problem.status not in _NOT_MADE:
                log.warning("no answer to a new Message Batch, which is looked for: %s", problem.message)
                self._spawn(self._watch(sent))
                return
            await self._not_made(sent, out, key, problem)
            return
        self._room.keys.prove(key)
        # From here on nobody else sees to the batch before the next start, so a full disk is waited for.
        await self._insist(partial(self.outbox.opened, sent.no, view.id))
        log.info("Message Batch %s: %d tasks", view.id, len(out))
        self._spawn(self._watch(Sent(sent.no, view.id, key.fingerprint, False, sent.requests, sent.created_at)))

    def _reserve(self, task: Task, body: bytes) -> Reservation:
        budgets = self._room.budgets.of(task)
        most = self._room.prices.cost(resolve_model(task.model), at_most(body, task.max_tokens), economy=True)
        limited = next((budget.name for budget in budgets if budget.limit_pico is not None), None)
        if most is None and limited is not None:
            raise BudgetSpent(f"the price of {task.model} is not known: the budget of the {limited} has no room for it")
        return Reservation(budgets, most or 0)

    async def _refuse(self, waiting: Waiting, problem: ApiError) -> None:
        error = TaskError(code=problem.code, message=problem.message, hint=problem.hint)
        await self._results.finish(waiting.seq, waiting.id, waiting.batch, None, _failed(waiting.id, error))

    async def _not_made(self, sent: Sent, out: list[Out], key: Key, problem: ApiError) -> None:
        """The API refused the batch. Raises `problem` where it may pass."""
        self._drop(out)
        end = AttemptEnd(outcome="parked", price_version=self._room.prices.version)
        if problem.parks_key:
            self._room.keys.refuse(key, problem)
            await self._insist(partial(self.outbox.take_back, sent.no, end, "awaiting_key"))
            self._key_refused()
            return
        if problem.retryable:
            await self._insist(partial(self.outbox.take_back, sent.no, end, "queued"))
            raise problem
        error = TaskError(code=problem.code, message=problem.message, hint=problem.hint)
        for one in out:
            end = AttemptEnd(outcome=problem.code, price_version=self._room.prices.version)
            failed = _failed(one.task_id, error)
            await self._insist(partial(self._results.finish, one.seq, one.task_id, one.batch, end, failed))
        await self._insist(partial(self.outbox.ended, sent.no))

    def _drop(self, out: list[Out]) -> None:
        for one in out:
            reservation = self._reserved.pop((one.seq, one.number), None)
            if reservation is not None:
                reservation.settle(0)

    def _tell(self, task_id: str, state: State) -> None:
        live = self._room.stage.get(task_id)
        if live is not None:
            live.tell(self._room.stage.state_event(state))

    # --- watching -------------------------------------------------------------------------------------------------

    async def _watch(self, sent: Sent) -> None:
        """See a batch to its end, and record what became of its requests."""
        foreign: set[str] = set()
        batch_id = sent.id
        while True:
            if not sent.id:
                found = await self._find(sent, foreign)
                if found is None:
                    out = self.outbox.out(sent.no)
                    self._drop(out)
                    end = AttemptEnd(outcome="parked", price_version=self._room.prices.version)
                    await self._insist(partial(self.outbox.take_back, sent.no, end, self._waiting_state(sent)))
                    self.wake()
                    return
                batch_id = found
            if await self._to_its_end(sent, batch_id):
                break
            foreign.add(batch_id)
        await self._insist(partial(self.outbox.ended, sent.no))
        self.wake()

    def _waiting_state(self, sent: Sent) -> State:
        return "queued" if self._room.keys.of(sent.key_fingerprint) is not None else "awaiting_key"

    async def _find(self, sent: Sent, foreign: set[str]) -> str | None:
        """The id of a batch that may be this one, whose answer was lost: of its size, made at its time, not ours yet.

        Only its results show for sure: see `Results.collect`. None: the provider has none, asked twice.
        """
        for turn in range(2):
            views = await self._ask(sent, lambda key: self._provider.newest(key, sent.created_at - _AROUND_S))
            known = self.outbox.known() | foreign
            for view in reversed(views or []):
                late = view.created > sent.created_at + _AROUND_S
                if view.id not in known and view.requests == sent.requests and not late:
                    return view.id
            if not turn:
                await asyncio.sleep(self._config.economy_poll_s)
        return None

    async def _to_its_end(self, sent: Sent, batch_id: str) -> bool:
        """Wait for the batch's end and collect its results. False: it is not ours."""
        pause, told = _FIRST_POLL_S, sent.cancelled
        while True:
            view = await self._ask(sent, lambda key: self._provider.retrieve(key, batch_id))
            if view is None:
                await self._insist(partial(self._results.lost, sent.no))
                return True
            if view.ended:
                break
            if sent.id and not told and not self.outbox.wanted(sent.no):
                await self._ask(sent, lambda key: self._cancel(key, batch_id))
                await self._insist(partial(self.outbox.cancelled, sent.no))
                told, pause = True, _FIRST_POLL_S
                continue
            pause = min(pause, self._config.economy_poll_s)
            await self._pause(sent, pause, watch_for_cancel=not told)
            pause *= 1.5
        ours = await self._ask(sent, lambda key: self._results.collect(sent, self._provider.results(key, batch_id)))
        if ours is None:
            await self._insist(partial(self._results.lost, sent.no))
        return ours is not False

    async def _cancel(self, key: Key, batch_id: str) -> View:
        try:
            return await self._provider.cancel(key, batch_id)
        except ApiError as problem:
            if problem.status == 400:
                # It ended in that moment.
                return await self._provider.retrieve(key, batch_id)
            raise

    async def _pause(self, sent: Sent, seconds: float, *, watch_for_cancel: bool) -> None:
        """Wait, or less where nobody waits for the batch any more."""
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 1.0))
            if watch_for_cancel and not self.outbox.wanted(sent.no):
                return

    async def _ask(self, sent: Sent, call: Callable[[Key], Coroutine[Any, Any, T]]) -> T | None:
        """What `call` brings, as often as it takes; None where the provider does not know the batch (any more)."""
        attempt = unknown = 0
        while True:
            key = self._room.keys.of(sent.key_fingerprint) or self._room.keys.default
            if key is None:
                await asyncio.sleep(_CALM_S)
                continue
            try:
                return await call(key)
            except LedgerStuck as error:
                log.error("%s; trying again", error)
                delay = _CALM_S * 10
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
                delay = min(self._config.economy_poll_s, _RETRY.delay_s(attempt, problem.retry_after_s))
            await asyncio.sleep(delay)

    @staticmethod
    async def _insist(step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a step on the ledger, as soon as that can be written."""
        while True:
            try:
                await step()
                return
            except LedgerStuck as error:
                log.error("%s; trying again", error)
            await asyncio.sleep(_CALM_S * 10)


def _failed(task_id: str, error: TaskError) -> Result:
    return Result(id=task_id, state="failed", error=error)
