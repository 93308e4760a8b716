"""The provider's own figures: its Admin API's usage and cost reports, beside ours.

They need an Admin key (`sk-ant-admin…`) and are of the whole organisation: what else uses it is in them too. Days are
UTC; the newest few minutes may be missing. Source: the provider's pages "Get Messages Usage Report" and "Get Cost
Report", read 2026-11-24.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from farmhand import __version__
from farmhand.core.api_call import NoRedirect
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.keys import redact
from farmhand.core.money import pico
from farmhand.cost.queries import DAY_S, Part

DEFAULT_URL = "https://api.anthropic.com"
API_VERSION = "2023-06-01"
KEY_PREFIX = "sk-ant-admin"
TIMEOUT_S = 30.0
#: The most days that one page of a report has.
PAGE_DAYS = 31
_MAX_ANSWER = 64 * 1024 * 1024


class ProviderFailed(FarmhandError):
    """The provider's reports cannot be had."""

    code = "provider"


class Reported(msgspec.Struct, kw_only=True):
    """One model's figures: the provider's, ours, and the first less the second. `model` "" is what belongs to none."""

    model: str
    theirs_pico: int
    ours_pico: int
    difference_pico: int
    theirs_input_tokens: int
    ours_input_tokens: int
    theirs_output_tokens: int
    ours_output_tokens: int


class ProviderReport(msgspec.Struct, kw_only=True):
    """The provider's figures for the days since `since`, by model, and in all."""

    since: str
    theirs_pico: int
    ours_pico: int
    difference_pico: int
    models: list[Reported]
    note: str = "the provider's figures are of the whole organisation; those of the last minutes may be missing"


class AdminApi:
    """The reports at `url` with an Admin key. Raises NotConfigured for a key or a URL that must not be used."""

    def __init__(self, key: str, url: str = DEFAULT_URL) -> None:
        if not key.startswith(KEY_PREFIX):
            raise NotConfigured(f"admin_key_source names a key that is no Admin key ({KEY_PREFIX}…): it is not sent")
        parts = urlsplit(url)
        if parts.scheme != "https" and not (
            parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        ):
            raise NotConfigured(f"admin_url {url!r} is neither https nor on this machine", hint="no key is sent there")
        self._key = key
        self._url = url.rstrip("/")
        self._opener = urllib.request.build_opener(NoRedirect())

    def usage(self, first: int, end: int) -> Iterator[dict[str, Any]]:
        """The results of the usage report by model, from the day `first` (since 1970) until before the day `end`."""
        return self._buckets("/v1/organizations/usage_report/messages", first, end, [("group_by[]", "model")])

    def cost(self, first: int, end: int) -> Iterator[dict[str, Any]]:
        """The results of the cost report, each with the model it is for."""
        return self._buckets("/v1/organizations/cost_report", first, end, [("group_by[]", "description")])

    def _buckets(self, path: str, first: int, end: int, more: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        query = [
            ("starting_at", _moment(first)),
            ("ending_at", _moment(end)),
            ("bucket_width", "1d"),
            ("limit", str(PAGE_DAYS)),
            *more,
        ]
        page: str | None = None
        while True:
            answer = self._get(path, query + ([("page", page)] if page else []))
            try:
                for bucket in answer["data"]:
                    yield from bucket["results"]
                if not answer["has_more"]:
                    return
                page = str(answer["next_page"])
            except (KeyError, TypeError):
                raise ProviderFailed(f"{path}: the answer is not of the form of a report") from None

    def _get(self, path: str, query: list[tuple[str, str]]) -> Any:
        request = urllib.request.Request(  # noqa: S310  (the scheme is checked above)
            f"{self._url}{path}?{urlencode(query)}",
            headers={
                "x-api-key": self._key,
                "anthropic-version": API_VERSION,
                "user-agent": f"farmhand/{__version__}",
            },
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read(_MAX_ANSWER), parse_float=Decimal)
        except urllib.error.HTTPError as error:
            with error:
                raise ProviderFailed(*_refusal(path, error.code, error.read(65536))) from None
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "reason", error)
            raise ProviderFailed(f"{self._url}{path} cannot be asked: {redact(str(reason))}") from None


def _refusal(path: str, status: int, body: bytes) -> tuple[str]:
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        message = "no reason given"
    return (f"{path}: HTTP {status}: {redact(message)}",)


def _moment(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def compare(api: AdminApi, ours: list[Part], first: int, end: int) -> ProviderReport:
    """The provider's figures beside `ours`, which are by model, from the day `first` until before the day `end`."""
    usd: dict[str, Decimal] = {}
    given: dict[str, int] = {}
    output: dict[str, int] = {}
    try:
        for row in api.cost(first, end):
            model = row.get("model") or ""
            usd[model] = usd.get(model, Decimal(0)) + Decimal(str(row["amount"]))
        for row in api.usage(first, end):
            model, cache = row.get("model") or "", row["cache_creation"]
            tokens = row["uncached_input_tokens"] + row["cache_read_input_tokens"] + sum(cache.values())
            given[model] = given.get(model, 0) + int(tokens)
            output[model] = output.get(model, 0) + int(row["output_tokens"])
    except (KeyError, TypeError, AttributeError, InvalidOperation):
        raise ProviderFailed("a row of the provider's report is not of its form", hint="upgrade farmhand") from None
    mine = {part.key: part for part in ours}
    models = []
    for model in sorted({*usd, *given, *mine}):
        part = mine.get(model)
        theirs = pico(usd.get(model, Decimal(0)) / 100)
        spent = part.spent_pico if part else 0
        models.append(
            Reported(
                model=model,
                theirs_pico=theirs,
                ours_pico=spent,
                difference_pico=theirs - spent,
                theirs_input_tokens=given.get(model, 0),
                ours_input_tokens=_input(part) if part else 0,
                theirs_output_tokens=output.get(model, 0),
                ours_output_tokens=part.output_tokens if part else 0,
            )
        )
    theirs, spent = sum(row.theirs_pico for row in models), sum(row.ours_pico for row in models)
    return ProviderReport(
        since=_moment(first)[:10], theirs_pico=theirs, ours_pico=spent, difference_pico=theirs - spent, models=models
    )


def _input(part: Part) -> int:
    return part.input_tokens + part.cache_creation_input_tokens + part.cache_read_input_tokens
