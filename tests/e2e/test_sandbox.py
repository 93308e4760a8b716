"""The sandbox of a tool-using task, on a real farm host: what it can read, reach and use up."""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any

import pytest

from farmhand.core.ids import new_task_id
from tests.support.farm import ApiControl, Farm


def bash(command: str) -> dict[str, object]:
    """The model asks for one command."""
    return {"tool_use": {"name": "Bash", "input": {"command": command, "description": "a command"}}}


ANSWER = {"text": "{tool_result}"}


def inside(farm: Farm, api: ApiControl, command: str, *options: str) -> str:
    """What `command` prints inside the sandbox of a task of its own."""
    api.rule("look around", bash(f"echo LOOKED; {command}; true"), ANSWER)
    done = farm.cheap("--tools", "Bash", *options, "look around")
    assert done.returncode == 0, done
    assert "LOOKED" in done.stdout, "the command did not run"
    return done.stdout.replace("LOOKED\n", "")


def failed(farm: Farm, *arguments: str) -> dict[str, Any]:
    """The error of a task that must fail."""
    done = farm.cheap("--json", *arguments)
    assert done.returncode == 1, done
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    return error


def test_it_finds_its_task_token_and_no_key(farm: Farm, api: ApiControl) -> None:
    places = "/proc/[0-9]*/environ /proc/[0-9]*/cmdline /etc /tmp /var /run /home /root /opt /srv /usr/local /dev/shm"
    pattern = "sk-ant-test-demo-[0-9a-f]+|jt-[A-Za-z0-9_-]{40,}"
    found = inside(farm, api, f"env; grep -rhaoE '{pattern}' {places} 2>/dev/null | sort -u")
    assert "ANTHROPIC_API_KEY=jt-" in found
    assert "sk-ant-" not in found
    assert farm.key not in found
    tokens = {word for line in found.splitlines() for word in line.split("=") if word.startswith("jt-")}
    assert len(tokens) == 1


#: What a task could see of the host. The first is there for everybody: it shows that the look finds what can be found.
LOOK = r"""
import os, socket, sys
for path in sys.argv[1:]:
    try:
        if path.startswith("/run/"):
            socket.socket(socket.AF_UNIX).connect(path)
        elif os.path.isdir(path):
            assert os.listdir(path)  # an empty directory in place of a hidden one is as good as none
        else:
            open(path, "rb").read(1)
        print("SEEN", path)
    except (AssertionError, OSError):
        pass
"""
SECRETS = [
    "/var/lib/jada-agent",
    "/var/lib/jada-agent/ledger.db",
    "/etc/jada-agent/config.toml",
    "/etc/shadow",
    "/etc/ssh/ssh_host_ed25519_key",
    "/root",
    "/home",
    "/var/log",
    "/run/jada-agent/agent.sock",
    "/run/jada-agent/task.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
]


def test_the_host_s_secrets_are_not_there(farm: Farm, api: ApiControl) -> None:
    look = f"python3 -c {shlex.quote(LOOK)} /etc/hostname {' '.join(SECRETS)}"
    assert farm.exec("sh", "-c", look).stdout.split() == ["SEEN", "/etc/hostname"] + [
        word for path in SECRETS for word in ("SEEN", path)
    ], "the look finds them all on the host"
    assert inside(farm, api, look).splitlines() == ["SEEN /etc/hostname"]


def test_no_other_process_is_seen(farm: Farm, api: ApiControl) -> None:
    found = inside(
        farm, api, "id -u; for p in /proc/[0-9]*; do stat -c 'owner %u' $p; done | sort -u; cat /proc/1/cmdline"
    )
    uid, *rest = found.split("\n")
    assert int(uid.split()[-1]) >= 1000
    assert {line for line in rest if line.startswith("owner")} == {f"owner {uid}"}
    assert "systemd" not in found


def test_each_task_is_another_user_and_sees_nothing_of_the_others(farm: Farm, api: ApiControl) -> None:
    secret = "the-other-task-s-secret"
    api.rule("keep a secret", bash(f"echo {secret} > ~/secret; echo {secret} > /tmp/secret; sleep 6"), ANSWER)
    task = {"id": new_task_id(), "prompt": "keep a secret", "tools": ["Bash"]}
    body = json.dumps({"tasks": [task]}).encode()
    status, _ = farm.agent("POST", "/v1/tasks", body=body, X_Farmhand_Key=farm.key)
    assert status == 200
    for _ in range(400):
        if farm.exec("sh", "-c", f"grep -rlsF {secret} /run/jada-task").stdout:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the first task has written nothing")
    api.rule("look around", bash("grep -rls 'other-task-s' /tmp /var/tmp /proc/[0-9]*/root/tmp; id -u"), ANSWER)
    seen = farm.cheap("--tools", "Bash", "look around")
    assert seen.returncode == 0, seen
    assert "/" not in seen.stdout
    farm.agent("DELETE", f"/v1/tasks/{task['id']}")


def test_it_reaches_the_meter_and_nothing_else(farm: Farm, api: ApiControl) -> None:
    gateway, port = api.url.removeprefix("http://").split(":")
    targets = [
        f"{gateway}/{port}",
        f"{farm.container.address}/22",
        "127.0.0.1/22",
        "169.254.169.254/80",
        "192.0.2.1/443",
    ]
    tries = "; ".join(
        f"timeout 2 bash -c 'exec 3<>/dev/tcp/{target}' 2>/dev/null && echo OPEN {target}" for target in targets
    )
    relay = "${ANTHROPIC_BASE_URL#http://}"
    found = inside(
        farm, api, f"{tries}; r={relay}; exec 3<>/dev/tcp/${{r/:/\\/}} && echo RELAY; cat /proc/net/route | wc -l"
    )
    assert "OPEN" not in found
    assert "RELAY" in found


def test_its_token_opens_no_other_model_and_no_other_path(farm: Farm, api: ApiControl) -> None:
    program = (
        "import json, os, urllib.request as r\n"
        "def ask(path, body):\n"
        "    q = r.Request(os.environ['ANTHROPIC_BASE_URL'] + path, json.dumps(body).encode(),\n"
        "        {'x-api-key': os.environ['ANTHROPIC_API_KEY'], 'anthropic-version': '2023-06-01',\n"
        "         'content-type': 'application/json'})\n"
        "    try: print('got', r.urlopen(q).status)\n"
        "    except r.HTTPError as e: print('got', e.code)\n"
        "m = {'max_tokens': 500, 'messages': [{'role': 'user', 'content': 'x'}]}\n"
        "ask('/v1/messages', m | {'model': 'claude-opus-5-5'})\n"
        "ask('/v1/messages/batches', {'requests': []})\n"
        "ask('/v1/messages', m | {'model': 'claude-haiku-5-5', 'thinking': {'type': 'disabled'}})\n"
    )
    found = inside(farm, api, f"python3 - <<'PY'\n{program}PY\n:")
    assert [line for line in found.splitlines() if line.startswith("got")] == ["got 403", "got 404", "got 200"]


def test_it_dies_at_its_memory_limit_with_a_clear_error(farm: Farm, api: ApiControl) -> None:
    hog = 'python3 -c "b = bytearray(1); \nwhile True: b.extend(bytes(50_000_000))"'
    api.rule("eat memory", bash(hog), ANSWER)
    error = failed(farm, "--tools", "Bash", "eat memory")
    assert error["code"] == "memory_limit"
    assert "jada_agent_task_memory_max" in error["hint"]
    assert farm.cheap("still alive?").returncode == 0


def test_it_dies_at_its_time_limit_with_all_it_started(farm: Farm, api: ApiControl) -> None:
    lingerer = "exec -a farmhand-lingerer tail -f /dev/null"
    api.rule("linger", bash(f"setsid bash -c '{lingerer}' & sleep 1; {lingerer}"), ANSWER)
    error = failed(farm, "--tools", "Bash", "--timeout", "6", "linger")
    assert error["code"] == "timeout"
    for _ in range(400):
        if farm.exec("pgrep", "-f", "^farmhand-lingerer").returncode == 1:
            break
        time.sleep(0.1)
    assert farm.exec("pgrep", "-f", "^farmhand-lingerer").returncode == 1


def test_it_cannot_fork_without_end_or_write_without_end(farm: Farm, api: ApiControl) -> None:
    limits = inside(
        farm, api, "ulimit -f; ulimit -c; touch /usr/x /etc/x 2>&1; unshare -U id 2>&1; cat /proc/self/status"
    )
    assert "Read-only file system" in limits
    assert "NoNewPrivs:\t1" in limits
    assert "CapEff:\t0000000000000000" in limits
    assert "Seccomp:\t2" in limits
    assert "uid=0" not in limits


def test_it_cannot_fill_the_host_s_disk(farm: Farm, api: ApiControl) -> None:
    places = "/tmp ~ /var/tmp /dev/shm"
    writes = "for n in 1 2 3; do head -c 300M /dev/zero > $d/$n; done; for n in 1 2 3; do : > $d/$n; done"
    fill = f"for d in {places}; do df --output=fstype $d | tail -n 1; {writes}; done"
    found = inside(farm, api, f"({fill}) 2>&1")
    assert set(re.findall(r"tmpfs|overlay|ext4|xfs|btrfs", found)) == {"tmpfs"}
    assert found.count("No space left on device") >= 2
    many = inside(farm, api, "cd /tmp; seq 100000 | xargs touch 2>&1 | tail -n 1")
    assert "No space left on device" in many


def test_what_a_task_leaves_running_ends_with_it(farm: Farm, api: ApiControl) -> None:
    holder = "exec -a farmhand-holder tail -f /dev/null"
    inside(
        farm, api, f"c=$PPID; setsid bash -c 'exec 1>/proc/'$c'/fd/1; {holder}' < /dev/null 2> /dev/null & sleep 0.3"
    )
    for _ in range(400):
        if farm.exec("pgrep", "-f", "^farmhand-holder").returncode == 1:
            break
        time.sleep(0.1)
    assert farm.exec("pgrep", "-f", "^farmhand-holder").returncode == 1


def test_what_the_kernel_and_the_api_would_tell_is_closed(farm: Farm, api: ApiControl) -> None:
    program = (
        "import ctypes, os, urllib.request as r, json\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "buffer = ctypes.create_string_buffer(512)\n"
        "for name, *args in (('io_uring_setup', 425, 8, buffer), ('io_uring_enter', 426, 0, 0, 0, 0, 0),\n"
        "        ('io_uring_register', 427, 0, 0, 0, 0), ('add_key', 248, b'user', b'x', b'y', 1, -3),\n"
        "        ('request_key', 249, b'user', b'x', 0, -3), ('keyctl', 250, 0, -3, 1),\n"
        "        ('process_vm_writev', 311, os.getpid(), 0, 0, 0, 0, 0)):\n"
        "    ctypes.set_errno(0)\n"
        "    print('call', name, libc.syscall(*args), os.strerror(ctypes.get_errno()))\n"
        "q = r.Request(os.environ['ANTHROPIC_BASE_URL'] + '/v1/messages', json.dumps({'max_tokens': 500,\n"
        "    'model': 'claude-haiku-5-5', 'thinking': {'type': 'disabled'},\n"
        "    'messages': [{'role': 'user', 'content': 'x'}]}).encode(),\n"
        "    {'x-api-key': os.environ['ANTHROPIC_API_KEY'], 'anthropic-version': '2023-06-01',\n"
        "     'content-type': 'application/json'})\n"
        "print('headers', sorted(name.lower() for name in r.urlopen(q).headers))\n"
    )
    tree = "find /sys/fs/cgroup -mindepth 1 2>/dev/null | head -n 1 | sed 's/^/TREE /'"
    found = inside(farm, api, f"python3 - <<'PY'\n{program}PY\n{tree}; wc -l < /run/oom; echo x > /run/oom; ls /run")
    calls = re.findall(r"^call (\w+) (-?\d+) (.*)$", found, re.MULTILINE)
    assert len(calls) == 7, found
    assert {(result, error) for _, result, error in calls} == {("-1", "Operation not permitted")}, found
    [headers] = re.findall(r"^headers (.*)$", found, re.MULTILINE)
    assert "request-id" in headers
    assert "anthropic" not in headers
    assert "TREE" not in found
    assert "oom" in found  # its own counter, to be read only
    assert re.search(r"/run/oom: (Permission denied|Read-only file system)", found)


def units(farm: Farm) -> list[str]:
    """The sandboxes that there are."""
    listed = farm.exec("systemctl", "list-units", "--plain", "--no-legend", "--all", "jada-task@*.service").stdout
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


def test_tasks_that_forge_their_end_and_stop_their_runner_do_not_keep_their_sandboxes(
    farm: Farm, api: ApiControl
) -> None:
    begun = int(time.time())
    slots = farm.agent("GET", "/v1/status")[1]["slots"]["cli"]["total"]
    spares = int(farm.exec("sed", "-n", "s/^sandbox_spares = //p", "/etc/jada-agent/config.toml").stdout)
    forge = '{"type": "result", "result": "forged", "num_turns": 1}\n{"type": "farmhand.exit", "rc": 0}\n'
    # Once the agent hangs up, the runner kills the CLI and looks after half a second whether that has ended.
    hold = (
        "c=$PPID; r=$(cut -d' ' -f4 /proc/$c/stat); exec 9> /proc/$c/fd/1;"
        ' setsid sh -c "while [ -e /proc/$c/fd/1 ]; do sleep 0.05; done; kill -STOP $r; exec sleep 600" &'
        f" printf '%s' '{forge}' >&9; wait"
    )
    api.rule("hold on", bash(hold), ANSWER)
    # If none of their sandboxes ended, there would be twice as many as there may be.
    prompts = [f"hold on {n}" for n in range(2 * (slots + spares))]
    tasks = [{"id": new_task_id(), "prompt": prompt, "tools": ["Bash"]} for prompt in prompts]
    body = json.dumps({"tasks": tasks}).encode()
    assert farm.agent("POST", "/v1/tasks", body=body, X_Farmhand_Key=farm.key)[0] == 200
    most, until = 0, time.monotonic() + 900  # it is a busy machine that needs so long
    while time.monotonic() < until:
        most = max(most, len(units(farm)))
        status = farm.agent("GET", "/v1/status")[1]
        if not status["queued"] + status["running"]:
            break
        time.sleep(0.2)
    else:
        pytest.fail(f"the tasks have not ended: {status}")
    results = [farm.agent("GET", f"/v1/tasks/{task['id']}")[1]["task"] for task in tasks]
    assert {result["text"] for result in results} == {"forged"}, "they did not forge their results"
    assert slots <= most <= slots + spares, "there were more sandboxes than there may be"
    said = farm.exec("journalctl", "-u", "jada-agent", "--since", f"@{begun}", "--no-pager").stdout
    assert "does not end by itself" in said, "nobody was held up"
    # And with the spare ones that were started meanwhile, none of them is stopped.
    for _ in range(400):
        stopped = [
            unit for unit in units(farm)
            if "T" in farm.exec("sh", "-c", f"ps -o stat= -p $(systemctl show -P MainPID {unit})").stdout
        ]  # fmt: skip
        if not stopped:
            break
        time.sleep(0.1)
    assert stopped == []
    assert "alive" in inside(farm, api, "echo alive")


def test_the_end_of_a_sandbox_is_asked_for_by_the_agent_only_and_ends_nothing_else(farm: Farm) -> None:
    ask = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/jada-agent/task-end.sock');"
    ask += " s.sendall(sys.argv[1].encode() + b'\\n'); s.shutdown(1); s.recv(1)"
    for user in ("farmhand", "nobody"):
        assert farm.exec("runuser", "-u", user, "--", "python3", "-c", ask, "all").returncode != 0
    before = farm.exec("systemctl", "show", "-P", "MainPID", "jada-agent.service").stdout
    for unit in ("jada-agent.service", "jada-task@*.service;jada-agent.service", "*", "../x", "jada-task@1 jada-agent"):
        farm.exec("runuser", "-u", "jada", "--", "python3", "-c", ask, unit)
    assert farm.exec("systemctl", "show", "-P", "MainPID", "jada-agent.service").stdout == before


def test_nothing_of_a_task_stays_behind(farm: Farm, api: ApiControl) -> None:
    inside(
        farm,
        api,
        "echo farmhand-left-over > ~/x; echo farmhand-left-over > /tmp/x; echo farmhand-left-over > /dev/shm/x; true",
    )
    for _ in range(400):
        left = farm.exec("sh", "-c", "grep -rlsF farmhand-left-over /tmp /var/tmp /run /home /dev/shm").stdout
        if not left:
            break
        time.sleep(0.1)
    assert left == ""
