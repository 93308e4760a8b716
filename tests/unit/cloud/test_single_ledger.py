"""What a single task has cost is in the bucket while it runs: a container may be killed without a word."""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.cloud.calls import CallFailed
from farmhand.cloud.single_run import SingleRun
from farmhand.core.bucket_keys import BatchKeys
from farmhand.core.shard import SingleOrder


class Rows:
    """The rows of the ledger, by the look that finds them."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = [*parts]

    def part(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""


class Bucket:
    """A bucket; `fails` calls are refused first."""

    def __init__(self, fails: int = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self.fails = fails

    def put_new(self, key: str, body: bytes) -> bool:
        if self.fails:
            self.fails -= 1
            raise CallFailed("writing", OSError("S3 is busy"))
        self.objects[key] = body
        return True


def looking(bucket: Bucket, rows: Rows) -> Any:
    order = SingleOrder(environment="test", task={"id": "t1"}, farmhand="0")
    anything: Any = None
    run: Any = SingleRun(order, BatchKeys.of("test", "t1"), bucket, anything, anything, anything, anything)  # type: ignore[arg-type]
    run._rows, run._attempt = rows, 2
    return run


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_each_look_writes_what_is_new_and_loses_nothing(fails: int) -> None:
    bucket = Bucket(fails)
    run = looking(bucket, Rows(b"first", b"", b"second"))
    for _ in range(6):
        run._note_cost()
    base = "test/batches/t1/ledger/0/00000/2-"
    assert bucket.objects == {f"{base}0001.jsonl": b"first", f"{base}0002.jsonl": b"second"}
