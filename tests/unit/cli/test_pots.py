"""What is left in the pots, as status, doctor, cost and report say it."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from farmhand.cli import offers, rotate
from farmhand.cli.checks import failed, station
from farmhand.cli.checks.farm import pots_left, queue
from farmhand.cli.status import pots_left as status_lines
from farmhand.core.errors import WireError
from farmhand.core.pots import PotSettings
from farmhand.core.settings import Settings
from farmhand.cost import queries
from farmhand.cost.merged import MergedLedgers
from farmhand.cost.summary import Basis
from farmhand.places.hosts import Host
from farmhand.places.watch import HostWatch
from tests.unit.cost.ledgers import DAY, NOW, TABLE, charge, fill, temporary_store

CONF = Settings(
    pots=(PotSettings("plan", "env:A", Decimal(100), 7, None, "next"), PotSettings("paid", "env:B")), pot="plan"
)
FUTURE = 4_000_000_000


def status(**more: Any) -> dict[str, Any]:
    about = {"name": "plan", "state": "open", "limit_usd": 100, "spent_usd": 37, "until": FUTURE, "next": ""} | more
    return {"pots": [about, {"name": "paid", "key": None}]}


def test_doctor_is_red_for_a_spent_pot_that_leads_nowhere() -> None:
    good = pots_left(status())
    assert good.state == "green"
    assert good.detail.startswith("pot plan: US$ 63.00 of 100 left, ")
    bad = pots_left(status(state="spent"))
    assert (bad.state, bad.detail.endswith("; it is spent")) == ("red", True)
    assert "wait until plan is filled again" in bad.fix
    assert "pot plan: closed by the API on 2026-11-24; by" in pots_left(status(state="spent", api_closed_at=NOW)).detail
    assert pots_left(status(state="expired", until=1)).fix.startswith("set its new expires, ")
    assert pots_left(status(state="spent", next="paid")).state == "green"


def test_doctor_looks_at_the_key_of_each_pot(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B"):
        monkeypatch.setenv(name, f"sk-ant-test-{name}-00000000000000000000")
    good = station.of_each(station.key, CONF)
    assert (good.state, good.detail.count("can be read")) == ("green", 2)
    old = station.of_each(lambda conf: failed("old", f"rotate {conf.pot}"), CONF)
    assert (old.state, old.detail, old.fix) == ("red", "pot plan: old; pot paid: old", "rotate plan; rotate paid")
    monkeypatch.delenv("B")
    bad = station.of_each(station.key, CONF)
    assert (bad.state, "pot plan: env:A can be read" in bad.detail, "pot paid: " in bad.detail) == ("red", True, True)
    monkeypatch.setenv("B", "sk-ant-test-A-00000000000000000000")
    same = station.of_each(station.key, CONF)
    assert (same.state, same.fix) == ("red", "give each pot a key of its own")


def test_a_rotation_names_its_pot_where_it_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, called: str, **__: object) -> None:
        raise WireError("key_missing", f"as {called}", "then farmhand rotate --resume")

    monkeypatch.setattr(rotate, "rotate", stopped)
    config = tmp_path / "config.toml"
    config.write_text('[pots.plan]\nkey_source = "env:A"\n[pots.paid]\nkey_source = "env:B"\n')
    done = CliRunner().invoke(rotate.command, ["--config", str(config), "--pot", "paid"], standalone_mode=False)
    assert isinstance(done.exception, WireError)
    assert done.exception.message == "as farmhand rotate --pot paid"
    assert done.exception.hint == "then farmhand rotate --pot paid --resume"


def test_tasks_that_wait_for_a_pot_are_no_lost_key() -> None:
    waiting = [{"reason": "pot_spent", "tasks": 2}]
    good = queue({"awaiting_key": 2, "waiting": waiting}, 1e6)
    assert (good.state, "2 wait for a pot to be filled" in good.detail) == ("green", True)
    assert queue({"awaiting_key": 3, "waiting": waiting}, 0).state == "red"


def test_status_adds_up_what_the_hosts_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)  # 2026-11-24 12:00
    watches = [HostWatch(name, Host(name, "x"), 1.0) for name in ("farm1", "farm2", "farm3")]
    watches[0].status, watches[1].status = status(spent_usd=7.25), status(spent_usd=30, state="spent")
    watches[2].status = status(spent_usd=0)
    assert status_lines(CONF, watches) == ["pot plan: US$ 62.75 of 100 left, 12 days; it is spent"]
    watches[0].status = status(spent_usd=7.25, state="spent", api_closed_at=NOW - 3 * DAY)
    closed = "pot plan: closed by the API on 2026-11-21; by our ledger US$ 62.75 of 100 left, 12 days"
    assert status_lines(CONF, watches) == [closed]
    assert status_lines(Settings(), watches) == []


def test_status_does_not_call_a_pot_full_that_a_host_has_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    watches = [HostWatch(name, Host(name, "x"), 1.0) for name in ("farm1", "farm2", "farm3")]
    # One counts, one has started again and has no key, one does not answer.
    watches[0].status, watches[1].status = status(spent_usd=7.25), {"pots": []}
    left = "pot plan: US$ 92.75 of 100 left, 12 days; not counted: farm2, farm3 (farmhand cost counts all hosts)"
    assert status_lines(CONF, watches) == [left]


def test_cost_counts_the_charges_of_this_cycle_exactly() -> None:
    with temporary_store() as store:
        rows = [charge(1, pot="plan"), charge(2, pot="plan", at=NOW - 30 * DAY), charge(3, pot="paid"), charge(4)]
        fill(store, "a", rows)
        fill(store, "b", [charge(1, pot="plan")], host="farm2")
        by_pot = {part.key: part.requests for part in queries.parts(queries.read(store, TABLE, "pot"), "pot")}
        assert by_pot == {"plan": 3, "paid": 1, "": 1}
        ledgers = MergedLedgers(CONF, store, TABLE, Basis(0, NOW, "claude-sonnet-5-5", {}, {}), 0, False)
        shown: dict[str, Any] = {"headline": {"said": "Hm."}}
        ledgers.add_pots(shown)
        cost = 2 * (rows[0].cost_usd or 0)
        [plan] = shown["pots"]
        assert (plan["name"], Decimal(plan["left_usd"])) == ("plan", 100 - cost)
        assert shown["headline"]["said"] == "Hm. Pot plan: US$ 100.00 of 100 left, 12 days."
        closed = {"name": "plan", "state": "spent", "until": FUTURE, "api_closed_at": NOW - 3 * DAY}
        store.close_pots(store.ledger("a", "farm1")[0], [closed])
        ledgers.add_pots(shown := {"headline": {"said": "Hm."}})
        said = "Hm. Pot plan: closed by the API on 2026-11-21; by our ledger US$ 100.00 of 100 left, 12 days."
        assert (shown["headline"]["said"], shown["pots"][0]["api_closed_at"]) == (said, NOW - 3 * DAY)
        untouched: dict[str, Any] = {"headline": {"said": "Hm."}}
        ledgers._replace(conf=Settings()).add_pots(untouched)
        assert untouched == {"headline": {"said": "Hm."}}


def test_the_names_of_pots_are_completed(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[pots.plan]\nkey_source = "env:A"\n[pots.paid]\nkey_source = "env:B"\n')
    assert offers._pots({"config": str(config)}, "") == ["plan", "paid"]


def test_the_page_s_example_is_one_that_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "pots.md").read_text()
    config = tmp_path / "config.toml"
    config.write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    assert offers._pots({"config": str(config)}, "") == ["plan", "paid"]
