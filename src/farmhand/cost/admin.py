"""The usage and cost reports of the provider's Admin API, compared with our own figures.

They need an Admin key and cover the whole organisation; the newest few minutes may be missing. Days are UTC. Source:
the provider's pages "Get Messages Usage Report" and "Get Cost Report", read 2026-11-24.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import msgspec

from farmhand.core.api_call import admin_problem, call, reason
from farmhand.core.errors import FarmhandError, NotConfigured, WireError
from farmhand.core.money import pico
from farmhand.cost.queries import Part, day_text

DEFAULT_URL = "https://api.anthropic.com"
TIMEOUT_S = 30.0
#: Maximum days on one page of a report.
PAGE_DAYS = 31
_ODD_ROW = "a row of the provider's report is not of its form"


class ProviderFailed(FarmhandError):
    """An error of the provider's reports: they are not available."""

    code = "provider"


class Reported(msgspec.Struct, kw_only=True):
    """One model's figures: the provider's, ours, and the difference. `model` is "" for usage without a model."""

    model: str
    theirs_pico: int
    ours_pico: int
    difference_pico: int
    theirs_input_tokens: int
    ours_input_tokens: int
    theirs_output_tokens: int
    ours_output_tokens: int


class ProviderReport(msgspec.Struct, kw_only=True):
    """The provider's figures for the days since `since`, by model and in total."""

    since: str
    theirs_pico: int
    ours_pico: int
    difference_pico: int
    models: list[Reported]
    note: str = "the provider's figures are of the whole organisation; those of the last minutes may be missing"


class AdminApi:
    """A client for the reports at `url`, with an Admin key. Raises NotConfigured for an unsafe key or URL."""

    def __init__(self, key: str, url: str = DEFAULT_URL) -> None:
        if problem := admin_problem(key, url):
            raise NotConfigured(problem, hint="the key is not sent")
        self._key = key
        self._url = url

    def results(self, report: str, by: str, first: int, end: int) -> Iterator[dict[str, Any]]:
        """Yield a report's results grouped by `by`, from day `first` (days since 1970) up to, not including, day `end`.

        Raises ProviderFailed.
        """
        path = f"/v1/organizations/{report}"
        page: dict[str, str] = {}
        query: dict[str, Any] = {"bucket_width": "1d", "limit": PAGE_DAYS, "group_by[]": by}
        query |= {"starting_at": f"{day_text(first)}T00:00:00Z", "ending_at": f"{day_text(end)}T00:00:00Z"}
        while True:
            try:
                status, answer = call(self._key, self._url, f"{path}?{urlencode(query | page)}", timeout_s=TIMEOUT_S)
            except WireError as error:
                raise ProviderFailed(error.message, hint=error.hint) from None
            if status != 200:
                raise ProviderFailed(f"{path}: HTTP {status}: {reason(answer)}")
            try:
                for bucket in answer["data"]:
                    yield from bucket["results"]
                if not answer["has_more"]:
                    return
                page = {"page": str(answer["next_page"])}
            except (KeyError, TypeError):
                raise ProviderFailed(f"{path}: the answer is not of the form of a report") from None

    def spent_pico(self, first: int, end: int) -> int:
        """Return what all of it cost from day `first` up to, not including, day `end`. Raises ProviderFailed."""
        try:
            return pico(sum((Decimal(str(row["amount"])) for row in self.cost_rows(first, end)), Decimal()) / 100)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            raise ProviderFailed(_ODD_ROW, hint="upgrade farmhand") from None

    def cost_rows(self, first: int, end: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of the cost report, as `results` does."""
        return self.results("cost_report", "description", first, end)


def compare(api: AdminApi, ours: list[Part], first: int, end: int) -> ProviderReport:
    """Compare the provider's figures with `ours` (by model), from day `first` up to, not including, day `end`."""
    cents: defaultdict[str, Decimal] = defaultdict(Decimal)
    given, output = Counter[str](), Counter[str]()
    try:
        for row in api.cost_rows(first, end):
            cents[row.get("model") or ""] += Decimal(str(row["amount"]))
        for row in api.results("usage_report/messages", "model", first, end):
            model, cache = row.get("model") or "", row["cache_creation"]
            given[model] += int(row["uncached_input_tokens"] + row["cache_read_input_tokens"] + sum(cache.values()))
            output[model] += int(row["output_tokens"])
        spent_there = {model: pico(amount / 100) for model, amount in cents.items()}
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError):
        raise ProviderFailed(_ODD_ROW, hint="upgrade farmhand") from None
    mine = {part.key: part for part in ours}
    models = []
    for model in sorted({*cents, *given, *mine}):
        part, theirs = mine.get(model, Part()), spent_there.get(model, 0)
        models.append(
            Reported(
                model=model,
                theirs_pico=theirs,
                ours_pico=part.spent_pico,
                difference_pico=theirs - part.spent_pico,
                theirs_input_tokens=given[model],
                ours_input_tokens=part.prompt_tokens,
                theirs_output_tokens=output[model],
                ours_output_tokens=part.output_tokens,
            )
        )
    theirs, spent = sum(row.theirs_pico for row in models), sum(row.ours_pico for row in models)
    return ProviderReport(
        since=day_text(first), theirs_pico=theirs, ours_pico=spent, difference_pico=theirs - spent, models=models
    )
