"""The scheduler of a batch over the workers of a place, which also handles failing and returning workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from farmhand.batch import worker_state
from farmhand.batch.accounting import BatchLedger, Intake, pico
from farmhand.batch.reasons import dark, reason, refused_key
from farmhand.batch.worker_state import WorkerLimits, WorkerState
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, Refused
from farmhand.core.keys import Credential
from farmhand.core.readable import counted
from farmhand.core.trace_context import TraceContext
from farmhand.places.base import Limit, Order, Place, Reply

#: Seconds that a stop waits for running tasks, and that a worker with leases of an earlier run may stay silent.
STOP_S = 12.0
ABSENT_S = 15.0
#: The interval in seconds between checks of the time limits.
_TICK_S = 0.2
_NO_ROOM = "what is done is kept: raise --max-usd, or the host's budget, and give the same command"


class Coordinator:
    """The scheduler of a batch, and the Dispatcher of its place.

    The place calls `take`, `give` and `left` in a thread per worker; `run` is for the thread that waits for the end.
    """

    def __init__(
        self,
        book: BatchLedger,
        place: Place,
        key: Credential,
        limits: WorkerLimits,
        say: Callable[[str], None],
        trace: TraceContext | None = None,
    ) -> None:
        self.book = book
        self.journal = book.journal
        self.over = self.stopping = False
        self.error: FarmhandError | None = None
        self.workers: dict[str, WorkerState] = {}
        #: Why tasks wait, if that is worth reporting.
        self.waiting_for = ""
        self._place = place
        self._key = key
        self._limits = limits
        self._say = say
        self._bending = book.bending = limits.bending
        #: What each task is sent with: the trace of this run. The journal keeps the tasks without it.
        self._trace = trace
        self._changed = threading.Condition()
        self._started = time.monotonic()
        self._expected = 1
        self._stop_at = 0.0
        self._dark_since: float | None = None
        with self.journal.transaction():
            self.journal.doubt()
            if limits.max_usd is not None or limits.concurrency is not None:
                # Workers keep their limits, so a later run without limits has to remove them.
                self.journal.note("limited", "yes")
        self._absent = self.journal.holders()

    def run(self, on_tick: Callable[[], None]) -> None:
        """Run the place until the batch is over; call `on_tick` a few times a second."""
        thread = threading.Thread(target=self._run_place, name=self._place.name, daemon=True)
        thread.start()
        while not self.over and thread.is_alive():
            with self._changed:
                if not self.over:
                    self._changed.wait(_TICK_S)
            self.tick()
            on_tick()
        # The place has nothing more to report, and its cleanup is not worth waiting for.
        thread.join(timeout=0.05)
        if thread.is_alive():
            self._place.kill()
            thread.join(timeout=10)

    def _run_place(self) -> None:
        try:
            self._place.run(self)
            raise FarmUnreachable(f"nobody works at the place {self._place.name} any more")
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End the batch because of a fault of the place, or an unexpected one."""
        if not self.over:
            self.end(error if isinstance(error, FarmhandError) else FarmhandError(f"{type(error).__name__}: {error}"))

    def take(self, worker: str, of: int) -> Order | None:
        """Return the next order; see Dispatcher."""
        try:
            with self._changed:
                self._expected = of
                one = self._worker(worker)
                while not self.over:
                    wait = one.not_before - time.monotonic()
                    order = self._next(one) if wait <= 0 else None
                    if order is not None:
                        one.due_at = time.monotonic() + order.wait_s + worker_state.SILENT_S
                        return order
                    self._changed.wait(min(max(wait, 0.05), 1.0) if wait > 0 else 1.0)
        except Exception as error:
            self._fail(error)
        return None

    def give(self, worker: str, reply: Reply) -> None:
        """Process a reply; see Dispatcher."""
        try:
            with self._changed:
                one = self._worker(worker)
                one.due_at = None
                taken = self.book.take_in(one.no, one.name, reply)
                one.cost_pico += taken.cost_pico
                one.cursor = max(one.cursor, reply.next)
                if reply.error is not None:
                    self._lose(one, reply.error)
                else:
                    self._heard(one, reply, taken)
                self._next_round(taken)
                self.waiting_for = reason(reply.waiting)
                self.over = self.over or not self.book.totals.left
                self._changed.notify_all()
        except Exception as error:
            self._fail(error)

    def left(self, worker: str, why: str) -> None:
        """Handle a worker that has left; see Dispatcher."""
        with self._changed:
            one = self.workers.get(worker)
            if one is not None and one.due_at is not None and not self.over:
                one.due_at = None
                self._lose(one, FarmUnreachable(f"{worker}: {why}"))
            self._changed.notify_all()

    def tick(self) -> None:
        """Detect what is not reported: silent workers, the loss of all workers, a stop that has waited long enough."""
        with self._changed:
            now = time.monotonic()
            for one in self.workers.values():
                if one.due_at is not None and now > one.due_at and not one.lost:
                    self._lose(one, FarmUnreachable(f"{one.name}: no sign of it for {worker_state.SILENT_S:g} s"))
            if not self.stopping:
                self._watch_for_darkness(now)
            elif now > self._stop_at or all(one.stopped or one.lost for one in self.workers.values()):
                self.over = True
            if self.over:
                self._changed.notify_all()

    def stop(self, error: FarmhandError | None = None) -> None:
        """Send nothing more, cancel what has not started, wait a little for running tasks, keep the rest for later."""
        with self._changed:
            self.error = self.error or error
            if not self.stopping:
                self.stopping = True
                for one in self.workers.values():
                    # Workers that answer but have no valid key can be ordered to cancel their tasks.
                    if one.error is not None and one.error.code == "key_refused":
                        one.lost, one.not_before = False, 0.0
                self._stop_at = time.monotonic() + STOP_S
            self._changed.notify_all()

    def kill(self) -> None:
        """End at once, together with everything that the place has started."""
        self.end()
        self._place.kill()

    def end(self, error: FarmhandError | None = None) -> None:
        """Hand out no more orders, effective immediately."""
        with self._changed:
            self.error = self.error or error
            self.over = True
            self._changed.notify_all()

    def _worker(self, name: str) -> WorkerState:
        if name not in self.workers:
            with self.journal.transaction():
                no, cursor, cost = self.journal.worker(self._place.name, name)
            self.workers[name] = WorkerState(name, no, cost_pico=cost, cursor=cursor)
            self._absent.pop((self._place.name, name), None)
        return self.workers[name]

    def _lost_numbers(self) -> list[int]:
        """Return the numbers of the workers whose leases others may take."""
        lost = [one.no for one in self.workers.values() if one.lost]
        if time.monotonic() - self._started > ABSENT_S:
            lost += self._absent.values()
        return lost

    def _live(self) -> int:
        """Return how many workers share the work."""
        now = time.monotonic()
        return max(1, self._expected - sum(not one.takes(now) for one in self.workers.values()))

    def _next(self, one: WorkerState) -> Order | None:
        """Return the next order for a worker; None if it has nothing to do now."""
        cancel = self.journal.to_cancel(one.no, worker_state.MOST)
        order = Order(batch=self.book.batch, cursor=one.cursor, cancel=cancel, trace=self._trace)
        if len(cancel) == worker_state.MOST:
            # Cancellations are sent before the key, so that the worker cannot start these tasks with it.
            return order
        leased, doubtful = self.journal.leases(one.no)
        if self.stopping:
            return self._stop_order(one, order, leased)
        if one.holds(time.monotonic()) and self._others(one):
            self._say(f"{one.name} is being emptied: what has not started there goes to the others")
            return self._take_back(one, order)
        order.tasks = self._portion(one, leased, doubtful)
        one.given = len(order.tasks)
        if not (order.tasks or leased or cancel):
            return None
        if order.tasks:
            if self.book.waiting:
                order.low = one.low(one.given, leased)
            order.more = bool(self.book.waiting) or self.journal.leases(one.no)[1] > one.given
        limit = self._limit_of(one)
        if limit != one.limit:
            order.limit = one.limit = limit
        order.wait_s = worker_state.EXCHANGE_S
        if self._in_bulk:
            # Economy tasks are submitted in bulk, and no result returns for a while.
            order.wait_s = 0.2 if self.book.waiting else worker_state.ECONOMY_EXCHANGE_S
        if order.tasks or one.fresh:
            order.credential = self._key
        return order

    def _portion(self, one: WorkerState, leased: int, doubtful: int) -> list[bytes]:
        if one.halted_until > time.monotonic():
            return []
        lost = self._lost_numbers()
        doubtful = min(doubtful, worker_state.MOST)
        limit = worker_state.MOST
        if not self._in_bulk:
            others = sum(self.journal.leases(no)[0] for no in lost if no != one.no)
            wanted = one.wants(leased - doubtful, self.book.waiting + others + doubtful, self._live())
            limit = min(max(wanted, doubtful), limit)
        if not limit:
            return []
        bending = self._bending
        with self.journal.transaction():
            return self.journal.lease(one.no, lost, limit, bending.shape if bending and bending.why else None)

    @property
    def _in_bulk(self) -> bool:
        return self._limits.economy or bool(self._bending and self._bending.in_bulk)

    def _stop_order(self, one: WorkerState, order: Order, leased: int) -> Order | None:
        if not (leased or order.cancel) or one.stopped:
            one.stopped = True
            return None
        if not one.stop_asked:
            one.stop_asked = True
            return self._take_back(one, order)
        order.wait_s = 2.0
        return order

    def _take_back(self, one: WorkerState, order: Order) -> Order:
        """Make the order cancel the tasks that have not started on the worker."""
        one.held_since, one.given = None, 0
        with self.journal.transaction():
            self.journal.stopping(one.no)
        order.stop, order.wait_s = True, 0.5
        return order

    def _limit_of(self, one: WorkerState) -> Limit | None:
        """Return the worker's share of the batch's limits, so that they hold whatever the workers do."""
        most, concurrency = self._limits.max_usd, self._limits.concurrency
        if most is None and concurrency is None and not self.journal.about("limited"):
            return None
        live = self._live()
        share = None
        if most is not None:
            left = max(0, pico(most) - self.book.totals.cost_pico)
            share = max(1, one.cost_pico + left // live)
        if concurrency is not None:
            concurrency = min(max(1, concurrency // live), 1024)
        return Limit(pico=share, concurrency=concurrency)

    def _heard(self, one: WorkerState, reply: Reply, taken: Intake) -> None:
        now = time.monotonic()
        if (useless := self._useless(one, reply, taken)) is not None:
            self._lose(one, useless)
            return
        if one.lost and one.failures and one.ever:
            self._say(f"{one.name} is back")
        one.hear(taken.finished_now, reply.slots, now, reply.waiting)
        one.fresh = False
        if taken.finished_now or reply.accepted:
            one.denied = False
        if not self.stopping and (news := one.news(reply.waiting, all_given=not self.book.waiting)):
            self._say(news)
        self._missing(one, reply)
        one.unfinished = reply.unfinished or 0
        if reply.halted is not None:
            self._halt(one, reply.halted, now)
        elif reply.accepted:
            one.halted = None
        if taken.denied:
            self._deny(one, taken.denied["message"])
        for wait in reply.waiting:
            if wait["reason"] == "key_refused":
                self.stop(refused_key(one, wait))
            elif wait["reason"] == "no_key":
                one.fresh = True

    def _useless(self, one: WorkerState, reply: Reply, taken: Intake) -> FarmhandError | None:
        """Return why a worker is useless although it answers, so that the others go on without it, or None."""
        nothing = not (taken.finished_now or taken.denied or taken.bends or taken.conflict)
        nothing = nothing and not (reply.unfinished or reply.halted or reply.rest)
        one.fruitless = one.fruitless + 1 if one.given and nothing else 0
        if one.fruitless >= worker_state.MOST_FRUITLESS:
            return FarmUnreachable(f"{one.name}: it was given tasks {one.fruitless} times and has none of them")
        for wait in reply.waiting:
            if wait["reason"] == "key_refused" and not self._alone(one):
                # If the API really refuses the key, the other workers will soon report it too.
                return refused_key(one, wait)
        return None

    def _missing(self, one: WorkerState, reply: Reply) -> None:
        """Detect a worker that reports nothing unfinished although it has leases: its ledger has been replaced."""
        if reply.unfinished == 0 and not reply.rest and not self.stopping:
            leased, doubtful = self.journal.leases(one.no)
            if leased > doubtful:
                one.cursor = 0
                with self.journal.transaction():
                    self.journal.doubt(one.no)

    def _lose(self, one: WorkerState, error: FarmhandError) -> None:
        """Mark a worker as lost. Its tasks go to the others until it comes back."""
        if not one.lost:
            count, _ = self.journal.leases(one.no)
            rest = f"; its {counted(count, 'unfinished task goes', 'unfinished tasks go')} to the others"
            self._say(f"{error.message}{rest if count and self._expected > 1 else ''}")
        with self.journal.transaction():
            self.journal.doubt(one.no)
        one.miss(error, time.monotonic())
        if isinstance(error, NotConfigured | Refused) and self._alone(one):
            self.stop(error)

    def _halt(self, one: WorkerState, error: FarmhandError, now: float) -> None:
        if one.halted is None or one.halted.code != error.code:
            self._say(f"{one.name} takes no tasks now: {error.message}")
        one.halted, one.halted_until = error, now + 5.0
        if error.exit_code in (3, 5) and self._alone(one):
            self.stop(error)

    def _alone(self, one: WorkerState) -> bool:
        """Return whether no other worker takes tasks. Only then does an error of this worker end the batch."""
        return not self._others(one) and len(self.workers) >= self._expected

    def _others(self, one: WorkerState) -> list[WorkerState]:
        """Return the other workers that take tasks."""
        now = time.monotonic()
        return [other for other in self.workers.values() if other is not one and other.takes(now)]

    def _deny(self, one: WorkerState, message: str) -> None:
        """Handle a full budget: another worker may have room; if all report it in a row, the budget is spent."""
        one.denied = True
        one.limit = None
        if all(other.denied for other in self.workers.values() if not other.lost):
            if self._bending is not None and self._bending.begin(message):
                self._say("the budget has no room at the price that was asked: what can goes on at a lower one")
            else:
                self.stop(Refused(message, code="budget", hint=_NO_ROOM))

    def _next_round(self, taken: Intake) -> None:
        """Try what had no room at its lowest price again, as far as there may be some: once all else has ended."""
        bending = self._bending
        if bending is None or not bending.why:
            return
        bending.moved |= bool(taken.finished_now)
        if self.book.waiting or self.journal.out() or not self.journal.bent.any_held():
            return
        room = bending.room(self._limits.max_usd, self.book.totals.cost_pico)
        with self.journal.transaction():
            released = bending.moved and not bending.once and self.journal.bent.release(room)
        if not released:
            self.stop(Refused(bending.last.get("message") or bending.why, code="budget", hint=_NO_ROOM))
        bending.moved = False

    def _watch_for_darkness(self, now: float) -> None:
        """End when no worker has answered for too long, or at once when none ever has."""
        workers = [*self.workers.values()]
        if len(workers) < max(1, self._expected) or not all(one.is_out for one in workers):
            self._dark_since = None
            return
        self._dark_since = self._dark_since or now
        if any(one.ever for one in workers) and now - self._dark_since < self._limits.patience_s:
            return
        self.end(dark([error for one in workers if (error := one.error or one.halted) is not None]))
