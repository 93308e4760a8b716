"""What goes to the API beside the prompt itself: bytes, tokens and US$ of one text task, by each engine and by (a)."""

from __future__ import annotations

from typing import Any

from benchmarks.ground import ROOT, Ground
from benchmarks.rivals import MODEL, PROMPT, A, Rivals
from benchmarks.rows import Row
from farmhand.core.money import usd
from farmhand.core.prices import price_table
from farmhand.core.task import Usage

#: An agent that adds more than this wastes the user's money. Issue 3: 1.2 KB.
TARGET = "<= 1,200"


def _sent(ground: Ground, call: Any) -> dict[str, float]:
    """What one task sends: bytes, tokens and US$, over all of its requests."""
    ground.farm.api.clear()
    call()
    posts = ground.farm.api.posts()
    usage = Usage()
    for post in posts:
        counted = {name: value for name, value in post["usage"].items() if name in Usage.__struct_fields__}
        usage.add(Usage(**counted))
    tokens = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
    price = price_table().cost(MODEL, usage)
    return {
        "bytes": sum(post["size"] for post in posts) - len(PROMPT),
        "tokens": tokens,
        "US$": float(usd(price or 0)),
    }


def measure(ground: Ground) -> list[Row]:
    """The rows of what is sent."""
    cheap = str(ROOT / ".venv/bin/claude-cheap")
    ways = {
        "api engine": lambda: ground.program(cheap, PROMPT),
        "cli engine": lambda: ground.program(cheap, "--engine", "cli", PROMPT),
    }
    base = _sent(ground, Rivals(ground).one)
    rows = []
    for name, call in ways.items():
        sent = _sent(ground, call)
        for unit, ours in sent.items():
            what = f"sent for a text task, {name}" + (", beside the prompt" if unit == "bytes" else "")
            # A text task takes the api engine unless it is told otherwise.
            target = TARGET if unit == "bytes" and name == "api engine" else ""
            rows.append(Row(what=what, ours=ours, reference=base[unit], against=A, unit=unit, target=target))
    return rows
