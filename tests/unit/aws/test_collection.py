"""The parts of a batch's results: what is held of them between the moment they are seen and that they are given out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest

from farmhand.aws.places.bucket import BatchBucket
from farmhand.aws.places.shards import MOST_PARTS, MOST_RESULTS, Collection
from farmhand.core.bucket_keys import BatchKeys, PartName
from farmhand.core.errors import FarmhandError

KEYS = BatchKeys.of("test", "b")


class DictBucket:
    """Objects by key, and how often each was read."""

    name = "bucket"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads: Counter[str] = Counter()

    def get(self, key: str) -> bytes | None:
        self.reads[key] += 1
        return self.objects.get(key)

    def put_new(self, key: str, body: bytes) -> bool:
        return self.objects.setdefault(key, body) is body

    def keys(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self.objects if key.startswith(prefix)))


def collection(bucket: DictBucket) -> Collection:
    return Collection(cast(BatchBucket, bucket), KEYS)


def ids(results: list[dict[str, Any]]) -> list[str]:
    return [str(result["id"]) for result in results]


def written(bucket: DictBucket, parts: int, results: int = 1) -> None:
    """That many parts, each with so many results."""
    for shard in range(parts):
        lines = [
            b'{"id":"t%d-%d","state":"succeeded","text":"ok","cost_usd":0.5}\n' % (shard, n) for n in range(results)
        ]
        bucket.objects[KEYS.results() + PartName(0, shard, 1, 0).path] = b"".join(lines)


def test_results_of_a_week_are_seen_by_and_by_and_not_all_held_at_once() -> None:
    bucket, count = DictBucket(), 3 * MOST_PARTS + 1
    written(bucket, count)
    found, seen = collection(bucket), set[str]()
    for _ in range(3):
        ids_now = found.look(0)
        assert len(ids_now) == MOST_PARTS
        assert found.behind == {0}
        seen |= ids_now
        assert len(found._results) == MOST_PARTS
    seen |= found.look(0)
    # What was listed first is read; whether more came meanwhile is not known yet.
    assert found.behind == {0}
    assert found.look(0) == set()
    assert found.behind == set()
    assert seen == {f"t{n}-0" for n in range(count)}
    assert (found.end, found.of(0)) == (count, (count, count * 5 * 10**11))
    given: list[str] = []
    for number in range(count):
        given += ids(found.results(number))
        assert len(found._results) <= MOST_PARTS
        found.forget(number)
    assert sorted(given) == sorted(seen)
    assert not found._results
    assert Counter(number for key, number in bucket.reads.items() if "/out/" in key) == {
        1: MOST_PARTS,
        2: count - MOST_PARTS,
    }
    # Another command finds the same order.
    again = collection(bucket)
    again.begin_load()
    again.load_some()
    assert again.loading == 0
    assert again.look(0) == set()
    assert [ids(again.results(number)) for number in range(count)] == [[one] for one in given]


def test_what_earlier_commands_have_seen_is_read_in_steps_and_no_result_with_it() -> None:
    """A batch of a million lines has thousands of lists, each of some of its 10,000 parts."""
    bucket, count = DictBucket(), 1000
    for number in range(count):
        part = KEYS.results() + PartName(0, number, 1, 0).path
        bucket.objects[f"{KEYS.base}seen/{number:06d}.json"] = msgspec.json.encode([(part, 100, 5)])
    found = collection(bucket)
    found.begin_load()
    steps = []
    while left := found.loading:
        before = sum(bucket.reads.values())
        found.load_some()
        steps.append(sum(bucket.reads.values()) - before)
        assert found.loading < left
    assert max(steps) <= 200
    assert (sum(steps), found.end, found.of(0)) == (count, count * 100, (count * 100, count * 5))
    assert [part.key for part in found.parts] == sorted(part.key for part in found.parts)
    assert not [key for key in bucket.reads if "/out/" in key]
    # One that cannot be read is not passed over.
    bucket.objects[f"{KEYS.base}seen/000000.json"] = b"[1"
    other = collection(bucket)
    other.begin_load()
    for _ in range(2):
        with pytest.raises(FarmhandError, match="is damaged"):
            other.load_some()


def test_a_look_takes_what_a_reply_does_and_nothing_that_came_meanwhile_is_missed() -> None:
    bucket = DictBucket()
    written(bucket, 30, 100)
    found = collection(bucket)
    assert len(found.look(0)) == MOST_RESULTS
    written(bucket, 31, 100)
    assert len(found.look(0)) == 1000
    assert found.behind == {0}
    assert len(found.look(0)) == 100
    assert found.behind == set()
    # A part that cannot be read is not lost for the next look.
    written(bucket, 33, 100)
    broken = KEYS.results() + PartName(0, 32, 1, 0).path
    kept, bucket.objects[broken] = bucket.objects[broken], b"no result"
    with pytest.raises(FarmhandError, match="is damaged"):
        found.look(0)
    bucket.objects[broken] = kept
    assert len(found.look(0)) == 200
