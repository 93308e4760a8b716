"""Running one task to its end: submit, follow its events, reconnect, and send the key again when requested."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from farmhand.core.errors import POT_SPENT, WireError
from farmhand.core.keys import Credential
from farmhand.wire.client import Client

OnEvent = Callable[[dict[str, Any]], None]
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
#: Seconds without a connection after which the client stops waiting. The task itself goes on.
RESUME_S = 60.0
#: An agent may restart between two hand-overs of the key; more often than this indicates a fault.
_MAX_HANDOVERS = 5
#: The limit on broken connections, after which no more reconnects are tried.
_MAX_BREAKS = 1000
_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
#: Errors that may be temporary once the agent has answered.
_PASSING = frozenset({"lost", "unreachable", "agent_down", "draining"})


def run_task(
    client: Client,
    task: dict[str, Any],
    key: Credential | None,
    on_event: OnEvent,
    *,
    resume_s: float = RESUME_S,
    within_s: float | None = None,
    on_submitting: Callable[[], None] = lambda: None,
    on_submitted: Callable[[], None] = lambda: None,
    on_state: Callable[[str], None] = lambda _state: None,
    on_refused: Callable[[], bool] = lambda: False,
    on_waiting: Callable[[WireError], None] = lambda _error: None,
) -> dict[str, Any]:
    """Submit `task` under its id, follow it and return its result.

    `on_event` gets every event. After a reconnect it first gets `{"type": "restart", "reason": "reconnected"}`, because
    the text may be repeated from its start. `on_submitting` is called when an agent has answered, before the task is
    sent; `on_submitted` is called when the agent has the task, `on_state` with the state in which it then was.
    `on_waiting` gets the reason before each pause after which the agent is asked again: it drains, or the connection is
    lost. With `key` None, a task that needs a key ends the wait: its result so far is returned, in state
    `awaiting_key`. A key that the API refuses is not sent again: the task is cancelled, unless `on_refused` has brought
    another one and returns True. With `within_s`, a task that has not ended by then is cancelled: `not_in_time`.

    Raise WireError; for a refused key its code and message are the API's own.
    """
    follower = _Follower(client, task, resume_s, within_s)
    follower.on_refused, follower.on_waiting = on_refused, on_waiting
    submitted = follower.again(lambda: follower.submit(key, on_submitting))
    on_submitted()
    on_state(str(submitted.get("state")))
    return follower.again(lambda: follower.events(key, on_event))


def follow_task(
    client: Client, task_id: str, on_event: OnEvent, *, on_waiting: Callable[[WireError], None] = lambda _error: None
) -> dict[str, Any]:
    """Follow a task that its host has, and return its result, or that so far of one that waits for a key.

    Raise WireError.
    """
    follower = _Follower(client, {"id": task_id}, RESUME_S, None)
    follower.on_waiting = on_waiting
    client.connect()
    follower.reached = True
    return follower.again(lambda: follower.events(None, on_event))


class _Follower:
    """The progress of one task; `again` repeats a step that a broken connection interrupted."""

    def __init__(self, client: Client, task: dict[str, Any], resume_s: float, within_s: float | None) -> None:
        self.client = client
        self.task = task
        self.id = str(task["id"])
        self.resume_s = resume_s
        self.within_s = within_s
        self.reached = False
        self.followed = False
        self.last_sign = self.began = time.monotonic()
        self.breaks = 0
        self.on_refused: Callable[[], bool] = lambda: False
        self.on_waiting: Callable[[WireError], None] = lambda _error: None

    def again(self, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the step's answer; repeat the step while the connection returns within the time limit."""
        tries = 0
        sign = self.last_sign
        while True:
            try:
                return step()
            except WireError as error:
                if sign != self.last_sign:
                    tries, sign = 0, self.last_sign
                self.breaks += 1
                late = time.monotonic() - self.last_sign > self.resume_s or self.breaks > _MAX_BREAKS
                if late or not self.reached or error.code not in _PASSING:
                    if error.code == "lost":
                        error.message = f"{error.message}; task {self.id} goes on there"
                        error.hint = f"the same command with --id {self.id} takes it up again"
                    raise
                self._check_time()
                self.on_waiting(error)
            self.client.close()
            time.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1

    def _check_time(self) -> None:
        if self.within_s is not None and time.monotonic() - self.began >= self.within_s:
            self._cancel()
            name = self.client.transport.name
            message = f"{name}: a task has not ended within {self.within_s:g} s"
            raise WireError("not_in_time", message, "farmhand status")

    def _cancel(self) -> None:
        """Cancel the task, which nobody waits for any more."""
        self.client.close()
        with contextlib.suppress(WireError):
            self.client.cancel(self.id)

    def _sign(self) -> None:
        self.reached = True
        self.last_sign = time.monotonic()

    def submit(self, key: Credential | None, on_submitting: Callable[[], None]) -> dict[str, Any]:
        """Submit the task. An id that is already known is no error."""
        self.client.connect()
        if not self.reached:
            # From here on the request may have arrived although no answer came, so a retry makes sense. Repeated
            # greetings followed by refusals do not extend the time limit: the agent may be draining for hours.
            self._sign()
        on_submitting()
        states = self.client.submit([self.task], key)
        self._sign()
        return states[0] if states else {}

    def events(self, key: Credential | None, on_event: OnEvent) -> dict[str, Any]:
        """Follow the events and return the result."""
        if self.followed:
            on_event({"type": "restart", "reason": "reconnected"})
        self.followed = True
        for _ in range(_MAX_HANDOVERS):
            result = self._until_key_is_wanted(on_event)
            if result is not None:
                return result
            if key is None:
                return self.client.task(self.id)
            self.client.put_key(key)
            self._sign()
        message = f"{self.client.transport.name}: the agent asks for the key again and again"
        raise WireError("agent_error", message, "see jada-agent's journal there")

    def _until_key_is_wanted(self, on_event: OnEvent) -> dict[str, Any] | None:
        """Return the result, or None when the task needs a key."""
        for event in self.client.events(self.id, pings=self.within_s is not None):
            self._sign()
            self._check_time()
            kind, result = event.get("type"), event.get("result") or {}
            if kind == "state" and event.get("state") == "awaiting_key":
                if event.get("reason") == POT_SPENT:  # it waits there, which may take days
                    message = f"{self.client.transport.name}: {event.get('message')}; task {self.id} waits there"
                    raise WireError(POT_SPENT, message, str(event.get("hint") or ""))
                if event.get("reason"):
                    if self.on_refused():
                        self.client.close()  # what comes on this stream is about the key before
                        return self._until_key_is_wanted(on_event)
                    # It would wait on the host with a key that the API refuses.
                    self._cancel()
                    said = f"the API refused the key: {event.get('message')}"
                    raise WireError(str(event["reason"]), said, str(event.get("hint") or ""))
                return None
            if kind == "result" and result.get("state") in FINAL_STATES:
                on_event(event)
                return dict(result)
            if kind not in ("ping", "result"):
                on_event(event)
        # An agent that stops ends its streams before the task ends; its successor continues the task.
        raise WireError("lost", f"{self.client.transport.name}: the connection was lost")
