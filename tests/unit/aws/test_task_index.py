"""The index of a batch's tasks: what is known, what is waited for, and how much memory that takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from farmhand.aws.places.task_index import IndexedTask, TaskIndex
from farmhand.core.errors import FarmhandError

#: As long as an id can be, and with all characters that one can have.
IDS = ["Z" + "9a._-" * 12 + "end", "a", "0"]


def test_a_task_is_waited_for_once_and_known_from_then_on() -> None:
    index = TaskIndex()
    index.wait_for([(task_id, b"first---") for task_id in IDS])
    index.wait_for([(IDS[0], b"another-")])
    assert index.awaited == 3
    assert index.digests([*IDS, "unknown"]) == dict.fromkeys(IDS, b"first---")
    assert index.give_up([IDS[0], IDS[0], "unknown"]) == {IDS[0]}
    assert index.give_up([IDS[0]]) == set()
    assert (index.awaited, index.awaited_among(IDS), index.all_awaited()) == (2, {"a", "0"}, ["0", "a"])
    index.wait_for([(IDS[0], b"first---")])
    assert (index.awaited, index.digests(IDS[:1])) == (3, {IDS[0]: b"first---"})


def test_where_a_result_was_given_out_is_known_from_then_on() -> None:
    index = TaskIndex()
    index.wait_for([(task_id, b"first---") for task_id in IDS])
    index.give_up(IDS[1:2])
    assert index.give_out(IDS[:2], 7) == {IDS[0]}
    assert index.given([*IDS, "unknown"]) == dict.fromkeys(IDS[:2], 7)
    assert (index.awaited, index.stored(IDS)) == (1, [])
    index.store(2, 5, IDS[:1])
    assert index.stored(IDS) == [IndexedTask(IDS[0], b"first---", 2, 5)]


def test_where_tasks_are_is_known_by_generation_and_shard() -> None:
    index = TaskIndex()
    index.load([IndexedTask("old", b"1", 0, 0), IndexedTask("again", b"2", 0, 1)])
    index.load([IndexedTask("again", b"2", 1, 0)])
    assert index.awaited == 0
    index.wait_for([(name, b"3") for name in ("old", "new", "newer")])
    index.store(2, 5, ["new", "newer"])
    assert [*index.of(2)] == [IndexedTask("new", b"3", 2, 5), IndexedTask("newer", b"3", 2, 5)]
    assert [*index.of(1)] == [IndexedTask("again", b"2", 1, 0)]
    assert ([*index.awaited_of(0)], [*index.awaited_of(1)]) == ([IndexedTask("old", b"1", 0, 0)], [])
    index.gather(2, 2)
    assert {task.shard for task in index.of(2)} == {1}
    index.give_up(["new"])
    index.forget(["new"])
    assert (index.digests(["new"]), [*index.of(2)]) == ({}, [IndexedTask("newer", b"3", 2, 1)])


def test_shards_come_in_their_order_while_their_tasks_move() -> None:
    index = TaskIndex()
    index.wait_for([(f"t{number}", b"1") for number in range(2000)])
    for shard in range(20):
        index.store(0, shard, [f"t{number}" for number in range(shard, 2000, 20)])
    seen = []
    for task in index.awaited_of(0):
        seen.append(task.shard)
        index.store(1, 0, [task.id])
    assert seen == sorted(seen)
    assert len(seen) == 2000
    assert [*index.awaited_of(0)] == []


def test_a_full_disk_is_one_error() -> None:
    index = TaskIndex()
    index._db.execute("PRAGMA max_page_count = 2")
    with pytest.raises(FarmhandError, match="index of the batch's tasks: database or disk is full") as caught:
        index.wait_for([(f"t{number}", b"1" * 8) for number in range(1000)])
    assert "SQLITE_TMPDIR" in str(caught.value.hint)


def test_the_ids_of_a_long_batch_are_not_in_memory() -> None:
    """300,000 took 129 MB as dictionaries and sets."""
    program = """
import resource
from farmhand.aws.places.task_index import TaskIndex
index = TaskIndex()
def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = most()
for first in range(0, 300_000, 1000):
    ids = [f"people-1f2e3d4c-{number}-{number:08x}" for number in range(first, first + 1000)]
    index.wait_for([(one, b"12345678") for one in ids])
    index.store(0, first // 500, ids)
    index.awaited_among(ids)
print(most() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40
