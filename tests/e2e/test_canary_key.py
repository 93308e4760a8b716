"""The canary: after everything an operator does, the key is in its source and in the agent's memory, and nowhere else.

Looking for the key must not itself put it anywhere: it goes to the searching programs by stdin, never as an argument.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.farm import ApiControl, Farm

#: Reads the key from stdin, then looks into the argv and environ of every process of its namespace until stdin closes.
#: The environment is that of the last exec, which has another argv as well; it is read again now and then in any case.
#: An exec comes soon after the process; what has been there for 50 looks is read at each tenth.
WATCH = """
import os, sys, time
key = sys.stdin.buffer.readline().strip()
print("watching", flush=True)
os.set_blocking(0, False)
seen, known, looks, turn = set(), {}, {}, 0

def read(name):
    try:
        with open(name, "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return b""
    if key in text:
        seen.add(name)
    return text

while os.sys.stdin.buffer.raw.read(1) is None:
    turn += 1
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    looks = {pid: looks.get(pid, 0) + 1 for pid in pids}
    known = {pid: known.get(pid) for pid in pids}
    for pid in pids:
        if looks[pid] > 50 and turn % 10:
            continue
        before, known[pid] = known[pid], read(f"/proc/{pid}/cmdline")
        if known[pid] and (turn % 50 == 1 or before != known[pid]):
            read(f"/proc/{pid}/environ")
    time.sleep(0.01)  # a program takes longer to start, and the others need the processor
print("seen", sorted(seen), flush=True)
"""

#: Reads the key from stdin and scans the memory of every process it may, but for those whose name is an argument.
MEMORY = """
import os, sys, glob, re
key = sys.stdin.buffer.read().strip()
found, looked = [], 0
for directory in glob.glob("/proc/[0-9]*"):
    pid = int(directory[6:])
    try:
        name = open(directory + "/comm").read().strip()
        if pid == os.getpid() or name in sys.argv[1:]:
            continue
        ranges = [line.split()[:2] for line in open(directory + "/maps")]
        with open(directory + "/mem", "rb", 0) as memory:
            for span, mode in ranges:
                if "r" not in mode or "w" not in mode:
                    continue
                start, end = (int(x, 16) for x in span.split("-"))
                memory.seek(start)
                try:
                    hit = key in memory.read(end - start)
                except (OSError, ValueError, OverflowError):
                    continue
                if hit:
                    found.append((pid, name))
            looked += 1
    except (OSError, ValueError):
        continue
print(looked, sorted(set(found)))
"""


@contextmanager
def watching(farm: Farm) -> Iterator[None]:
    """While the block runs, no process of the host or of the controller has the key in its argv or environ."""
    on_host = ["docker", "exec", "-i", farm.name, "python3", "-I", "-c", WATCH]
    here = ["python3", "-I", "-c", WATCH]
    watchers = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for argv in (on_host, here)]
    for watcher in watchers:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        watcher.stdin.write(farm.key.encode() + b"\n")
        watcher.stdin.flush()
        assert watcher.stdout.readline() == b"watching\n"
    yield
    for watcher in watchers:
        said, _ = watcher.communicate(timeout=120)
        assert said == b"seen []\n"


def on_host(farm: Farm, program: str, *arguments: str, user: str = "root") -> str:
    """The output of a Python program on the host, run as `user`, that reads the key from stdin."""
    argv = [
        "setpriv",
        f"--reuid={user}",
        "--clear-groups",
        "python3",
        "-I",
        "-c",
        program,
        *arguments,
    ]
    done = farm.exec(*argv, input=farm.key, timeout_s=300)
    assert done.returncode == 0, done
    return done.stdout


def search_files(farm: Farm) -> list[str]:
    """Every file of the host that holds the key."""
    done = farm.exec(
        "grep", "-rlsaF", "--exclude-dir=proc", "--exclude-dir=sys", "-f", "-", "/", input=farm.key, timeout_s=300
    )
    assert done.returncode in {0, 1, 2}, done
    return done.stdout.split()


def controller_files(farm: Farm) -> list[str]:
    """Every file of the operator's checkout, of Ansible and of ssh that holds the key."""
    key = farm.key.encode()
    places = [
        farm.root,
        Path("~/.ansible").expanduser(),
        Path("~/.cache/farmhand/ssh").expanduser(),
        Path("~/.config").expanduser(),
    ]
    found = []
    for place in places:
        for path in place.rglob("*"):
            shared = path.is_relative_to(farm.root / ".venv") or path.is_relative_to(farm.root / ".cache")
            # Ansible's own files come and go, and other tests use it as well.
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and not shared and key in path.read_bytes():
                    found.append(str(path.relative_to(place)))
    return found


def run_everything(farm: Farm, api: ApiControl) -> list[str]:
    """Both engines, module, runner, errors and a crash; returns all that the programs said."""
    tool = {"tool_use": {"name": "Bash", "input": {"command": "env; cat /proc/$PPID/environ", "description": "d"}}}
    api.rule("dump yourself", tool, {"text": "{tool_result}"})
    module = ("farm", "-m", "farmhand_task", "-a", "prompt='hello from the module'")
    done = [
        farm.cheap("hello"),
        farm.cheap("--engine", "cli", "hello"),
        farm.cheap("--tools", "Bash", "dump yourself"),
        farm.ansible(*module, "-vvvv"),
        farm.ansible("run", ".", "--hosts", "farm", *module[1:], program="ansible-runner"),
    ]
    for one in done:
        assert one.returncode == 0, one
    api.fault(kind="status", status=401, message=f"invalid x-api-key {farm.key}")
    refused = farm.cheap("refuse me")
    api.fault(kind="status", status=401, message=f"invalid x-api-key {farm.key}")
    refused_cli = farm.cheap("--engine", "cli", "refuse me")
    api.keys("sk-ant-test-some-other-key-000000")
    failed_module = farm.ansible(*module, "-vvv")
    api.keys(farm.key)
    for one in (refused, refused_cli, failed_module):
        assert one.returncode != 0, one
    return [text for one in [*done, refused, refused_cli, failed_module] for text in (one.stdout, one.stderr)]


def crash(farm: Farm, api: ApiControl) -> None:
    """The agent dies by a signal that dumps core, with a task under way; it comes back and the task goes on."""
    api.fault(kind="slow", delay_s=30, match="survive the crash")
    answer: list[subprocess.CompletedProcess[str]] = []
    client = threading.Thread(target=lambda: answer.append(farm.cheap("survive the crash")))
    client.start()
    for _ in range(2400):
        if any("survive" in str(post.get("body")) for post in api.posts()):
            break
        time.sleep(0.05)
    assert farm.exec("systemctl", "kill", "--signal=SEGV", "jada-agent.service").returncode == 0
    client.join(timeout=120)
    assert answer, "claude-cheap did not come back"
    assert answer[0].returncode == 0, answer[0]
    assert "survive the crash" in answer[0].stdout


@pytest.mark.usefixtures("built_farm")
def test_the_key_is_nowhere(farm: Farm, api: ApiControl) -> None:
    with watching(farm):
        said = run_everything(farm, api)
        crash(farm, api)
        verified = farm.ansible("playbooks/verify.yml", program="ansible-playbook")
        assert verified.returncode == 0, verified
        said += [verified.stdout, verified.stderr]
    assert not [text for text in said if farm.key in text]
    # The shared connections end, and with them the sshd processes that the key passed through.
    farm.close_connections()
    time.sleep(1)
    assert farm.agent("GET", "/v1/status")[1]["key"] is not None, (
        "the agent does not hold the key, so nothing is proven"
    )
    assert search_files(farm) == []
    # The search finds what is there.
    assert farm.exec("sh", "-c", "cat > /srv/planted", input=farm.key).returncode == 0
    try:
        assert search_files(farm) == ["/srv/planted"]
    finally:
        farm.exec("rm", "/srv/planted")
    journal = farm.exec("journalctl", "--no-pager", "-o", "export")
    assert journal.returncode == 0
    assert len(journal.stdout) > 1000
    assert farm.key not in journal.stdout
    assert controller_files(farm) == [".demo/repos.env"]
    looked, found = on_host(farm, MEMORY, "jada-agent").split(" ", 1)
    assert int(looked) > 3
    assert found == "[]\n"
    # The search itself finds what is there: the one process that must hold the key does.
    assert "jada-agent" in on_host(farm, MEMORY)


@pytest.mark.parametrize("user", ["nobody", "farmhand"])
def test_another_user_of_the_host_cannot_read_it(farm: Farm, user: str) -> None:
    assert farm.cheap("bring the key").returncode == 0
    assert on_host(farm, MEMORY, user=user).endswith(" []\n")
    pid = farm.exec("systemctl", "show", "-P", "MainPID", "jada-agent").stdout.strip()
    # The process is jada's, its memory is root's: not even another process of jada may look in.
    assert farm.exec("stat", "-c", "%U", f"/proc/{pid}/mem").stdout == "root\n"
    assert "jada" in farm.exec("ps", "-o", "user=", "-p", pid).stdout
    for name in ("mem", "environ", "maps"):
        peek = farm.exec("setpriv", f"--reuid={user}", "--clear-groups", "head", "-c1", f"/proc/{pid}/{name}")
        assert peek.returncode != 0, name
    ledger = farm.exec("setpriv", f"--reuid={user}", "--clear-groups", "cat", "/var/lib/jada-agent/ledger.db")
    assert ledger.returncode != 0


def test_the_ledger_knows_the_fingerprint_only(farm: Farm) -> None:
    done = farm.cheap("--json", "hello")
    assert json.loads(done.stdout)["state"] == "succeeded"
    fingerprint = farm.agent("GET", "/v1/status")[1]["key"]
    assert len(fingerprint) == 12
    assert fingerprint not in farm.key
    ledger = ("/var/lib/jada-agent/ledger.db-wal", "/var/lib/jada-agent/ledger.db")
    assert farm.exec("grep", "-q", "-a", fingerprint, *ledger).returncode == 0
    assert farm.exec("grep", "-q", "-a", farm.key, *ledger).returncode == 1
