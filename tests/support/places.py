"""A place in this process: workers are objects that play orders at once, in memory. To a batch it is like any other."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from farmhand.batch.accounting import pico
from farmhand.core.errors import FarmUnreachable
from farmhand.places.base import Dispatcher, Limit, Order, Reply

COST = 0.00001


class Worker:
    """Runs each id once. `works` False: it takes tasks and finishes none; `gone`: it does not answer."""

    def __init__(self, name: str, slots: int = 4) -> None:
        self.name = name
        self.slots = slots
        self.works = True
        self.gone = False
        self.waiting: list[dict[str, Any]] = []
        self.known: dict[str, dict[str, Any]] = {}
        self.order: list[str] = []
        self.ran: list[str] = []
        self.limits: list[Limit] = []
        self.outcome: Callable[[dict[str, Any]], dict[str, Any]] = lambda task: {"state": "succeeded"}

    def play(self, order: Order) -> Reply:
        """What becomes of the order."""
        if self.gone:
            return Reply(error=FarmUnreachable(f"{self.name}: no route"))
        if order.limit is not None:
            self.limits.append(order.limit)
        for lease in order.cancel:
            if lease in self.known and "state" not in self.known[lease]:
                self.end(lease, {"state": "cancelled"})
        again, accepted, refused = [], [], []
        for task in map(json.loads, order.tasks):
            known = self.known.setdefault(task["id"], {"task": task})
            if known["task"] != task:
                refused.append({"id": task["id"], "code": "id_conflict", "message": "it is another task", "hint": ""})
                continue
            accepted.append(task["id"])
            again += [known["result"]] if "state" in known else []
        stopped = []
        if self.works:
            for lease in self.unfinished():
                most = self.limits[-1].pico if self.limits else None
                if most is not None and (len(self.ran) + 1) * pico(COST) > most:
                    error = {"code": "budget", "message": "the budget of the batch has no room for it", "hint": ""}
                    self.end(lease, {"state": "failed", "cost_usd": None, "usage": {"requests": 0}, "error": error})
                    continue
                self.ran.append(lease)
                self.end(lease, self.outcome(self.known[lease]["task"]))
        elif order.stop:
            stopped = self.unfinished()
            for lease in stopped:
                self.end(lease, {"state": "cancelled"})
        return Reply(
            cancelled=order.cancel,
            accepted=accepted,
            refused=refused,
            stopped=stopped,
            results=again + [self.known[lease]["result"] for lease in self.order[order.cursor :]],
            next=len(self.order),
            unfinished=len(self.unfinished()),
            slots=self.slots,
            waiting=self.waiting,
        )

    def unfinished(self) -> list[str]:
        """The ids of tasks without a result."""
        return [lease for lease, known in self.known.items() if "state" not in known]

    def end(self, lease: str, result: dict[str, Any]) -> None:
        """Give a task this result."""
        usage = {"requests": 0 if result["state"] == "cancelled" else 1}
        whole = {"id": lease, "text": f"did {lease}", "cost_usd": COST, "usage": usage, "error": None, **result}
        if result["state"] == "cancelled":
            whole["cost_usd"] = None
        self.known[lease] |= {"state": result["state"], "result": whole}
        self.order.append(lease)


class InProcessPlace:
    """A thread for each worker, over take and give."""

    name = "in-process"

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers

    def run(self, batch: Dispatcher) -> None:
        """See Place."""
        threads = [threading.Thread(target=self._work, args=(batch, worker), daemon=True) for worker in self.workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def kill(self) -> None:
        """Nothing goes on outside of this process."""

    def _work(self, batch: Dispatcher, worker: Worker) -> None:
        while (order := batch.take(worker.name, len(self.workers))) is not None:
            reply = worker.play(order)
            if reply.unfinished and not reply.results:
                time.sleep(min(order.wait_s, 0.05))
            batch.give(worker.name, reply)
        batch.left(worker.name, "its thread has ended")


class Driver:
    """A dispatcher that a test drives: `exchange` hands a worker one order and waits for the reply."""

    def __init__(self) -> None:
        self.over = False
        self.of: set[int] = set()
        self._orders: dict[str, queue.Queue[Order | None]] = defaultdict(queue.Queue)
        self._replies: dict[str, queue.Queue[Reply]] = defaultdict(queue.Queue)

    def take(self, worker: str, of: int) -> Order | None:
        """See Dispatcher."""
        self.of.add(of)
        return None if self.over else self._orders[worker].get()

    def give(self, worker: str, reply: Reply) -> None:
        """See Dispatcher."""
        self._replies[worker].put(reply)

    def left(self, worker: str, why: str) -> None:
        """See Dispatcher."""
        self._replies[worker].put(Reply(error=FarmUnreachable(f"{worker}: {why}")))

    def exchange(self, worker: str, order: Order) -> Reply:
        """The reply of `worker`."""
        self._orders[worker].put(order)
        return self._replies[worker].get(timeout=60)

    def end(self) -> None:
        """The batch is over."""
        self.over = True
        for orders in tuple(self._orders.values()):
            orders.put(None)
