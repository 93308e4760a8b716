"""Our months beside the provider's: typed in from the Console, or of its report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import UsageError
from farmhand.cost.admin import AdminApi
from farmhand.cost.console import month_checks, reported, typed_in
from farmhand.cost.queries import Part
from tests.support.messages_api import DEFAULT_ADMIN_KEY, MessagesApi, Posting

TODAY = date(2026, 11, 30)
USD = 10**12


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as running:
        yield running


def day(key: str, spent: int, **more: Any) -> Part:
    return Part(key=key, spent_pico=spent, **{"requests": 1, **more})


def test_a_figure_is_a_month_and_exact_dollars() -> None:
    assert typed_in(["2026-10=12.34", " 2026-11=$0.000001", "2026-09=US$7"], TODAY) == {
        "2026-10": 12_340_000_000_000,
        "2026-11": 1_000_000,
        "2026-09": 7 * USD,
    }
    assert typed_in([], TODAY) == {}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["12.34"], "not a month and US"),
        (["2026-13=1"], "not a month"),
        (["2026-10=1,234.56"], "not a month"),
        (["2026-10=-1"], "not a month"),
        (["2026-10=nan"], "not a month"),
        (["2026-10=1e3"], "not a month"),
        (["2026-10=1", "2026-10=2"], "two figures of 2026-10"),
        (["2026-12=1"], "still to come"),
    ],
)
def test_anything_else_is_refused(given: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        typed_in(given, TODAY)


@pytest.mark.parametrize(
    ("theirs", "days", "verdict", "percent", "said"),
    [
        (10 * USD, [day("2026-10-01", 4 * USD), day("2026-10-31", 595 * USD // 100)], "agrees", "0.5", "no difference"),
        # The Console rounds to cents.
        (2 * USD // 100, [day("2026-10-01", 11 * USD // 1000)], "agrees", "45.0", "no difference"),
        (10 * USD, [day("2026-10-01", 9 * USD), day("2026-11-01", USD)], "ours is lower", "10.0", "others may use"),
        (10 * USD, [day("2026-10-01", 11 * USD)], "ours is higher", "-10.0", "farmhand prices check"),
        (10 * USD, [], "nothing of ours", "100.0", "no ledger here"),
        (0, [day("2026-10-01", USD)], "ours is higher", None, "out of date"),
        (0, [], "agrees", None, "no difference"),
        (
            10 * USD,
            [day("2026-10-01", 9 * USD, unpriced=2, uncertain=1)],
            "ours is lower",
            "10.0",
            "3 requests of ours without a known cost; others",
        ),
    ],
)
def test_the_verdict(theirs: int, days: list[Part], verdict: str, percent: str | None, said: str) -> None:
    [found] = month_checks({"typed in": {"2026-10": theirs}}, days, TODAY)
    assert (found.verdict, found.percent) == (verdict, percent)
    assert said in found.said
    assert found.difference_pico == found.theirs_pico - found.ours_pico


def test_a_month_that_is_not_over_says_so_and_sources_stand_side_by_side() -> None:
    found = month_checks({"typed in": {"2026-11": USD, "2026-10": USD}, "admin report": {"2026-11": USD}}, [], TODAY)
    assert [(one.month, one.source) for one in found] == [
        ("2026-10", "typed in"),
        ("2026-11", "admin report"),
        ("2026-11", "typed in"),
    ]
    assert [one.said.endswith("the month is not over") for one in found] == [False, True, True]


async def test_the_report_s_months_are_whole_and_ask_for_each_once(api: MessagesApi) -> None:
    for at, cents in (("2026-08-31", "7"), ("2026-09-01", "100"), ("2026-09-30", "1.5"), ("2026-11-30", "0.0001")):
        moment = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
        api.state.books.post(Posting(at=moment, cents=cents))
    first = int(datetime(2026, 9, 20, tzinfo=UTC).timestamp() // 86400)
    found = await asyncio.to_thread(lambda: reported(AdminApi(DEFAULT_ADMIN_KEY, api.url), first, TODAY))
    assert found == {"2026-09": 1_015_000_000_000, "2026-10": 0, "2026-11": 1_000_000}
    assert len([entry for entry in api.log if "cost_report" in entry.path]) == 3
    long_ago = await asyncio.to_thread(lambda: reported(AdminApi(DEFAULT_ADMIN_KEY, api.url), 0, TODAY))
    assert (min(long_ago), len(long_ago)) == ("2025-12", 12)


def test_farmhand_cost_shows_the_months(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from farmhand.cli.cost import command

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "farmhand").mkdir()
    (tmp_path / "farmhand" / "hosts.json").write_text('{"hosts": {"farm1": {"address": "127.0.0.1", "port": 1}}}')
    given = ["--no-merge", "--no-interactive", "--by", "model", "--console-usd", "2026-10=12.34"]
    done = CliRunner().invoke(command, given, standalone_mode=False)
    assert done.exception is None, done.exception
    said = " ".join(done.output.split())
    assert "2026-10 (typed in) 12.34" in said
    assert "2026-10: nothing of ours: no ledger here has a request of this month." in said
