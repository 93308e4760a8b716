"""The supervisor finds its children in both of its ways."""

from __future__ import annotations

import subprocess

from farmhand.billing.supervise import children, children_by_parent


def test_both_ways_find_the_same_children() -> None:
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as other:
        found = children(), children_by_parent()
        for process in (one, other):
            process.kill()
    for each in found:
        assert {one.pid, other.pid} <= {*each}
