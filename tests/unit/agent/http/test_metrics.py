from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from farmhand.agent.http.metrics import Metrics
from farmhand.core.task import Usage


def test_a_cost_is_summed_without_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    # Registration collects at once, from a status that is not there.
    monkeypatch.setattr(CollectorRegistry, "register", lambda *_: None)
    nothing: Any = SimpleNamespace()
    scheduler: Any = SimpleNamespace(context=SimpleNamespace(ledger=SimpleNamespace()), interrupted=0)
    metrics = Metrics(scheduler, nothing, nothing, Counter())
    charge = SimpleNamespace(model="m", usage=Usage(requests=1), cost_pico=10**11)
    ended: Any = SimpleNamespace(retries=0, uncertain=0, charges=[charge] * 3)
    metrics.attempt(ended)
    cost = next(family for family in metrics.collect() if family.name == "farmhand_cost_usd")
    assert [sample.value for sample in cost.samples] == [0.3]  # the sum of floats is 0.30000000000000004
