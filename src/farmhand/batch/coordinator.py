"""Who does what next: turns for the hosts, what their answers mean, hosts that die and come back, and when to stop.

Hosts come from threads of the desk, one each; `tick` comes from the thread that waits for the end.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from farmhand.batch import errors, host_state
from farmhand.batch.accounting import BatchLedger, Intake
from farmhand.batch.host_state import WorkerLimits, WorkerState
from farmhand.batch.output import PICO, pico
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, Refused, UsageError, WireError
from farmhand.wire import turn

#: How long a stop waits for running tasks, and a host that holds tasks of an earlier run for its first sign. Seconds.
STOP_S = 12.0
ABSENT_S = 15.0
_NO_KEY = "the API refused the key"


class Coordinator:
    """See the module."""

    def __init__(self, book: BatchLedger, key: str, limits: WorkerLimits, say: Callable[[str], None]) -> None:
        self.book = book
        self.over = False
        self.error: FarmhandError | None = None
        self.stopping = False
        self.hosts: dict[str, WorkerState] = {}
        self._key = key
        self._limits = limits
        self._say = say
        self._changed = threading.Condition()
        self._started = time.monotonic()
        self._expected = 1
        self._stop_at = 0.0
        self._dark_since: float | None = None
        with book.journal.transaction():
            book.journal.unsure()
            if limits.max_usd is not None or limits.concurrency is not None:
                # The agents keep limits: a later run without any has to take them off.
                book.journal.db.execute("INSERT OR IGNORE INTO meta VALUES ('limited', 'yes')")
        self._absent = {name: book.journal.host(name)[0] for name in book.journal.holders()}

    # --- what the desk's threads call -----------------------------------------------------------------------------

    def take(self, host: str, hosts: int) -> bytes | None:
        """See desk.Coordinator."""
        with self._changed:
            self._expected = hosts
            one = self._host(host)
            while not self.over:
                wait = one.not_before - time.monotonic()
                planned = self._next(one) if wait <= 0 else None
                if planned is not None:
                    one.due_at = time.monotonic() + float(planned["wait_s"]) + host_state.SILENT_S
                    return self._encode(planned)
                self._changed.wait(min(max(wait, 0.05), 1.0) if wait > 0 else 1.0)
            return None

    def give(self, host: str, answer: bytes) -> dict[str, Any]:
        """See desk.Coordinator."""
        try:
            given = turn.check(answer, host)
        except WireError as error:
            given = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
        with self._changed:
            one = self._host(host)
            one.due_at = None
            taken = self.book.take_in(one.no, one.name, given)
            one.cost_pico += taken.cost_pico
            one.after = max(one.after, int(given.get("next") or 0))
            problem = given.get("error")
            if problem is not None:
                self._lose(one, errors.from_wire(problem, host))
            else:
                self._heard(one, given, taken)
            if not self.book.totals.left:
                self.over = True
            self._changed.notify_all()
            standing = {"host": host, "took": taken.finished, "waiting": errors.reason(given.get("waiting") or [])}
            return {"more": not self.over, "batch": self.book.totals.as_dict() | standing}

    def left(self, host: str) -> None:
        """See desk.Coordinator."""
        with self._changed:
            one = self._host(host)
            if one.due_at is not None and not self.over:
                one.due_at = None
                self._lose(one, FarmUnreachable(f"{host}: its Ansible process has ended"))
            self._changed.notify_all()

    def failed(self, error: Exception) -> None:
        """See desk.Coordinator."""
        if not self.over:
            known = error if isinstance(error, FarmhandError) else FarmhandError(f"{type(error).__name__}: {error}")
            self.end(known)

    # --- what the waiting thread calls ----------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Until something has changed, `seconds` at most."""
        with self._changed:
            if not self.over:
                self._changed.wait(seconds)

    def tick(self) -> None:
        """Notice what nobody reports: hosts that say nothing, no host at all, a stop that has waited long enough."""
        with self._changed:
            now = time.monotonic()
            for one in self.hosts.values():
                if one.due_at is not None and now > one.due_at and not one.lost:
                    self._lose(one, FarmUnreachable(f"{one.name}: no sign of it for {host_state.SILENT_S:g} s"))
            if self.stopping and self._stop_is_done(now):
                self.over = True
            if not self.stopping:
                self._watch_for_darkness(now)
            if self.over:
                self._changed.notify_all()

    def stop(self, error: FarmhandError | None = None) -> None:
        """Send nothing more, cancel what has not started, wait a little for what runs, keep the rest for later."""
        with self._changed:
            self.error = self.error or error
            if not self.stopping:
                self.stopping = True
                for one in self.hosts.values():
                    # Hosts that answer and have no key can be told to let go of what they have.
                    if one.error is not None and one.error.code == "key_refused":
                        one.lost, one.not_before = False, 0.0
                self._stop_at = time.monotonic() + STOP_S
            self._changed.notify_all()

    def end(self, error: FarmhandError | None = None) -> None:
        """Hand out no more turns, now."""
        with self._changed:
            self.error = self.error or error
            self.over = True
            self._changed.notify_all()

    # --- turns ----------------------------------------------------------------------------------------------------

    def _host(self, name: str) -> WorkerState:
        if name not in self.hosts:
            with self.book.journal.transaction():
                no, after, cost = self.book.journal.host(name)
            self.hosts[name] = WorkerState(name, no, cost_pico=cost, after=after)
            self._absent.pop(name, None)
        return self.hosts[name]

    def _lost_numbers(self) -> list[int]:
        """Hosts whose tasks others may take."""
        lost = [one.no for one in self.hosts.values() if one.lost]
        if time.monotonic() - self._started > ABSENT_S:
            lost += self._absent.values()
        return lost

    def _live(self) -> int:
        """How many hosts share the work."""
        now = time.monotonic()
        return max(1, self._expected - sum(not one.takes(now) for one in self.hosts.values()))

    def _next(self, one: WorkerState) -> dict[str, Any] | None:
        """`_turn`, where a fault of the input stops the batch in order."""
        try:
            return self._turn(one)
        except UsageError as error:
            self.stop(error)
            return self._turn(one)

    def _turn(self, one: WorkerState) -> dict[str, Any] | None:
        """The next turn of a host; None if it has nothing to do now."""
        journal = self.book.journal
        turn: dict[str, Any] = {"batch": self.book.batch, "after": one.after, "low": 0, "tasks": []}
        turn["cancel"] = journal.to_cancel(one.no, host_state.MOST)
        if len(turn["cancel"]) == host_state.MOST:
            # What it must not run goes before the key comes.
            return turn | {"wait_s": 0}
        sent = self.book.sent_to(one.no)
        if self.stopping:
            return self._stop_turn(one, turn, sent)
        if one.holds(time.monotonic()) and self._others(one):
            self._say(f"{one.name} is being emptied: what has not started there goes to the others")
            return self._take_back(one, turn)
        tasks = self._portion(one, sent)
        one.given = len(tasks)
        if not (tasks or sent or turn["cancel"]):
            return None
        if tasks and self.book.waiting:
            turn["low"] = one.low(len(tasks), sent)
        if one.fresh:
            turn["bring_key"] = True
        if (limits := self._limits_of(one)) is not None:
            turn["limits"] = limits
        wait_s = host_state.TURN_S
        if self._limits.economy:
            # Those go out in bulk, and nothing comes back for a while.
            wait_s = 0.2 if self.book.waiting else host_state.ECONOMY_TURN_S
        if tasks or one.fresh:
            turn["key"] = self._key
        return turn | {"tasks": tasks, "wait_s": wait_s}

    def _portion(self, one: WorkerState, sent: int) -> list[bytes]:
        if one.halted_until > time.monotonic():
            return []
        unsure = len(self.book.journal.own_unsure(one.no, host_state.MOST))
        if self._limits.economy:
            limit = host_state.MOST
        else:
            others = sum(self.book.sent_to(no) for no in self._lost_numbers() if no != one.no)
            limit = one.wants(sent - unsure, self.book.waiting + others + unsure, self._live())
        limit = min(max(limit, unsure), host_state.MOST)
        return self.book.portion(one.no, self._lost_numbers(), limit) if limit else []

    def _stop_turn(self, one: WorkerState, turn: dict[str, Any], sent: int) -> dict[str, Any] | None:
        if not (sent or turn["cancel"]) or one.stopped:
            one.stopped = True
            return None
        if not one.stop_asked:
            one.stop_asked = True
            return self._take_back(one, turn)
        return turn | {"wait_s": 2.0}

    def _take_back(self, one: WorkerState, turn: dict[str, Any]) -> dict[str, Any]:
        """Cancel what has not started there."""
        one.held_since, one.given = None, 0
        with self.book.journal.transaction():
            self.book.journal.stopping(one.no)
        return turn | {"stop": True, "wait_s": 0.5}

    def _limits_of(self, one: WorkerState) -> dict[str, Any] | None:
        """The host's share of the batch's limits, where it does not have it yet: so they hold whatever the hosts do."""
        wanted = self._limits.max_usd is not None or self._limits.concurrency is not None
        if not wanted and not self.book.journal.about("limited"):
            return None
        share: dict[str, Any] = {"max_usd": None, "concurrency": None}
        live = self._live()
        if self._limits.max_usd is not None:
            left = max(0, (pico(self._limits.max_usd) or 0) - self.book.totals.cost_pico)
            share["max_usd"] = max(1, one.cost_pico + left // live) / PICO
        if self._limits.concurrency is not None:
            share["concurrency"] = min(max(1, self._limits.concurrency // live), 1024)
        if share == one.limits:
            return None
        one.limits = share
        return share

    def _encode(self, turn: dict[str, Any]) -> bytes:
        """The turn as JSON; its tasks are JSON already."""
        tasks = turn.pop("tasks")
        head = json.dumps(turn).encode()
        return head[:-1] + b',"tasks":[' + b",".join(tasks) + b"]}"

    # --- answers --------------------------------------------------------------------------------------------------

    def _heard(self, one: WorkerState, answer: dict[str, Any], taken: Intake) -> None:
        now = time.monotonic()
        if (useless := self._useless(one, answer, taken)) is not None:
            self._lose(one, useless)
            return
        if one.lost and one.failures and one.ever:
            self._say(f"{one.name} is back")
        one.hear(taken.finished, answer.get("slots"), now, answer.get("waiting") or [])
        one.fresh = False
        if taken.finished or answer.get("taken"):
            one.denied = False
        self._missing(one, answer)
        halted = answer.get("halted")
        one.unfinished = int(answer.get("unfinished") or 0)
        if halted is None and answer.get("taken"):
            one.halted = None
        elif halted is not None:
            self._halt(one, errors.from_wire(halted, one.name), now)
        if taken.denied:
            self._deny(one, taken.denied)
        for wait in answer.get("waiting") or []:
            if wait.get("reason") == "key_refused":
                self.stop(errors.refused_key(one.name, str(wait.get("detail") or _NO_KEY)))
            elif wait.get("reason") == "no_key":
                one.fresh = True

    def _useless(self, one: WorkerState, answer: dict[str, Any], taken: Intake) -> FarmhandError | None:
        """Why the host is no help although it answers: the others go on without it. None if it may be, or is alone."""
        nothing = not (taken.finished or taken.denied or taken.conflicts)
        nothing = nothing and not (answer.get("unfinished") or answer.get("halted") or answer.get("rest"))
        one.fruitless = one.fruitless + 1 if one.given and nothing else 0
        if one.fruitless >= host_state.MOST_FRUITLESS:
            return FarmUnreachable(f"{one.name}: it was given tasks {one.fruitless} times and has none of them")
        for wait in answer.get("waiting") or []:
            if wait["reason"] == "key_refused" and not self._alone(one):
                # If it is so, the others will soon say it as well.
                return errors.refused_key(one.name, str(wait.get("detail") or _NO_KEY))
        return None

    def _missing(self, one: WorkerState, answer: dict[str, Any]) -> None:
        """The agent says it has nothing unfinished, and yet lines are out there: its ledger is another one."""
        if answer.get("unfinished") == 0 and not answer.get("rest") and not self.stopping:
            query = "SELECT 1 FROM line WHERE state = 1 AND sure = 1 AND host = ? LIMIT 1"
            if self.book.journal.db.execute(query, (one.no,)).fetchone():
                one.after = 0
                with self.book.journal.transaction():
                    self.book.journal.unsure(one.no)

    def _lose(self, one: WorkerState, error: FarmhandError) -> None:
        """The host does not answer: what it has is for the others, until it comes back."""
        if not one.lost:
            count = self.book.sent_to(one.no)
            rest = f"; its {count} unfinished tasks go to the others" if count and self._expected > 1 else ""
            self._say(f"{error.message}{rest}")
        with self.book.journal.transaction():
            self.book.journal.unsure(one.no)
        one.miss(error, time.monotonic())
        if isinstance(error, NotConfigured | Refused) and self._alone(one):
            self.stop(error)

    def _halt(self, one: WorkerState, error: FarmhandError, now: float) -> None:
        if one.halted is None or one.halted.code != error.code:
            self._say(f"{one.name} takes no tasks now: {error.message}")
        one.halt(error, now)
        if error.exit_code in (3, 5) and self._alone(one):
            self.stop(error)

    def _alone(self, one: WorkerState) -> bool:
        """Whether nobody else takes tasks, so that what ends this host ends the batch. Its word ends no other host."""
        return not self._others(one) and len(self.hosts) >= self._expected

    def _others(self, one: WorkerState) -> list[WorkerState]:
        """The other hosts that take tasks."""
        now = time.monotonic()
        return [other for other in self.hosts.values() if other is not one and other.takes(now)]

    def _deny(self, one: WorkerState, message: str) -> None:
        """A budget has no room: on another host there may be some; if all say so in a row it is spent."""
        one.denied = True
        one.limits = None
        live = [other for other in self.hosts.values() if not other.lost]
        if all(other.denied for other in live):
            hint = "what is done is kept: raise --max-usd, or the host's budget, and give the same command"
            self.stop(Refused(message, code="budget", hint=hint))

    # --- the end --------------------------------------------------------------------------------------------------

    def _stop_is_done(self, now: float) -> bool:
        if now > self._stop_at:
            return True
        return all(one.stopped or one.lost for one in self.hosts.values())

    @staticmethod
    def _is_out(one: WorkerState) -> bool:
        """Whether nothing can be expected of the host at present."""
        return one.lost or (one.halted is not None and not one.unfinished)

    def _watch_for_darkness(self, now: float) -> None:
        """End when no host has answered for too long; at once when none of them ever has."""
        if len(self.hosts) < max(1, self._expected) or not all(self._is_out(one) for one in self.hosts.values()):
            self._dark_since = None
            return
        self._dark_since = self._dark_since or now
        ever = any(one.ever for one in self.hosts.values())
        if ever and now - self._dark_since < self._limits.patience_s:
            return
        errors = [error for one in self.hosts.values() if (error := one.error or one.halted) is not None]
        first = errors[0] if errors else FarmUnreachable("no farm host answers")
        more = f" (and {len(errors) - 1} more hosts)" if len(errors) > 1 else ""
        kind = type(first) if isinstance(first, FarmUnreachable) else FarmUnreachable
        self.end(kind(f"no farm host answers: {first.message}{more}", hint=first.hint, code=first.code))
