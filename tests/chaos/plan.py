"""What happens in the run of a seed: the same for the same seed, on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from tests.support.messages_api import BatchFault, Fault
from tests.support.trap import RUNNING, STARTING

Kind = Literal["kill", "full_disk", "clock", "again", "cancel", "cancel_many", "cancel_batch", "limit", "stop", "trap"]
CREATE = "/v1/messages/batches"
#: Attempts that the agent makes of one task in one run; it is configured so.
ATTEMPTS = 3


@dataclass(frozen=True)
class Moment:
    """Something that happens once the API has had `after` requests, and `delay_s` later."""

    kind: Kind
    after: int
    delay_s: float
    #: Seconds: how long the disk stays full, or how far the clock jumps.
    amount: float = 0.0
    #: Tasks or batches that it is about; of a trap the point at which the agent dies.
    names: tuple[str, ...] = ()


@dataclass
class Plan:
    """The whole of it."""

    seed: int
    tasks: list[dict[str, Any]] = field(default_factory=list)
    #: Batch → how many of its tasks may run at once.
    batches: dict[str, int | None] = field(default_factory=dict)
    #: How many tasks each submission has.
    portion: int = 5
    slots: int = 4
    latency_s: float = 0.0
    event_s: float = 0.0
    economy_ms: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    batch_faults: list[BatchFault] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    @property
    def economy(self) -> bool:
        """Whether Message Batches are in it."""
        return any(task.get("economy") for task in self.tasks)

    @property
    def full_disk(self) -> bool:
        """Whether the disk is full at some moment."""
        return any(moment.kind == "full_disk" for moment in self.moments)


def prompt(seed: int, number: int) -> str:
    """The prompt of a task; it has the task's number between marks, for faults to find it by."""
    return f"seed {seed} task <{number}> " + "and so on " * (number % 7)


def make(seed: int) -> Plan:
    """The plan of a seed."""
    dice = Random(seed)  # noqa: S311  (a test's dice)
    plan = Plan(seed)
    plan.slots = dice.choice([1, 2, 4, 8, 32])
    plan.portion = dice.randint(1, 12)
    plan.latency_s = dice.choice([0.0, 0.01, 0.03])
    plan.event_s = dice.choice([0.0, 0.0, 0.005, 0.02])
    plan.economy_ms = dice.choice([0.0, 100.0, 600.0])
    plan.batches = {f"b{n}": dice.choice([None, 1, 3]) for n in range(dice.randint(0, 3))}
    count = dice.randint(10, 40)
    thrifty = dice.choice([0.0, 0.0, 0.3, 1.0]) if seed % 3 == 0 else 0.0
    plan.tasks = [_task(dice, plan, number, economy=dice.random() < thrifty) for number in range(count)]
    plan.faults = [*_faults(dice, count), *(_economy_faults(dice) if plan.economy else [])]
    if plan.economy and dice.random() < 0.5:
        plan.batch_faults = [
            BatchFault(result=dice.choice(["errored", "expired"]), match=f"<{dice.randrange(count)}>") for _ in range(2)
        ]
    plan.moments = sorted(_moments(dice, plan), key=lambda moment: moment.after)
    return plan


def _task(dice: Random, plan: Plan, number: int, *, economy: bool) -> dict[str, Any]:
    task: dict[str, Any] = {"id": f"s{plan.seed}-{number}", "prompt": prompt(plan.seed, number)}
    if dice.random() < 0.5:
        task["priority"] = dice.randint(-2, 2)
    if plan.batches and dice.random() < 0.8:
        task["batch"] = dice.choice(sorted(plan.batches))
    if economy:
        task["economy"] = True
    return task


def _faults(dice: Random, count: int) -> Iterator[Fault]:
    for _ in range(dice.choice([0, 1, 3, 6])):
        match = f"<{dice.randrange(count)}>"
        kind = dice.choice(["status", "status", "cut", "reset", "stream_error", "garbage", "stalled", "slow", "final"])
        more: dict[str, Any] = {"count": dice.choice([1, 1, 2])}
        if kind == "status":
            status = dice.choice([500, 529, 429])
            more |= {"status": status, "retry_after": 1 if status == 429 else None}
        elif kind == "final":
            kind, more = "status", {"status": dice.choice([400, 403, 401]), "count": 1}
        elif kind == "slow":
            more["delay_s"] = round(dice.uniform(0.1, 0.6), 3)
        else:
            # In some runs a task has as many of them as it has attempts, and fails.
            more = {"count": dice.choice([1, 1, 2, ATTEMPTS]), "after_events": dice.randint(0, 5)}
        yield Fault(kind=kind, match=match, **more)  # type: ignore[arg-type]  # those above are its kinds


def _economy_faults(dice: Random) -> Iterator[Fault]:
    for _ in range(dice.choice([0, 1, 2])):
        kind, method, path = dice.choice(
            [
                ("cut", "POST", CREATE),
                ("reset", "POST", CREATE),
                ("status", "POST", CREATE),
                ("cut", "GET", f"{CREATE}/*/results"),
                ("status", "GET", f"{CREATE}/*"),
            ]
        )
        yield Fault(kind=kind, method=method, path=path, status=dice.choice([500, 529]))  # type: ignore[arg-type]


def _moments(dice: Random, plan: Plan) -> Iterator[Moment]:
    count = len(plan.tasks)

    def at(kind: Kind, *, amount: float = 0.0, names: tuple[str, ...] = ()) -> Moment:
        # Early moments too: before the first request, and while tasks still come in.
        return Moment(kind, dice.randint(0, count), round(dice.uniform(0, 0.08), 3), amount, names)

    some = [task["id"] for task in plan.tasks]
    for _ in range(dice.randint(1, 4)):
        yield at("kill")
    if plan.seed % 4 == 1:
        yield at("full_disk", amount=round(dice.uniform(0.05, 0.8), 3))
    if dice.random() < 0.4:
        # The provider's clock has to be near where a Message Batch is looked for.
        far = 300.0 if plan.economy else 10 * 86400.0
        yield at("clock", amount=round(dice.uniform(-far, far), 1))
    if dice.random() < 0.5:
        yield at("again")
    for _ in range(dice.choice([0, 0, 1, 2, 3])):
        yield at("cancel", names=(dice.choice(some),))
    if dice.random() < 0.2:
        yield at("cancel_many", names=tuple(dice.sample(some, min(5, count))))
    if plan.batches and dice.random() < 0.15:
        yield at("cancel_batch", names=(dice.choice(sorted(plan.batches)),))
    if plan.batches and dice.random() < 0.3:
        yield at("limit", names=(dice.choice(sorted(plan.batches)),))
    if dice.random() < 0.15:
        yield at("stop")
    # Of dice of their own: the rest of a seed's plan is as it was before there were traps.
    traps = Random(f"traps {plan.seed}")  # noqa: S311  (a test's dice)
    points = [*STARTING, *(RUNNING if plan.economy else RUNNING[:3])]
    for _ in range(traps.choice([0, 1, 1, 2])):
        yield Moment("trap", traps.randint(0, count), round(traps.uniform(0, 0.08), 3), names=(traps.choice(points),))
