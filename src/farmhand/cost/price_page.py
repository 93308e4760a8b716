"""The provider's price page, read strictly, and how it differs from the price table.

What is not understood is an error and never a page without differences. Source of the forms: copies of the page of
2026-09 and 2026-11, in Markdown and HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from farmhand.core.errors import FarmUnreachable
from farmhand.core.prices import PriceTable
from farmhand.cost.page_tables import PageTable, tables

FIGURES = ("input", "output", "cache_write", "cache_write_1h", "cache_read")
#: Figure → the words that all are in the head of its column. The first that fits counts.
_HEADS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cache_write_1h", ("1h", "write")),
    ("cache_write", ("5m", "write")),
    ("cache_read", ("hit",)),
    ("output", ("output",)),
    ("input", ("input",)),
)
_NAME = re.compile(r"Claude ([A-Z][a-z]+) (\d+(?:\.\d+)?)(?![\d.])(.*)")
_TIER = re.compile(r"for prompts (up to|over) ([\d,]+) tokens")
_PRICE = re.compile(r"\$(\d+(?:\.\d+)?) ?/ ?MTok ?[\d¹²³]?")
_DATED = re.compile(r"\b(through|until|starting|from) ([A-Z][a-z]+ \d{1,2}, \d{4})")
#: What marks a row of a model that not everybody can use: it need not be in the table.
_APART = re.compile(r"\b(retired|deprecated|limited availability)\b")
_HINT = "look at it yourself; a later farmhand may read it"


class PageNotUnderstood(FarmUnreachable):
    """The page cannot be read for certain: nobody has looked at the prices."""

    code = "prices_unread"

    def __init__(self, what: str) -> None:
        super().__init__(f"the prices could not be looked at: {what}", hint=_HINT)


class PriceDifference(msgspec.Struct, kw_only=True, frozen=True):
    """A figure that differs: US$ per million tokens, in our table and on the page; None: it is not there."""

    model: str
    figure: str
    ours: str | None
    page: str | None


class PriceCheck(msgspec.Struct, kw_only=True):
    """What a page says of the price table. `apart`: models of the page that need no price here."""

    read: str
    source: str
    table: str
    models: int
    batches: bool
    differences: list[PriceDifference]
    apart: list[str]


@dataclass
class PagePrices:
    """The prices of a model on the page, by figure; `long.` are those of long prompts, `batch.` of Message Batches."""

    figures: dict[str, Decimal] = field(default_factory=dict)
    apart: bool = False


def read_page(text: str, today: date | None = None) -> dict[str, PagePrices]:
    """Return the prices that hold `today` by the model's name as an id. Raise PageNotUnderstood."""
    day, found = today or datetime.now(UTC).date(), dict[str, PagePrices]()
    kinds = [(kind, table) for table in tables(text) if (kind := _kind(table))]
    if not any(kind == "models" for kind, _ in kinds):
        raise PageNotUnderstood("there is no table with the five prices of each model in it")
    for kind, table in kinds:
        columns = _columns(table)
        for row in table.rows:
            _take(row, columns, "batch." if kind == "batch" else "", day, found)
    if not found:
        raise PageNotUnderstood("its table has no model")
    for name, prices in found.items():
        long = {figure for figure in prices.figures if figure.startswith("long.")}
        if not set(FIGURES) <= set(prices.figures) or (long and not {f"long.{figure}" for figure in FIGURES} <= long):
            raise PageNotUnderstood(f"{name} has not all of its prices")
    return found


def _kind(table: PageTable) -> str:
    """Return what the table is of: `models`, `batch` (Message Batches), or "" (anything else)."""
    columns = _columns(table)
    if set(columns) == set(FIGURES):
        return "models"
    return "batch" if set(columns) == {"input", "output"} and "batch" in " ".join(table.heads) else ""


def _columns(table: PageTable) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, head in enumerate(table.heads[1:], 1):
        for figure, words in _HEADS:
            if all(word in head for word in words):
                if figure in found:
                    return {}
                found[figure] = number
                break
    return found


def _take(row: list[str], columns: Mapping[str, int], kind: str, day: date, found: dict[str, PagePrices]) -> None:
    whole = " ".join(row)
    named = _NAME.match(row[0]) if row else None
    if named is None or len(row) <= max(columns.values()):
        raise PageNotUnderstood(f"a row is not of a model and its prices: {whole!r:.120}")
    name = f"claude-{named[1].lower()}-{named[2].replace('.', '-')}"
    if not _holds(named[3], day, name):
        return
    prefix, prices = kind, found.setdefault(name, PagePrices())
    if (tier := _TIER.search(whole)) is not None:
        limit = Decimal(tier[2].replace(",", ""))
        prefix += "long." if tier[1] == "over" else ""
        _set(prices, name, "long.over", limit)
    elif "prompts" in whole:
        raise PageNotUnderstood(f"{name}: what holds for which prompts is not clear: {whole!r:.120}")
    prices.apart |= _APART.search(named[3]) is not None
    for figure, column in columns.items():
        cell = _TIER.sub("", row[column]).strip()
        price = _PRICE.fullmatch(cell)
        if price is None:
            raise PageNotUnderstood(f"{name}: {figure} is no price: {cell!r:.60}")
        _set(prices, name, prefix + figure, Decimal(price[1]))


def _set(prices: PagePrices, name: str, figure: str, value: Decimal) -> None:
    if prices.figures.setdefault(figure, value) != value:
        raise PageNotUnderstood(f"{name}: two prices of {figure}: {prices.figures[figure]} and {value}")


def _holds(about: str, day: date, name: str) -> bool:
    """Return whether a row with this beside its name holds on `day`."""
    dated = _DATED.findall(about)
    if not dated and re.search(r"\d{4}\b", _TIER.sub("", about)):
        raise PageNotUnderstood(f"{name}: from when its prices hold is not clear: {about!r:.120}")
    for word, text in dated:
        try:
            edge = datetime.strptime(text, "%B %d, %Y").date()
        except ValueError:
            raise PageNotUnderstood(f"{name}: {text!r} is no day") from None
        last = edge - timedelta(days=word == "until")
        if (day > last) if word in ("through", "until") else (day < edge):
            return False
    return True


def compare_page(
    found: Mapping[str, PagePrices], table: PriceTable, source: str, today: date | None = None
) -> PriceCheck:
    """Return how the page differs from the table, as both hold `today`."""
    day = today or datetime.now(UTC).date()
    ours = {model: _ours(table, model, day) for model in table.models}
    check = PriceCheck(
        read=day.isoformat(),
        source=source,
        table=table.version,
        models=len(found),
        batches=any("batch.input" in prices.figures for prices in found.values()),
        differences=[],
        apart=[],
    )
    seen = set()
    for name, prices in sorted(found.items()):
        model = table.resolve(name)
        mine = ours.get(model)
        seen.add(model)
        if mine is None:
            if prices.apart:
                check.apart.append(name)
            else:
                check.differences.append(PriceDifference(model=name, figure="", ours=None, page="a new model"))
            continue
        for figure in sorted({*mine, *prices.figures}):
            here, there = mine.get(figure), prices.figures.get(figure)
            # A page without the prices of Message Batches says nothing of them.
            if here != there and not (there is None and figure.startswith("batch.")):
                check.differences.append(
                    PriceDifference(model=model, figure=figure, ours=_text(here), page=_text(there))
                )
    missing = [model for model in table.current if model not in seen]
    check.differences += [PriceDifference(model=model, figure="", ours="in the table", page=None) for model in missing]
    return check


def _ours(table: PriceTable, model: str, day: date) -> dict[str, Decimal] | None:
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    for span in table.spans[model]:
        if not span.start <= moment < span.end:
            continue
        found: dict[str, Any] = {figure: getattr(span.row, figure) for figure in FIGURES}
        if (long := span.row.long_prompt) is not None:
            found |= {f"long.{figure}": getattr(long, figure) for figure in (*FIGURES, "over")}
        for is_long, prefix in ((False, "batch."), (True, "batch.long.")):
            if is_long and long is None:
                continue
            rates = span.rates[is_long, True]
            found |= {prefix + figure: Decimal(getattr(rates, figure)) / 10**6 for figure in ("input", "output")}
        return {figure: Decimal(value) for figure, value in found.items() if value is not None}
    return None


def _text(value: Decimal | None) -> str | None:
    return None if value is None else f"{value.normalize():f}"
