"""The provider's own figures beside ours, from the loopback API's reports."""

from __future__ import annotations

import asyncio
import http.server
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.cost.admin import AdminApi, ProviderFailed, ProviderReport, compare
from farmhand.cost.queries import Part
from tests.support.messages_api import DEFAULT_ADMIN_KEY, DEFAULT_KEY, MessagesApi, Posting
from tests.support.serving import serving

FIRST = int(datetime(2026, 9, 20, tzinfo=UTC).timestamp() // 86400)
DAYS = 66


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as running:
        yield running


def part(model: str, spent: int, given: int, output: int) -> Part:
    zero: dict[str, Any] = dict.fromkeys(Part.__struct_fields__[1:], 0)
    return Part(**{**zero, "key": model, "spent_pico": spent, "input_tokens": given, "output_tokens": output})


async def ask(api: MessagesApi, ours: list[Part], key: str = DEFAULT_ADMIN_KEY) -> ProviderReport:
    return await asyncio.to_thread(lambda: compare(AdminApi(key, api.url), ours, FIRST, FIRST + DAYS))


async def test_the_difference_is_shown_over_all_pages(api: MessagesApi) -> None:
    tokens = {"uncached_input_tokens": 1000, "cache_read_input_tokens": 10, "output_tokens": 100}
    for day in range(DAYS):
        api.state.books.post(Posting(at=(FIRST + day) * 86400, model="claude-haiku-5-5", tokens=tokens))
    api.state.books.post(Posting(at=FIRST * 86400, cents="0.000000001"))
    one = 1000 * 100_000 + 10 * 10_000 + 100 * 500_000
    found = await ask(
        api, [part("claude-haiku-5-5", one * (DAYS - 1), 1010 * DAYS, 100 * DAYS), part("claude-next", 7, 1, 1)]
    )
    assert [(row.model, row.difference_pico) for row in found.models] == [
        ("", 10),
        ("claude-haiku-5-5", one),
        ("claude-next", -7),
    ]
    haiku = found.models[1]
    assert (haiku.theirs_input_tokens, haiku.theirs_output_tokens) == (1010 * DAYS, 100 * DAYS)
    assert (haiku.ours_input_tokens, haiku.theirs_pico) == (1010 * DAYS, one * DAYS)
    assert found.difference_pico == sum(row.difference_pico for row in found.models) == one + 3
    reports = [entry for entry in api.log if "organizations" in entry.path]
    # 66 days are three pages of each report.
    assert len(reports) == 6
    assert all("limit=31" in entry.query and "bucket_width=1d" in entry.query for entry in reports)


async def test_a_refusal_is_one_line_without_the_key(api: MessagesApi) -> None:
    with pytest.raises(ProviderFailed) as caught:
        await ask(api, [], key="sk-ant-admin01-of-another-organization")
    assert str(caught.value) == "/v1/organizations/cost_report: HTTP 401: invalid x-api-key"


@pytest.mark.parametrize("url", ["http://example.com", "ftp://127.0.0.1", "api.anthropic.com"])
def test_the_key_goes_nowhere_but_https_or_this_machine(url: str) -> None:
    with pytest.raises(NotConfigured, match="neither https nor on this machine"):
        AdminApi(DEFAULT_ADMIN_KEY, url)


def test_an_ordinary_key_is_not_sent() -> None:
    with pytest.raises(NotConfigured) as caught:
        AdminApi(DEFAULT_KEY)
    assert DEFAULT_KEY not in str(caught.value)


def test_nobody_there() -> None:
    with pytest.raises(ProviderFailed, match=r"cannot be asked: .*refused"):
        compare(AdminApi(DEFAULT_ADMIN_KEY, "http://127.0.0.1:1"), [], FIRST, FIRST + 1)


@contextmanager
def saying(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """A server that gives one answer to all; its URL, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "not of the form of a report"),
        pytest.param(200, b"[" * 200_000, "not of the form of a report", id="deep"),
        pytest.param(500, b"[" * 60_000, "HTTP 500: no reason given", id="deep refusal"),
        (200, b"{}", "not of the form of a report"),
        (200, b'{"data":[{"results":[{"amount":"x"}]}],"has_more":false}', "not of its form"),
        (200, b'{"data":[{"results":[3]}],"has_more":false}', "not of its form"),
        (500, b"oops", "HTTP 500: no reason given"),
        (403, b'{"error":{"message":"no sk-ant-admin01-secretsecret\\u0000"}}', "HTTP 403: no sk-ant-…[redacted]"),
    ],
)
def test_answers_that_are_no_report(status: int, body: bytes, words: str) -> None:
    with saying(status, body) as (url, _), pytest.raises(ProviderFailed) as caught:
        compare(AdminApi(DEFAULT_ADMIN_KEY, url), [], FIRST, FIRST + 1)
    assert words in str(caught.value)


def test_a_redirect_is_not_followed_with_the_key() -> None:
    with saying(200, b"{}") as (elsewhere, asked), saying(302, b"", location=elsewhere) as (url, _):
        with pytest.raises(ProviderFailed, match="HTTP 302"):
            compare(AdminApi(DEFAULT_ADMIN_KEY, url), [], FIRST, FIRST + 1)
        assert asked == []
