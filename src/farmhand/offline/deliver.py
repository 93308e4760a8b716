"""Delivery of the spool: tasks are sent to a host that answers, and their results are stored in the spool.

A task may be on one host only. That host is recorded before the task is sent. The task is sent to another host only
after the recorded one has reported that it does not have it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from farmhand.core.errors import WireError
from farmhand.core.keys import Credential, holds_key
from farmhand.core.settings import Settings
from farmhand.offline.spool import Spool, SpooledTask
from farmhand.places.hosts import credential, known_hosts
from farmhand.wire.client import Client
from farmhand.wire.follow import FINAL_STATES, run_task

#: Refusals that may be temporary: the task keeps waiting.
_PASSING = frozenset({"draining", "budget", "ledger_stuck", "agent_error", "bad_key", "no_key"})


#: Told of a task that has ended at a host, with its result, while the host can still be asked about it.
OnEnd = Callable[[SpooledTask, dict[str, Any], Client], None]


class Visit:
    """One visit to a host that answers: what waits for it is sent, what has ended there is collected.

    `delivered` and `finished` are ids.
    """

    def __init__(self, client: Client, host: str, spool: Spool, key: Credential, on_end: OnEnd | None = None) -> None:
        self.client = client
        self.host = host
        self.spool = spool
        self.key = key
        self.delivered: list[str] = []
        self.finished: list[str] = []
        self._on_end = on_end
        self._key_brought = False

    def make(self, *, within_s: float = math.inf) -> None:
        """See to the tasks that wait for the host, oldest first; start nothing after `within_s`. Raise WireError."""
        end = time.monotonic() + within_s
        for entry in self.spool.each():
            if time.monotonic() >= end:
                return
            if concerns(entry, self.host):
                self._see_to(entry)

    def _see_to(self, entry: SpooledTask) -> None:
        """Send the task, or request its result."""
        if entry.sent:
            try:
                self._take(entry, self.client.task(entry.id))
                return
            except WireError as error:
                if error.code == "pruned":
                    self._fail(entry, error)
                    return
                if error.code != "no_such_task":
                    raise
                # It never arrived, or the host has lost its ledger: it is sent there again.
        if entry.worn_out:
            times = f"it was sent {entry.deliveries} times, and each time its host was gone before it said a word"
            hint = "see the journal of that host's agent, and change the task before it is given again with another id"
            self._fail(entry, WireError("agent_crashed", times, hint))
        elif holds_key(entry.task, self.key):
            # The current key may differ from the key at the time when the task was spooled.
            self._fail(entry, WireError("key_in_task", "the API key itself stands in the task", "take it out"))
        else:
            self._send(entry)

    def _send(self, entry: SpooledTask) -> None:
        self.client.connect()
        if self.spool.claim(entry.id, self.host) != self.host:
            return
        try:
            states = self.client.submit([entry.as_sent], self.key)
        except WireError as error:
            if error.status == 0:
                # The task was not refused, so the host may have it.
                raise
            if error.code in _PASSING or error.status >= 500:
                self.spool.release(entry.id, keep=bool(entry.sent))
                raise
            self._fail(entry, error)
            return
        self.delivered.append(entry.id)
        if states and states[0].get("state") in FINAL_STATES:
            self._take(entry, self.client.task(entry.id))

    def _take(self, entry: SpooledTask, result: dict[str, Any]) -> None:
        """Store a final result; send the key once if a task waits for it."""
        if result.get("state") in FINAL_STATES:
            self._keep(entry, result)
            if self._on_end is not None:
                self._on_end(entry, result, self.client)
        elif result.get("state") == "awaiting_key" and not self._key_brought:
            self.client.put_key(self.key)
            self._key_brought = True

    def _keep(self, entry: SpooledTask, result: dict[str, Any]) -> None:
        self.spool.finish(entry.id, result, self.host)
        self.finished.append(entry.id)

    def _fail(self, entry: SpooledTask, error: WireError) -> None:
        """Store a permanent refusal as the task's result."""
        self._keep(entry, {"id": entry.id, "state": "failed", "text": "", "error": error.as_dict()})


def concerns(entry: SpooledTask, host: str) -> bool:
    """Return whether a visit to `host` can make progress with `entry`."""
    return entry.sent == host if entry.sent else entry.wanted in ("", host)


def deliver_all(spool: Spool, conf: Settings, *, wait: bool, only: str = "", on_end: OnEnd | None = None) -> list[str]:
    """Visit every host with waiting tasks; with `wait` until all tasks there, or `only` one, have ended.

    Return a line for each host's error. Raise WireError for a key that cannot be read, NotConfigured.
    """
    if not spool.waiting():
        return []
    spool.tidy()
    lines: list[str] = []
    key = credential(conf, every=True)
    known = known_hosts(conf)
    for name, host in known.items():
        if not any(concerns(entry, name) for entry in spool.each()):
            continue
        try:
            with Client(host.transport(conf.connect_timeout_s)) as client:
                client.connect()
                Visit(client, name, spool, key, on_end).make()
                for entry in spool.waiting() if wait else ():
                    if entry.sent == name and only in ("", entry.id):
                        result = run_task(client, entry.as_sent, key, lambda _event: None)
                        spool.finish(entry.id, result, name)
                        if on_end is not None:
                            on_end(entry, result, client)
        except WireError as error:
            lines.append(str(error.at(name)))
    gone = {entry.sent or entry.wanted for entry in spool.waiting()} - {"", *known}
    return [*lines, *(f"no farm host is called {name!r} in {conf.hosts_path} any more" for name in sorted(gone))]
