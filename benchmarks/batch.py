"""A batch of 500 text tasks to one host, beside every other way to send them there."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.ground import FAST_MS, ROOT, SLOW_MS, Ground, timed, write_tasks
from benchmarks.rivals import PROMPT, B, C, D, F, Rivals
from benchmarks.rows import Row, interleaved
from tests.support.farm import FarmError

TASKS = 500
#: The slow ways get fewer tasks: what counts is tasks a second, and 500 would take them minutes.
FEW = 8
AT_ONCE = (1, 2, 4, 8)


def rate(ground: Ground, tasks: int, *options: str) -> float:
    """`farmhand batch`, from the start of the program to its end: tasks a second."""
    source = write_tasks(ground.farm.state / "batch-in.jsonl", [f"{PROMPT} {n}" for n in range(tasks)])
    output = ground.farm.state / "batch-out.jsonl"
    program = str(ROOT / ".venv/bin/farmhand")
    argv = [program, "batch", str(source), "--out", str(output), "--restart", *options]
    seconds = timed(lambda: ground.program(*argv))
    written = output.read_text(encoding="utf-8").count("\n")
    if written != tasks:
        raise FarmError(f"farmhand batch wrote {written} results of {tasks} tasks")
    return tasks / seconds


def _best(way: Callable[[int, int], float], tasks: int) -> int:
    """How many at once suit this way best."""
    return max(AT_ONCE, key=lambda at_once: way(max(tasks, at_once), at_once))


def measure(ground: Ground) -> list[Row]:
    """The rows of a batch."""
    rivals = Rivals(ground)
    _, status = ground.farm.agent("GET", "/v1/status")
    slots = int(status["slots"]["api"]["total"])
    tasks, few = ground.tasks(TASKS), max(4, round(FEW * ground.scale))
    slow = {B: rivals.xargs, C: rivals.parallel, D: rivals.ansible}
    rows: list[Row] = []
    with ground.latency(SLOW_MS):
        best = {name: _best(way, few) for name, way in slow.items()}
    for ms in (SLOW_MS, FAST_MS):
        ways: dict[str, Callable[[], float]] = {
            "ours": lambda: rate(ground, tasks),
            F: lambda: rivals.sdk(tasks, slots),
        }
        if ms:
            ways |= {name: lambda name=name, way=way: way(few, best[name]) for name, way in slow.items()}  # type: ignore[misc]
        with ground.latency(ms):
            taken = interleaved(ways, ground.rounds)
        ours = statistics.median(taken.pop("ours"))
        for name, rates in taken.items():
            note = f"{tasks} tasks, {slots} at once" if name == F else f"-P {best[name]}, {few} tasks"
            rows.append(
                Row(
                    what=f"farmhand batch, {tasks} text tasks",
                    ours=ours,
                    reference=statistics.median(rates),
                    against=name,
                    unit="tasks/s",
                    target={B: "ratio >= 50", F: "ratio >= 0.8"}.get(name, ""),
                    note=f"{note}, API latency {ms:g} ms",
                )
            )
    return rows
