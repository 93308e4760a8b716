"""A batch without a running place: a test hands orders to workers itself, and so says who does what when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from farmhand.batch.accounting import BatchLedger
from farmhand.batch.begin import BatchPlan, fill_journal
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.inputs import JsonLines
from farmhand.batch.journal import Journal
from farmhand.batch.output import OutputFile
from farmhand.batch.worker_state import WorkerLimits
from farmhand.core.settings import Settings
from farmhand.places.base import Place
from tests.support.places import InProcessPlace, Worker

KEY = "sk-ant-test-batch-0000000000"


class Batch:
    """One run of a batch in `directory`; make another one there to go on."""

    def __init__(
        self,
        directory: Path,
        lines: list[Any] | None = None,
        *,
        ordered: bool = False,
        workers: int = 1,
        retry_failed: bool = False,
        limits: WorkerLimits | None = None,
        place: Place | None = None,
        key: str = KEY,
    ) -> None:
        self.input = directory / "in.jsonl"
        self.out = directory / "out.jsonl"
        if lines is not None:
            self.input.write_text("".join(json.dumps(line) + "\n" for line in lines))
        key_file = directory / "key.env"
        key_file.touch(0o600)
        key_file.write_text(f"ANTHROPIC_API_KEY={KEY}\n")
        self.journal = Journal(directory / "out.jsonl.farmhand")
        try:
            with self.input.open("rb") as file:
                plan = BatchPlan(JsonLines(file, {}), "", {"ordered": ordered})
                fill_journal(plan, self.journal, Settings(key_source=f"file:{key_file}"))
            if retry_failed:
                with self.journal.transaction():
                    self.journal.retry_failed()
            self.output = OutputFile(self.out, self.journal, ordered=ordered)
        except BaseException:
            self.journal.close()
            raise
        self.said: list[str] = []
        self.workers = workers
        self.book = BatchLedger(self.journal, self.output)
        place = place or InProcessPlace(())
        self.coordinator = Coordinator(self.book, place, key, limits or WorkerLimits(), self.said.append)

    def turn(self, worker: Worker, *, lost: bool = False) -> bool:
        """One exchange with a worker; False if it has nothing to do now. `lost`: no answer comes."""
        one = self.coordinator._worker(worker.name)
        one.not_before = one.halted_until = 0
        self.coordinator._expected = self.workers
        order = self.coordinator._next(one)
        if order is None:
            return False
        worker.gone = lost
        self.coordinator.give(worker.name, worker.play(order))
        return True

    def run(self, *workers: Worker, turns: int = 100) -> None:
        """Turns in turn, until all is done or nobody has anything to do."""
        for _ in range(turns):
            if self.coordinator.over or not [worker for worker in workers if self.turn(worker)]:
                return

    def leases(self, worker: Worker) -> int:
        """How many leases the worker has."""
        return self.journal.leases(self.coordinator._worker(worker.name).no)[0]

    def close(self) -> None:
        """Let go of the files."""
        self.output.close()
        self.journal.close()

    def results(self) -> list[dict[str, Any]]:
        """What is in the output."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]
