"""`network: full`: asked for per task, allowed per host, and taken back by the same variable."""

from __future__ import annotations

from tests.support.farm import Farm


def look_out(farm: Farm, *options: str) -> str:
    """What a task prints that tries to reach the API's address past the meter, and looks for a key."""
    target = farm.api.url.removeprefix("http://").replace(":", "/")
    command = f"(exec 3<>/dev/tcp/{target}) 2>/dev/null && echo OPEN; env; ls -A /run /var/lib /home 2>/dev/null; id -u"
    tool = {"tool_use": {"name": "Bash", "input": {"command": command, "description": "d"}}}
    farm.api.rule("go out", tool, {"text": "{tool_result}"})
    done = farm.cheap("--tools", "Bash", *options, "go out")
    assert done.returncode == 0, done
    return done.stdout


def test_it_is_given_where_the_host_allows_it_and_taken_back_by_the_same_variable(built_farm: Farm) -> None:
    farm = built_farm
    farm.api.clear()
    farm.build("-e", "{jada_agent_network_full: true}")
    try:
        seen = look_out(farm, "--network", "full")
        assert "OPEN" in seen
        # All other walls stand.
        assert farm.key not in seen
        assert "agent.sock" not in seen
        assert int(seen.split()[-1]) >= 1000
        farm.api.clear()
        assert "OPEN" not in look_out(farm), "a task that did not ask for the network has it"
    finally:
        farm.build()
    done = farm.cheap("--tools", "Bash", "--network", "full", "go out")
    assert done.returncode == 5, done
    assert "jada_agent_network_full" in done.stderr
    assert farm.exec("systemctl", "is-active", "jada-task-full.socket").returncode != 0
