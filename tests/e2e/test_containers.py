"""The pair of containers: the wall around a task, what ends with it, and that nothing of the key is where tasks are."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farmhand.cloud import probe
from farmhand.core.ids import new_task_id
from farmhand.wire.client import Client
from tests.support.pair import Pair, bash, docker
from tests.support.patience import pause

PROBE = Path(probe.__file__).read_text("utf-8")
PORT = 8099
#: What the probe may do behind the wall: reach the meter, and say who it is.
ALLOWED = {"the meter", "uid", "owners"}
#: Docker's own profile and the read-only root refuse these without our wall too, even to root. A pair on this machine
#: has no role, so nothing of one: see test_aws_verify.py.
REFUSED_ANYWAY = {
    *("a mount", "a user namespace", "a network namespace by clone", "clone3", "the kernel's keyring", "bpf"),
    *("userfaultfd", "process_vm_readv", "memory of the first process", "environ of other users", "the ledger"),
    *("a packet socket", "an alg socket", "removal of the meter's socket"),
    *("a write to the root file system", "a write to /etc", "the role's credentials", "new privileges"),
}


@pytest.fixture(scope="module")
def made_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The pair, with the agent's network in the worker as well: the wall must not need the lack of one."""
    with Pair(tmp_path_factory.mktemp("pair"), "e2e", network="shared") as pair:
        yield pair


@pytest.fixture
def pair(made_pair: Pair) -> Iterator[Pair]:
    yield made_pair.fresh()
    for name in (made_pair.pair.agent, made_pair.pair.worker):
        print(name, subprocess.run(["docker", "logs", "--tail", "20", name], capture_output=True, check=False).stderr)


@pytest.fixture(scope="module")
def outcomes(made_pair: Pair) -> Iterator[dict[str, dict[str, list[str]]]]:
    """What the probe could do behind the wall, and as the worker's root without it."""
    listen = f"import socket; s = socket.create_server(('127.0.0.1', {PORT}))\nwhile True: s.accept()[0].close()"
    listener = subprocess.Popen(["docker", "exec", made_pair.pair.agent, "python3", "-c", listen])
    try:
        time.sleep(1)
        script = base64.b64encode(PROBE.encode()).decode()
        inside = made_pair.inside(f"echo {script} | base64 -d > probe.py; python3 probe.py {PORT}")
        plain = subprocess.run(
            ["docker", "exec", "-i", made_pair.pair.worker, "python3", "-", str(PORT)],
            input=PROBE,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        yield {"wall": _outcome(inside), "no wall": _outcome(plain)}
    finally:
        listener.kill()
        listener.wait()


def _outcome(printed: str) -> dict[str, list[str]]:
    found = re.search("PROBE(.*)EBORP", printed)
    assert found, printed
    outcome: dict[str, list[str]] = json.loads(base64.b64decode(found[1]))
    return outcome


@pytest.mark.parametrize("row", [*probe.rows(PORT), "uid", "owners"])
def test_the_wall_refuses_what_is_not_the_meter(outcomes: dict[str, dict[str, list[str]]], row: str) -> None:
    verdict, how = outcomes["wall"][row]
    assert verdict == ("open" if row in ALLOWED else "refused"), how
    if row not in ALLOWED | REFUSED_ANYWAY:
        assert outcomes["no wall"][row][0] == "open", "the row cannot fail"


def test_a_task_runs_as_its_own_user_with_no_capability(pair: Pair) -> None:
    seen = [pair.inside("id -u; grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; ulimit -u; umask") for _ in range(2)]
    uids = {text.split("\n")[0] for text in seen}
    assert len(uids) == 2
    assert all(int(uid) >= 2_000_000_000 for uid in uids)
    for text in seen:
        assert set(re.findall(r"Cap\w+:\t(\w+)", text)) == {"0" * 16}
        assert "NoNewPrivs:\t1" in text
        assert "Seccomp:\t2" in text


def test_the_key_is_in_the_agent_s_memory_only(pair: Pair) -> None:
    key = pair.api_process.key
    everything = "/proc/[0-9]*/environ /proc/[0-9]*/cmdline /etc /tmp /var /run /home /root /opt /work /dev/shm"
    found = pair.inside(f"env; grep -rhaoE 'sk-ant-test[a-z0-9-]+' {everything} 2>/dev/null")
    assert "ANTHROPIC_API_KEY=jt-" in found
    assert "sk-ant-" not in found
    for name in (pair.pair.agent, pair.pair.worker):
        assert key not in docker("inspect", name)
        assert key not in docker("logs", name)
        root = [
            "docker",
            "exec",
            "-i",
            "--user",
            "0",
            name,
            "sh",
            "-c",
            f"grep -rlsaF -f /dev/stdin {everything}; true",
        ]
        assert subprocess.run(root, input=key, capture_output=True, text=True, check=True).stdout == ""


def test_two_tasks_at_once_see_nothing_of_each_other(pair: Pair) -> None:
    hold = "echo the-other-task-s-secret | tee ~/secret /tmp/secret > /dev/shm/secret; sleep 5"
    pair.api.rule("keep a secret", bash(hold), {"text": "{tool_result}"})
    task = {"id": new_task_id(), "prompt": "keep a secret", "tools": ["Bash"]}
    with Client(pair.transport()) as client:
        client.submit([task], pair.api_process.key)
        _until(lambda: "secret" in docker("exec", pair.pair.worker, "ls", "/tmp"))
        places = "/work/*/secret /tmp/secret /dev/shm/secret /proc/[0-9]*/cwd/secret"
        seen = pair.inside(f"cat {places} 2>/dev/null; ls /tmp /dev/shm /work/* 2>/dev/null; echo looked")
        assert seen.strip().split("\n")[-1] == "looked"
        assert "secret" not in seen
        client.cancel(str(task["id"]))
    _until(lambda: "secret" not in docker("exec", pair.pair.worker, "ls", "/tmp", "/dev/shm"))


def test_what_a_task_leaves_ends_with_it(pair: Pair) -> None:
    holder = "exec -a farmhand-holder tail -f /dev/null"
    files = "echo left-over | tee ~/x /tmp/x > /dev/shm/x; mkdir -p /tmp/d/e; chmod 0 /tmp/d"
    stop = "setsid bash -c 'kill -STOP $$' & "
    pair.inside(f"{files}; setsid bash -c '{holder}' & {stop} sleep 0.3")
    left = "grep -rls left-over /work /tmp /dev/shm; ls -d /tmp/d; ps -e -o stat=,args= | grep -E '^T|holde[r]'; true"
    _until(lambda: not docker("exec", pair.pair.worker, "sh", "-c", left))


def test_a_task_that_is_cancelled_ends_with_all_it_started(pair: Pair) -> None:
    pair.api.rule("linger", bash("setsid tail -f /dev/null & exec tail -f /dev/null"), {"text": "x"})
    task = {"id": new_task_id(), "prompt": "linger", "tools": ["Bash"]}
    with Client(pair.transport()) as client:
        client.submit([task], pair.api_process.key)
        _until(lambda: "tail" in docker("top", pair.pair.worker))
        client.cancel(str(task["id"]))
    _until(lambda: "tail" not in docker("top", pair.pair.worker))


def test_a_task_dies_at_its_limits_and_the_next_one_runs(pair: Pair) -> None:
    hog = 'python3 -c "b = bytearray(1); \nwhile True: b.extend(bytes(50_000_000))"'
    pair.api.rule("eat memory", bash(f"exec {hog}"), {"text": "{tool_result}"})
    result = pair.run(prompt="eat memory", tools=["Bash"])
    assert result["state"] == "succeeded" or result["error"]["code"] == "memory_limit", result
    pair.api.rule("fork", bash("bomb() { bomb | bomb & }; bomb; sleep 1"), {"text": "{tool_result}"})
    pair.run(prompt="fork", tools=["Bash"])
    assert pair.run(prompt="alive?", engine="cli")["state"] == "succeeded"


def test_two_fork_bombs_at_once_leave_the_launcher_alive(pair: Pair) -> None:
    started = docker("inspect", "--format", "{{.State.StartedAt}}", pair.pair.worker)
    pair.api.rule("fork", bash("bomb() { bomb | bomb & }; bomb; sleep 3"), {"text": "{tool_result}"})
    tasks = [{"id": new_task_id(), "prompt": f"fork {n}", "tools": ["Bash"]} for n in range(4)]
    with Client(pair.transport()) as client:
        client.submit(tasks, pair.api_process.key)
        for task in tasks:
            _until(lambda task=task: client.task(str(task["id"]))["state"] in ("succeeded", "failed"), 120)
    result = pair.run(prompt="alive?", engine="cli")
    assert result["state"] == "succeeded", result["error"]
    assert docker("inspect", "--format", "{{.State.StartedAt}}", pair.pair.worker) == started


def test_the_cli_needs_the_variable_of_its_socket(pair: Pair) -> None:
    """A CLI that stops honouring ANTHROPIC_UNIX_SOCKET must fail here: it is undocumented."""
    assert pair.run(prompt="hello", engine="cli")["text"].startswith("Loopback answer")
    without = "env -u ANTHROPIC_UNIX_SOCKET /usr/bin/claude -p --model claude-haiku-5-5 hello 2>&1 | head -c 300"
    said = pair.inside(f"timeout 20 {without}")
    assert "Loopback answer" not in said


def test_a_worker_without_a_network_is_the_default_and_works(tmp_path: Path) -> None:
    with Pair(tmp_path, "lonely") as lonely:
        assert docker("inspect", "--format", "{{.HostConfig.NetworkMode}}", lonely.pair.worker).strip() == "none"
        # At once: the pair is up when both sockets answer.
        assert lonely.run(prompt="hello", engine="cli")["state"] == "succeeded"


def test_the_other_wall_has_the_meter_on_loopback_and_nothing_else(tmp_path: Path) -> None:
    with Pair(tmp_path, "relay", wall="relay") as fallback:
        assert fallback.run(prompt="hello", engine="cli")["text"].startswith("Loopback answer")
        script = base64.b64encode(PROBE.encode()).decode()
        probed = _outcome(fallback.inside(f"echo {script} | base64 -d > probe.py; python3 probe.py {PORT}"))
        sockets = {"an IPv6 socket", "a UDP socket", "a TCP socket by syscall"}
        assert {row for row, (verdict, _) in probed.items() if verdict == "open"} <= ALLOWED | sockets
        assert "ANTHROPIC_UNIX_SOCKET" not in fallback.inside("env")
        assert fallback.inside("cat /proc/net/route | wc -l").strip() == "1"


def _until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s (line {sys._getframe(1).f_lineno})"
        pause(began, 0.2)
        began = time.monotonic()
