"""The comparison with AWS against sums made by hand, and each claim's answer both ways."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace as replaced

from farmhand.aws.prices import CloudPrices, cloud_prices
from farmhand.core.errors import NotConfigured
from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from farmhand.cost import queries
from farmhand.cost.compare import SIZES, Comparison, Given, compare
from farmhand.cost.compute import read_compute
from farmhand.cost.plans import parse, plan_figures
from farmhand.cost.rows import FinishedTask
from farmhand.cost.store import ContainerRuns, CostStore
from farmhand.cost.summary import Basis, document
from tests.unit.cost.ledgers import DAY, NOW, TABLE, charge, fill, new_store

ROOT = Path(__file__).parents[3]
USD = 10**12


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CostStore]:
    opened = new_store(tmp_path / "cost.db")
    yield opened
    opened.close()


def cloud(**of: str) -> CloudPrices:
    found = cloud_prices("us-east-1", today=date(2026, 11, 24))
    return CloudPrices(found.region, found.as_of, found.source, found.of | {k: Decimal(v) for k, v in of.items()})


def compared(store: CostStore, basis: dict[str, Any] | None = None, **given: Any) -> Comparison:
    about = Basis(0, NOW, "claude-sonnet-5-5", {}, {})._replace(**(basis or {}))
    made = Given(TABLE, cloud(), plan_figures(), read_compute(store), "private")._replace(**given)
    return compare(store, queries.read(store, made.table), about, made)


def task(no: int, seconds: float | None = 30.0, engine: str = "api", **more: Any) -> FinishedTask:
    began = None if seconds is None else NOW - seconds
    about = {"number": no, "state": "succeeded", "model": "m", "engine": engine, "created_at": NOW - DAY}
    return FinishedTask(**about, started_at=began, finished_at=NOW, **more)  # type: ignore[arg-type]


def answers(found: Comparison) -> dict[str, str]:
    return {one.claim.split(" ")[0]: one.verdict for one in found.verdicts}


def one_day(store: CostStore, requests: int = 1000, **about: Any) -> None:
    """Requests of haiku of 1,000 tokens in and 100 out, US$ 0.00015 each, and as many tasks of half a minute."""
    fill(
        store,
        "u1",
        [charge(no, **about) for no in range(1, requests + 1)],
        [task(no, engine=about.get("engine", "api")) for no in range(1, requests + 1)],
    )


def test_the_sums_are_those_by_hand(store: CostStore) -> None:
    one_day(store)
    found = compared(store)
    assert (found.tasks, found.days, found.tasks_a_month, found.compute) == (1000, 1, 30_000, "estimated")
    ways = {one.way: document(one) for one in found.ways}
    # A minute at least of 0.5 vCPU and 1 GB: (0.5 x 0.04048 + 0.004445) / 60 = 0.000411417; the network is 4 x 0.01 x
    # 730 a month for 30,000 tasks, the box 24.
    fargate = {"model_usd": "0.15", "compute_usd": "0.411417", "standing_usd": "0.973333", "total_usd": "1.53475"}
    box = {"model_usd": "0.15", "compute_usd": "0.00", "standing_usd": "0.80", "total_usd": "0.95"}
    batches = {"model_usd": "0.075", "compute_usd": "0.00", "standing_usd": "0.00", "total_usd": "0.075"}
    plan = {"model_usd": "0.00", "compute_usd": "0.411417", "standing_usd": "0.973333", "total_usd": "1.38475"}
    expected = [("plan's token on Fargate", plan), ("metered on Fargate", fargate), ("metered on a box", box)]
    for way, figures in [*expected, ("Message Batches", batches)]:
        assert {name: ways[way][name] for name in figures} == figures
    assert "at most 0.15 of list price" in ways["plan's token on Fargate"]["remark"]
    # 24 / 0.0004114167 = 58,335.02; the network alone is more than the box.
    assert (found.break_even_tasks_a_month, found.break_even_with_network) == (58_336, 0)
    [boxed] = [one.answer for one in found.verdicts if "box costs less" in one.answer]
    assert boxed.endswith(
        "The box costs less at any number of tasks, and from 58336 tasks a month on without the network"
    )
    # A public network costs nothing while nothing runs, and 0.005 an hour for each container's address.
    assert compared(store, network="public").break_even_with_network == 48_510


def test_tools_take_larger_containers_and_no_message_batches(store: CostStore) -> None:
    fill(
        store,
        "u1",
        [charge(1), charge(2, engine="cli")],
        [task(1), task(2, 119.2, "cli"), task(3, None, "cli", error="budget_shared")],
    )
    found = compared(store)
    # 60 s of (0.5 x 0.04048 + 0.004445) and 120 s of (0.04048 + 4 x 0.004445), for two tasks.
    by_hand = (60 * Decimal("0.024685") + 120 * Decimal("0.05826")) / 3600 / 2
    assert found.compute_task_pico == round(by_hand * 10**6) * 10**6
    [batches] = [one for one in found.ways if one.way == "Message Batches"]
    assert batches.model_pico == round(Decimal("0.225") / 2 * 1000 / 1000 * 10**6) * 10**6
    assert "tasks with tools as calls" in batches.remark
    assert answers(found)["Message"] == "not true"
    assert found.verdicts[2].answer.startswith("75.0 %")


def test_a_clock_that_was_set_while_a_task_ran_makes_no_container_of_years(store: CostStore) -> None:
    """claw-fleet#104: a time of 0 is 1970, and no small number."""
    one_day(store, 4)
    usual = compared(store).compute_task_pico
    moved = [replaced(task(11), started_at=0.0), replaced(task(12), started_at=NOW + DAY)]
    fill(store, "u2", [], moved)
    assert compared(store).compute_task_pico == usual


def test_what_ran_on_aws_is_taken_as_it_was_measured(store: CostStore) -> None:
    one_day(store, 10)
    fill(store, "u2", [], [task(no) for no in range(1, 5)], host="aws-prod")
    runs = [ContainerRuns(NOW - 600, NOW - 300, 2, 300, 2 * USD), ContainerRuns(0.0, 0.0, 3, 0, None)]
    store.ran("s3://b/k", "aws-prod", "b1", runs, settled=True)
    found = compared(store)
    assert (found.compute, found.compute_task_pico) == ("measured", USD // 2)
    assert "the time of 3 containers on AWS is not known, and is in no sum" in found.notes
    assert found.break_even_tasks_a_month == 48


@pytest.mark.parametrize(
    ("requests", "verdict", "words", "covered"),
    [
        # 50,000 tokens in and 5,000 out are US$ 0.0075 a request, and a month is thirty times the day.
        (20, "not true", "US$ 4.50 a month", "of the plans max, ultra pay it"),
        (240, "true", "US$ 54.00 a month", "of the plans max, ultra pay it"),
        (600, "true", "It is more than was claimed", "of the plans ultra pay it"),
    ],
)
def test_the_saving_that_was_claimed_is_answered_by_the_ledgers(
    store: CostStore, requests: int, verdict: str, words: str, covered: str
) -> None:
    usage = Usage(input_tokens=50_000, output_tokens=5_000)
    fill(store, "u1", [charge(no, usage=usage) for no in range(1, requests + 1)], [task(1)])
    claim = compared(store).verdicts[0]
    assert "saves US$ 50 to 100" in claim.claim
    assert (claim.verdict, words in claim.answer, covered in claim.answer) == (verdict, True, True), claim.answer


def test_without_data_nothing_is_claimed(store: CostStore) -> None:
    found = compared(store)
    assert (found.ways, found.compute, found.break_even_tasks_a_month) == ([], "unknown", None)
    assert [one.verdict for one in found.verdicts] == ["unknown", "unknown", "unknown", "true"]
    saving = found.verdicts[0]
    assert (saving.verdict, saving.answer) == ("unknown", "not enough data: no priced task in this period")


def test_requests_without_a_price_leave_the_answer_open(store: CostStore) -> None:
    fill(store, "u1", [charge(1), charge(2, model="claude-next")], [task(1), task(2)])
    found = compared(store)
    assert (found.verdicts[0].verdict, found.verdicts[0].answer) == ("unknown", "1 request has no price")
    assert "1 request has no price: in no sum" in found.notes


def test_a_box_or_fargate_depends_on_the_work(store: CostStore) -> None:
    one_day(store, 100)
    few = compared(store, network="public")
    assert answers(few)["Fargate"] == "true"
    assert answers(compared(store))["Fargate"] == "not true"
    assert answers(compared(store, {"boxes": {"farm1": 50 * USD}}))["Fargate"] == "true"
    assert compared(store, {"boxes": {"farm1": 50 * USD, "farm2": None}}).box_usd_month_pico == 24 * USD
    dear = cloud(fargate_vcpu_hour="40")
    assert answers(compared(store, network="public", cloud=dear))["Fargate"] == "not true"


def test_the_price_of_a_container_is_a_claim_too(store: CostStore) -> None:
    [claim] = [one for one in compared(store).verdicts if one.claim.startswith("a container")]
    # (0.04048 + 2 x 0.004445) x 300 / 3600
    assert (claim.verdict, "US$ 0.004114 by the prices of us-east-1 of 2026-06-30" in claim.answer) == ("true", True)
    other = compared(store, cloud=cloud(fargate_vcpu_hour="0.05")).verdicts[3]
    assert (other.verdict, "US$ 0.004908" in other.answer) == ("not true", True)


def test_what_costs_nothing_is_never_dearer(store: CostStore) -> None:
    one_day(store, 2)
    free = cloud(fargate_vcpu_hour="0", fargate_gb_hour="0", endpoint_hour="0")
    found = compared(store, cloud=free)
    assert (found.break_even_tasks_a_month, found.break_even_with_network) == (None, None)
    assert (answers(found)["Fargate"], "None" in str(found.verdicts)) == ("true", False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('usd_month = "24"', 'usd_month = "NaN"'), "usd_month is NaN, not US"),
        (('usd_month = "24"', 'usd_month = "1e99"'), "usd_month is 1e.99, not US"),
        (('max = "100"', 'max = "-5"'), "credits_usd_month is -5, not US"),
        (('usd_month = "24"', ""), "missing required field `usd_month`"),
        (('as_of = "2026-11-28"', 'as_of = "last week"'), "as_of"),
        (("[box]", "[[box]]"), "box"),
        (("[box]", "[box"), "line"),
    ],
)
def test_a_slip_in_the_figures_of_plans_is_one_line(change: tuple[str, str], said: str) -> None:
    text = (ROOT / "src/farmhand/cost/plans.toml").read_text()
    assert parse(text, "plans.toml") == plan_figures()
    assert change[0] in text
    with pytest.raises(NotConfigured, match=f"(?s)^plans.toml: .*{said}"):
        parse(text.replace(*change, 1), "plans.toml")


def test_every_table_says_its_day_and_when_it_is_old(store: CostStore) -> None:
    one_day(store, 2)
    fresh = compared(store)
    assert [(one.what, one.as_of) for one in fresh.prices] == [
        ("models", price_table().version),
        ("AWS, us-east-1", "2026-06-30"),
        ("plans and the box", "2026-11-28"),
    ]
    assert fresh.notes == ["a month is reckoned from 1 day only"]
    later = NOW + 200 * DAY
    old = compared(store, {"now": later}, cloud=cloud_prices("us-east-1", today=date(2027, 6, 12))).notes
    assert any("the prices of AWS are of 2026-06-30, 347 days old" in line for line in old)
    assert any("the prices of models are of 2026-11-28, 196 days old" in line for line in old)
    assert any("the prices of plans and the box are of 2026-11-28, 196 days old" in line for line in old)


def test_the_sizes_are_those_of_the_template() -> None:
    class Loader(yaml.SafeLoader):
        """Takes CloudFormation's own tags."""

    Loader.add_multi_constructor("!", lambda _loader, _tag, _node: None)
    made = yaml.load((ROOT / "aws" / "base.yaml").read_text(), Loader)["Resources"]  # noqa: S506
    for tools, name in ((False, "TaskDefinitionApi"), (True, "TaskDefinitionCli")):
        found = made[name]["Properties"]
        assert (Decimal(found["Cpu"]) / 1024, int(found["Memory"])) == SIZES[tools]
