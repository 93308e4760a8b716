"""Pots: when they are filled, what config.toml may say of them, which one is used, and what is sent to a host."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core import pots
from farmhand.core.errors import NotConfigured, Refused, UsageError
from farmhand.core.keys import holds_key, own_key
from farmhand.core.keysource import credential
from farmhand.core.settings import Settings, load

PLAN, PAID = "sk-ant-test-plan-0000000000000000", "sk-ant-test-paid-0000000000000000"
DAY_S = 86_400
TWO = """
[pots.plan]
key_source = "env:PLAN_KEY"
funding_usd = 100
cycle_day = 7
when_spent = "next"
[pots.paid]
key_source = "env:PAID_KEY"
"""
MOMENTS = st.floats(DAY_S * 40, 4_000_000_000)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def config(directory: Path, text: str) -> str:
    file = directory / "config.toml"
    file.write_text(text)
    return str(file)


@given(st.integers(1, 31), MOMENTS)
def test_a_cycle_holds_its_moment_and_turns_once_a_month_on_its_day(day: int, moment: float) -> None:
    since, until = pots.period(day, None, moment)
    assert until is not None
    assert since <= moment < until
    assert since % DAY_S == until % DAY_S == 0
    begins, ends = (datetime.fromtimestamp(edge, UTC).date() for edge in (since, until))
    for edge in (begins, ends):
        tomorrow = edge + timedelta(days=1)
        assert edge.day == day or (edge.day < day and tomorrow.day == 1)
    assert (ends.year * 12 + ends.month) - (begins.year * 12 + begins.month) == 1
    assert pots.period(day, None, until)[0] == until  # no moment is in two cycles or in none
    assert pots.period(day, None, since) == (since, until)


@pytest.mark.parametrize(
    ("day", "moment", "since", "until"),
    [
        (31, "2027-02-28 00:00", "2027-02-28", "2027-03-31"),
        (31, "2027-02-27 23:59", "2027-01-31", "2027-02-28"),
        (29, "2028-02-29 12:00", "2028-02-29", "2028-03-29"),
        (30, "2027-03-01 00:00", "2027-02-28", "2027-03-30"),
        (1, "2026-12-31 23:59", "2026-12-01", "2027-01-01"),
        (7, "2027-03-28 01:30", "2027-03-07", "2027-04-07"),  # summer time begins somewhere: days are UTC
    ],
)
def test_short_months_leap_years_and_the_new_year(day: int, moment: str, since: str, until: str) -> None:
    assert pots.period(day, None, at(moment)) == (at(since), at(until))


@given(st.none() | st.integers(1, 31), st.dates(date(1972, 1, 1), date(2090, 1, 1)), MOMENTS)
def test_nothing_lasts_longer_than_its_expiry(day: int | None, expires: date, moment: float) -> None:
    since, until = pots.period(day, expires.isoformat(), moment)
    assert since == pots.period(day, None, moment)[0]
    assert until is not None
    assert until <= at(expires.isoformat())
    assert pots.has_expired(expires.isoformat(), moment) == (moment >= at(expires.isoformat()))


def test_filled_once_all_counts_that_was_ever_spent() -> None:
    assert pots.period(None, None, at("2026-11-30")) == (0.0, None)


def test_the_tables_of_config_toml(tmp_path: Path) -> None:
    conf = load(config(tmp_path, TWO), environ={})
    assert conf.pots == (
        pots.PotSettings("plan", "env:PLAN_KEY", Decimal(100), 7, None, "next"),
        pots.PotSettings("paid", "env:PAID_KEY"),
    )
    assert (conf.pot, conf.key_source) == ("plan", "env:PLAN_KEY")
    once = config(tmp_path, '[pots.gift]\nkey_source = "env:A"\nfunding_usd = "2.5"\nexpires = 2027-11-01')
    assert load(once, environ={}).pots == (pots.PotSettings("gift", "env:A", Decimal("2.5"), None, "2027-11-01"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pots = 3", "pots is no table"),
        ("[pots]", "pots is no table"),
        ("[pots.Plan]", "name does not match"),
        ("[pots.plan]", "plan.key_source is missing"),
        ('[pots.plan]\nkey_source = "env:A"\ncolour = 1', "plan: unknown key 'colour'"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 0', "funding_usd is 0"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = "0.0000001"', "micro-dollars"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = nan', "funding_usd is nan"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = true', "funding_usd is True"),
        ('[pots.plan]\nkey_source = "env:A"\ncycle_day = 7', "need funding_usd"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 1\ncycle_day = 32', "cycle_day is 32, not 1 to 31"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 1\ncycle_day = 0', "cycle_day is 0, not 1 to 31"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 1\ncycle_day = true', "cycle_day is True, not 1"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 1\nexpires = ""', "expires is '', not a day"),
        ('[pots.plan]\nkey_source = "env:A"\ncycle_day = 0', "cycle_day is 0"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 1\ncycle_day = "7"', "cycle_day is '7'"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 1\nexpires = "soon"', "expires is 'soon', not a day"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 1\nwhen_spent = "stop"', "not one of park, next"),
        ('[pots.plan]\nkey_source = "env:A"\nfunding_usd = 1\nwhen_spent = "next"', "it is the last pot"),
        ('key_source = "env:A"\n[pots.plan]\nkey_source = "env:B"', "key_source is set beside"),
    ],
)
def test_a_bad_table_is_one_line_that_names_it(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(NotConfigured, match=words) as caught:
        load(config(tmp_path, text), environ={})
    assert "\n" not in str(caught.value)


def test_which_pot_is_used(tmp_path: Path) -> None:
    file = config(tmp_path, TWO)
    assert load(file, environ={}, pot="paid").key_source == "env:PAID_KEY"
    assert load(file, environ={"FARMHAND_POT": "paid"}).pot == "paid"
    with pytest.raises(UsageError, match=r"no pot 'other'.*known: plan, paid"):
        load(file, environ={}, pot="other")
    alone = load(file, environ={}, key_source="env:OWN")  # a key of its own is in no pot
    assert (alone.pots, alone.pot, alone.key_source) == ((), "", "env:OWN")
    with pytest.raises(UsageError, match="exclude each other"):
        load(file, environ={}, key_source="env:OWN", pot="plan")
    with pytest.raises(UsageError, match="there is no pot 'plan'"):
        load(config(tmp_path, ""), environ={}, pot="plan")


def test_aws_has_one_secret_and_no_pots(tmp_path: Path) -> None:
    file = config(tmp_path, TWO)
    for place in ("fargate", "aws-batch"):
        with pytest.raises(Refused, match="--pot paid: a place on AWS has one key"):
            load(file, environ={}, place=place, pot="paid")
        there = load(file, environ={}, place=place)
        assert (there.pots, there.pot) == ((), "")


def test_a_host_gets_the_pot_and_those_it_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config(tmp_path, TWO)
    monkeypatch.setenv("PLAN_KEY", PLAN)
    monkeypatch.setenv("PAID_KEY", PAID)
    paid = {"name": "paid", "key": PAID, "funding": {"amount_usd": None, "next": ""}}
    funding = {"amount_usd": "100.000000", "cycle_day": 7, "next": "paid"}
    plan = {"name": "plan", "key": PLAN, "funding": funding}
    both = credential(load(file, environ={}))
    assert both == [plan, paid]
    assert credential(load(file, environ={}, pot="paid")) == [paid]
    assert credential(load(file, environ={}, pot="paid"), every=True) == [plan, paid]
    assert (own_key(both, "paid"), own_key(PLAN, "")) == (PAID, PLAN)
    assert holds_key({"prompt": f"see {PAID}"}, both)
    assert not holds_key({"prompt": "see"}, both)
    # Three hosts together spend no more than there is.
    thirds = credential(load(file, environ={}), 3)
    assert not isinstance(thirds, str)
    assert thirds[0]["funding"]["amount_usd"] == "33.333333"
    monkeypatch.setenv("PAID_KEY", PLAN)
    with pytest.raises(NotConfigured, match="plan and paid have the same key") as caught:
        credential(load(file, environ={}))
    assert PLAN not in str(caught.value)


def test_without_pots_the_key_alone_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", PLAN)
    assert credential(Settings(key_source="env:ONE")) == PLAN


@pytest.mark.parametrize(
    ("rest", "of", "until", "said"),
    [
        (63 * 10**12, "100", "2026-12-12", "pot plan: US$ 63.00 of 100 left, 12 days"),
        (10**6, "2.5", "2026-12-01", "pot plan: US$ 0.000001 of 2.5 left, 24 h"),
        (0, "1000", None, "pot plan: US$ 0.00 of 1,000 left"),
        (10**12, "100", "2026-11-30", "pot plan: US$ 1.00 of 100 left, and it has expired"),
    ],
)
def test_what_is_left_in_words(rest: int, of: str, until: str | None, said: str) -> None:
    now = at("2026-11-30")
    assert pots.in_words("plan", rest, Decimal(of), None if until is None else at(until), now) == said


def test_a_pot_that_the_api_has_closed_is_said_to_be() -> None:
    now, closed = at("2026-11-30"), at("2026-11-20")
    words = pots.in_words("plan", 63 * 10**12, Decimal(100), at("2026-12-12"), now, spent=True, api_closed_at=closed)
    assert words == "pot plan: closed by the API on 2026-11-20; by our ledger US$ 63.00 of 100 left, 12 days"


def test_what_is_left_is_exact(tmp_path: Path) -> None:
    conf, now = load(config(tmp_path, TWO), environ={}), at("2026-11-30")
    assert pots.since(conf.pots, now) == {"plan": at("2026-11-07")}
    [one] = pots.left(conf.pots, {"plan": 37_000_000_000_001, "paid": 5}, now)
    assert (one.left_pico, one.until) == (62_999_999_999_999, at("2026-12-07"))
    assert pots.left(conf.pots, {"plan": 10**15}, now)[0].left_pico == 0
