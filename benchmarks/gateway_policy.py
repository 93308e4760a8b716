"""How long the gateway thinks: microseconds for the facts of a turn, and for a decision among five backends.

python -m benchmarks.gateway_policy
"""

from __future__ import annotations

import timeit

import msgspec

from farmhand.gateway.classify import facts
from farmhand.gateway.config import parse
from farmhand.gateway.policy import Rule, decide
from farmhand.gateway.turn import BackendState, Carries, Reason, Turn

_NUMBER = 2000
FACTS = "facts of a turn of 55 KB"


def best() -> dict[str, float]:
    """The best of seven runs, in seconds."""
    text = "x" * 500
    body = [{"role": "user", "content": [{"type": "text", "text": text}]} for _ in range(100)]
    turn = Turn(
        dialect="messages",
        model="claude-farmhand-agent",
        streamed=True,
        fields={"messages": msgspec.Raw(msgspec.json.encode(body))},
        carries=Carries(tools=20),
        tokens=16_800,
        headers={"x-claude-code-session-id": "0d3c8f6e-1111-4222-8333-444455556666"},
    )
    config = parse("")
    down = Reason("down", "not running (connection refused, 127.0.0.1:8080)")
    states = [BackendState(name=f"local:{name}", residency="local", closed=down) for name in "abc"]
    states += [BackendState(name="subscription", residency="subscription")]
    states += [BackendState(name="metered", residency="metered", turn_pico=10**12, day_pico=10**13, spent_pico=10**13)]
    up = [BackendState(name="local:d", residency="local"), *states]
    rules = [Rule(classes=("planning",), order=("local",)), Rule(order=("local", "subscription", "metered"))]
    given = facts(turn, None, config, most_pico=10**10)
    calls = {
        FACTS: lambda: facts(turn, None, config),
        "the first server takes it": lambda: decide(given, up, rules, "local:d", "fh-1"),
        "advice after five reasons": lambda: decide(given, states, rules, "metered", "fh-1"),
    }
    return {name: min(timeit.repeat(call, number=_NUMBER, repeat=7)) / _NUMBER for name, call in calls.items()}


def main() -> None:
    """Print them."""
    for name, seconds in best().items():
        print(f"{name}: {seconds * 1e6:.1f} µs")


if __name__ == "__main__":
    main()
