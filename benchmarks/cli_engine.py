"""The cli engine beside plain `claude -p` on the same host, at the same concurrency."""

from __future__ import annotations

from benchmarks.driver import run_batch
from benchmarks.ground import SLOW_MS, Ground
from benchmarks.rivals import E, Rivals
from benchmarks.rows import Row, interleaved, medians
from farmhand.places.hosts import load_hosts

TASKS = 16


def measure(ground: Ground) -> list[Row]:
    """The row of the cli engine."""
    farm = ground.farm
    rivals = Rivals(ground)
    tasks = ground.tasks(TASKS)
    (host,) = load_hosts(farm.state / "hosts.json").values()
    _, status = farm.agent("GET", "/v1/status")
    at_once = int(status["slots"]["cli"]["total"])
    with ground.latency(SLOW_MS):
        taken = interleaved(
            {
                "ours": lambda: tasks / run_batch(host.transport(10), tasks, key=farm.key, engine="cli"),
                E: lambda: rivals.on_host(tasks, at_once),
            },
            ground.rounds,
        )
    middle = medians(taken)
    note = f"{tasks} tasks, {at_once} at once, API latency {SLOW_MS:g} ms"
    return [
        Row(
            what="cli engine",
            ours=middle["ours"],
            reference=middle[E],
            against=E,
            unit="tasks/s",
            target="ratio >= 0.9",
            note=note,
        )
    ]
