"""Ledgers of hosts that never were: charges and finished tasks, as hypothesis draws them or a test writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from farmhand.core.money import usd
from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from farmhand.cost.rows import FinishedTask, LedgerCharge
from farmhand.cost.store import CostStore

#: 2026-11-24 12:00 UTC.
NOW = 1_795_521_600.0
DAY = 86400.0
TODAY = int(NOW // DAY)
TABLE = price_table()
#: One that has no price is among them.
MODELS = ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-next")

#: Around the edges of the long prompts, with and without the overhead, and anywhere.
tokens = st.one_of(st.integers(0, 3000), st.integers(81_270, 81_280), st.integers(99_995, 100_005))
words = st.sampled_from(("", "a", "b c", 'quote"d', "ü"))
labels = st.dictionaries(st.sampled_from(("team", "run")), st.sampled_from(("x", "y")), max_size=2)
moments = st.integers(0, 60 * 86400).map(lambda back: NOW - back)


@st.composite
def charges(draw: st.DrawFn, most: int = 12) -> list[LedgerCharge]:
    """The charges of one ledger, in its order; what they cost is recorded, or not known."""
    return [
        charge(
            no,
            model=draw(st.sampled_from(MODELS)),
            engine=draw(st.sampled_from(("api", "cli", "economy"))),
            batch=draw(words),
            work_class=draw(words),
            labels=draw(labels),
            at=draw(moments),
            usage=draw(usages()),
            economy=draw(st.booleans()),
            # A host's table may have been another one.
            factor=draw(st.sampled_from((1, 1, 1, 2))),
        )
        for no in range(1, draw(st.integers(0, most)) + 1)
    ]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """What one request used."""
    written = draw(tokens)
    return Usage(
        input_tokens=draw(tokens),
        output_tokens=draw(tokens),
        cache_creation_input_tokens=written,
        cache_creation_1h_input_tokens=draw(st.integers(0, written)),
        cache_read_input_tokens=draw(tokens),
    )


@st.composite
def finished(draw: st.DrawFn, most: int = 8) -> list[FinishedTask]:
    """The finished tasks of one ledger, in its order."""
    return [
        FinishedTask(
            number=no,
            state=draw(st.sampled_from(("succeeded", "failed", "cancelled"))),
            error=draw(st.sampled_from((None, "timeout", "budget", "budget_shared"))),
            batch=draw(words),
            labels=draw(labels),
            work_class=draw(words),
            model=draw(st.sampled_from(MODELS)),
            engine=draw(st.sampled_from(("api", "cli", "economy"))),
            created_at=NOW - DAY,
            finished_at=draw(moments),
            retries=draw(st.integers(0, 3)),
            uncertain=draw(st.integers(0, 2)),
        )
        for no in range(1, draw(st.integers(0, most)) + 1)
    ]


def charge(
    no: int = 1,
    *,
    model: str = "claude-haiku-5-5",
    engine: str = "api",
    usage: Usage | None = None,
    at: float = NOW,
    economy: bool = False,
    factor: int = 1,
    **more: Any,
) -> LedgerCharge:
    """One charge at the table's price of its time, or `factor` times it."""
    usage = Usage(input_tokens=1000, output_tokens=100) if usage is None else usage
    cost = TABLE.cost(model, usage, economy=economy, at=at)
    return LedgerCharge(
        number=no,
        model=model,
        engine=engine,
        created_at=at,
        economy=economy,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_creation_input_tokens=usage.cache_creation_input_tokens,
        cache_creation_1h_input_tokens=usage.cache_creation_1h_input_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        cost_usd=None if cost is None else usd(cost * factor),
        **more,
    )


def usage_of(row: LedgerCharge) -> Usage:
    """The usage of a charge."""
    return Usage(**{name: getattr(row, name) for name in Usage.__struct_fields__})


def new_store(path: Path | str) -> CostStore:
    """A store in that file."""
    return CostStore(Path(path))


@contextmanager
def temporary_store() -> Iterator[CostStore]:
    """A store in a directory of its own, which goes with it."""
    with TemporaryDirectory() as directory, closing(new_store(f"{directory}/cost.db")) as store:
        yield store


def fill(
    store: CostStore, uuid: str, rows: Iterable[LedgerCharge], tasks: Iterable[FinishedTask] = (), host: str = "farm1"
) -> None:
    """Merge a ledger as far as it is."""
    number, _, _ = store.ledger(uuid, host)
    store.merge(number, LedgerCharge, rows)
    store.merge(number, FinishedTask, tasks)
