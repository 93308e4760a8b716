"""One shard of a batch, from its tasks to its results: what a child of an array job does.

The daemon gets as many tasks as its slots and the leased part of the budget allow. Results go to the bucket in parts.
Work stops with SIGTERM, with the batch, with its budget, with a refused credential, or when results cannot be written.
"""

from __future__ import annotations

import time
from typing import Any

from farmhand.cloud import shard_end
from farmhand.cloud.budget_lease import LeaseLost
from farmhand.cloud.calls import CallFailed
from farmhand.cloud.ending import ContainerEnds, say
from farmhand.cloud.shard_tasks import ShardTask
from farmhand.cloud.shard_world import ShardWorld
from farmhand.core.errors import WireError
from farmhand.core.keys import holds_key
from farmhand.core.money import plain, usd
from farmhand.core.readable import counted
from farmhand.core.rules import by_shared_budget
from farmhand.core.shard import EXIT_BUG, EXIT_CONFIG, EXIT_DONE, EXIT_LEFT, EXIT_REFUSED, EXIT_STOPPED, POLL_S
from farmhand.core.task import FINAL_STATES
from farmhand.wire import turn
from farmhand.wire.requests import TurnLimits, TurnOrder

#: Seconds of one exchange with the daemon.
_TURN_S = 1.0
#: Seconds without a written part or a read item after which a child gives up.
_UNANSWERED_S = 600.0
#: Seconds in which a refused token is replaced by another one once.
_ANOTHER_S = 60.0
#: How many more tasks than slots the daemon has.
_AHEAD = 2


class ShardRun:
    """The run of one attempt. Its methods belong to one thread."""

    def __init__(self, world: ShardWorld) -> None:
        self._w = world
        self._batch = world.table.batch
        self._flight: dict[str, ShardTask] = {}
        #: Ids that this attempt leaves to another one, and those with a result.
        self._left: set[str] = set()
        self._done: set[str] = set()
        self._cursor = 0
        self._limit_set: int | None = -1
        self._looked = self._heard = time.monotonic()
        #: Since when there is no room, and the tasks that were tried with all that is left.
        self._starved: float | None = None
        self._alone: set[str] = set()
        self._refusal = ""
        self._replaced = float("-inf")
        #: Why no new work begins, and when the running tasks are cut off (monotonic clock).
        self._end: ContainerEnds | None = None
        self._cut_at = float("inf")

    def run(self) -> int:
        """Run the shard and return the exit code. All that was paid for is in the bucket, or named in the log."""
        try:
            if problem := self._exchange(TurnOrder(batch=self._batch, key=self._w.credential.sent)).get("error"):
                self._stop(EXIT_CONFIG, f"the agent does not take the credential: {problem['message']}")
            while self._w.tasks.todo or self._flight:
                self._look()
                if self._end is not None and not self._flight:
                    break
                self._step()
        except LeaseLost:
            self._stop(EXIT_LEFT, "another attempt has taken this one's place")
        return self._finish()

    # --- one step -----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        ending = self._end is not None
        tasks = [] if ending else self._next_tasks()
        order = TurnOrder(batch=self._batch, after=self._cursor, limits=self._limits(), stop=ending)
        order.tasks = [body for _, body in tasks]
        if ending and time.monotonic() > self._cut_at:
            order.cancel = list(self._flight)[:1000]
        # While there is work to come, the daemon answers before its slots are idle.
        order.low = min(self._w.slots, max(0, len(self._flight) + len(tasks) - 1)) if self._w.tasks.todo else 0
        order.wait_s = _TURN_S if self._flight or tasks else 0.0
        self._flight |= {task.id: task for task, _ in tasks}
        answer = self._exchange(order)
        known = {*(answer.get("taken") or ()), *(one["id"] for one in answer.get("refused") or ())}
        for task, _ in tasks:
            if task.id not in known and task.id in self._flight:
                self._w.tasks.todo.appendleft(self._flight.pop(task.id))
        if not self._flight and not ending:
            self._w.clock.pause(0.2)

    def _next_tasks(self) -> list[tuple[ShardTask, dict[str, Any]]]:
        """Return the tasks to submit now: as many as there is room for, in slots, in the budget, in parts to write."""
        found: list[tuple[ShardTask, dict[str, Any]]] = []
        todo = self._w.tasks.todo
        room = self._w.slots * _AHEAD - len(self._flight)
        while todo and len(found) < room and not self._w.writer.full:
            if not self._affords(todo[0], sum(task.most for task, _ in found)):
                break
            try:
                body = self._w.tasks.body(todo[0], self._batch)
            except CallFailed as error:
                if not error.passing:
                    self._stop(EXIT_CONFIG, str(error))
                say(str(error))
                break
            task = todo.popleft()
            if holds_key(body, self._w.credential.value):
                self._flight[task.id] = task
                self._take(shard_end.failed(task.id, shard_end.KEY_IN_TASK))
            else:
                found.append((task, body))
        return found

    def _affords(self, task: ShardTask, more: int) -> bool:
        """Return whether the lease has room for the task, beside those in flight and `more`; lease what lacks."""
        lease = self._w.lease
        if not lease.limited:
            return True
        reserved = sum(one.most for one in self._flight.values()) + more
        room = lease.held - self._w.rows.spent - self._w.rows.uncertain - reserved
        if task.most <= room or lease.want(task.most - room):
            self._starved = None
            return True
        return not self._flight and not more and self._starve(task)

    def _starve(self, task: ShardTask) -> bool:
        """Wait for room, at most `patience_s`; then leave the rest to another attempt, or stop the batch.

        The bound on a task's cost is a rough one. Before the batch is stopped, the daemon gets all that is left and one
        task at a time: it has the API count the tokens. Return whether this task is one.
        """
        now = time.monotonic()
        self._starved = self._starved or now
        if now - self._starved < self._w.patience_s and not self._alone:
            return False
        lease = self._w.lease
        self._read_item()
        if self._end is not None or not lease.limited:
            return False
        if lease.others():
            self._stop(EXIT_LEFT, f"the rest of the budget is leased to {len(lease.others())} others")
        elif lease.want(0, all_left=True) or lease.held > self._w.rows.spent + self._w.rows.uncertain:
            self._alone.add(task.id)
            return True
        else:
            self._out_of_budget(f"task {task.id} may cost up to US$ {plain(task.most)}")
        return False

    def _out_of_budget(self, why: str) -> None:
        lease, rows = self._w.lease, self._w.rows
        left = (lease.item.left or 0) + lease.held - rows.spent - rows.uncertain
        detail = f"the budget of US$ {plain(lease.item.limit or 0)} is spent but for US$ {plain(left)}: {why}"
        self._stop_batch("budget", detail)
        self._stop(EXIT_STOPPED, detail)

    def _limits(self) -> TurnLimits | None:
        """Return the limits for the daemon when they have changed."""
        lease = self._w.lease
        wanted = lease.held if lease.limited else None
        if wanted in (self._limit_set, 0):
            return None
        self._limit_set = wanted
        return TurnLimits(max_usd=None if wanted is None else float(usd(wanted)), concurrency=self._w.concurrency)

    # --- what the daemon answers --------------------------------------------------------------------------------------

    def _exchange(self, order: TurnOrder) -> dict[str, Any]:
        answer = turn.play(order, self._w.agent.transport)
        for result in answer["results"]:
            self._take(result)
        self._cursor = max(self._cursor, int(answer.get("next") or 0))
        for refused in answer["refused"]:
            self._take(shard_end.failed(refused["id"], refused))
        for wait in answer.get("waiting") or ():
            if wait["reason"] == "key_refused" and not self._refusal and wait.get("tasks"):
                self._refused(str(wait.get("detail") or "the API refused the credential"))
        if problem := answer.get("error") or answer.get("halted"):
            say(f"the agent: {problem['message']}")
            self._limit_set = -1
            if not self._w.agent.lives:
                self._stop(EXIT_LEFT, "the agent has died")
                self._left |= self._flight.keys()
                self._flight.clear()
            self._w.clock.pause(_TURN_S)
        try:
            if self._w.lease.limited:
                self._w.rows.read()
            if self._w.writer.due:
                self._w.writer.flush(self._w.rows.part)
        except WireError as error:
            say(f"the agent's ledger: {error}")
        return answer

    def _take(self, result: dict[str, Any]) -> None:
        """Take a result. What says nothing about the task itself is none: another attempt runs it."""
        task_id, state = str(result["id"]), str(result["state"])
        if state not in FINAL_STATES or task_id in self._done or self._flight.pop(task_id, None) is None:
            return
        error = result.get("error") or {}
        code, message = error.get("code"), str(error.get("message") or "")
        denied = by_shared_budget(error)
        if denied and task_id in self._alone:
            self._out_of_budget(message)
        lost = code == "agent_error" and result.get("engine") == "cli" and self._w.launcher.gone()
        if lost:
            self._stop(EXIT_LEFT if self._w.attempt == 1 else EXIT_BUG, f"the worker container has ended: {message}")
        if state == "cancelled" or denied or lost:
            self._left.add(task_id)
            return
        self._done.add(task_id)
        result.pop("finish_seq", None)
        self._w.writer.add(result)

    def _refused(self, detail: str) -> None:
        reason = shard_end.refusal_code(self._w.agent.transport, list(self._flight))
        if reason == "authentication_error" and time.monotonic() - self._replaced > _ANOTHER_S:
            self._replaced = time.monotonic()
            try:
                if self._w.credential.replace(self._w.clock):
                    say(f"{detail}: another token has taken its place")
                    return
            except ContainerEnds as failure:
                self._fail(failure)
                return
        self._refusal = detail
        code = shard_end.refused(self._w.table, self._w.environment, self._w.credential, reason, detail)
        self._stop(code, detail, now=True)

    def _fail(self, failure: ContainerEnds) -> None:
        """Stop because there is no token any more."""
        self._refusal = str(failure)
        code = failure.code
        if code == EXIT_REFUSED:
            given = (self._w.table, self._w.environment, self._w.credential)
            code = shard_end.refused(*given, "authentication_error", self._refusal)
        self._stop(code, self._refusal, now=True)

    # --- why to stop --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look for reasons to stop."""
        now = time.monotonic()
        if self._w.clock.asked:
            self._stop(EXIT_LEFT, "SIGTERM: nothing new begins")
        if self._end is None and (failure := self._w.credential.failure) is not None:
            self._fail(failure)
        if now - self._looked >= POLL_S:
            self._looked = now
            self._read_item()
        item = self._w.lease.item
        if item.state != "running":
            why = f"the batch is {item.state}" + (f": {item.detail}" if item.detail else "")
            self._stop(EXIT_STOPPED, why, now=item.state == "cancelled")
        if self._w.writer.failing_s() > _UNANSWERED_S or now - self._heard > _UNANSWERED_S:
            self._stop(EXIT_LEFT, f"AWS has not answered for {_UNANSWERED_S:g} s")

    def _read_item(self) -> None:
        try:
            item = self._w.table.item()
        except CallFailed as error:
            say(str(error))
            return
        self._heard = time.monotonic()
        if item is None:
            self._stop(EXIT_CONFIG, f"the table has no batch {self._batch} any more", now=True)
        else:
            self._w.lease.item = item

    def _stop(self, code: int, why: str, *, now: bool = False) -> None:
        """Begin nothing new. Running tasks are cut off `now`, or after the time that SIGTERM leaves them."""
        if self._end is None:
            say(f"{why}; {counted(len(self._flight), 'task runs', 'tasks run')}, {len(self._w.tasks.todo)} wait")
            self._end = ContainerEnds(code, why)
        begun = self._w.clock.at or time.monotonic()
        self._cut_at = min(self._cut_at, 0.0 if now else begun + self._w.clock.last_tasks_s)

    def _stop_batch(self, reason: str, detail: str) -> None:
        try:
            self._w.table.stop(reason, detail)
        except CallFailed as error:
            say(str(error))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self) -> int:
        left = len(self._w.tasks.todo) + len(self._left) + len(self._flight)
        end = self._end or ContainerEnds(EXIT_LEFT, "the budget had no room for some tasks")
        code = shard_end.close(self._w, end.code if left else EXIT_DONE, whole=not self._flight)
        spent = plain(self._w.rows.spent)
        say(
            f"{counted(len(self._done), 'task')} done, {left} left, US$ {spent}: exit {code}"
            + (f": {end}" if left else "")
        )
        return code
