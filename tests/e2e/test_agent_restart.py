"""The agent stops, crashes, comes back: results stay, ids stay, keys do not."""

from __future__ import annotations

import json
import subprocess

from farmhand.core.ids import new_task_id
from tests.e2e.test_interrupt import until
from tests.support.farm import ApiControl, Farm
from tests.support.messages_api.answer import echo


def wait_for_agent(farm: Farm) -> None:
    """Return when the agent answers."""
    until(lambda: farm.agent("GET", "/v1/status")[0] == 200, "the agent's answer")


def test_a_result_outlives_a_restart_and_its_id_runs_once(farm: Farm, api: ApiControl) -> None:
    task_id = new_task_id()
    first = farm.cheap("--json", "--id", task_id, "Remember me")
    assert first.returncode == 0
    assert farm.exec("systemctl", "restart", "jada-agent.service").returncode == 0
    again = farm.cheap("--json", "--id", task_id, "Remember me")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert len(api.posts()) == 1
    other = farm.cheap("--id", task_id, "Something else")
    assert other.returncode == 2
    assert task_id in other.stderr


def test_a_crash_leaves_no_key_and_a_queued_task_goes_on_when_one_comes(farm: Farm, api: ApiControl) -> None:
    task_id = new_task_id()
    api.fault(kind="stalled", after_events=1, match="Survive the crash")
    with subprocess.Popen(
        [farm.root / ".venv/bin/claude-cheap", "--id", task_id, "Survive the crash"],
        env=farm.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as client:
        until(api.posts, "the request at the API")
        assert farm.exec("systemctl", "kill", "--signal=KILL", "--kill-who=main", "jada-agent.service").returncode == 0
        client.kill()
    wait_for_agent(farm)
    assert farm.agent("GET", "/v1/status")[1]["key"] is None
    assert farm.agent("GET", f"/v1/tasks/{task_id}")[1]["task"]["state"] == "awaiting_key"
    # Any client that brings the key gets the old task going as well.
    assert farm.cheap("Here is the key").returncode == 0
    done = until(
        lambda: (task := farm.agent("GET", f"/v1/tasks/{task_id}")[1]["task"])["state"] == "succeeded" and task,
        "the end of the task that the crash cut off",
    )
    assert done["text"] == echo("Survive the crash")


def test_a_stop_waits_for_the_running_task(farm: Farm, api: ApiControl) -> None:
    api.fault(kind="slow", delay_s=2.0)
    with subprocess.Popen(
        [farm.root / ".venv/bin/claude-cheap", "Finish first"],
        env=farm.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        until(api.posts, "the request at the API")
        assert farm.exec("systemctl", "stop", "jada-agent.service").returncode == 0
        out = client.communicate(timeout=120)[0]
    assert out == echo("Finish first") + "\n"
    # The socket still listens: the next task starts the agent again.
    assert farm.cheap("Wake up").stdout == echo("Wake up") + "\n"


def test_systemd_restarts_an_agent_that_hangs(farm: Farm) -> None:
    """With a shorter watchdog than the role's, so that it does not take half a minute."""
    drop_in = "/run/systemd/system/jada-agent.service.d"
    shorten = f"mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec=2s\\n' > {drop_in}/watchdog.conf"
    restart = "systemctl daemon-reload && systemctl restart jada-agent.service"
    assert farm.exec("sh", "-c", f"{shorten} && {restart}").returncode == 0
    try:
        assert farm.exec("systemctl", "kill", "--signal=STOP", "--kill-who=main", "jada-agent.service").returncode == 0
        until(
            lambda: (
                farm.exec("systemctl", "show", "-P", "NRestarts", "jada-agent.service").stdout.strip() not in ("", "0")
            ),
            "the watchdog's restart",
        )
        wait_for_agent(farm)
        assert farm.cheap("Awake?").stdout == echo("Awake?") + "\n"
    finally:
        assert farm.exec("sh", "-c", f"rm -r {drop_in} && {restart}").returncode == 0
