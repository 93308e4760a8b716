"""A budget that bends: a task, or what of a batch has no room at the price that was asked goes on at a lower one.

`economy` is the provider's Message Batches, `haiku` the cheapest haiku model. The price table decides what is cheaper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from farmhand.core import rules
from farmhand.core.attachments import PDF
from farmhand.core.money import pico_of
from farmhand.core.prices import PriceTable, Rates, price_table
from farmhand.core.settings import Settings
from farmhand.core.task import Task, resolve_model
from farmhand.core.typed import ready
from farmhand.core.when_spent import ECONOMY, HAIKU, STOP, by_class

_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Bent(msgspec.Struct, kw_only=True, frozen=True):
    """What a result says of it: the way, the model and engine that were asked and used, and why."""

    way: str
    asked: dict[str, str]
    used: dict[str, str]
    why: str


@dataclass
class Bending:
    """The ways by work class ("": all others), and whether the budget has been found without room, with what `why`."""

    table: PriceTable
    ways: Mapping[str, str]
    why: str = ""
    #: The error of the last task without room: `farmhand.wire.schema.WireProblem`.
    last: Mapping[str, Any] = field(default_factory=dict)
    #: What was spent since, in pico-dollars.
    since: int = 0
    #: Whether a task has ended since those without room were last tried.
    moved: bool = False
    #: Whether to hand in but once, and only what bends: in containers on AWS, which cost something themselves.
    once: bool = False
    #: Whether a task went on as an economy task: these are sent in bulk.
    in_bulk: bool = field(default=False, init=False)

    @classmethod
    def of(cls, conf: Settings, *, once: bool = False) -> Bending | None:
        """Return what the setting `when_spent` says; None: everything stops. With `once` there is no economy."""
        ways = by_class(conf.when_spent) or {}
        if once:
            ways = {name: STOP if way == ECONOMY else way for name, way in ways.items()}
        return cls(price_table(conf.prices_path), ways, once=once) if {*ways.values()} - {STOP} else None

    def begin(self, why: str) -> bool:
        """Bend from now on. Return False if that is so already."""
        begins, self.why = not self.why, self.why or why
        return begins

    def room(self, max_usd: float | None, spent_pico: int) -> int | None:
        """Return how many pico-dollars what is held may cost in all, as far as is known: of the budget that was full.

        `max_usd` is the batch's own, `spent_pico` what of it is spent.
        """
        full = self.last.get("budget")
        if full and full["of"] == "day":
            return max(pico_of(full["limit_usd"]) - pico_of(full["spent_usd"]) - self.since, needs(self.last))
        return None if max_usd is None else max(0, pico_of(max_usd) - spent_pico)

    def shape(self, body: bytes) -> tuple[bytes, Bent] | None:
        """Return a task's fields, as a journal has them, at its lower price, and what to say; None if it has none."""
        asked = _task(body)
        used = self.used(asked)
        if isinstance(used, str):
            return None
        self.in_bulk |= used.economy
        way = self.ways.get(asked.work_class, self.ways[""])
        note = Bent(way=way, asked=_named(asked), used=_named(used), why=self.why)
        fields = msgspec.json.decode(b"{" + body, type=dict[str, msgspec.Raw])
        fields |= {"model": _raw(used.model), "economy": _raw(used.economy)}
        return msgspec.json.encode(fields)[1:], note

    def used(self, asked: Task) -> Task | str:
        """Return the task as it goes on, or why it cannot go on at a lower price."""
        way = self.ways.get(asked.work_class, self.ways[""])
        if way == STOP:
            return "it stops"
        change = self._economy(asked) if way == ECONOMY else self._haiku(asked)
        if isinstance(change, str):
            return change
        used = msgspec.structs.replace(asked, **change)
        if (broken := rules.check(used, deep=False)) is not None:
            return broken.message
        if not self._cheaper(used, asked):
            return f"the price table has no lower price for {used.model} than for {asked.model} as asked"
        return used

    def refusal(self, bodies: Iterable[bytes]) -> str:
        """Return why none of these tasks can go on at a lower price; "" if one can, or there are none."""
        first = ""
        for body in bodies:
            used = self.used(_task(body))
            if not isinstance(used, str):
                return ""
            first = first or used
        return first

    def _economy(self, asked: Task) -> dict[str, Any] | str:
        if asked.economy:
            return "economy is half the price already"
        if any(file.media_type == PDF for file in asked.files):
            return "only the API knows a PDF's tokens, and with economy it is not asked"
        return {"economy": True}

    def _haiku(self, asked: Task) -> dict[str, Any] | str:
        haikus = [model for model in self.table.current if HAIKU in model]
        if not haikus:
            return "the price table has no haiku model"
        if HAIKU in self._model(asked):
            return f"{asked.model} is a haiku already"
        return {"model": haikus[0]}

    def _model(self, task: Task) -> str:
        return self.table.resolve(resolve_model(task.model))

    def _cheaper(self, used: Task, asked: Task) -> bool:
        """Return whether no token of `used` costs more than one of `asked`, and one of the answer costs less."""
        for prompt in (0, *(limit + 1 for limit in self.table.thresholds)):
            new, old = (self.table.rates(self._model(one), prompt, economy=one.economy) for one in (used, asked))
            if new is None or old is None or new.output >= old.output or not _none_above(new, old):
                return False
        return True


def needs(refusal: Mapping[str, Any]) -> int:
    """Return what the request that a budget refused may cost, in pico-dollars; 0: an older agent does not say it."""
    return pico_of((refusal.get("budget") or {}).get("needs_usd", 0))


def _none_above(new: Rates, old: Rates) -> bool:
    pairs = zip(new, old, strict=True)
    return all(a is None if b is None else a is not None and a <= b for a, b in pairs)


def _named(task: Task) -> dict[str, str]:
    return {"model": resolve_model(task.model), "engine": task.resolved_engine}


def _task(body: bytes) -> Task:
    return msgspec.json.decode(b'{"id":"x",' + body, type=ready(Task))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(value))
