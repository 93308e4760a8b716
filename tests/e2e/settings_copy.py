"""Variations of the operator's settings, and what a good refusal looks like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.farm import Farm
from tests.support.farm.run import Completed


def settings_dir(farm: Farm, target: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    """A copy of the operator's settings in `target` with another entry for the host; the environment that uses it."""
    known = json.loads((farm.state / "hosts.json").read_text(encoding="utf-8"))
    change(known["hosts"][farm.container.hostname])
    target.mkdir(parents=True, exist_ok=True)
    (target / "hosts.json").write_text(json.dumps(known), encoding="utf-8")
    (target / "config.toml").write_text(farm.config.read_text(encoding="utf-8"), encoding="utf-8")
    return {"FARMHAND_CONFIG": str(target / "config.toml")}


def assert_refused(done: Completed, status: int, *said: str) -> None:
    """It ended with `status`, nothing on stdout, and one line on stderr that says all of `said`."""
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for words in said:
        assert words in lines[0]
