"""The price table, and the exact cost of a request in integer pico-dollars (see `money`).

Prices are in US$ per million tokens. They have so few digits that one token, in a batch too, costs a whole number of
pico-dollars. So costs add up without rounding, in any order and grouping.
"""

from __future__ import annotations

import hashlib
import math
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from farmhand.core.errors import NotConfigured
from farmhand.core.files import read_most
from farmhand.core.task import Usage
from farmhand.core.terms import KINDS, STANDARD, Terms, factors_of
from farmhand.core.typed import ready

#: US$ per million tokens → pico-dollars per token.
_PICO = 10**6
_DAY_S = 86400
#: The largest file of prices that is read.
_MAX_BYTES = 4 * 1024 * 1024
_ONE = Fraction(1)


class Rates(NamedTuple):
    """Integer pico-dollars per token of each kind; None if the source gives no figure."""

    input: int
    output: int
    cache_write: int | None
    cache_write_1h: int | None
    cache_read: int | None

    def cost(self, usage: Usage) -> int | None:
        """Return the pico-dollars for `usage`, or None if it has tokens of a kind without a price."""
        total = usage.input_tokens * self.input + usage.output_tokens * self.output
        for tokens, rate in (
            (usage.cache_creation_input_tokens - usage.cache_creation_1h_input_tokens, self.cache_write),
            (usage.cache_creation_1h_input_tokens, self.cache_write_1h),
            (usage.cache_read_input_tokens, self.cache_read),
        ):
            if tokens and rate is None:
                return None
            total += tokens * (rate or 0)
        return total


class _Figures(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    input: Decimal
    output: Decimal
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    cache_read: Decimal | None = None

    def rates(self, factor: Decimal) -> Rates:
        """Return the figures in pico-dollars per token, times `factor`. Raise ValueError, naming an invalid figure."""
        return Rates(*(_per_token(name, getattr(self, name), factor) for name in Rates._fields))  # type: ignore[arg-type]


class LongPrompt(_Figures, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The prices of a request whose prompt has more than `over` tokens."""

    over: int


class Price(_Figures, forbid_unknown_fields=True, frozen=True, kw_only=True, rename={"start": "from", "end": "to"}):
    """One row: US$ per million tokens of `model`, from the day `start` until before the day `end`, both UTC."""

    model: str
    start: date | None = None
    end: date | None = None
    long_prompt: LongPrompt | None = None
    batch_factor: Decimal | None = None
    legacy: bool = False
    source: str = ""
    read: date | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The content of a price file; an operator's own file needs only the rows."""

    version: date | None = None
    source: str = ""
    batch_factor: Decimal | None = None
    aliases: dict[str, str] = {}
    factors: dict[str, dict[str, Decimal]] = {}
    price: tuple[Price, ...] = ()


class _Span(NamedTuple):
    """A row ready for use: times in Unix seconds, and the rates by (long prompt, economy)."""

    start: float
    end: float
    over: int | None
    rates: dict[tuple[bool, bool], Rates]
    row: Price


@dataclass(frozen=True, eq=False)
class PriceTable:
    """Prices by model and time.

    `version` identifies the table: the day its source was read, and a digest of the operator's own file if there is
    one. `aliases` are other names of models. `factors` multiply prices, by the field of an answer's terms (see `Terms`)
    and its value.
    """

    version: str
    source: str
    aliases: dict[str, str]
    spans: dict[str, list[_Span]]
    factors: dict[str, dict[str, Fraction]]

    @property
    def models(self) -> tuple[str, ...]:
        """Return the ids of all models with a price."""
        return tuple(self.spans)

    @property
    def current(self) -> tuple[str, ...]:
        """Return the models that are not legacy, cheapest first (by the price of output in the last row)."""
        chosen = [model for model, spans in self.spans.items() if not spans[-1].row.legacy]
        return tuple(sorted(chosen, key=lambda model: self.spans[model][-1].rates[False, False].output))

    @property
    def thresholds(self) -> tuple[int, ...]:
        """Return every prompt length, in tokens, above which the prices of some model change."""
        return tuple(sorted({s.over for spans in self.spans.values() for s in spans if s.over is not None}))

    @property
    def changes(self) -> tuple[int, ...]:
        """Return every day (since 1970, UTC) on which the prices of some model change."""
        edges = {edge for spans in self.spans.values() for span in spans for edge in (span.start, span.end)}
        return tuple(sorted(int(edge // _DAY_S) for edge in edges if math.isfinite(edge)))

    def resolve(self, name: str) -> str:
        """Return the model id for `name`, an id or an alias; an unknown name is returned as it is."""
        return self.aliases.get(name, name)

    def rates(self, model: str, prompt: int, *, economy: bool = False, at: float | None = None) -> Rates | None:
        """Return the rates for a prompt of so many tokens, or None if no price is known for the model at that time.

        `economy`: the request was part of a Message Batch. `at`: its time in Unix seconds; now by default.
        """
        moment = time.time() if at is None else at
        for span in self.spans.get(self.resolve(model), ()):
            if span.start <= moment < span.end:
                return span.rates[span.over is not None and prompt > span.over, economy]
        return None

    def cost(
        self, model: str, usage: Usage, terms: Terms = STANDARD, *, economy: bool = False, at: float | None = None
    ) -> int | None:
        """Return the pico-dollars of a request that used `usage` on `terms`; None, never zero, if a price is unknown.

        `economy` and `at` are as for `rates`. A fraction of a pico-dollar, which a factor can leave, is rounded up.
        """
        factor = self.factor(terms)
        rates = self.rates(model, usage.prompt_tokens, economy=economy or terms.service_tier == "batch", at=at)
        if factor is None or rates is None or (cost := rates.cost(usage)) is None:
            return None
        return -(-cost * factor.numerator // factor.denominator)

    def factor(self, terms: Terms) -> Fraction | None:
        """Return the factor that the terms apply to every price, or None if it is unknown."""
        product = _ONE
        for kind in KINDS:
            if value := getattr(terms, kind):
                factor = self.factors[kind].get(value)
                if factor is None:
                    return None
                product = factor if product is _ONE else product * factor
        return None if terms.unknown else product


@cache
def price_table(override: Path | None = None) -> PriceTable:
    """Return the shipped table; for each model in the file `override`, its rows replace all rows of that model.

    A missing file overrides nothing. Raise NotConfigured with a one-line message that names the error and its place.
    """
    shipped = files(__package__).joinpath("prices.toml").read_text(encoding="utf-8")
    base = _parse(shipped, "prices.toml")
    if base.version is None or not base.source or base.batch_factor is None:
        raise NotConfigured("prices.toml: version, source or batch_factor is missing")
    spans, factors = _spans(base, base.batch_factor, "prices.toml"), factors_of(base.factors, "prices.toml")
    aliases, version = dict(base.aliases), base.version.isoformat()
    try:
        text = read_most(override, _MAX_BYTES).decode("utf-8") if override is not None else ""
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise NotConfigured(f"the price file {override} cannot be read: {reason}") from None
    if text:
        own = _parse(text, str(override))
        spans |= _spans(own, own.batch_factor or base.batch_factor, str(override))
        aliases |= own.aliases
        for kind, values in factors_of(own.factors, str(override)).items():
            factors[kind] |= values
        version += "+" + hashlib.sha256(text.encode()).hexdigest()[:8]
    for alias, model in aliases.items():
        if alias in spans:
            raise NotConfigured(f"{override or 'prices.toml'}: aliases: {alias} is a model with a price of its own")
        if model not in spans:
            raise NotConfigured(f"{override or 'prices.toml'}: aliases: {alias} stands for {model}, which has no price")
    return PriceTable(version, base.source, aliases, spans, factors)


def _parse(text: str, where: str) -> _File:
    try:
        return msgspec.convert(tomllib.loads(text), ready(_File))
    except msgspec.ValidationError as error:
        raise _wrong(f"{where}: {_place(str(error), text)}") from None
    except (ValueError, RecursionError) as error:
        raise NotConfigured(f"{where}: not TOML: {error}") from None


def _place(message: str, text: str) -> str:
    """Return msgspec's message with the model of the row in place of its number."""
    what, _, path = message.partition(" - at `$")
    if not path.startswith(".price["):
        return message.replace("$.", "")
    index, _, field = path.removeprefix(".price[").rstrip("`").partition("]")
    row = tomllib.loads(text)["price"][int(index)]
    model = row.get("model", "without a model") if isinstance(row, dict) else "no table"
    return f"price {int(index) + 1} ({model}){field}: {what}"


def _spans(file: _File, factor: Decimal, where: str) -> dict[str, list[_Span]]:
    spans: dict[str, list[_Span]] = {}
    for number, row in enumerate(file.price, 1):
        try:
            spans.setdefault(row.model, []).append(_span(row, factor if row.batch_factor is None else row.batch_factor))
        except ValueError as error:
            raise _wrong(f"{where}: price {number} ({row.model}): {error}") from None
    for model, rows in spans.items():
        rows.sort(key=lambda span: span.start)
        if any(first.end > second.start for first, second in pairwise(rows)):
            raise NotConfigured(f"{where}: two prices of {model} hold on the same day: set from and to")
    return spans


def _span(row: Price, factor: Decimal) -> _Span:
    if not row.model:
        raise ValueError("model is empty")
    if not (factor.is_finite() and 0 < factor <= 1):
        raise ValueError(f"batch_factor is {factor}, not above 0 and at most 1")
    long = row.long_prompt
    if long is not None and long.over < 1:
        raise ValueError(f"long_prompt: over is {long.over}, not 1 or more")
    rates = {}
    for is_long, figures in ((False, row), (True, long or row)):
        for economy, times in ((False, Decimal(1)), (True, factor)):
            try:
                rates[is_long, economy] = figures.rates(times)
            except ValueError as error:
                raise ValueError(f"long_prompt: {error}" if is_long else str(error)) from None
    start, end = _seconds(row.start, -math.inf), _seconds(row.end, math.inf)
    if start >= end:
        raise ValueError(f"from {row.start} is not before to {row.end}")
    return _Span(start, end, None if long is None else long.over, rates, row)


def _seconds(day: date | None, default: float) -> float:
    return default if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _per_token(name: str, figure: Decimal | None, factor: Decimal) -> int | None:
    if figure is None:
        return None
    if figure.is_finite() and 0 <= figure <= 1_000_000 and (pico := figure * factor * _PICO) == int(pico):
        return int(pico)
    raise ValueError(f"{name} is {figure}, not US$ per million tokens (0 or more, of a whole number of 1e-12 US$)")


def _wrong(message: str) -> NotConfigured:
    return NotConfigured(message, hint="see docs/cost.md")
