from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from farmhand.core.errors import WireError, WireMismatch
from farmhand.core.keys import REDACTED
from farmhand.cost import queries
from farmhand.cost import store as stores
from farmhand.cost.rows import BadLedger, FinishedTask, LedgerCharge, decode
from farmhand.cost.store import CostStore, pull
from farmhand.wire.client import Client
from tests.unit.cost.ledgers import NOW, TABLE, charge, new_store


class FakeAgent(Client):
    """An agent with a ledger in memory; `breaks_after` lines the connection is lost."""

    def __init__(
        self, uuid: str = "u1", rows: list[LedgerCharge] | None = None, tasks: list[FinishedTask] | None = None
    ) -> None:
        self.uuid = uuid
        self.rows: list[LedgerCharge] = rows or []
        self.done: list[FinishedTask] = tasks or []
        self.pots: list[dict[str, Any]] = []
        self.breaks_after = 10**9
        self.asked: list[tuple[str, int]] = []
        self.budget: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def connect(self) -> None:
        """It is there."""

    def close(self) -> None:
        """It stays."""

    def status(self) -> dict[str, Any]:
        return {"ledger": {"id": self.uuid, "tasks": 0}, "budget_day": self.budget, "pots": self.pots}

    def charges(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        self.asked.append(("charges", after))
        yield from self._encoded([row for row in self.rows if row.number > after][:limit])

    def finished(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        self.asked.append(("finished", after))
        yield from self._encoded([task for task in self.done if task.number > after][:limit])

    def _encoded(self, rows: list[Any]) -> Iterator[bytes]:
        for row in rows:
            if not self.breaks_after:
                raise WireError("lost", "the connection was lost")
            self.breaks_after -= 1
            yield msgspec.json.Encoder(decimal_format="number").encode(row)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CostStore]:
    monkeypatch.setattr(stores, "CHUNK", 3)
    opened = new_store(tmp_path / "cost.db")
    yield opened
    opened.close()


def task(no: int) -> FinishedTask:
    return FinishedTask(number=no, state="succeeded", model="m", engine="api", created_at=NOW, finished_at=NOW)


def test_only_what_is_new_is_asked_for(store: CostStore) -> None:
    agent = FakeAgent(rows=[charge(no) for no in range(1, 8)], tasks=[task(no) for no in range(1, 4)])
    assert pull(store, "farm1", agent) == 10
    assert agent.asked == [("charges", 0), ("charges", 3), ("charges", 6), ("finished", 0), ("finished", 3)]
    agent.asked.clear()
    assert pull(store, "farm1", agent) == 0
    assert agent.asked == [("charges", 7), ("finished", 3)]
    agent.rows.append(charge(8))
    agent.budget = {"limit_usd": 0.1, "spent_usd": 0.05, "reserved_usd": 0, "day": "2026-11-24"}
    assert pull(store, "farm1", agent) == 1
    whole = queries.parts(queries.read(store, TABLE), "")[0]
    assert (whole.requests, whole.tasks) == (8, 3)
    assert json.loads(store.rows("SELECT budget FROM ledger")[0][0]) == agent.budget


def test_a_line_that_breaks_loses_nothing_and_counts_nothing_twice(store: CostStore) -> None:
    agent = FakeAgent(rows=[charge(no) for no in range(1, 12)])
    for _ in range(3):
        agent.breaks_after = 4
        with pytest.raises(WireError):
            pull(store, "farm1", agent)
    agent.breaks_after = 10**9
    pull(store, "farm1", agent)
    assert queries.parts(queries.read(store, TABLE), "")[0].requests == 11


def test_a_rebuilt_host_starts_again_at_its_first(store: CostStore) -> None:
    pull(store, "farm1", FakeAgent("before", [charge(1), charge(2)]))
    pull(store, "farm1", FakeAgent("after", [charge(1)]))
    assert [(part.key, part.requests) for part in queries.parts(queries.read(store, TABLE), "host")] == [("farm1", 3)]


def test_two_names_of_one_host_are_one_ledger(store: CostStore) -> None:
    agent = FakeAgent("u1", [charge(1)])
    pull(store, "farm1", agent)
    pull(store, "alias", agent)
    assert [(part.key, part.requests) for part in queries.parts(queries.read(store, TABLE), "host")] == [("alias", 1)]


@pytest.mark.parametrize("status", [{}, {"ledger": None}, {"ledger": {}}, {"ledger": {"id": 3}}])
def test_an_agent_without_a_ledger_s_name_is_too_old(store: CostStore, status: dict[str, Any]) -> None:
    agent = FakeAgent()
    agent.status = lambda: status  # type: ignore[method-assign]
    with pytest.raises(WireMismatch, match="farm1: the agent is too old"):
        pull(store, "farm1", agent)


def test_lines_that_are_none_are_refused(store: CostStore) -> None:
    agent = FakeAgent()
    agent.charges = lambda after=0, limit=0: iter([b"{}"])  # type: ignore[method-assign]
    with pytest.raises(BadLedger):
        pull(store, "farm1", agent)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"charge_id": ' + b"9" * 50_000 + b"}",
        b'{"charge_id": 1, "model": "\xff"}',
        b'{"charge_id": 1, "model": "m", "engine": "api", "created_at": 1, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"charge_id": 1, "model": "m", "engine": "api", "created_at": 1, "cost_usd": 1e999999999}',
        b'{"charge_id": 1, "model": "m", "engine": "api", "created_at": 4102444801}',
        b'{"charge_id": 1, "model": "m", "engine": "api", "created_at": 1, "output_tokens": 1000000001}',
        b'{"charge_id": 1, "model": "\\ud83d", "engine": "api", "created_at": 1}',
    ],
)
def test_an_odd_line_is_that_host_s_problem_and_says_so_in_one_line(store: CostStore, line: bytes) -> None:
    agent = FakeAgent()
    agent.charges = lambda after=0, limit=0: iter([line])  # type: ignore[method-assign]
    with pytest.raises(BadLedger) as caught:
        pull(store, "farm2", agent)
    assert str(caught.value).startswith("farm2: a charge of the ledger is not of its form: ")
    assert len(str(caught.value)) < 400
    assert pull(store, "farm1", FakeAgent("u2", [charge(1)])) == 1


def test_numbers_only_grow_and_what_one_host_claims_overflows_no_sum(store: CostStore) -> None:
    agent = FakeAgent(rows=[charge(2)])
    pull(store, "farm2", agent)
    agent.charges = lambda after=0, limit=0: iter([msgspec.json.encode(charge(1))])  # type: ignore[method-assign]
    with pytest.raises(BadLedger, match="number 1 of the ledger comes behind 2"):
        pull(store, "farm2", agent)
    for number in range(40):
        rows = [msgspec.structs.replace(charge(no), cost_usd=Decimal(400_000)) for no in range(1, 5)]
        with pytest.raises(BadLedger, match="more than US"):
            pull(store, "farm2", FakeAgent(f"claimed-{number}", rows))
    pull(store, "farm1", FakeAgent("u2", [charge(1)]))
    assert {part.key for part in queries.parts(queries.read(store, TABLE), "host")} == {"farm1", "farm2"}


def test_a_ledger_without_end_is_left_after_a_while(store: CostStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "WITHIN_S", -1.0)
    with pytest.raises(BadLedger, match="has not ended"):
        pull(store, "farm2", FakeAgent(rows=[charge(no) for no in range(1, 9)]))


def test_a_key_among_a_host_s_names_is_not_kept(store: CostStore) -> None:
    key = "sk-ant-test-pasted-0000000000"
    names = {"batch": key, "model": key, "work_class": key, "labels": {key: key}}
    agent = FakeAgent(rows=[msgspec.structs.replace(charge(1), **names)])
    agent.done = [msgspec.structs.replace(task(1), **names)]
    hidden = json.dumps({"model": key, "engine": "api", "charge_id": 2, "created_at": NOW}).replace(
        "sk-ant", "s\\u006b-ant"
    )
    assert decode(LedgerCharge, hidden.encode()).model == REDACTED
    agent.budget = {"limit_usd": 1, "day": "today"}
    assert pull(store, "farm1", agent) == 2
    store.close()
    kept = b"".join(path.read_bytes() for path in Path(store.path).parent.iterdir())
    assert b"sk-ant-test" not in kept
    assert "sk-ant-…".encode() in kept


def test_a_pot_is_closed_as_its_hosts_said_last(store: CostStore) -> None:
    spent = {"name": "plan", "state": "spent", "until": 2000.0}
    agent, other = FakeAgent("one"), FakeAgent("two")
    agent.pots = [spent | {"api_closed_at": 900.0}, {"name": "paid"}, {"name": "gift", "state": "spent", "until": None}]
    other.pots = [spent]
    pull(store, "farm1", agent)
    pull(store, "farm2", other)
    assert store.closed_pots(1000.0) == {"plan": 900.0, "gift": None}
    assert store.closed_pots(2000.0) == {"gift": None}, "it was filled again meanwhile"
    agent.pots = [{"name": "plan", "state": "open", "until": 2000.0}]
    pull(store, "farm1", agent)
    assert store.closed_pots(1000.0) == {"plan": None}
    pull(store, "farm2", FakeAgent("a new ledger"))
    assert store.closed_pots(1000.0) == {}
