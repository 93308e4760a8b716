"""One task through each path, beside the wrapper that users would write instead: wall time, warm and cold."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.ground import FAST_MS, ROOT, SLOW_MS, Ground, check, timed
from benchmarks.rivals import PROMPT, A, Rivals
from benchmarks.rows import Row, interleaved, medians
from tests.support.farm.run import Completed

WARM = "claude-cheap, warm ssh"
COLD = "claude-cheap, cold ssh"


def paths(ground: Ground) -> dict[str, Callable[[], Completed]]:
    """Our paths by name, in the order in which they run."""
    farm = ground.farm
    cheap = str(ROOT / ".venv/bin/claude-cheap")
    module = ("-m", "farmhand_task", "-a", f"prompt='{PROMPT}'")

    return {
        WARM: lambda: ground.program(cheap, PROMPT),
        COLD: lambda: ground.program(cheap, PROMPT),
        "claude-cheap --engine cli": lambda: ground.program(cheap, "--engine", "cli", PROMPT),
        "ansible farm -m farmhand_task": lambda: check(farm.ansible("farm", *module)),
        "ansible-runner run": lambda: check(
            farm.ansible("run", ".", "--hosts", "farm", *module, program="ansible-runner")
        ),
    }


def _timed(ground: Ground, name: str, path: Callable[[], Completed]) -> float:
    if name == COLD:
        # Not part of the time: what ends the shared connection.
        ground.farm.close_connections()
    return timed(path)


def measure(ground: Ground) -> list[Row]:
    """The rows of one task."""
    ways = paths(ground)
    rivals = Rivals(ground)
    rows: list[Row] = []
    for ms in (SLOW_MS, FAST_MS):
        wanted = ways if ms else {name: ways[name] for name in (WARM, COLD)}
        calls = {A: lambda: timed(rivals.one)}
        calls |= {name: lambda name=name, path=path: _timed(ground, name, path) for name, path in wanted.items()}  # type: ignore[misc]
        with ground.latency(ms):
            middle = medians(interleaved(calls, ground.rounds))
        base = middle[A]
        at = f"API latency {ms:g} ms"
        targets = {WARM: "ratio <= 0.25", COLD: "ratio <= 0.5"}
        rows += [
            Row(
                what=f"one task, {name}",
                ours=middle[name],
                reference=base,
                against=A,
                target=targets.get(name, ""),
                note=at,
            )
            for name in wanted
        ]
        what, own = "one task, warm: overhead over the API's latency", middle[WARM] - ms / 1000
        rows.append(Row(what=what, ours=own, reference=base - ms / 1000, against=A, target="<= 0.12", note=at))
    return rows
