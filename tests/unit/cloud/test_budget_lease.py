"""Leases of a budget by many writers at once, whose answers get lost and who die: their sum never exceeds the limit."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from moto import mock_aws

from farmhand.cloud.budget_lease import BudgetLease, LeaseLost
from farmhand.cloud.calls import CallFailed, ContainerTable
from farmhand.core import leases, shard
from farmhand.core.shard import BatchItem, LeaseName

TABLE = "t"
LIMIT = 10**9


class Dynamodb:
    """moto's DynamoDB, one call at a time as the real one, with faults before and after a call."""

    def __init__(self, seed: int = 0, share: float = 0.0) -> None:
        self._client = boto3.client(
            "dynamodb", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        self._lock = threading.Lock()
        self._chance, self._share = random.Random(seed), share  # noqa: S311  (a seed, not a secret)
        self.updates = 0
        self.most_taken = 0
        key: dict[str, Any] = {"AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}]}
        key["KeySchema"] = [{"AttributeName": "pk", "KeyType": "HASH"}]
        self._client.create_table(TableName=TABLE, BillingMode="PAY_PER_REQUEST", **key)

    def update_item(self, **arguments: Any) -> Any:
        with self._lock:
            fault = self._chance.random() / self._share if self._share else 1
            if fault < 0.5:
                raise EndpointConnectionError(endpoint_url="http://x")
            self.updates += 1
            done = self._client.update_item(**arguments)
            self.most_taken = max(self.most_taken, int(done["Attributes"]["taken"]["N"]))
            if fault < 1:
                raise ReadTimeoutError(endpoint_url="http://x")
            return done

    def get_item(self, **arguments: Any) -> Any:
        with self._lock:
            return self._client.get_item(**arguments)

    def put(self, item: BatchItem) -> None:
        self._client.put_item(TableName=TABLE, Item=shard.write_item("b", item))


@pytest.fixture(autouse=True)
def _aws() -> Iterator[None]:
    with mock_aws():
        yield


def lease(dynamodb: Dynamodb, number: int = 0, attempt: int = 1) -> BudgetLease:
    table = ContainerTable(dynamodb, TABLE, "b")
    item = table.item()
    assert item is not None
    return BudgetLease(table, LeaseName(1, number, attempt), item)


@pytest.mark.parametrize("seed", range(3))
def test_eight_writers_with_lost_answers_and_deaths(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farmhand.cloud.budget_lease._AGAIN_S", 0.0)
    dynamodb = Dynamodb(seed, share=0.2)
    dynamodb.put(BatchItem(limit=LIMIT))
    spent: dict[tuple[int, int], int] = {}
    problems: list[BaseException] = []

    def write(number: int) -> None:
        chance = random.Random(seed * 100 + number)  # noqa: S311  (a seed, not a secret)
        try:
            for attempt in range(1, 7):
                mine = lease(dynamodb, number, attempt)
                known = lambda before: spent.get((number, before), 0) // 2  # noqa: E731  (half was never told)
                while True:
                    try:
                        mine.settle_lost(known)
                        break
                    except CallFailed:
                        mine = lease(dynamodb, number, attempt)
                used = 0
                for _ in range(chance.randrange(1, 8)):
                    need = chance.randrange(1, 4) * 10**6
                    if mine.held - used >= need or mine.want(need):
                        used += min(need, mine.held - used)
                        spent[number, attempt] = used
                if chance.random() < 0.6:
                    while mine.held:
                        try:
                            mine.settle(used, 0)
                        except CallFailed:
                            continue
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    item = lease(dynamodb).item
    assert dynamodb.most_taken <= LIMIT
    assert item.taken == item.leased + item.spent + item.uncertain
    assert item.leased == sum(item.leases.values())
    # Whatever was really spent is covered by what the item has for it.
    assert 0 < sum(spent.values()) <= item.taken <= LIMIT
    assert dynamodb.updates > 50


def test_without_room_nothing_is_leased_and_all_that_is_left_can_be() -> None:
    dynamodb = Dynamodb()
    dynamodb.put(BatchItem(limit=10 * leases.GRAIN + 5))
    mine, other = lease(dynamodb, 0), lease(dynamodb, 1)
    assert mine.want(7 * leases.GRAIN)
    assert not other.want(4 * leases.GRAIN)
    assert (other.held, other.others()) == (0, [LeaseName(1, 0, 1)])
    assert other.want(0, all_left=True)
    assert other.held == 3 * leases.GRAIN
    mine.settle(leases.GRAIN, 2)
    assert mine.item.taken == 4 * leases.GRAIN + 2
    assert mine.item.left == 6 * leases.GRAIN + 3


def test_a_slice_is_two_percent_of_what_is_left_or_what_is_needed() -> None:
    grain = leases.GRAIN
    assert leases.slice_of(1000 * grain, 1) == 20 * grain
    assert leases.slice_of(1000 * grain, 30 * grain - 1) == 30 * grain
    assert leases.slice_of(10 * grain, 11 * grain) == 0
    assert leases.slice_of(grain - 1, 1) == 0


def test_one_whose_lease_was_settled_by_another_attempt_stops() -> None:
    dynamodb = Dynamodb()
    dynamodb.put(BatchItem(limit=LIMIT))
    first = lease(dynamodb)
    assert first.want(5 * leases.GRAIN)
    lease(dynamodb, attempt=2).settle_lost(lambda _attempt: leases.GRAIN)
    with pytest.raises(LeaseLost):
        first.want(leases.GRAIN)
    first.settle(leases.GRAIN, 0)
    item = lease(dynamodb).item
    assert (item.spent, item.taken, item.leased) == (leases.GRAIN, LIMIT // 50, 0)


def test_no_lease_on_a_batch_that_stops_or_whose_limit_was_changed() -> None:
    dynamodb = Dynamodb()
    dynamodb.put(BatchItem(limit=LIMIT))
    mine = lease(dynamodb)
    dynamodb.put(BatchItem(limit=LIMIT, state="stopping"))
    assert not mine.want(leases.GRAIN)
    assert mine.item.state == "stopping"
    mine = lease(dynamodb)
    mine.item.state = "running"
    dynamodb.put(BatchItem(limit=2 * leases.GRAIN))
    assert mine.want(leases.GRAIN)
    assert (mine.held, mine.item.limit) == (leases.GRAIN, 2 * leases.GRAIN)


def test_a_table_that_does_not_answer_gives_no_lease_and_no_error() -> None:
    dynamodb = Dynamodb()
    dynamodb.put(BatchItem(limit=LIMIT))
    mine = lease(dynamodb)
    dynamodb.update_item = lambda **_: (_ for _ in ()).throw(EndpointConnectionError(endpoint_url="x"))  # type: ignore[method-assign]
    assert not mine.want(leases.GRAIN)
