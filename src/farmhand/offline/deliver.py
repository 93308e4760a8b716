"""Delivery of the spool: tasks are sent to a host that answers, and their results are stored in the spool.

A task may be on one host only. That host is recorded before the task is sent. The task is sent to another host only
after the recorded one has reported that it does not have it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from farmhand.core.errors import WireError
from farmhand.core.keys import holds_key
from farmhand.core.keysource import read_key
from farmhand.core.settings import Settings
from farmhand.offline.spool import Spool, SpooledTask
from farmhand.places.hosts import Host, load_hosts
from farmhand.wire.client import Client
from farmhand.wire.follow import FINAL_STATES, run_task

#: Refusals that may be temporary: the task keeps waiting.
_PASSING = frozenset({"draining", "budget", "ledger_stuck", "agent_error", "bad_key", "no_key"})


@dataclass
class Delivery:
    """The outcome of a visit to one host. `problem` is why it was cut short."""

    delivered: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    problem: WireError | None = None


def concerns(entry: SpooledTask, host: str) -> bool:
    """Return whether a visit to `host` can make progress with `entry`."""
    return entry.sent == host if entry.sent else entry.wanted in ("", host)


def visit(client: Client, host: str, spool: Spool, key: str, *, within_s: float | None = None) -> Delivery:
    """Send the tasks that wait for `host`, oldest first, and collect the results there.

    Never raise WireError: errors are in the report. With `within_s`, start nothing after that time.
    """
    courier = _Courier(client, host, spool, key)
    end = None if within_s is None else time.monotonic() + within_s
    try:
        for entry in spool.each():
            if end is not None and time.monotonic() >= end:
                break
            if concerns(entry, host):
                courier.see_to(entry)
    except WireError as error:
        courier.report.problem = error
    return courier.report


class _Courier:
    """One visit to a host."""

    def __init__(self, client: Client, host: str, spool: Spool, key: str) -> None:
        self.client = client
        self.host = host
        self.spool = spool
        self.key = key
        self.report = Delivery()
        self._key_brought = False

    def see_to(self, entry: SpooledTask) -> None:
        """Send the task, or request its result."""
        if entry.sent:
            try:
                self._take(entry, self.client.task(entry.id))
            except WireError as error:
                if error.code == "pruned":
                    self._failed(entry, error)
                    return
                if error.code != "no_such_task":
                    raise
                # It never arrived, or the host has lost its ledger: it is sent there again.
            else:
                return
        self._send(entry)

    def _send(self, entry: SpooledTask) -> None:
        if entry.worn_out:
            self.spool.give_up(entry)
            self.report.finished.append(entry.id)
            return
        if holds_key(entry.task, self.key):
            # The current key may differ from the key at the time when the task was spooled.
            self._failed(entry, WireError("key_in_task", "the API key itself stands in the task", "take it out"))
            return
        self.client.connect()
        if self.spool.claim(entry.id, self.host) != self.host:
            return
        try:
            states = self.client.submit([entry.task], self.key)
        except WireError as error:
            if error.status == 0:
                # The task was not refused, so the host may have it.
                raise
            if error.code in _PASSING or error.status >= 500:
                self.spool.release(entry.id, keep=bool(entry.sent))
                raise
            self._failed(entry, error)
            return
        self.report.delivered.append(entry.id)
        if states and states[0].get("state") in FINAL_STATES:
            self._take(entry, self.client.task(entry.id))
        else:
            self.report.running.append(entry.id)

    def _take(self, entry: SpooledTask, result: dict[str, Any]) -> None:
        """Store a final result; send the key once if a task waits for it."""
        if result.get("state") in FINAL_STATES:
            self.spool.finish(entry.id, result, self.host)
            self.report.finished.append(entry.id)
            return
        if result.get("state") == "awaiting_key" and not self._key_brought:
            self.client.put_key(self.key)
            self._key_brought = True
        self.report.running.append(entry.id)

    def _failed(self, entry: SpooledTask, error: WireError) -> None:
        """Store the host's permanent refusal as the task's result."""
        why = {"code": error.code, "message": error.message, "hint": error.hint}
        self.spool.finish(entry.id, {"id": entry.id, "state": "failed", "text": "", "error": why}, self.host)
        self.report.finished.append(entry.id)


def deliver_all(spool: Spool, conf: Settings, *, wait: bool, only: str = "") -> list[str]:
    """Visit every host with waiting tasks; with `wait` until all tasks there, or `only` one, have ended.

    Return a line for each error. Raise WireError for a key that cannot be read, NotConfigured.
    """
    if not spool.waiting():
        return []
    spool.tidy()
    lines: list[str] = []
    key = read_key(conf.key_source)
    known = load_hosts(conf.hosts_path)
    for name, host in known.items():
        if any(concerns(entry, name) for entry in spool.each()):
            problem = _visit_at(host, spool, key, conf.connect_timeout_s, wait=wait, only=only)
            lines += [] if problem is None else [str(problem.at(name))]
    gone = {entry.sent or entry.wanted for entry in spool.waiting()} - {"", *known}
    return [*lines, *(f"no farm host is called {name!r} in {conf.hosts_path} any more" for name in sorted(gone))]


def _visit_at(
    host: Host, spool: Spool, key: str, connect_timeout_s: float, *, wait: bool, only: str
) -> WireError | None:
    try:
        with Client(host.transport(connect_timeout_s)) as client:
            client.connect()
            problem = visit(client, host.name, spool, key).problem
            for entry in spool.waiting() if wait and problem is None else ():
                if entry.sent == host.name and only in ("", entry.id):
                    spool.finish(entry.id, run_task(client, entry.task, key, lambda _event: None), host.name)
    except WireError as error:
        return error
    return problem
