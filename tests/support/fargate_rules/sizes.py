"""The pairs of CPU and memory that Fargate has.

Source: the ECS developer guide, "Task CPU and memory". Units: CPU in 1/1024 vCPU, memory in MiB.
"""

from __future__ import annotations

import re

_GIB = 1024


def _steps(first: int, last: int, step: int = 1) -> frozenset[int]:
    return frozenset(range(first * _GIB, last * _GIB + 1, step * _GIB))


#: CPU → the memory that goes with it.
PAIRS: dict[int, frozenset[int]] = {
    256: frozenset({512, 1024, 2048}),
    512: _steps(1, 4),
    1024: _steps(2, 8),
    2048: _steps(4, 16),
    4096: _steps(8, 30),
    8192: _steps(16, 60, 4),
    16384: _steps(32, 120, 8),
}


def cpu_units(text: object) -> int | None:
    """Return "512", "0.5 vCPU" or ".5vcpu" as units; None if it is no such text."""
    found = re.fullmatch(r"([\d.]+)\s*(vcpu)?", str(text).strip(), re.I)
    try:
        return None if found is None else round(float(found[1]) * (1024 if found[2] else 1))
    except ValueError:
        return None


def mebibytes(text: object) -> int | None:
    """Return "1024" or "1 GB" as MiB; None if it is no such text."""
    found = re.fullmatch(r"([\d.]+)\s*(gb)?", str(text).strip(), re.I)
    try:
        return None if found is None else round(float(found[1]) * (_GIB if found[2] else 1))
    except ValueError:
        return None


def pair_fault(cpu: int, memory: int) -> str | None:
    """Return what is wrong with the pair, None if Fargate has it."""
    if cpu not in PAIRS:
        return f"no Fargate size has {round(cpu / 1024, 2):g} vCPU"
    if memory not in PAIRS[cpu]:
        return f"no Fargate size has {round(cpu / 1024, 2):g} vCPU with {memory} MiB"
    return None
