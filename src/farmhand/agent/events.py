"""The tasks that run or that somebody watches, and what is told about them as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from farmhand.agent.keys import Keys
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.store.queries import QueuedTask
from farmhand.core.task import FINAL_STATES
from farmhand.meter import Grant, Key

_PING_S = 10.0
Event = dict[str, Any]


@dataclass(slots=True)
class RunningTask:
    """A task that somebody watches or that runs: the text so far and who listens.

    `job`, `claim`, `key` and the `grant` of its attempt are there while it runs; `cancelled` says that it is being
    ended on purpose.
    """

    text: list[str] = field(default_factory=list)
    listeners: set[asyncio.Queue[Event]] = field(default_factory=set)
    job: asyncio.Task[None] | None = None
    claim: QueuedTask | None = None
    key: Key | None = None
    grant: Grant | None = None
    cancelled: bool = False

    def tell(self, event: Event) -> None:
        """Tell all who listen."""
        for listener in self.listeners:
            listener.put_nowait(event)

    def say(self, text: str) -> None:
        """More of the answer has come."""
        self.text.append(text)
        if self.listeners:
            self.tell({"type": "text", "text": text})


class TaskRegistry:
    """All live tasks by id."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys
        self._live: dict[str, RunningTask] = {}

    def get(self, task_id: str) -> RunningTask | None:
        """The live task of this id, if it is one."""
        return self._live.get(task_id)

    def enter(self, task_id: str) -> RunningTask:
        """The same; it becomes one."""
        return self._live.setdefault(task_id, RunningTask())

    def leave(self, task_id: str) -> None:
        """Forget it, unless it runs or is watched."""
        live = self._live.get(task_id)
        if live is not None and live.job is None and not live.listeners:
            del self._live[task_id]

    def running(self) -> list[RunningTask]:
        """Those that run."""
        return [live for live in self._live.values() if live.job is not None]

    def end(self, task_id: str) -> None:
        """The task is final: whoever watches it gets its result."""
        live = self._live.get(task_id)
        if live is not None:
            live.tell({"type": "end"})

    def end_all(self) -> None:
        """The agent stops: whoever watches is told how things stand."""
        for live in self._live.values():
            live.tell({"type": "end"})

    def tell_waiting(self) -> None:
        """Keys have come or gone: tell those who watch a waiting task how it stands."""
        for task_id, live in self._live.items():
            if live.job is None and live.listeners:
                live.tell(self.state_event(self._ledger.known(task_id).state))

    def state_event(self, state: str) -> Event:
        """The event that tells of `state`; with the reason, where a task waits because its key was refused."""
        event: Event = {"type": "state", "state": state}
        refusal = self._keys.refusal
        if state == "awaiting_key" and refusal is not None:
            event |= {"reason": refusal.code, "message": refusal.message, "hint": refusal.hint}
        return event

    async def events(self, task_id: str) -> AsyncIterator[Event]:
        """The text so far, then what happens to the task as it happens, last its result. KeyError for an unknown id."""
        state = self._ledger.known(task_id).state
        if state not in FINAL_STATES:
            live = self.enter(task_id)
            queue: asyncio.Queue[Event] = asyncio.Queue()
            live.listeners.add(queue)
            try:
                yield self.state_event(state)
                if live.text:
                    yield {"type": "text", "text": "".join(live.text)}
                async for event in _follow(queue):
                    yield event
            finally:
                live.listeners.discard(queue)
                self.leave(task_id)
        yield {"type": "result", "result": self._ledger.result(task_id)}


async def _follow(queue: asyncio.Queue[Event]) -> AsyncIterator[Event]:
    while True:
        try:
            async with asyncio.timeout(_PING_S):
                event = await queue.get()
        except TimeoutError:
            event = {"type": "ping"}
        if event["type"] == "end":
            return
        yield event
