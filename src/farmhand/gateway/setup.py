"""The settings in force, with the backends that they name."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from farmhand.core.prices import PriceTable
from farmhand.gateway.backends import Backend, PaidBackend
from farmhand.gateway.tables import GatewayConfig
from farmhand.gateway.turn import BackendState, Decision, Facts, Reason, Turn, WorkClass

NONE: Mapping[str, Reason] = {}


class Setup(msgspec.Struct, frozen=True):
    """What a reload replaces as a whole: the settings, the backends in the file's order, and the prices."""

    config: GatewayConfig
    backends: Mapping[str, Backend]
    prices: PriceTable

    def least(self, turn: Turn, work_class: WorkClass) -> int | None:
        """Return what the answer to a turn may cost at the least limit of its most; None if nothing is paid."""
        paid = (backend for backend in self.backends.values() if isinstance(backend, PaidBackend))
        return next((backend.least(turn, work_class) for backend in paid), None)

    def states(self, facts: Facts | None = None, declined: Mapping[str, Reason] = NONE) -> tuple[BackendState, ...]:
        """Return the states of all backends, also of those that are off; with `facts` as a turn's decision has them.

        A backend that has `declined` the turn is closed for it.
        """
        off = (state for state in self.config.closed() if state.name not in self.backends)
        found = (*(backend.state() for backend in self.backends.values()), *off)
        if declined:
            found = tuple(msgspec.structs.replace(one, closed=declined.get(one.name, one.closed)) for one in found)
        if facts is None or not self.config.metered.budget_label_usd:
            return found
        return tuple(self._labelled(state, facts) for state in found)

    def _labelled(self, state: BackendState, facts: Facts) -> BackendState:
        """Return a state with the budgets of the turn's labels, and of no others."""
        backend = self.backends.get(state.name)
        if not isinstance(backend, PaidBackend):
            return state
        return msgspec.structs.replace(state, labels=backend.labelled(facts.labels))

    def paid(self, decision: Decision) -> PaidBackend | None:
        """Return the backend of a decision if it is paid by the token."""
        backend = self.backends.get(decision.backend)
        return backend if isinstance(backend, PaidBackend) else None
