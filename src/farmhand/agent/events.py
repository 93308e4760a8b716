"""The registry of running and watched tasks: their events, and the rate at which tasks end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from farmhand.agent.pots import Pots
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import QueuedTask
from farmhand.core.task import FINAL_STATES
from farmhand.meter.grants import Grant, Key

_PING_S = 10.0
#: How often a listener is told if its task waits for something else than before.
_LOOK_S = 1.0
_WINDOW_S = 60.0
Event = dict[str, Any]
_END: Event = {"type": "end"}


@dataclass(slots=True)
class RunningTask:
    """A running or watched task: its text so far and its listeners.

    `job`, `claim`, `key` and the attempt's `grant` are set while it runs. `cancelled`: it is being cancelled on
    purpose.
    """

    text: list[str] = field(default_factory=list)
    listeners: set[asyncio.Queue[Event]] = field(default_factory=set)
    job: asyncio.Task[None] | None = None
    claim: QueuedTask | None = None
    key: Key | None = None
    grant: Grant | None = None
    cancelled: bool = False

    def publish(self, event: Event) -> None:
        """Send the event to all listeners."""
        for listener in self.listeners:
            listener.put_nowait(event)

    def add_text(self, text: str) -> None:
        """Append a piece of the answer."""
        self.text.append(text)
        if self.listeners:
            self.publish({"type": "text", "text": text})


class TaskRegistry:
    """The registry of running and watched tasks, `live` by id."""

    def __init__(self, ledger: Ledger, pots: Pots) -> None:
        self._ledger = ledger
        self._pots = pots
        self.live: dict[str, RunningTask] = {}
        self._began = time.monotonic()
        #: Second → number of tasks that ended in that second.
        self._ended: Counter[int] = Counter()
        self._waited_for: dict[str, asyncio.Event] = {}

    def enter(self, task_id: str) -> RunningTask:
        """Return the registered task with this id; register it if necessary."""
        return self.live.setdefault(task_id, RunningTask())

    def leave(self, task_id: str) -> None:
        """Remove the task, unless it runs or is watched."""
        live = self.live.get(task_id)
        if live is not None and live.job is None and not live.listeners:
            del self.live[task_id]

    def running(self) -> list[RunningTask]:
        """Return the running tasks."""
        return [live for live in self.live.values() if live.job is not None]

    def claims(self) -> list[QueuedTask]:
        """Return the running tasks as they were queued."""
        return [live.claim for live in self.live.values() if live.claim is not None]

    def publish(self, task_id: str, event: Event) -> None:
        """Send the event to all listeners of the task."""
        live = self.live.get(task_id)
        if live is not None:
            live.publish(event)

    def done(self, batch: str, *task_ids: str) -> None:
        """Notify listeners of these tasks and clients waiting for `batch` that the tasks are final in the ledger."""
        now = time.monotonic()
        self._ended[int(now)] += len(task_ids)
        for old in [second for second in self._ended if second < now - _WINDOW_S]:
            del self._ended[old]
        if batch in self._waited_for:
            self._waited_for.pop(batch).set()
        for task_id in task_ids:
            self.publish(task_id, _END)

    async def wait_for_result(self, batch: str, timeout_s: float) -> None:
        """Wait until a task of `batch` has ended, or for `timeout_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._waited_for.setdefault(batch, asyncio.Event()).wait()

    def per_s(self) -> float:
        """Return the tasks that ended per second, over the last 60 s or since the start."""
        now = time.monotonic()
        span = min(_WINDOW_S, max(1.0, now - self._began))
        return round(sum(count for second, count in self._ended.items() if second >= now - _WINDOW_S) / span, 2)

    def end_all(self) -> None:
        """End all event streams with the current state, since the agent stops."""
        for live in self.live.values():
            live.publish(_END)

    def publish_waiting(self) -> None:
        """Send the current state to listeners of waiting tasks, after keys have changed."""
        for task_id, live in self.live.items():
            if live.job is None and live.listeners:
                known = self._ledger.known(task_id)
                live.publish(self.state_event(known.state, known.pot))

    def state_event(self, state: str, pot: str = "") -> Event:
        """Return the event for a new `state`, with the reason if the task waits for its pot or a refused key."""
        event: Event = {"type": "state", "state": state}
        return event | self._pots.why(pot) if state == "awaiting_key" else event

    async def events(self, task_id: str, waiting: Callable[[str], Event] = lambda _id: {}) -> AsyncIterator[Event]:
        """Yield the text so far, then events as they happen, last the result. Raise KeyError for an unknown id.

        `waiting` returns what a task waits for now; an event says so whenever that changes. Its `until` is Unix time.
        """
        known = self._ledger.known(task_id)
        if known.state not in FINAL_STATES:
            live = self.enter(task_id)
            queue: asyncio.Queue[Event] = asyncio.Queue()
            live.listeners.add(queue)
            try:
                yield self.state_event(known.state, known.pot)
                if live.text:
                    yield {"type": "text", "text": "".join(live.text)}
                said, quiet_since = {"reason": ""}, time.monotonic()
                while True:
                    if (wait := waiting(task_id)) and wait != said:
                        said, quiet_since = wait, time.monotonic()
                        yield _waiting_event(wait)
                    try:
                        async with asyncio.timeout(_LOOK_S):
                            event = await queue.get()
                    except TimeoutError:
                        if time.monotonic() - quiet_since < _PING_S:
                            continue
                        event = {"type": "ping"}
                    if event is _END:
                        break
                    quiet_since = time.monotonic()
                    yield event
            finally:
                live.listeners.discard(queue)
                self.leave(task_id)
        yield {"type": "result", "result": self._ledger.result(task_id)}


def _waiting_event(wait: Event) -> Event:
    """Return the event, with the seconds that are left: the clocks of host and client may differ."""
    event = {"type": "waiting", **{name: value for name, value in wait.items() if name != "until"}}
    until = wait.get("until")
    return event if until is None else event | {"in_s": round(max(0.0, until - time.time()), 1)}
