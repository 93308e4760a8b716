"""The gateway's metrics after a few turns: one kept local, one that got advice, one whose cost is not known."""

from __future__ import annotations

from farmhand.gateway import policy
from farmhand.gateway.ledger import TurnCharge
from farmhand.gateway.metrics import GatewayMetrics
from farmhand.gateway.policy import Rule
from tests.unit.gateway.turns import DOWN, facts, local

RULES = (Rule(order=("local",)),)


def told_metrics() -> GatewayMetrics:
    """Metrics of a gateway with two servers, one of them down, two open turns and one stream."""
    states = (local(context=4096), local("small", closed=DOWN))
    metrics = GatewayMetrics(lambda: states, lambda: 2, lambda: 1)
    kept = policy.decide(facts(), states, RULES, "", "fh-1")
    metrics.decided(kept, 0.0007)
    metrics.answering(0.3)
    metrics.ended(kept, "done")
    advised = policy.decide(facts(work_class="agent", tools=3), states[1:], RULES, "", "fh-2")
    metrics.decided(advised, 0.002)
    metrics.ended(advised, "advice")
    for pico in (2_500_000_000_000, None):
        metrics.charged(
            TurnCharge(
                decision="fh-3",
                created_at=1.0,
                model="m",
                work_class="chat",
                residency="metered",
                backend="metered",
                pico=pico,
            )
        )
    return metrics
