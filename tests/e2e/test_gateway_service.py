"""The gateway as a user's service under real systemd: playbooks/gateway.yml on a host, with a user who lingers."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.farm.container import Container
from tests.support.farm.image import host_image
from tests.support.farm.run import Completed, run

ROOT = Path(__file__).resolve().parents[2]
UNIT = "farmhand-gateway.service"
USER, HOME = "op", "/home/op"
CONFIG = f"{HOME}/.config/farmhand/gateway.toml"
PATIENCE_S = 120.0
#: The base image has no libpam-systemd, which would name the directory to the user's manager.
MAKE_USER = f"""set -e
useradd --create-home --shell /bin/bash {USER}
mkdir -p /etc/systemd/system/user@.service.d
printf '[Service]\\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\\n' > /etc/systemd/system/user@.service.d/runtime.conf
systemctl daemon-reload
loginctl enable-linger {USER}
install -d -o {USER} -g {USER} {HOME}/.local {HOME}/.local/bin {HOME}/.config -m 0700 {HOME}/.config/farmhand
ln -s /opt/jada-agent/bin/farmhand {HOME}/.local/bin/farmhand
"""
#: A model server: a streamed answer's second half waits until there is a file /tmp/go.
MODEL = r"""
import http.server, json, pathlib, sys, time
class Model(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = {"/v1/models": {"data": [{"id": "m", "owned_by": "llamacpp"}]},
                 "/props": {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 4}}
        self.send_response(200 if self.path in known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(known.get(self.path, {})).encode())
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for text, finish in (("FIRST", None), ("LAST", "stop")):
            while finish and not pathlib.Path("/tmp/go").exists():
                time.sleep(0.05)
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
            self.wfile.write(b"data: " + json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode() + b"\n\n")
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Model).serve_forever()
"""
TURN = r"""
import json, pathlib, sys, urllib.request
token = pathlib.Path("/home/op/.local/state/farmhand/gateway.token").read_text().strip()
body = {"model": "farmhand/chat", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
headers = {"authorization": "Bearer " + token, "content-type": "application/json"}
url = "http://127.0.0.1:7345/v1/chat/completions"
with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=300) as answer:
    for line in answer:
        print(line.decode().strip(), flush=True)
"""
SETTINGS = '[local.one]\nurl = "http://127.0.0.1:8080"\n'


class Station:
    """A container with real systemd, and a user whose manager runs."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def op(self, *argv: str, text: str | None = None) -> Completed:
        """Run `argv` as the user, as in a terminal of theirs."""
        environment = ["--env", f"HOME={HOME}", "--env", f"XDG_RUNTIME_DIR=/run/user/{self.uid}"]
        return run(
            ["docker", "exec", "--interactive", "--user", USER, *environment, self.container.name, *argv],
            input=text,
            timeout_s=PATIENCE_S,
        )

    def background(self, program: str) -> subprocess.Popen[str]:
        """A Python program of the user, running."""
        argv = ["docker", "exec", "--user", USER, self.container.name, "/usr/bin/python3", "-c", program]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def systemctl(self, *argv: str) -> Completed:
        return self.op("systemctl", "--user", *argv)

    def shown(self, *properties: str) -> dict[str, str]:
        """Properties of the unit, as systemd loaded it."""
        out = self.systemctl("show", UNIT, "--property", ",".join(properties)).stdout
        return dict(line.split("=", 1) for line in out.splitlines())

    def put(self, path: str, text: str, mode: str = "600") -> None:
        done = self.op("sh", "-c", f"cat > {path} && chmod {mode} {path}", text=text)
        assert done.returncode == 0, done.stderr

    def states(self) -> dict[str, str]:
        """Backend → why it takes no turns, "" if it does."""
        done = self.op(f"{HOME}/.local/bin/farmhand", "gateway", "status", "--json")
        found = json.loads(done.stdout)["states"] if done.returncode == 0 else []
        return {state["name"]: (state["closed"] or {}).get("code", "") for state in found}

    def play(self, *options: str, status: int = 0) -> int:
        """Run the playbook on it, as this user; how many tasks changed something."""
        variables = {
            "ansible_connection": "community.docker.docker",
            "ansible_host": self.container.name,
            "ansible_user": USER,
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_remote_tmp": "/tmp/.ansible-op",
            "gateway_home": HOME,
            "gateway_config_dir": f"{HOME}/.config",
            "gateway_state_dir": f"{HOME}/.local/state",
            "gateway_manager": "systemd",
        }
        argv = ["ansible-playbook", "playbooks/gateway.yml", "--extra-vars", json.dumps(variables), *options]
        done = run(argv, cwd=ROOT, timeout_s=600)
        assert done.returncode == status, done.stdout + done.stderr
        match = re.search(r"changed=(\d+)", done.stdout)
        assert match
        return int(match[1])

    @property
    def uid(self) -> str:
        return self.container.exec("id", "-u", USER).stdout.strip()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.journal()
            time.sleep(0.2)

    def journal(self) -> str:
        return self.container.exec("journalctl", "-n", "60", "--no-pager", "-o", "cat").stdout


@pytest.fixture(scope="module")
def station() -> Iterator[Station]:
    name = f"farmhand-gateway-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
    made = Station(Container(name, hostname="station", image=host_image()))
    try:
        made.container.start()
        done = made.container.exec("sh", "-c", MAKE_USER)
        assert done.returncode == 0, done.stderr
        made.until(lambda: made.systemctl("is-system-running").stdout.strip() == "running")
        made.put(CONFIG, SETTINGS)
        yield made
    finally:
        made.container.remove()


def test_its_life(station: Station) -> None:
    before = station.op("find", f"{HOME}/.config").stdout
    model = station.background(MODEL)
    try:
        _life(station)
    finally:
        print(station.journal())
        model.kill()
        model.wait()
    # Absent takes back what present made; settings, token and ledger are the operator's.
    assert station.play("-e", "farmhand_state=absent", "--check") == station.play("-e", "farmhand_state=absent")
    assert UNIT not in station.systemctl("list-units", "--all", "--plain", "--no-legend").stdout
    after = station.op("find", f"{HOME}/.config").stdout
    assert set(after.splitlines()) - set(before.splitlines()) == {CONFIG.replace(".toml", ".env")}  # the operator's
    assert station.op("sh", "-c", f"ps -u {USER} -o args | grep -c '[g]ateway serve'").stdout.strip() == "0"


def _life(station: Station) -> None:
    # A unit of another user is not taken over, although the directory would allow it.
    path = f"{HOME}/.config/systemd/user/{UNIT}"
    assert station.op("mkdir", "--parents", path.removesuffix(UNIT)).returncode == 0
    assert station.container.exec("touch", path).returncode == 0
    assert station.play(status=2) == 0
    assert station.container.exec("rm", path).returncode == 0
    assert station.play("--check") > 0
    assert UNIT not in station.op("find", HOME).stdout
    assert station.play() > 0
    # `start` has waited for the readiness that the gateway told.
    shown = station.shown("ActiveState", "Type", "Restart", "StatusText", "UnitFileState")
    assert shown == {
        "ActiveState": "active",
        "Type": "notify",
        "Restart": "on-failure",
        "StatusText": "serving",
        "UnitFileState": "enabled",
    }
    hardened = {
        "NoNewPrivileges": "yes",
        "LockPersonality": "yes",
        "RestrictRealtime": "yes",
        "RestrictSUIDSGID": "yes",
        "UMask": "0077",
        "LimitCORE": "0",
    }
    assert station.shown(*hardened) == hardened
    pid = station.shown("MainPID")["MainPID"]
    assert re.search(r"^Seccomp:\t2$", station.container.exec("cat", f"/proc/{pid}/status").stdout, re.M)
    listening = [line.split()[1] for line in station.container.exec("cat", "/proc/net/tcp").stdout.splitlines()[1:]]
    assert [one for one in listening if one.endswith(f":{7345:04X}")] == [f"0100007F:{7345:04X}"]
    assert (verified := station.op("systemd-analyze", "--user", "verify", path)).returncode == 0, verified.stderr
    assert station.play() == 0
    station.until(lambda: station.states().get("local:one") == "")

    # Reload: whole or not at all, and systemctl says which.
    station.put(CONFIG, SETTINGS + SETTINGS.replace("one", "two"))
    assert station.systemctl("reload", UNIT).returncode == 0
    assert "local:two" in station.states()
    station.put(CONFIG, "[[[")
    assert station.systemctl("reload", UNIT).returncode != 0
    assert station.shown("ActiveState", "MainPID") == {"ActiveState": "active", "MainPID": pid}
    station.put(CONFIG, SETTINGS)  # not read yet
    assert "local:two" in station.states()

    # It comes back after a failure.
    assert station.container.exec("kill", "-KILL", pid).returncode == 0
    station.until(lambda: station.shown("MainPID", "NRestarts", "StatusText").get("NRestarts") == "1")
    station.until(lambda: station.states().get("local:one") == "")
    assert station.shown("MainPID")["MainPID"] not in ("0", pid)

    # A stop lets an open turn end.
    turn = station.background(TURN)
    assert turn.stdout is not None
    first = next(line for line in turn.stdout if "FIRST" in line)
    assert station.systemctl("stop", "--no-block", UNIT).returncode == 0
    station.until(lambda: station.shown("ActiveState")["ActiveState"] == "deactivating")
    station.op("touch", "/tmp/go")
    rest = turn.stdout.read()
    assert turn.wait() == 0
    assert ("LAST" in rest, "[DONE]" in rest) == (True, True), first + rest
    station.until(lambda: station.shown("ActiveState")["ActiveState"] == "inactive")
    assert station.shown("Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}

    # What no start mends is not tried again: wrong settings, and keys that others can read.
    env = CONFIG.replace(".toml", ".env")
    for path, text, mode in ((CONFIG, "[[[", "600"), (env, "export A_KEY=sk-ant-test-CANARY\n", "644")):
        station.put(path, text, mode)
        assert station.systemctl("start", UNIT).returncode != 0
        shown = station.shown("ActiveState", "ExecMainStatus", "NRestarts")
        assert shown == {"ActiveState": "failed", "ExecMainStatus": "3", "NRestarts": "0"}, station.journal()
        station.put(CONFIG, SETTINGS)
    assert f"chmod 600 {env}" in station.journal()
    station.op("chmod", "600", env)
    assert station.systemctl("start", UNIT).returncode == 0
    assert "CANARY" not in station.journal() + station.systemctl("show", UNIT).stdout
