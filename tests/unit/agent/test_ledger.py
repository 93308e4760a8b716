from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from farmhand.agent.ledger import IdConflict, Ledger
from farmhand.errors import FarmhandError
from farmhand.task import Result, Task, TaskError, Usage


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def task(name: str = "one", **more: object) -> Task:
    return Task(id=name, prompt="hello", **more)  # type: ignore[arg-type]  # any field


def test_what_is_recorded_is_there_after_reopening(tmp_path: Path, ledger: Ledger) -> None:
    spec = task(schema={"type": "object"}, labels={"a": "b"}, max_usd=Decimal("0.5"), tools=("Bash",))
    ledger.submit([spec], "queued", "fp")
    ledger.start("one", "fp")
    ledger.end_attempt("one", 1, "succeeded", Usage(input_tokens=5, requests=1), Decimal("0.0000005"), "v")
    ledger.finish("one", Result(id="one", state="succeeded", structured={"n": [1]}, stop_reason="end_turn"))
    before = ledger.result("one")
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert again.result("one") == before
    assert again.task("one") == spec
    assert before.cost_usd == Decimal("0.0000005")
    assert before.structured == {"n": [1]}


def test_a_known_id_keeps_its_state_and_refuses_other_content(ledger: Ledger) -> None:
    assert ledger.submit([task()], "awaiting_key", None) == {"one": "awaiting_key"}
    assert ledger.submit([task()], "queued", "fp") == {"one": "awaiting_key"}
    with pytest.raises(IdConflict):
        ledger.submit([task("two"), task("one", model="opus")], "queued", "fp")
    with pytest.raises(KeyError):
        ledger.result("two")


def test_recovery_makes_every_unfinished_task_await_a_key(ledger: Ledger) -> None:
    ledger.submit([task("a"), task("b"), task("c")], "queued", "fp")
    ledger.start("a", "fp")
    ledger.finish("c", Result(id="c", state="cancelled"))
    assert ledger.recover() == 2
    assert [ledger.result(name).state for name in "abc"] == ["awaiting_key", "awaiting_key", "cancelled"]
    assert ledger.waiting() == [("a", "api"), ("b", "api")]
    assert ledger.set_key("new", replace=False) == ["a", "b"]
    assert ledger.start("a", "new") == 2


def test_a_final_state_stays(ledger: Ledger) -> None:
    ledger.submit([task()], "queued", "fp")
    assert ledger.finish("one", Result(id="one", state="succeeded", text="first"))
    late = Result(id="one", state="failed", error=TaskError(code="x", message="late"))
    assert not ledger.finish("one", late)
    assert ledger.result("one").text == "first"
    ledger.requeue("one", "queued")
    assert ledger.result("one").state == "succeeded"


def test_attempts_add_up_and_one_unknown_price_makes_the_sum_unknown(ledger: Ledger) -> None:
    ledger.submit([task()], "queued", "fp")
    for cost in (Decimal("0.1"), Decimal("0.2")):
        number = ledger.start("one", "fp")
        ledger.end_attempt("one", number, "cut", Usage(output_tokens=3), cost, "v")
    assert ledger.result("one").cost_usd == Decimal("0.3")
    assert ledger.result("one").usage.output_tokens == 6
    ledger.end_attempt("one", ledger.start("one", "fp"), "cut", Usage(), None, "v")
    assert ledger.result("one").cost_usd is None
    ledger.end_attempt("one", ledger.start("one", "fp"), "cut", Usage(), Decimal("0.1"), "v")
    assert ledger.result("one").cost_usd is None
    assert ledger.totals(0).unpriced == 1


def test_results_come_in_order_in_pages(ledger: Ledger) -> None:
    ledger.submit([task(f"t{n}", batch="b" if n % 2 else "") for n in range(6)], "queued", "fp")
    names = [one.id for one in ledger.results(batch="b", state=None, after="t1", limit=9)]
    assert names == ["t3", "t5"]


def test_another_schema_version_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    ledger._db.execute("PRAGMA user_version = 7")
    ledger.close()
    with pytest.raises(FarmhandError, match="schema version 7"):
        Ledger(tmp_path / "ledger.db")
