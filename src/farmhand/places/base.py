"""The interface between a batch and the places where its tasks run.

A place has workers: the hosts of a farm, containers, the queue of an array job. A task is leased to one worker, under
an id that the worker runs only once. The calls of a place are

    submit(tasks, credential) → accepted, refused     ids make it idempotent
    results(cursor)           → results, next         each result once
    cancel(ids)               → cancelled, and `stop` for all that has not started
    limit(usd, concurrency)
    capacity()                → slots, unfinished
    health()                  → waiting, halted, error

They are combined into one `Order` and its `Reply`, because over ssh each call costs a process on the host. A place
without that cost makes the calls one by one: an agent behind a socket has `farmhand.wire.turn.play` for that.

A place requests orders from the batch, not the other way round, because ansible-runner drives the hosts of a farm from
processes of its own. A place whose workers are called from this process has a thread for each, which loops over take
and give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from farmhand.core.errors import FarmhandError
from farmhand.core.keys import Credential
from farmhand.core.settings import Settings
from farmhand.core.trace_context import TraceContext


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A worker's limits for the batch: pico-dollars in all, tasks at once. None: no limit."""

    pico: int | None = None
    concurrency: int | None = None


@dataclass(kw_only=True)
class Order:
    """A worker's instructions for one exchange, in the order of the fields.

    `tasks` are JSON, as on the wire; they go there with `trace`, which is no part of them. `credential` is sent with
    tasks, and to a worker without it.
    Results after `cursor` are requested until at most `low` tasks are unfinished, or for `wait_s`. `more`: other tasks
    come with the next order.
    """

    batch: str
    cancel: list[str] = field(default_factory=list)
    limit: Limit | None = None
    tasks: list[bytes] = field(default_factory=list)
    trace: TraceContext | None = None
    credential: Credential | None = None
    stop: bool = False
    cursor: int = 0
    low: int = 0
    more: bool = False
    wait_s: float = 0.0


class TaskRows(NamedTuple):
    """What a place's ledger has of a task: its end, and its requests, as lines of `/v1/finished` and `/v1/charges`."""

    finished: bytes = b""
    charges: tuple[bytes, ...] = ()


@dataclass(kw_only=True)
class Reply:
    """The outcome of an order. If the order was not completed, it has what is known, and `error`.

    `refused` has objects of id, code, message and hint; `stopped` has the ids that `stop` cancelled; `results` has
    results as on the wire, and `rest` is whether there are more. A result with `second` is another run's: if its line
    is finished, only its cost counts. `unclaimed_pico` are pico-dollars that no result has. `unfinished` counts the
    batch's tasks on the worker (None: unknown), `waiting` has the reasons why they wait. `slots` is how many tasks run
    there at once. `halted` is why it takes no tasks now. `rows` are those of results, by id, where spans are made of
    them here.
    """

    cancelled: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    next: int = 0
    rest: bool = False
    unclaimed_pico: int = 0
    unfinished: int | None = None
    waiting: list[dict[str, Any]] = field(default_factory=list)
    slots: int = 0
    halted: FarmhandError | None = None
    error: FarmhandError | None = None
    rows: dict[str, TaskRows] = field(default_factory=dict)


class Dispatcher(Protocol):
    """The batch, as seen by a place. Every method may be called from any thread."""

    over: bool

    def take(self, worker: str, of: int) -> Order | None:
        """Wait for and return the next order for `worker`, one of `of` workers; None means that the batch is over."""

    def give(self, worker: str, reply: Reply) -> None:
        """Process the outcome of the order."""

    def left(self, worker: str, why: str) -> None:
        """Note that `worker` has left. An order that it still has is lost; `why` is the reason shown to the user."""


class Place(Protocol):
    """A place where tasks run, made from PlaceSettings; its row is in farmhand.places.table."""

    name: str

    def run(self, batch: Dispatcher) -> None:
        """Make all workers request orders until the batch is over. Raise FarmhandError if none can ever do so."""

    def kill(self) -> None:
        """End everything that `run` has started, at once; called from another thread."""


@runtime_checkable
class LastingPlace(Place, Protocol):
    """A place where the work goes on without this process."""

    @property
    def submitted(self) -> bool:
        """Return whether all work is there."""

    def terminate(self) -> None:
        """End everything that is there, and not only what this process has to do with it; called from any thread."""

    def account(self) -> dict[str, Any]:
        """Return what the place itself came to so far, for the batch's summary: `usd` and more."""


@dataclass(frozen=True, kw_only=True)
class PlaceSettings:
    """The settings of a place: the operator's, the checkout, an inventory if not the checkout's own, a host pattern.

    `shard` is how many tasks a container is given, 0 for the place's own choice; `spot` is whether it may be taken back
    at a lower price. `bends`: what has no room in the budget is handed in again at a lower price. `say` prints a line
    for the operator.
    """

    project_dir: Path
    inventory: str | None = None
    pattern: str = "farm"
    conf: Settings = field(default_factory=Settings)
    shard: int = 0
    spot: bool = True
    bends: bool = False
    say: Callable[[str], None] = lambda _text: None
