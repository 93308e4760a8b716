"""Running one task to its end: submit, follow its events, reconnect, and send the key again when requested."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NoReturn

from farmhand.core.errors import WireError
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
    key: str | None,
    on_event: OnEvent,
    *,
    resume_s: float = RESUME_S,
    within_s: float | None = None,
    on_submitting: Callable[[], None] = lambda: None,
    on_submitted: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Submit `task` under its id, follow it and return its result.

    `on_event` gets every event. After a reconnect it first gets `{"type": "restart", "reason": "reconnected"}`, because
    the text may be repeated from its start. `on_submitting` is called when an agent has answered, before the task is
    sent; `on_submitted` is called when the agent has the task. With `key` None, a task that needs a key ends the wait:
    its result so far is returned, in state `awaiting_key`. A key that the API refuses is not sent again: the task is
    cancelled. With `within_s`, a task that has not ended by then is cancelled: WireError `not_in_time`.

    Raise WireError; for a refused key its code and message are the API's own.
    """
    follower = _Follower(client, task, key, on_event, resume_s)
    follower.within_s = within_s
    follower.on_submitting = on_submitting
    follower.again(follower.submit)
    on_submitted()
    return follower.again(follower.events)


class _Follower:
    """The progress of one task; `again` repeats a step that a broken connection interrupted."""

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
        """Return the step's answer; repeat the step while the connection returns within the time limit."""
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
        """Submit the task. An id that is already known is no error."""
        self.client.connect()
        if not self.reached:
            # From here on the request may have arrived although no answer came, so a retry makes sense. Repeated
            # greetings followed by refusals do not extend the time limit: the agent may be draining for hours.
            self._sign()
        self.on_submitting()
        states = self.client.submit([self.task], self.key)
        self._sign()
        return states[0] if states else {}

    def events(self) -> dict[str, Any]:
        """Follow the events and return the result."""
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
        """Return the result, or None when the task needs a key."""
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
        # An agent that stops ends its streams before the task ends; its successor continues the task.
        raise WireError("lost", f"{self.client.transport.name}: the connection was lost")

    def _refused(self, event: dict[str, Any]) -> NoReturn:
        """Cancel the task, which would otherwise wait on the host with a key that the API refuses, and raise."""
        self.client.close()
        with contextlib.suppress(WireError):
            self.client.cancel(str(self.task["id"]))
        raise WireError(
            str(event["reason"]), f"the API refused the key: {event.get('message')}", str(event.get("hint") or "")
        )
