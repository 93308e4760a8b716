"""Retention of ended tasks: content by age and size, rows by age. Unfinished tasks are never touched."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import time
from collections.abc import Callable

from farmhand.agent.config import Config
from farmhand.agent.store.damage import LedgerDamaged, LedgerStuck
from farmhand.agent.store.ledger import Ledger
from farmhand.agent.task_files import TaskFiles
from farmhand.core.task import FINAL_STATES

log = logging.getLogger("jada-agent")
_DAY_S = 86_400.0
_MB = 1024 * 1024
#: Interval between sweeps, and delay of the first one after the start, in seconds.
_EVERY_S = 60.0
_FIRST_S = 5.0
#: Rows, and pages of the file, per transaction: it must not delay tasks.
_ROWS = 200
_PAGES = 500
_FOREVER = 1e18


def empty(db: sqlite3.Connection, before: float) -> int:
    """Delete the content of some tasks that ended before `before`, oldest first. Return how many; 0 for none left."""
    return db.execute(
        "UPDATE task SET spec = NULL, text = '', structured = NULL, error = NULL WHERE seq IN"
        " (SELECT seq FROM task WHERE done_no IS NOT NULL AND spec IS NOT NULL AND finished_at < ?"
        " ORDER BY finished_at LIMIT ?)",
        (before, _ROWS),
    ).rowcount


def forget(db: sqlite3.Connection, before: float) -> int:
    """Delete some emptied tasks that ended before `before`, with attempts and charges. Return how many."""
    which = "SELECT seq FROM task WHERE spec IS NULL AND finished_at < ? ORDER BY finished_at LIMIT ?"
    gone = db.execute(f"DELETE FROM task WHERE seq IN ({which})", (before, _ROWS)).rowcount  # noqa: S608  (our own words)
    if not gone:
        unused = "created_at < ? AND NOT EXISTS (SELECT 1 FROM task WHERE batch = name)"
        db.execute(f"DELETE FROM batch WHERE {unused}", (before,))  # noqa: S608
        db.execute("DELETE FROM tally WHERE batch != '' AND NOT EXISTS (SELECT 1 FROM batch WHERE name = tally.batch)")
    return gone


def shrink(db: sqlite3.Connection) -> int:
    """Return some free pages of the file to the file system. Return how many are left."""
    db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
    return int(db.execute("PRAGMA freelist_count").fetchone()[0])


class Retention:
    """Keeps the ledger within its limits. `monotonic` is a clock, in seconds."""

    def __init__(self, config: Config, ledger: Ledger, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._ledger = ledger
        self._monotonic = monotonic
        self._ahead_s = ledger.now() - monotonic()
        self._too_large = False

    def now(self) -> float:
        """Return Unix seconds, at most the start time plus the time since. A clock that jumps ahead has no effect."""
        return min(self._ledger.now(), self._ahead_s + self._monotonic())

    async def run(self) -> None:
        """Sweep every minute until cancelled."""
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self.sweep()
            except LedgerDamaged:
                return  # the agent ends
            except LedgerStuck as error:
                log.error("%s", error)
            except Exception as error:
                # One failed sweep must not end retention.
                log.exception("retention: %s", type(error).__name__)
            await asyncio.sleep(_EVERY_S)

    async def sweep(self) -> None:
        """Bring the ledger within its limits, in short transactions."""
        emptied = await self._all(empty, self._config.retention_days)
        gone = await self._all(forget, self._config.history_days)
        emptied += await self._to_size()
        if emptied or gone:
            log.info("retention: %d tasks emptied, %d forgotten", emptied, gone)
        before, left = sys.maxsize, self._ledger.free_pages()
        while 0 < left < before:
            before, left = left, await self._ledger.write(shrink)
        self._sweep_files()

    def _sweep_files(self) -> None:
        """Remove the files of tasks whose content is gone, bundles that no attempt needs any more, and old files.

        The files of all ended tasks together may take as much as the ledger, beside it; the oldest go first.
        """
        files = TaskFiles(self._config.state_dir)
        ended: list[str] = []
        for task_id in files.tasks():
            try:
                known = self._ledger.known(task_id)
            except KeyError:
                # Uploaded, and never submitted.
                if files.age_s(task_id, time.time()) > _DAY_S:
                    files.remove(task_id)
                continue
            if known.pruned:
                files.remove(task_id)
            elif known.state in FINAL_STATES:
                files.bundle(task_id).unlink(missing_ok=True)
                ended.append(task_id)
        files.shrink(ended, self._config.retention_mb * _MB)

    async def _all(self, step: Callable[[sqlite3.Connection, float], int], days: float) -> int:
        total, before = 0, self.now() - days * _DAY_S
        while some := await self._ledger.write(lambda db: step(db, before)):
            total += some
        return total

    async def _to_size(self) -> int:
        """Empty the oldest tasks until the ledger fits. Return how many."""
        total, some = 0, 1
        while (too_large := self._ledger.bytes_used() > self._config.retention_mb * _MB) and some:
            some = await self._ledger.write(lambda db: empty(db, _FOREVER))
            total += some
        if too_large and not self._too_large:
            log.warning("the ledger is larger than %d MB without content to prune", self._config.retention_mb)
        self._too_large = too_large
        return total
