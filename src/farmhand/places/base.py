"""The seam between a batch and the places where its tasks run.

A place has workers: the hosts of a farm, containers, an array job's queue. A task is leased to one worker, by an id
under which that worker runs it once. The calls of a place are

    submit(tasks, credential) → accepted, refused     ids make it idempotent
    results(cursor)           → results, next         each result once
    cancel(ids)               → cancelled, and `stop` for all that has not started
    limit(usd, concurrency)
    capacity()                → slots, unfinished
    health()                  → waiting, halted, error

They travel together, as one `Order` and its `Reply`: over ssh each call costs a process on the host, which takes
longer than its work. A place without that cost makes the calls one by one: an agent behind a socket has
`farmhand.wire.turn.play` for that, AWS Batch takes the order's tasks as one submit.

A place asks the batch for orders, and is not called with them: ansible-runner drives the hosts of a farm from processes
of its own. A place whose workers are called from this process has a thread for each that loops over take and give.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from farmhand.core.errors import FarmhandError


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a worker may do for the batch: US$ in all, tasks at once. None: no limit."""

    usd: float | None = None
    concurrency: int | None = None


@dataclass(kw_only=True)
class Order:
    """What a worker is to do in one exchange, in the order of the fields.

    `tasks` are JSON, as the wire has them. `credential`, the API key, comes with tasks, and to a worker that may have
    none. Results behind `cursor` are wanted until no more than `low` tasks are unfinished, or for `wait_s`.
    """

    batch: str
    cancel: list[str] = field(default_factory=list)
    limit: Limit | None = None
    tasks: list[bytes] = field(default_factory=list)
    credential: str | None = None
    stop: bool = False
    cursor: int = 0
    low: int = 0
    wait_s: float = 0.0


@dataclass(kw_only=True)
class Reply:
    """What came of an order; of one that was not carried out to its end, what is known, and `error`.

    `refused` has objects of id, code, message and hint; `stopped` the ids that `stop` cancelled; `results` the wire's
    results, and `rest` whether there are more. `unfinished` counts the batch's tasks there (None: not known), `waiting`
    says why they wait. `slots` is how many tasks run there at once. `halted`: it takes no tasks now, and why.
    """

    cancelled: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    next: int = 0
    rest: bool = False
    unfinished: int | None = None
    waiting: list[dict[str, Any]] = field(default_factory=list)
    slots: int = 0
    halted: FarmhandError | None = None
    error: FarmhandError | None = None


class Dispatcher(Protocol):
    """The batch, as a place sees it. Every method may be called from any thread."""

    over: bool

    def take(self, worker: str, of: int) -> Order | None:
        """The next order for `worker`, one of `of`, once there is one; None: the batch is over."""

    def give(self, worker: str, reply: Reply) -> None:
        """Take in what came of the order."""

    def left(self, worker: str, why: str) -> None:
        """`worker` asks for nothing more; an order that it still has is lost, and `why` says so to people."""


class Place(Protocol):
    """Where tasks run. Made from PlaceSettings; its row is in farmhand.places.table."""

    name: str

    def run(self, batch: Dispatcher) -> None:
        """Have all workers ask for orders until the batch is over. Raises FarmhandError where none ever can."""

    def kill(self) -> None:
        """End at once whatever `run` has started; from another thread."""


@dataclass(frozen=True, kw_only=True)
class PlaceSettings:
    """What places are told: the checkout, an inventory if not the checkout's, a pattern of hosts."""

    project_dir: Path
    inventory: str | None = None
    pattern: str = "farm"
