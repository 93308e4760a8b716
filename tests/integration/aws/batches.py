"""A batch on AWS Batch in moto: the environment, and commands one after the other on one output."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from farmhand.aws.places import running_batch
from farmhand.aws.places.batch_place import AwsBatchPlace
from farmhand.aws.places.running_batch import Pace
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core.errors import FarmhandError
from farmhand.places.base import PlaceSettings
from tests.support import aws_place, aws_rights
from tests.support.aws_place import CONF, Child, FakeAws, FakeBatch
from tests.unit.batch.fake import Batch

PACE = Pace(least_s=0.05, most_s=0.1, patience_s=5.0)


@pytest.fixture(autouse=True)
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("farmhand.aws.places.batch_jobs._LISTED_S", 0.05)
    monkeypatch.setattr(running_batch, "_HELD_S", 10.0)
    monkeypatch.setattr("farmhand.batch.coordinator.STOP_S", 7.0)
    # How long an exchange waits for results that do not come.
    monkeypatch.setattr("farmhand.batch.worker_state.EXCHANGE_S", 0.5)
    with aws_place.environment():
        yield


class Site:
    """The environment, and commands one after the other on one output."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.child = Child()
        self.batch = FakeBatch(self.child)
        self.chance = random.Random(5)  # noqa: S311 - moments, no secrets
        self.said: list[str] = []
        self.place: AwsBatchPlace
        self.totals: dict[str, Any] = {}

    def command(
        self,
        lines: list[Any] | None = None,
        *,
        until: Callable[[AwsBatchPlace], bool] = lambda _place: False,
        limits: WorkerLimits | None = None,
        flaky: float = 0.0,
        **settings: Any,
    ) -> FarmhandError | None:
        """Run the command to its end, or until `until` holds: then its process is gone. Return its error."""
        aws = FakeAws(self.batch)
        conf = PlaceSettings(project_dir=Path(), conf=CONF, say=self.said.append, **settings)
        self.place = AwsBatchPlace(conf, aws, PACE)
        aws.flaky, aws.chance = flaky, self.chance
        batch = Batch(self.directory, lines, place=self.place, limits=limits)
        try:
            if batch.book.totals.left:
                batch.coordinator.run(lambda: batch.coordinator.end() if until(self.place) else None)
            self.totals = batch.book.totals.as_dict()
            self.results = batch.results()
            return batch.coordinator.error
        finally:
            batch.close()
            called = {right for call in aws.calls for right in aws_rights.rights(*call)}
            assert called
            assert aws_rights.refused(called, aws_rights.user()) == []

    def objects(self, part: str = "") -> dict[str, bytes]:
        """What is in the bucket, by key."""
        s3 = boto3.client("s3", region_name=aws_place.REGION)
        bucket = FakeAws(self.batch).names.bucket
        found = [
            one["Key"]
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            for one in page.get("Contents", [])
        ]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in found if part in key}

    def ledgers(self) -> float:
        """The sum of all ledgers in US$."""
        rows = [json.loads(row) for text in self.objects("/ledger/").values() for row in text.splitlines()]
        return sum(row["cost_usd"] or 0 for row in rows if "charge_id" in row)

    def item(self) -> dict[str, Any]:
        """The batch's item."""
        db = boto3.client("dynamodb", region_name=aws_place.REGION)
        [item] = db.scan(TableName="farmhand-test")["Items"]
        return {name: next(iter(value.values())) for name, value in item.items()}

    def stop(self, reason: str, detail: str) -> None:
        """Let the batch's item say why a child has stopped all of them."""
        boto3.client("dynamodb", region_name=aws_place.REGION).update_item(
            TableName="farmhand-test",
            Key={"pk": {"S": self.item()["pk"]}},
            UpdateExpression="SET #s = :s, reason = :r, detail = :d",
            ExpressionAttributeNames={"#s": "state"},
            ExpressionAttributeValues={":s": {"S": "stopping"}, ":r": {"S": reason}, ":d": {"S": detail}},
        )

    def once(self, number: int) -> None:
        """Every line has one result, and its task ran once."""
        assert sorted(result["n"] for result in self.results) == list(range(1, number + 1))
        assert {result["state"] for result in self.results} == {"succeeded"}
        assert max(Counter(self.child.ran).values()) == 1
        assert len(self.child.ran) == number


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def prompts(number: int) -> list[str]:
    return [f"p{n}" for n in range(number)]


def wait(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not come to that")
