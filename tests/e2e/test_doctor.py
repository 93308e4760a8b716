"""farmhand doctor on a built host: what its agent says of it, and the search for keys, which needs root there."""

from __future__ import annotations

import json
from typing import Any

from tests.support.farm import Farm


def host_lines(farm: Farm, *arguments: str) -> dict[str, dict[str, Any]]:
    """The lines of the host by their name. The workstation's are this machine's own, and may be of any colour."""
    done = farm.ansible("doctor", "--json", *arguments, program="farmhand")
    assert farm.key not in done.stdout + done.stderr
    lines = json.loads(done.stdout)["checks"]
    return {line["name"]: line for line in lines if line["host"] == farm.container.hostname}


def test_a_built_host_is_green(farm: Farm) -> None:
    lines = host_lines(farm)
    assert [line for line in lines.values() if not line["ok"]] == []
    assert set(lines) == {"reach", "cli", "clock", "queue", "budget", "at-rest", "canary"}
    assert lines["cli"]["detail"] == f"claude {farm.exec('claude', '--version').stdout.split()[0]}"
    assert lines["at-rest"]["detail"] == "no key in any file, process or journal"


def test_a_key_on_the_disk_is_red_and_named_by_its_place(farm: Farm) -> None:
    key = "sk-ant-test-left-behind-000000000000"
    farm.exec("tee", "/srv/left-behind", input=key)
    try:
        line = host_lines(farm, "--no-canary")["at-rest"]
    finally:
        farm.exec("rm", "/srv/left-behind")
    assert (line["ok"], line["detail"]) == (False, "a key is in /srv/left-behind")
    assert "rotate" in line["fix"]
    assert key not in json.dumps(line)
