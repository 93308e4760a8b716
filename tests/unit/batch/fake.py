"""A batch without Ansible and without daemons: hosts are objects that play turns at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farmhand.batch.accounting import BatchLedger
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.host_state import WorkerLimits
from farmhand.batch.inputs import JsonLines, TaskMaker
from farmhand.batch.journal import Journal
from farmhand.batch.output import OutputFile
from farmhand.batch.prepare import BatchPlan, prepare

KEY = "sk-ant-test-batch-0000000000"
COST = 0.00001


class Host:
    """What `jada-agent turn` does, at once and in memory. `works` False: it takes tasks and finishes none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.works = True
        self.waiting: list[dict[str, Any]] = []
        self.known: dict[str, dict[str, Any]] = {}
        self.order: list[str] = []
        self.ran: list[str] = []
        self.outcome: Callable[[dict[str, Any]], dict[str, Any]] = lambda task: {"state": "succeeded"}

    def play(self, body: bytes) -> dict[str, Any]:
        """The answer to a turn."""
        turn = json.loads(body)
        for wire in turn["cancel"]:
            if wire in self.known and "state" not in self.known[wire]:
                self._end(wire, {"state": "cancelled"})
        again = []
        for task in turn["tasks"]:
            done = self.known.setdefault(task["id"], {"task": task})
            again += [done["result"]] if "state" in done else []
        if self.works:
            for wire in [wire for wire, known in self.known.items() if "state" not in known]:
                self.ran.append(wire)
                self._end(wire, self.outcome(self.known[wire]["task"]))
        stopped = []
        if turn.get("stop"):
            stopped = [wire for wire, known in self.known.items() if "state" not in known]
            for wire in stopped:
                self._end(wire, {"state": "cancelled"})
        results = again + [self.known[wire]["result"] for wire in self.order[turn["after"] :]]
        return {
            "taken": [task["id"] for task in turn["tasks"]],
            "cancelled": turn["cancel"],
            "stopped": stopped,
            "results": results,
            "next": len(self.order),
            "unfinished": sum("state" not in known for known in self.known.values()),
            "slots": {"api": {"total": 4, "free": 4}},
            "waiting": self.waiting,
        }

    def _end(self, wire: str, result: dict[str, Any]) -> None:
        usage = {"requests": 0 if result["state"] == "cancelled" else 1}
        whole = {"id": wire, "text": f"did {wire}", "cost_usd": COST, "usage": usage, "error": None, **result}
        if result["state"] == "cancelled":
            whole["cost_usd"] = None
        self.known[wire] |= {"state": result["state"], "result": whole}
        self.order.append(wire)


class Batch:
    """One run of a batch in `directory`; make another one there to go on."""

    def __init__(
        self, directory: Path, lines: list[Any] | None = None, *, ordered: bool = False, hosts: int = 1
    ) -> None:
        self.input = directory / "in.jsonl"
        self.out = directory / "out.jsonl"
        if lines is not None:
            self.input.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.file = self.input.open("rb")
        self.journal = Journal(directory / "out.jsonl.farmhand")
        self.plan = BatchPlan(JsonLines(self.file, TaskMaker()), "", {"ordered": ordered})
        try:
            prepare(self.plan, self.journal, lambda data: KEY.encode() in data)
        except BaseException:
            self.journal.close()
            raise
        self.output = OutputFile(self.out, self.journal, ordered=ordered)
        self.output.open()
        self.said: list[str] = []
        self.hosts = hosts
        self.limits = WorkerLimits()
        self.book = BatchLedger(self.plan, self.journal, self.output)
        self.coordinator = Coordinator(self.book, KEY, self.limits, self.said.append)

    def turn(self, host: Host, *, lost: bool = False) -> dict[str, Any] | None:
        """One turn of a host: how things stand then, None if it has nothing to do now. `lost`: no answer comes."""
        one = self.coordinator._host(host.name)
        one.not_before = 0
        self.coordinator._expected = self.hosts
        planned = self.coordinator._next(one)
        if planned is None:
            return None
        body = self.coordinator._encode(planned)
        error = {"error": {"code": "unreachable", "message": f"{host.name}: no route", "hint": ""}}
        answer = error if lost else host.play(body)
        return self.coordinator.give(host.name, json.dumps(answer).encode())

    def run(self, *hosts: Host, turns: int = 100) -> None:
        """Turns in turn, until all is done or nobody has anything to do."""
        for _ in range(turns):
            if self.coordinator.over or not [host for host in hosts if self.turn(host) is not None]:
                return

    def close(self) -> None:
        """Let go of the files."""
        self.output.close()
        self.journal.close()
        self.file.close()

    def results(self) -> list[dict[str, Any]]:
        """What is in the output."""
        if self.output._file is not None:
            self.output._file.flush()
        return [json.loads(line) for line in self.out.read_text().splitlines()]
