"""Run one task to its end: submit, follow its events, survive a lost line, bring the key again when it is wanted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NoReturn

from farmhand.core.errors import WireError
from farmhand.wire.client import Client

OnEvent = Callable[[dict[str, Any]], None]
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
#: How long a broken line may stay broken before we give up waiting. The task itself goes on.
RESUME_S = 60.0
#: An agent restarts between two hand-overs now and then; more often than this something is wrong.
_MAX_HANDOVERS = 5
#: A line that breaks and comes back so often is no line.
_MAX_BREAKS = 1000
_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
#: What may pass by itself once the agent has answered before.
_PASSING = frozenset({"lost", "unreachable", "agent_down", "draining"})


def run_task(
    client: Client,
    task: dict[str, Any],
    key: str | None,
    on_event: OnEvent,
    *,
    resume_s: float = RESUME_S,
    within_s: float | None = None,
    on_submitting: Callable[[], None] = lambda: None,
    on_submitted: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Submit `task` under its id and follow it: its result.

    `on_event` gets every event; after a broken line it gets `{"type": "restart", "reason": "reconnected"}` first, since
    the text may come again from its start. `on_submitting` is called once an agent has answered and before the task is
    sent, `on_submitted` once the agent has it. With `key` None a task that waits for a key ends the wait: its result so
    far is returned, in state `awaiting_key`. A key that the API refuses is not brought again: the task is cancelled.
    With `within_s` a task that has not ended by then is cancelled: WireError `not_in_time`.
    Raises WireError; its code and message are the API's own for a refused key.
    """
    follower = _Follower(client, task, key, on_event, resume_s)
    follower.within_s = within_s
    follower.on_submitting = on_submitting
    follower.again(follower.submit)
    on_submitted()
    return follower.again(follower.events)


class _Follower:
    """One task on its way; `again` repeats a step that a broken line cut short."""

    def __init__(
        self, client: Client, task: dict[str, Any], key: str | None, on_event: OnEvent, resume_s: float
    ) -> None:
        self.client = client
        self.task = task
        self.key = key
        self.on_event = on_event
        self.resume_s = resume_s
        self.reached = False
        self.followed = False
        self.on_submitting: Callable[[], None] = lambda: None
        self.within_s: float | None = None
        self.last_sign = self.began = time.monotonic()
        self.breaks = 0

    def again(self, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """`step`'s answer; a step is repeated as long as the line comes back within the time for it."""
        tries = 0
        sign = self.last_sign
        while True:
            try:
                return step()
            except WireError as error:
                if sign != self.last_sign:
                    tries, sign = 0, self.last_sign
                waited = time.monotonic() - self.last_sign
                self.breaks += 1
                if not self.reached or error.code not in _PASSING or waited > self.resume_s:
                    raise self._final(error) from None
                if self.breaks > _MAX_BREAKS:
                    raise self._final(error) from None
                self._check_time()
            self.client.close()
            time.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1

    def _final(self, error: WireError) -> WireError:
        if error.code == "lost":
            error.message = f"{error.message}; task {self.task['id']} goes on there"
            error.hint = f"the same command with --id {self.task['id']} takes it up again"
        return error

    def _check_time(self) -> None:
        if self.within_s is None or time.monotonic() - self.began < self.within_s:
            return
        self.client.close()
        with contextlib.suppress(WireError):
            self.client.cancel(str(self.task["id"]))
        name = self.client.transport.name
        raise WireError("not_in_time", f"{name}: a task has not ended within {self.within_s:g} s", "farmhand status")

    def _sign(self) -> None:
        self.reached = True
        self.last_sign = time.monotonic()

    def submit(self) -> dict[str, Any]:
        """Hand the task over. That the id is known already is no error."""
        self.client.connect()
        if not self.reached:
            # From here on the request may have arrived although no answer came, so it is worth asking again. That
            # an agent greets and refuses, again and again, is no further sign: it may be emptied for hours.
            self._sign()
        self.on_submitting()
        states = self.client.submit([self.task], self.key)
        self._sign()
        return states[0] if states else {}

    def events(self) -> dict[str, Any]:
        """Follow the events to the result."""
        if self.followed:
            self.on_event({"type": "restart", "reason": "reconnected"})
        self.followed = True
        for _ in range(_MAX_HANDOVERS):
            result = self._until_key_is_wanted()
            if result is not None:
                return result
            if self.key is None:
                return self.client.task(str(self.task["id"]))
            self.client.put_key(self.key)
            self._sign()
        message = f"{self.client.transport.name}: the agent asks for the key again and again"
        raise WireError("agent_error", message, "see jada-agent's journal there")

    def _until_key_is_wanted(self) -> dict[str, Any] | None:
        """The result, or None once the task waits for a key."""
        pings = {"pings": True} if self.within_s is not None else {}
        for event in self.client.events(str(self.task["id"]), **pings):
            self._sign()
            self._check_time()
            if event.get("type") == "ping":
                continue
            if event.get("type") == "state" and event.get("state") == "awaiting_key":
                if event.get("reason"):
                    self._refused(event)
                return None
            if event.get("type") != "result":
                self.on_event(event)
                continue
            result = event.get("result")
            if isinstance(result, dict) and result.get("state") in FINAL_STATES:
                self.on_event(event)
                return result
        # An agent that stops ends its streams before the task has ended; the next one goes on with it.
        raise WireError("lost", f"{self.client.transport.name}: the connection was lost")

    def _refused(self, event: dict[str, Any]) -> NoReturn:
        """The API does not take the key: the task will not run with it, so it is not left waiting on the host."""
        self.client.close()
        with contextlib.suppress(WireError):
            self.client.cancel(str(self.task["id"]))
        raise WireError(
            str(event["reason"]), f"the API refused the key: {event.get('message')}", str(event.get("hint") or "")
        )
