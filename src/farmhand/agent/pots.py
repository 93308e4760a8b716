"""The pots of an agent: the keys of each, what is in it by the ledger, and which pot pays for a task.

The key of one pot is never used for a task of another one. A farm without pots has one, called "".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from farmhand.agent.keys import Keys
from farmhand.agent.store.damage import LedgerStuck
from farmhand.agent.store.ledger import Ledger
from farmhand.core import pots, readable
from farmhand.core.errors import POT_SPENT, UsageError
from farmhand.core.money import pico, usd
from farmhand.meter.budget import Budget, BudgetSpent
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Key
from farmhand.wire.requests import Funding

log = logging.getLogger("jada-agent")
_LEDGER = "ledger"
#: Refusals of the API that mean that nothing is left, or that it may not be spent.
_EMPTY = frozenset({"billing_error", "spend_limit"})


class Pot:
    """One pot. `budget` has no limit while it has no funding. The clock is the ledger's."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.keys = Keys()
        self.funding = Funding()
        self.budget = Budget(f"pot {name}", None)
        self._ledger = ledger
        self._since: float | None = None
        #: What the pot was closed for: its funding and period, and who said so: the ledger, or the API of which key.
        #: By the API it is `FINGERPRINT@TIME`; marks of before have no time.
        self._closed = ledger.closed_pot(name) if name else ""

    def fund(self, funding: Funding) -> None:
        """Count from now on by this funding."""
        self.funding = funding
        self._turn()

    def _turn(self) -> tuple[float, float | None]:
        """Bring the budget up to date: its limit, and in a new period what it has spent. Return the period.

        Open calls stay reserved and are charged in the period in which they end, as in the ledger.
        """
        funding, now = self.funding, self._ledger.now()
        since, until = pots.period(funding.cycle_day, funding.expires, now)
        limit = None if funding.amount_usd is None else pico(funding.amount_usd)
        if since != self._since and limit is not None:
            self._since = since
            self.budget.spent_pico = max(0, self._ledger.spent_by_pot(self.name, since) - self.budget.reserved_pico)
        if limit != self.budget.limit_pico:
            self.budget.limit_pico = limit
            self.budget.wake()
        return since, until

    def _mark(self) -> str:
        funding = self.funding
        return f"{self._turn()[0]:.0f} {funding.amount_usd} {funding.cycle_day or 0} {funding.expires or '-'}"

    @property
    def closed(self) -> bool:
        """Return whether it pays for nothing now: it is spent until it is filled again, or has expired."""
        if self.funding.amount_usd is None:
            return False
        mark = self._mark()
        over = pots.has_expired(self.funding.expires, self._ledger.now())
        for_what, _, by = self._closed.rpartition(" ")
        key = self.keys.default
        # The API says the same of a key that is stale: another key is tried.
        shut = for_what == mark and (by == _LEDGER or key is None or key.fingerprint == by.partition("@")[0])
        return over or self.budget.spent_out or shut

    @property
    def api_closed_at(self) -> float | None:
        """Return when the API closed it, in Unix seconds, if it is closed by that."""
        at = self._closed.rpartition("@")[2] if "@" in self._closed and self.closed else ""
        return float(at) if at.isdecimal() and not self.budget.spent_out else None

    def stops(self, key: Key, problem: ApiError) -> bool:
        """Note a refusal of the key, or that the pot is spent. Return whether the task is not at fault."""
        full = isinstance(problem, BudgetSpent) and problem.budget is self.budget
        if full or (self.budget.limit_pico is not None and problem.code in _EMPTY):
            self.close(_LEDGER if full else f"{key.fingerprint}@{self._ledger.now():.0f}")
        elif problem.rejects_key:
            self.keys.refuse(key, problem)
        else:
            return False
        return True

    def close(self, by: str) -> None:
        """Record that the pot is spent, until it is filled again or its funding is changed."""
        self._closed = f"{self._mark()} {by}"
        log.warning("%s", self.said())
        with suppress(LedgerStuck):  # then the next refusal says it again after a restart
            noted = self._ledger.close_pot(self.name, self._closed)
            noted.add_done_callback(lambda done: done.cancelled() or done.exception())

    def known(self, held_pico: int, held_since: float, cost_pico: int) -> None:
        """Correct the budget for a request from before this start; see `Budgets.known`."""
        since, _ = self._turn()
        self.budget.correct(cost_pico - (held_pico if held_since >= since else 0))

    def said(self) -> str:
        """Return why a closed pot pays for nothing, and when it is filled again."""
        _, until = self._turn()
        if pots.has_expired(self.funding.expires, self._ledger.now()):
            return f"the pot {self.name} has expired ({self.funding.expires})"
        by_api = self._closed and not self._closed.endswith(_LEDGER) and not self.budget.spent_out
        why = "the API refuses it, and by the ledger " if by_api else ""
        left = max(0, (self.budget.limit_pico or 0) - self.budget.spent_pico)
        again = "it is not filled again"
        if self.funding.cycle_day and until is not None:
            day = f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d}"
            again = f"it {'expires' if day == self.funding.expires else 'is filled again'} on {day} (UTC)"
        return f"the pot {self.name} is spent: {why}{readable.money(left)} is left; {again}"

    def as_dict(self) -> dict[str, Any]:
        """Return the pot as `GET /v1/status` shows it."""
        _, until = self._turn()
        funding, key = self.funding, self.keys.default
        shown: dict[str, Any] = {"name": self.name, "key": key.fingerprint if key else None}
        if funding.amount_usd is not None:
            over = pots.has_expired(funding.expires, self._ledger.now())
            shown |= {
                "state": "expired" if over else "spent" if self.closed else "open",
                "limit_usd": funding.amount_usd,
                "spent_usd": usd(self.budget.spent_pico),
                "reserved_usd": usd(self.budget.reserved_pico),
                "until": until,
                "next": funding.next,
            }
            shown |= {} if (at := self.api_closed_at) is None else {"api_closed_at": at}
        return shown


class Pots:
    """All pots by name. A pot is there once a client has brought it, or a task names it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pots = {"": Pot("", ledger)}

    def __getitem__(self, name: str) -> Pot:
        pot = self._pots.get(name)
        if pot is None:
            pot = self._pots[name] = Pot(name, self._ledger)
        return pot

    def __iter__(self) -> Iterator[Pot]:
        return iter(list(self._pots.values()))

    @property
    def named(self) -> list[Pot]:
        """Return the pots without the one of a farm that has none."""
        return [pot for pot in self if pot.name]

    def paying(self, name: str) -> Pot:
        """Return the pot that pays now for tasks of the pot `name`: itself, or the first open one it leads to."""
        pot, seen = self[name], set[str]()
        while pot.closed and pot.funding.next and pot.funding.next not in seen:
            seen.add(pot.name)
            pot = self[pot.funding.next]
        return pot

    def key(self, name: str, fingerprint: str | None) -> tuple[Pot, Key | None]:
        """Return the pot that pays for a task, and the key for it; None if the task has to wait."""
        pot = self.paying(name)
        return pot, None if pot.closed else pot.keys.of(fingerprint)

    def default(self, name: str) -> Key | None:
        """Return the key for new tasks of the pot `name`, or None if they have to wait."""
        pot = self.paying(name)
        return None if pot.closed else pot.keys.default

    def bring(self, name: str, key: Key, supersedes: str, funding: Funding | None) -> Key:
        """Store the key of a named pot, and its funding if given. Return the key, or the one that replaced it.

        Raise UsageError, with nothing changed, if it is the key of another pot.
        """
        for other in self.named:
            if other.name != name and key.fingerprint in (*other.keys.held, *other.keys.refused, other.keys.reserve):
                hint = "each needs a key of its own; after a renaming restart jada-agent there"
                raise UsageError(
                    f"the key of the pot {name} is that of the pot {other.name}", code="bad_key", hint=hint
                )
        pot = self[name]
        if funding is not None:
            pot.fund(funding)
        if supersedes:
            pot.keys.supersede(supersedes, key)
        else:
            key = pot.keys.stand_in(key)
            pot.keys.hold(key)
        return key

    def why(self, name: str) -> dict[str, str]:
        """Return why tasks of the pot wait for a key that a client cannot simply bring: reason, message, hint."""
        pot = self.paying(name)
        if pot.closed:
            return {
                "reason": POT_SPENT,
                "message": pot.said(),
                "hint": 'name another --pot, or set when_spent = "next"',
            }
        refusal = pot.keys.refusal
        return {"reason": refusal.code, "message": refusal.message, "hint": refusal.hint} if refusal else {}
