"""The scheduler: accepts tasks, starts them as slots become free, and parks and resumes them with their keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from farmhand.agent.attempts import Attempt
from farmhand.agent.budgets import Budgets
from farmhand.agent.config import Config
from farmhand.agent.context import RunContext
from farmhand.agent.engines import Engine
from farmhand.agent.engines.message_batches import MessageBatchesEngine
from farmhand.agent.events import RunningTask, TaskRegistry
from farmhand.agent.keys import Keys
from farmhand.agent.pots import Pot, Pots
from farmhand.agent.ready_queue import ReadyQueue
from farmhand.agent.store.commands import CANCELLED, CHUNK
from farmhand.agent.store.damage import LedgerStuck
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import BatchView, QueuedTask
from farmhand.core.engines import SLOTTED
from farmhand.core.errors import FarmhandError
from farmhand.core.task import FINAL_STATES, DrainMode, Result, State, Task
from farmhand.meter.grants import Key
from farmhand.meter.message_batches import MessageBatches
from farmhand.wire.requests import Funding

log = logging.getLogger("jada-agent")
#: How often pots are looked at: whether one is filled again, or has expired.
_LOOK_S = 5.0
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
        self.pots = Pots(ledger)
        self.registry = TaskRegistry(ledger, self.pots)
        self.budgets = Budgets(ledger, config.budget_day_usd)
        self.context = RunContext(config, ledger, self.pots, self.registry, self.budgets, config.prices())
        self.ready = ReadyQueue(ledger, self.registry)
        #: Number of requests with uncertain cost after a crash.
        self.interrupted = 0
        #: The task that runs alone because it ran when the agent crashed; the others wait for it.
        self.suspect: QueuedTask | None = None
        self.economy = MessageBatchesEngine(self.context, provider, self._tidy)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._untidy = False

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
            count = len(self.ready.suspects)
            log.warning("%d tasks ran when the agent crashed: each runs alone before others do", count)
        self.economy.start()

    # --- client requests ----------------------------------------------------------------------------------------------

    async def submit(self, tasks: list[Task], key: Key | None) -> dict[str, State]:
        """Accept `tasks`, all or none, on `key` or on the default key. Return the state by id."""
        if self.context.stopping:
            raise Draining("the agent is stopping and takes no tasks", hint="send it again in a moment")
        if self.draining:
            raise Draining("this host is being emptied and takes no tasks", hint="use another host, or end the drain")
        self.budgets.check_day()
        keys = self.pots[""].keys
        if key is not None:
            key = keys.stand_in(key)
            keys.hold(key)
            await self._ledger.note_key(key.fingerprint)
        holder = key or keys.default
        fingerprint = holder.fingerprint if holder else None
        without = {task.pot for task in tasks if task.pot and self.pots.default(task.pot) is None}
        states = await self._ledger.submit(tasks, "queued" if holder else "awaiting_key", fingerprint, without)
        self.ready.changed()
        if key is not None:
            await self._resume()
        self._pump()
        return {task_id: "queued" if key and state == "awaiting_key" else state for task_id, state in states.items()}

    async def set_key(
        self, key: Key, supersedes: str = "", pot: str = "", funding: Funding | None = None
    ) -> tuple[Key, int]:
        """Use `key`, or the key that replaced it, for all waiting tasks and for later ones without their own.

        `supersedes` is the fingerprint of the key that it replaces. With `pot` it is the key of that pot, whose
        `funding` stays unless given. Return the key, and how many tasks had awaited one.
        """
        keys = self.pots[""].keys
        if pot:
            key = self.pots.bring(pot, key, supersedes, funding)
            self._begin("pots", self._watch_pots)
        elif supersedes:
            keys.supersede(supersedes, key)
        else:
            key = keys.stand_in(key)
            keys.replace(key)
        await self._ledger.note_key(key.fingerprint)
        resumed = await self._resume()
        self._pump()
        return key, resumed

    async def renew_key(self, fingerprint: str, token: Key) -> tuple[Key, int]:
        """Give the bearer token with `fingerprint` the value of `token`. Return as set_key does."""
        key = self.pots[""].keys.renew(fingerprint, token)
        await self._ledger.note_key(key.fingerprint)
        resumed = await self._resume()
        self._pump()
        return key, resumed

    def forget_key(self, fingerprint: str) -> bool:
        """Drop a key from memory; attempts that use it continue. Return False if it was not held."""
        found = [pot.keys.forget(fingerprint) for pot in self.pots]
        if not all(pot.keys.held for pot in self.pots):
            self._tidy()
        return any(found)

    async def cancel(self, task_id: str) -> Result:
        """End the task in any state. Return its result. Raise KeyError for an unknown id."""
        await self.cancel_many([task_id])
        return self._ledger.result(task_id)

    async def cancel_many(self, ids: list[str]) -> dict[str, str]:
        """End these tasks. Return their states, `unknown` for an id that the ledger does not have."""
        states = dict.fromkeys(ids, "unknown")
        for task_id in states:
            with suppress(KeyError):
                states[task_id] = self._ledger.known(task_id).state
        unfinished = [task_id for task_id, state in states.items() if state not in {"unknown", *FINAL_STATES}]
        await self._stop([live for task_id in unfinished if (live := self.registry.live.get(task_id))])
        await asyncio.gather(*map(self._cancel_one, unfinished))
        self._pump()
        return states | {task_id: self._ledger.known(task_id).state for task_id in unfinished}

    async def _cancel_one(self, task_id: str) -> None:
        """End a task, whether it waits or runs.

        A waiting one may begin at any await, in the slot of another that was cancelled. A job that was cancelled before
        its first step has recorded nothing, and its task is still queued.
        """
        while (known := self._ledger.known(task_id)).state not in FINAL_STATES:
            live = self.registry.live.get(task_id)
            if live is not None and live.job is not None:
                await self._stop([live])
            else:
                # Requested at once, so before the start of a job that begins from now on.
                await self._ledger.end(known.seq, None, Result(id=task_id, state="cancelled", error=CANCELLED))
                self.registry.done(known.batch, task_id)

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
        self.ready.limits = self._ledger.concurrency_limits()
        self.ready.changed()
        self.budgets.changed(name, max_pico)
        self._pump()
        return self._ledger.batch(name)

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
        for moving in self._jobs.values():
            moving.cancel()
        self.registry.end_all()

    # --- tasks that wait for a key: moved in portions, so that a long queue does not delay other work -----------------

    async def _resume(self) -> int:
        """Queue tasks that await a key and have one now. Return how many; a long queue continues in the background."""
        waiting = self._ledger.counts()["awaiting_key"]
        if waiting and self.pots.named:
            waiting = sum(n for pot, n in self._ledger.awaiting(None).items() if self.pots.default(pot) is not None)
        if waiting:
            await self._resume_some()
        if waiting > CHUNK:
            self._begin("resume", self._resume_rest)
        return waiting

    async def _resume_some(self) -> int:
        some = 0
        for pot in self.pots:
            if (key := self.pots.default(pot.name)) is not None:
                some += await self._ledger.resume(key.fingerprint, pot.name)
        self._moved()
        return some

    async def _resume_rest(self) -> None:
        try:
            while await self._resume_some():
                pass
        except LedgerStuck as error:
            log.error("%s; the rest waits until a key is brought again", error)

    def _tidy(self) -> None:
        """Move tasks without a usable key to `awaiting_key`, in the background."""
        self._untidy = True
        self._begin("park", self._park)

    async def _park(self) -> None:
        for pot in self.pots:
            if (refusal := pot.keys.refusal) is not None:
                log.warning("tasks wait: the API refused their key: %s (%s)", refusal.message, refusal.hint)
        try:
            while self._untidy:
                self._untidy = False
                for pot in self.pots:
                    await self._park_those_of(pot.name)
        except LedgerStuck as error:
            log.error("%s", error)
        self._moved()

    async def _park_those_of(self, name: str) -> None:
        pot = self.pots.paying(name)
        keys = Keys() if pot.closed else pot.keys
        while await self._ledger.park(keys.held, keys.unusable, default=keys.default is not None, pot=name):
            pass

    async def _watch_pots(self) -> None:
        """Start tasks of pots that are filled again, and park those of pots that expire. The clock may be set."""
        while True:
            try:
                await self._resume()
            except LedgerStuck as error:
                log.error("%s; the rest waits until a key is brought again", error)
            self._pump()
            await asyncio.sleep(_LOOK_S)

    def _begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if name not in self._jobs or self._jobs[name].done():
            self._jobs[name] = asyncio.create_task(work(), name=name)

    def _moved(self) -> None:
        """React to tasks that got a key or now await one."""
        self.ready.changed()
        self.registry.publish_waiting()
        self._pump()

    # --- running tasks ------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start waiting tasks while there are free slots and keys."""
        self.economy.wake()
        if not self.context.may_start:
            return
        if not any(pot.keys.held and not pot.closed for pot in self.pots):
            if any(pot.keys.refused or pot.closed for pot in self.pots):
                self._tidy()
            return
        if self._try_suspects():
            return
        for engine, slots in self.slots.items():
            while self.busy[engine] < slots:
                task = self.ready.take(engine)
                if task is None:
                    break
                pot, key = self.pots.key(task.pot, task.key_fingerprint)
                if key is None or (pot.keys.on_trial(key) and self._uses(key)):
                    self.ready.changed()
                    if key is None:
                        self._tidy()
                    break
                self._start(task, pot, key)

    def _try_suspects(self) -> bool:
        """Run one suspect, a task that ran when the agent crashed, on its own. Return whether one runs or is next.

        If the agent crashes again, no other task is suspected or has to be paid for twice.
        """
        if self.suspect is not None:
            return True
        for task in self._ledger.suspects() if self.ready.suspects else ():
            pot, key = self.pots.key(task.pot, task.key_fingerprint)
            if key is None:
                self._tidy()
            if key is None or task.batch in self.ready.closed:
                continue
            if not any(self.busy.values()):
                self.suspect = task
                self._start(task, pot, key)
            return True
        return False

    def _start(self, task: QueuedTask, pot: Pot, key: Key) -> None:
        self.busy[task.engine] += 1
        live = self.registry.enter(task.id)
        live.claim, live.key, live.cancelled = task, key, False
        attempt = Attempt(self.context, self._engines[task.engine], task, pot, key, live)
        live.job = asyncio.create_task(attempt.run(), name=f"task {task.id}")
        live.job.add_done_callback(partial(self._release, task, pot, key, live))

    def _release(self, task: QueuedTask, pot: Pot, key: Key, live: RunningTask, _job: asyncio.Task[None]) -> None:
        """Free the slot. A callback, since a job that is cancelled before its first step never enters its body."""
        self.busy[task.engine] -= 1
        if self.ready.is_full(task.batch):
            self.ready.changed()  # tasks of the batch were skipped
        if self.suspect is task:
            self.suspect = None
            if self._ledger.known(task.id).state in FINAL_STATES:
                self.ready.suspects.discard(task.seq)
        live.job = live.claim = live.key = live.grant = None
        self.registry.leave(task.id)
        if self.pots.key(task.pot, key.fingerprint)[1] is None:
            self._tidy()
        elif len(pot.keys.held) > 1 and not self._uses(key) and not self._ledger.waits_for(key.fingerprint):
            pot.keys.drop(key.fingerprint)
        self._pump()

    def _uses(self, key: Key) -> bool:
        """Return whether a running task uses the key."""
        return any(live.key is key for live in self.registry.running())

    async def _stop(self, lives: list[RunningTask]) -> None:
        """Cancel running tasks for good. Raise LedgerStuck if that cannot be recorded yet."""
        jobs = {live.job for live in lives if live.job is not None}
        for live in lives:
            if live.job is not None and not live.cancelled:
                # Cancel only once: a second time would interrupt the recording of its end.
                live.cancelled = True
                live.job.cancel()
        if jobs and (await asyncio.wait(jobs, timeout=_CANCEL_S))[1]:
            raise LedgerStuck("the ledger cannot be written; what was cancelled ends once it can")
