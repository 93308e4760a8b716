"""The tasks of one batch as a command knows them, by id: what they are, where they are stored, which are waited for.

It is a private database of SQLite in the directory for temporary files, which has no name and ends with its
connection. A million tasks take 100 MB of the disk and no more memory than the cache.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from farmhand.core.errors import FarmhandError

_CACHE_KIB = 16 * 1024
_SCHEMA = """
CREATE TABLE task (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL,
    generation INTEGER, shard INTEGER,  -- NULL: not in the bucket yet
    awaited INTEGER NOT NULL,
    part INTEGER  -- of which its result was given out
) WITHOUT ROWID
"""
_AMONG = "id IN (SELECT value FROM json_each(?))"


class IndexedTask(NamedTuple):
    """A task that is in the bucket."""

    id: str
    digest: bytes
    generation: int
    shard: int


class TaskIndex:
    """The index. One thread at a time may use it. Every method raises FarmhandError if the disk is full."""

    def __init__(self) -> None:
        #: How many tasks the batch waits for.
        self.awaited = 0
        with _explained():
            self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            # Nothing is ever rolled back or recovered: one transaction, without a journal.
            for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute(_SCHEMA)
            self._db.execute("BEGIN")

    def digests(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Return the digests of those of these tasks that are known."""
        with _explained():
            return dict(self._db.execute(f"SELECT id, digest FROM task WHERE {_AMONG}", (_list(ids),)))  # noqa: S608  (ours)

    def wait_for(self, tasks: Iterable[tuple[str, bytes]]) -> None:
        """Wait for these tasks, (id, digest) each; one that is known keeps its digest."""
        query = "INSERT INTO task VALUES (?, ?, NULL, NULL, 1, NULL)"
        query += " ON CONFLICT DO UPDATE SET awaited = 1 WHERE awaited = 0"
        with _explained():
            self.awaited += self._db.executemany(query, tasks).rowcount

    def store(self, generation: int, shard: int, ids: Iterable[str]) -> None:
        """Note where these tasks are now."""
        query = "UPDATE task SET generation = ?, shard = ? WHERE id = ?"
        with _explained():
            self._db.executemany(query, ((generation, shard, task_id) for task_id in ids))

    def gather(self, generation: int, shards: int) -> None:
        """Note that each shard N of the generation has been put into shard N % `shards`."""
        with _explained():
            self._db.execute("UPDATE task SET shard = shard % ? WHERE generation = ?", (shards, generation))

    def load(self, tasks: Iterable[IndexedTask]) -> None:
        """Take in stored tasks, of which none is waited for; of one that is stored twice, the last counts."""
        with _explained():
            self._db.executemany("INSERT OR REPLACE INTO task VALUES (?, ?, ?, ?, 0, NULL)", tasks)

    def stored(self, ids: Iterable[str]) -> list[IndexedTask]:
        """Return those of these tasks that are in the bucket."""
        query = f"SELECT id, digest, generation, shard FROM task WHERE {_AMONG} AND generation IS NOT NULL"  # noqa: S608  (ours)
        with _explained():
            return [IndexedTask._make(row) for row in self._db.execute(query, (_list(ids),))]

    def of(self, generation: int) -> Iterator[IndexedTask]:
        """Yield the tasks of a generation."""
        query = "SELECT id, digest, generation, shard FROM task WHERE generation = ?"
        with _explained():
            yield from map(IndexedTask._make, self._db.execute(query, (generation,)))

    def awaited_of(self, generation: int) -> Iterator[IndexedTask]:
        """Yield the tasks of a generation that are waited for, by shard."""
        query = "SELECT id, digest, generation, shard FROM task WHERE generation = ? AND awaited ORDER BY shard"
        with _explained():
            yield from map(IndexedTask._make, self._db.execute(query, (generation,)))

    def awaited_among(self, ids: Iterable[str]) -> set[str]:
        """Return those of these tasks that are waited for."""
        with _explained():
            rows = self._db.execute(f"SELECT id FROM task WHERE {_AMONG} AND awaited", (_list(ids),))  # noqa: S608  (ours)
            return {task_id for (task_id,) in rows}

    def given(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the parts of those of these tasks whose result was given out."""
        query = f"SELECT id, part FROM task WHERE {_AMONG} AND part IS NOT NULL"  # noqa: S608  (ours)
        with _explained():
            return dict(self._db.execute(query, (_list(ids),)))

    def all_awaited(self) -> list[str]:
        """Return the tasks that are waited for."""
        with _explained():
            return [task_id for (task_id,) in self._db.execute("SELECT id FROM task WHERE awaited")]

    def forget(self, ids: Iterable[str]) -> None:
        """Take out these tasks, of which none is waited for."""
        with _explained():
            self._db.executemany("DELETE FROM task WHERE id = ?", ((task_id,) for task_id in ids))

    def give_out(self, ids: Iterable[str], part: int) -> set[str]:
        """Note that the results of these tasks, of this part, are given out, and return those that were waited for."""
        ids = [*ids]
        with _explained():
            self._db.execute(f"UPDATE task SET part = ? WHERE {_AMONG}", (part, _list(ids)))  # noqa: S608  (ours)
        return self.give_up(ids)

    def give_up(self, ids: Iterable[str]) -> set[str]:
        """Wait for these tasks no more, and return those that were waited for."""
        query = f"UPDATE task SET awaited = 0 WHERE {_AMONG} AND awaited RETURNING id"  # noqa: S608  (ours)
        with _explained():
            found = {task_id for (task_id,) in self._db.execute(query, (_list(ids),)).fetchall()}
        self.awaited -= len(found)
        return found


def _list(ids: Iterable[str]) -> str:
    return json.dumps([*ids])


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        hint = "make room in the directory for temporary files (SQLITE_TMPDIR), and give the same command: it goes on"
        raise FarmhandError(f"the index of the batch's tasks: {error}", hint=hint, code="output") from None
