"""The scheduler: accepts tasks, starts them as slots become free, and parks and resumes them with their keys."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial

from farmhand.agent.attempts import Attempt
from farmhand.agent.budgets import Budgets
from farmhand.agent.config import Config
from farmhand.agent.context import RunContext
from farmhand.agent.engines import Engine
from farmhand.agent.engines.message_batches import MessageBatchesEngine
from farmhand.agent.events import RunningTask, TaskRegistry
from farmhand.agent.key_wait import KeyWait
from farmhand.agent.keys import Keys
from farmhand.agent.ready_queue import ReadyQueue
from farmhand.agent.store.commands import CANCELLED
from farmhand.agent.store.damage import LedgerStuck
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import QueuedTask
from farmhand.agent.store.rows import BatchView
from farmhand.core.engines import SLOTTED
from farmhand.core.errors import FarmhandError
from farmhand.core.task import FINAL_STATES, DrainMode, Result, State, Task
from farmhand.meter import Key
from farmhand.meter.message_batches import MessageBatches

log = logging.getLogger("jada-agent")
#: How long a client that cancels a task waits for a ledger that cannot be written, in seconds.
_CANCEL_S = 5.0


class Draining(FarmhandError):
    """The agent is stopping or draining and accepts no tasks."""

    code = "draining"


class Scheduler:
    """Assigns slots to waiting tasks. All methods belong to one event loop; call `recover` first.

    Economy tasks are sent to `provider`. They hold no slot: their engine takes them from the ledger by itself.
    """

    def __init__(self, config: Config, ledger: Ledger, engines: dict[str, Engine], provider: MessageBatches) -> None:
        self._ledger = ledger
        self._engines = engines
        self.slots: dict[str, int] = {name: getattr(config, f"slots_{name}") for name in SLOTTED}
        self.busy = dict.fromkeys(SLOTTED, 0)
        self.keys = Keys()
        self.registry = TaskRegistry(ledger, self.keys)
        self.budgets = Budgets(ledger, config.budget_day_usd)
        self.context = RunContext(config, ledger, self.keys, self.registry, self.budgets, config.prices())
        self.ready = ReadyQueue(ledger)
        #: Number of requests with uncertain cost after a crash.
        self.interrupted = 0
        #: The task that runs alone because it ran when the agent crashed; the others wait for it.
        self.suspect: QueuedTask | None = None
        self._key_wait = KeyWait(self.context, self._moved)
        self.economy = MessageBatchesEngine(self.context, provider, self._key_wait.tidy)

    @property
    def draining(self) -> bool:
        """Return whether new tasks are refused."""
        return self.context.stopping or self.context.mode != "off"

    async def recover(self) -> None:
        """Recover the ledger after a start: every unfinished task awaits a key."""
        before = self._ledger.uncertain()
        waiting = await self._ledger.recover(self.context.config.attempts)
        self.ready.suspects = self._ledger.suspected()
        self.interrupted = self._ledger.uncertain() - before
        if waiting:
            log.info("%d unfinished tasks await a key", waiting)
        if self.ready.suspects:
            log.warning(
                "%d tasks ran when the agent crashed: each runs alone before others do", len(self.ready.suspects)
            )
        self.economy.start()

    # --- client requests ----------------------------------------------------------------------------------------------

    async def submit(self, tasks: list[Task], key: Key | None) -> dict[str, State]:
        """Accept `tasks`, all or none, on `key` or on the default key. Return the state by id."""
        if self.context.stopping:
            raise Draining("the agent is stopping and takes no tasks", hint="send it again in a moment")
        if self.draining:
            raise Draining("this host is being emptied and takes no tasks", hint="use another host, or end the drain")
        self.budgets.check_day()
        if key is not None:
            key = self.keys.stand_in(key)
            self.keys.hold(key)
            await self._note(key)
        holder = key or self.keys.default
        states = await self._ledger.submit(
            tasks, "queued" if holder else "awaiting_key", holder.fingerprint if holder else None
        )
        self.ready.added(max(task.priority for task in tasks))
        if key is not None:
            await self._key_wait.resume(key)
        self._pump()
        return {task_id: "queued" if key and state == "awaiting_key" else state for task_id, state in states.items()}

    async def set_key(self, key: Key, supersedes: str = "") -> tuple[Key, int]:
        """Use `key`, or the key that replaced it, for all waiting tasks and for later ones without their own.

        `supersedes` is the fingerprint of the key that it replaces. Return the key, and how many tasks had awaited one.
        """
        if supersedes:
            self.keys.supersede(supersedes, key)
        else:
            key = self.keys.stand_in(key)
            self.keys.replace(key)
        await self._note(key)
        resumed = await self._key_wait.resume(key)
        self._pump()
        return key, resumed

    async def _note(self, key: Key) -> None:
        """Record when the key was first received. If the ledger cannot be written, the next call does it."""
        with suppress(LedgerStuck):
            await self._ledger.note_key(key.fingerprint)

    def forget_key(self, fingerprint: str) -> bool:
        """Drop a key from memory; attempts that use it continue. Return False if it was not held."""
        found = self.keys.forget(fingerprint)
        if not self.keys.held:
            self._key_wait.tidy()
        return found

    async def cancel(self, task_id: str) -> Result:
        """End the task in any state. Return its result. Raise KeyError for an unknown id."""
        known = self._ledger.known(task_id)
        live = self.registry.get(task_id)
        if known.state not in FINAL_STATES and live is not None:
            await self._stop([live])
        # A job that was cancelled before its first step has recorded nothing.
        if self._ledger.known(task_id).state not in FINAL_STATES:
            cancelled = Result(id=task_id, state="cancelled", error=CANCELLED)
            await self._ledger.end(known.seq, None, cancelled)
            self.registry.done(known.batch, task_id)
            self._pump()
        return self._ledger.result(task_id)

    async def cancel_many(self, ids: list[str]) -> dict[str, str]:
        """End these tasks. Return their states, `unknown` for an id that the ledger does not have."""
        states = dict.fromkeys(ids, "unknown")
        for task_id in states:
            with suppress(KeyError):
                states[task_id] = self._ledger.known(task_id).state
        known = [task_id for task_id, state in states.items() if state != "unknown"]
        await self._stop([live for task_id in known if (live := self.registry.get(task_id)) is not None])
        await asyncio.gather(*(self.cancel(task_id) for task_id in known))
        return states | {task_id: self._ledger.known(task_id).state for task_id in known}

    async def cancel_batch(self, batch: str) -> int:
        """End all unfinished tasks of the batch and return their number. Raise NoSuchBatch."""
        before = self._ledger.batch(batch).cancelled
        self.ready.closed.add(batch)
        try:
            await self._stop([live for live in self.registry.running() if live.claim and live.claim.batch == batch])
            while ids := await self._ledger.cancel_batch(batch):
                self.registry.done(batch, *ids)
        finally:
            self.ready.closed.discard(batch)
            self.ready.changed()
            self._pump()
        return self._ledger.batch(batch).cancelled - before

    async def put_batch(self, name: str, max_pico: int | None, concurrency: int | None) -> BatchView:
        """Create the batch, or change its limits."""
        await self._ledger.put_batch(name, max_pico, concurrency)
        self.ready.limits.pop(name, None)
        if concurrency is not None:
            self.ready.limits[name] = concurrency
        self.ready.changed()
        batch = self._ledger.batch(name)
        self.budgets.changed(batch)
        self._pump()
        return batch

    # --- drain and stop -----------------------------------------------------------------------------------------------

    def set_mode(self, mode: DrainMode) -> None:
        """Set the drain mode; see `RunContext.mode`."""
        self.context.mode = mode
        self.ready.changed()  # tasks that were put back meanwhile are queued again
        self._pump()

    async def stop(self, patience_s: float) -> None:
        """Accept nothing new, give running tasks `patience_s` to end, and queue the rest again.

        If the ledger cannot be written any more, tasks that are cut off count as after a crash.
        """
        self.context.stopping = True
        await self.economy.close()
        jobs = {live.job for live in self.registry.running() if live.job is not None}
        if jobs:
            log.info("draining: %d tasks still run", len(jobs))
            _, late = await asyncio.wait(jobs, timeout=patience_s)
            for job in late:
                job.cancel()
            if late:
                await asyncio.wait(late)
        self._key_wait.close()
        self.registry.end_all()

    # --- running tasks ------------------------------------------------------------------------------------------------

    def _moved(self) -> None:
        """React to tasks that got a key or now await one."""
        self.ready.changed()
        self.registry.publish_waiting()
        self._pump()

    def _pump(self) -> None:
        """Start waiting tasks while there are free slots and keys."""
        self.economy.wake()
        if not self.context.may_start:
            return
        if not self.keys.held:
            if self.keys.refused:
                self._key_wait.tidy()
            return
        if self._try_suspects():
            return
        for engine, slots in self.slots.items():
            while self.busy[engine] < slots:
                task = self.ready.take(engine)
                if task is None:
                    break
                key = self.keys.of(task.key_fingerprint)
                if key is None or (self.keys.on_trial(key) and self._uses(key)):
                    self.ready.release(task)
                    self.ready.changed()
                    if key is None:
                        self._key_wait.tidy()
                    break
                self._start(task, key)

    def _try_suspects(self) -> bool:
        """Run one suspect, a task that ran when the agent crashed, on its own. Return whether one runs or is next.

        If the agent crashes again, no other task is suspected or has to be paid for twice.
        """
        if self.suspect is not None:
            return True
        if not self.ready.suspects:
            return False
        for task in self.ready.next_suspects():
            key = self.keys.of(task.key_fingerprint)
            if key is None:
                self._key_wait.tidy()
                continue
            if not any(self.busy.values()):
                self.ready.claim(task)
                self.suspect = task
                self._start(task, key)
            return True
        return False

    def _start(self, task: QueuedTask, key: Key) -> None:
        self.busy[task.engine] += 1
        live = self.registry.enter(task.id)
        live.claim, live.key, live.cancelled = task, key, False
        attempt = Attempt(self.context, self._engines[task.engine], task, key, live)
        live.job = asyncio.create_task(attempt.run(), name=f"task {task.id}")
        live.job.add_done_callback(partial(self._release, task, key, live))

    def _release(self, task: QueuedTask, key: Key, live: RunningTask, _job: asyncio.Task[None]) -> None:
        """Free the slot. A callback, since a job that is cancelled before its first step never enters its body."""
        self.busy[task.engine] -= 1
        self.ready.release(task)
        if self.suspect is task:
            self.suspect = None
            if self._ledger.known(task.id).state in FINAL_STATES:
                self.ready.suspects.discard(task.seq)
        live.job = live.claim = live.key = live.grant = None
        self.registry.leave(task.id)
        if self.keys.of(key.fingerprint) is None:
            self._key_wait.tidy()
        elif len(self.keys.held) > 1 and not self._uses(key) and not self._ledger.waits_for(key.fingerprint):
            self.keys.drop(key.fingerprint)
        self._pump()

    def _uses(self, key: Key) -> bool:
        """Return whether a running task uses the key."""
        return any(live.key is key for live in self.registry.running())

    async def _stop(self, lives: list[RunningTask]) -> None:
        """Cancel running tasks for good. Raise LedgerStuck if that cannot be recorded yet."""
        jobs = set()
        for live in lives:
            if live.job is not None:
                if not live.cancelled:
                    # Cancel only once: a second time would interrupt the recording of its end.
                    live.cancelled = True
                    live.job.cancel()
                jobs.add(live.job)
        if jobs and (await asyncio.wait(jobs, timeout=_CANCEL_S))[1]:
            raise LedgerStuck("the ledger cannot be written; what was cancelled ends once it can")
