"""Which task runs when: takes tasks in, starts them as slots are free, parks and resumes them with their keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

from farmhand.agent.attempts import Attempt
from farmhand.agent.budgets import Budgets
from farmhand.agent.config import Config
from farmhand.agent.context import BatchEngine, RunContext
from farmhand.agent.engines import Engine
from farmhand.agent.events import Event, RunningTask, TaskRegistry
from farmhand.agent.key_wait import KeyWait
from farmhand.agent.keys import Keys
from farmhand.agent.progress import BatchProgress
from farmhand.agent.ready_queue import ReadyQueue
from farmhand.agent.store.ledger import CANCELLED, Ledger, LedgerStuck
from farmhand.agent.store.queries import QueuedTask
from farmhand.agent.store.rows import BatchView, WaitReason
from farmhand.core.errors import FarmhandError
from farmhand.core.task import FINAL_STATES, DrainMode, Result, State, Task
from farmhand.meter import Key

log = logging.getLogger("jada-agent")
#: How long a client that cancels a task is kept waiting for a ledger that cannot be written.
_CANCEL_S = 5.0


class Draining(FarmhandError):
    """The agent is stopping, or is being emptied, and takes no tasks."""

    code = "draining"


class Scheduler:
    """Gives slots to waiting tasks. All methods belong to one event loop; `recover` comes before all others."""

    def __init__(self, config: Config, ledger: Ledger, engines: dict[str, Engine], economy: BatchEngine) -> None:
        self._config = config
        self._economy = economy
        self._ledger = ledger
        self.slots = {"api": config.slots_api, "cli": config.slots_cli}
        self.busy = dict.fromkeys(self.slots, 0)
        self.keys = Keys()
        self.progress = BatchProgress()
        self.lines = ReadyQueue(ledger)
        self.stage = TaskRegistry(ledger, self.keys)
        self.mode: DrainMode = "off"
        #: Requests that a crash has left uncertain.
        self.interrupted = 0
        self.budgets = Budgets(ledger, config.budget_day_usd)
        self._room = RunContext(config, ledger, engines, self.keys, self.stage, self.progress, self.budgets)
        self._suspect: QueuedTask | None = None
        self._parking = KeyWait(ledger, self.keys, self.lines, self.stage, self._pump)

    @property
    def draining(self) -> bool:
        """Whether new tasks are refused."""
        return self._room.draining or self.mode != "off"

    @property
    def suspecting(self) -> bool:
        """Whether other tasks wait for those that ran when the agent crashed."""
        return self._suspect is not None

    @property
    def stopping(self) -> bool:
        """Whether the agent is about to end."""
        return self._room.draining

    def economy_waits(self, batch: str | None) -> Sequence[WaitReason]:
        """See `BatchEngine.waits`."""
        return self._economy.waits(batch)

    async def recover(self) -> None:
        """After a start: every unfinished task awaits a key."""
        before = self._ledger.uncertain()
        waiting = await self._ledger.recover(self._config.attempts)
        self.lines.suspects = self._ledger.suspected()
        self.interrupted = self._ledger.uncertain() - before
        if waiting:
            log.info("%d unfinished tasks await a key", waiting)
        if self.lines.suspects:
            log.warning(
                "%d tasks ran when the agent crashed: each runs alone before others do", len(self.lines.suspects)
            )
        self._economy.start(self._room, lambda: not self._room.draining and self.mode != "running", self._parking.tidy)

    # --- what clients ask for -------------------------------------------------------------------------------------

    async def submit(self, tasks: list[Task], key: Key | None) -> dict[str, State]:
        """Take `tasks`, all or none; each runs on `key`, or on the default key. Returns the state by id."""
        if self._room.draining:
            raise Draining("the agent is stopping and takes no tasks", hint="send it again in a moment")
        if self.mode != "off":
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
        self.lines.added(max(task.priority for task in tasks))
        if key is not None:
            await self._parking.resume(key)
        self._pump()
        return {task_id: "queued" if key and state == "awaiting_key" else state for task_id, state in states.items()}

    async def set_key(self, key: Key, supersedes: str = "") -> tuple[Key, int]:
        """Every waiting task, and every later one without a key of its own, runs on `key`, or on what is in its place.

        `supersedes` is the fingerprint of the key whose place it takes. Returns the key, and how many had awaited one.
        """
        if supersedes:
            self.keys.supersede(supersedes, key)
        else:
            key = self.keys.stand_in(key)
            self.keys.replace(key)
        await self._note(key)
        resumed = await self._parking.resume(key)
        self._pump()
        return key, resumed

    async def _note(self, key: Key) -> None:
        """How old the key is is known from now on; where the ledger cannot be written, from the next time on."""
        with suppress(LedgerStuck):
            await self._ledger.note_key(key.fingerprint)

    def forget_key(self, fingerprint: str) -> bool:
        """Drop a key from memory; attempts on it go on. False: it was not here."""
        found = self.keys.forget(fingerprint)
        if not self.keys.held:
            self._parking.tidy()
        return found

    async def cancel(self, task_id: str) -> Result:
        """End the task, whatever it does. Returns what it is then; KeyError for an unknown id."""
        known = self._ledger.known(task_id)
        live = self.stage.get(task_id)
        if known.state not in FINAL_STATES and live is not None:
            await self._stop([live])
        # A job that was ended before its first step has recorded nothing.
        if self._ledger.known(task_id).state not in FINAL_STATES:
            cancelled = Result(id=task_id, state="cancelled", error=CANCELLED)
            await self._ledger.end(known.seq, None, cancelled)
            self.progress.done(known.batch)
            self.stage.end(task_id)
            self._pump()
        return self._ledger.result(task_id)

    async def cancel_many(self, ids: list[str]) -> dict[str, str]:
        """End these tasks; the state of each, `unknown` for an id that the ledger does not have."""
        known = {task_id: self._ledger.find(task_id) for task_id in ids}
        live = [self.stage.get(task_id) for task_id, found in known.items() if found is not None]
        await self._stop([one for one in live if one is not None])
        await asyncio.gather(*(self.cancel(task_id) for task_id, found in known.items() if found is not None))
        return {
            task_id: self._ledger.known(task_id).state if found is not None else "unknown"
            for task_id, found in known.items()
        }

    async def cancel_batch(self, batch: str) -> int:
        """End all unfinished tasks of the batch; how many that were. Raises NoSuchBatch."""
        before = self._ledger.batch(batch).cancelled
        self.lines.closed.add(batch)
        try:
            await self._stop([live for live in self.stage.running() if live.claim and live.claim.batch == batch])
            while ids := await self._ledger.cancel_batch(batch):
                self.progress.done(batch, len(ids))
                for task_id in ids:
                    self.stage.end(task_id)
        finally:
            self.lines.closed.discard(batch)
            self.lines.changed()
            self._pump()
        return self._ledger.batch(batch).cancelled - before

    async def put_batch(self, name: str, max_pico: int | None, concurrency: int | None) -> BatchView:
        """Make the batch, or change its limits."""
        await self._ledger.put_batch(name, max_pico, concurrency)
        self.lines.limits.pop(name, None)
        if concurrency is not None:
            self.lines.limits[name] = concurrency
        self.lines.changed()
        batch = self._ledger.batch(name)
        self.budgets.changed(batch)
        self._pump()
        return batch

    def events(self, task_id: str) -> AsyncIterator[Event]:
        """See `TaskRegistry.events`."""
        return self.stage.events(task_id)

    # --- the agent's own life -------------------------------------------------------------------------------------

    def set_mode(self, mode: DrainMode) -> None:
        """`queue` takes nothing new, `running` starts nothing new either; `off` is the usual."""
        self.mode = mode
        self._room.resting = mode == "running"
        self.lines.changed()  # what was put back meanwhile is in line again
        self._pump()

    async def drain(self) -> None:
        """Take nothing new, let what runs end within `drain_s`; the rest goes back to the queue."""
        self._room.draining = True
        await self._economy.close()
        jobs = {live.job for live in self.stage.running() if live.job is not None}
        if jobs:
            log.info("draining: %d tasks still run", len(jobs))
            _, late = await asyncio.wait(jobs, timeout=self._config.drain_s)
            for job in late:
                job.cancel()
            if late:
                await asyncio.wait(late)
        self._parking.close()
        self.stage.end_all()

    async def abandon(self) -> None:
        """End everything at once: nothing can be recorded any more. What ran counts as cut off by a crash."""
        self._room.draining = True
        await self._economy.close()
        jobs = [live.job for live in self.stage.running() if live.job is not None]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        self._parking.close()
        self.stage.end_all()

    # --- running --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start waiting tasks while there are free slots and keys."""
        self._economy.wake()
        if self._room.draining or self.mode == "running":
            return
        if not self.keys.held:
            if self.keys.refused:
                self._parking.tidy()
            return
        if self._try_suspects():
            return
        for engine, slots in self.slots.items():
            while self.busy[engine] < slots:
                task = self.lines.take(engine)
                if task is None:
                    break
                key = self.keys.of(task.key_fingerprint)
                if key is None or (self.keys.on_trial(key) and self._uses(key)):
                    self.lines.release(task)
                    self.lines.changed()
                    if key is None:
                        self._parking.tidy()
                    break
                self._start(task, engine, key)

    def _try_suspects(self) -> bool:
        """A task that ran when the agent crashed runs while nothing else does: should the agent crash again, no other
        is to blame, or has to be paid again. Whether there is one that runs, or that is next.
        """
        if self._suspect is not None:
            return True
        if not self.lines.suspects:
            return False
        for task, engine in self.lines.next_suspects():
            key = self.keys.of(task.key_fingerprint)
            if key is None:
                self._parking.tidy()
                continue
            if not any(self.busy.values()):
                self.lines.claim(task)
                self._suspect = task
                self._start(task, engine, key)
            return True
        return False

    def _start(self, task: QueuedTask, engine: str, key: Key) -> None:
        self.busy[engine] += 1
        live = self.stage.enter(task.id)
        live.claim, live.key, live.cancelled = task, key, False
        live.job = asyncio.create_task(Attempt(self._room, task, engine, key, live).run(), name=f"task {task.id}")
        live.job.add_done_callback(partial(self._release, task, engine, key, live))

    def _release(self, task: QueuedTask, engine: str, key: Key, live: RunningTask, _job: asyncio.Task[None]) -> None:
        """Free the slot; a callback, since a job that is cancelled before its first step never enters its own body."""
        self.busy[engine] -= 1
        self.lines.release(task)
        if self._suspect is task:
            self._suspect = None
            if self._ledger.known(task.id).state in FINAL_STATES:
                self.lines.suspects.discard(task.seq)
        live.job = live.claim = live.key = live.grant = None
        self.stage.leave(task.id)
        if self.keys.of(key.fingerprint) is None:
            self._parking.tidy()
        elif len(self.keys.held) > 1 and not self._uses(key) and not self._ledger.waits_for(key.fingerprint):
            self.keys.drop(key.fingerprint)
        self._pump()

    def _uses(self, key: Key) -> bool:
        """Whether a running task uses the key."""
        return any(live.key is key for live in self.stage.running())

    async def _stop(self, lives: list[RunningTask]) -> None:
        """End those that run for good. LedgerStuck where that cannot be recorded yet."""
        jobs = set()
        for live in lives:
            if live.job is not None:
                if not live.cancelled:
                    # Once: a second time would end it while it records its end.
                    live.cancelled = True
                    live.job.cancel()
                jobs.add(live.job)
        if jobs and (await asyncio.wait(jobs, timeout=_CANCEL_S))[1]:
            raise LedgerStuck("the ledger cannot be written; what was cancelled ends once it can")
