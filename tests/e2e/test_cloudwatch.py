"""A farm host that pushes its metrics: what a check says of it, what it does, who can read its key, and how it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import pytest

from tests.e2e.test_site_variables import changes, looks, site
from tests.support.alarm_states import sum_of
from tests.support.fakeaws import FakeAws
from tests.support.farm import Farm
from tests.support.farm.image import REFRESH
from tests.support.farm.run import Completed

UNIT, TIMER = "jada-cloudwatch.service", "jada-cloudwatch.timer"
#: An access key that is nobody's: whatever AWS the double is takes it.
CANARY = "canary/AWS/secret/0123456789abcdefghijkl"
KEY_FILE = f"[default]\naws_access_key_id = AKIATESTCANARY000000\naws_secret_access_key = {CANARY}\n"
#: What this is not about.
_SKIP = ("--skip-tags", "packages,ca,accounts,sshd,scrub,claude_cli")
#: The step that sets its units up, or takes them away.
_STEP = ("--tags", "cloudwatch")
#: A check runs no command, and starts nothing that it did not write.
_FOLLOWS = re.compile(r"jada_agent : (Install|Push every minute|Restart the timer|Listen|Serve)")
CALL = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("/run/jada-agent/agent.sock")
s.sendall(f"{sys.argv[1]} HTTP/1.1\\r\\nHost: a\\r\\nX-Farmhand-Wire: 1\\r\\nConnection: close\\r\\n\\r\\n".encode())
print(s.recv(65536).decode().splitlines()[0])
"""


@dataclass
class Pushing:
    """The farm, which pushes into `aws`, and how it came to that."""

    farm: Farm
    aws: FakeAws
    values: str
    #: What the check said, what it left, what the run did, and what a second run did.
    announced: Completed
    looks: tuple[str, str]
    done: Completed
    again: Completed

    def push(self) -> Completed:
        """One push, now."""
        return self.farm.exec("systemctl", "start", UNIT)

    def show(self, unit: str) -> dict[str, str]:
        """The unit's properties as systemd has loaded it."""
        lines = self.farm.exec("systemctl", "show", "--all", "--no-pager", unit).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture(scope="module")
def pushing(built_farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushing]:
    farm = built_farm
    key_file = tmp_path_factory.mktemp("aws") / "metrics"
    key_file.write_text(KEY_FILE)
    key_file.chmod(0o600)
    with FakeAws(host=farm.container.gateway) as aws:
        values = json.dumps(
            {
                "farmhand_cloudwatch": True,
                "jada_agent_cloudwatch_region": "us-east-1",
                "jada_agent_cloudwatch_host": "box.1",
                "jada_agent_cloudwatch_key_file": str(key_file),
                "jada_agent_cloudwatch_endpoint_url": aws.url,
            }
        )
        before = looks(farm)
        announced = site(farm, *_SKIP, "--check", "--diff", "-e", values)
        left = looks(farm)
        done = site(farm, *_SKIP, "--diff", "-e", values)
        again = site(farm, *_SKIP, "-e", values)
        yield Pushing(farm, aws, values, announced, (before, left), done, again)
    if farm.exec("test", "-e", f"/etc/systemd/system/{UNIT}").returncode == 0:  # if its removal has failed
        farm.build(*REFRESH)


def test_what_a_check_announces_is_what_the_run_does_and_a_second_run_changes_nothing(pushing: Pushing) -> None:
    assert pushing.looks[0] == pushing.looks[1]
    announced, done = changes(pushing.announced), changes(pushing.done)
    assert "jada_agent : Copy its key" in announced
    assert [what for what in done if not _FOLLOWS.match(what)] == [
        what for what in announced if not _FOLLOWS.match(what)
    ]
    assert changes(pushing.again) == []
    # What one look found right is not looked at again: units that run, and files.
    for step in ("Listen", "Serve", "Write the settings", "Put the command on the PATH"):
        assert re.search(rf"TASK \[jada_agent : {step}\][ *]+\nskipping: \[farm1\]\n\n", pushing.again.stdout), step
    for said in (pushing.announced, pushing.done):
        assert f"+  --environment prod --host box.1 --region us-east-1 --endpoint-url {pushing.aws.url}" in said.stdout
        assert CANARY not in said.stdout + said.stderr


def test_what_the_farm_spends_is_in_cloudwatch(pushing: Pushing) -> None:
    farm, here = pushing.farm, {"Environment": "prod", "Host": "box.1"}
    assert pushing.push().returncode == 0
    before = farm.agent("GET", "/v1/usage")[1]
    assert farm.cheap("How much is it?").returncode == 0
    assert pushing.push().returncode == 0
    after = farm.agent("GET", "/v1/usage")[1]
    usd = Decimal(str(after["cost_usd"])) - Decimal(str(before["cost_usd"]))
    assert usd > 0
    assert Decimal(str(sum_of(pushing.aws, "CostUsd", **here))).quantize(Decimal("1e-9")) == usd.quantize(
        Decimal("1e-9")
    )
    assert sum_of(pushing.aws, "Requests", **here) == 1
    assert farm.agent("GET", "/v1/status")[1]["cloudwatch"]["problem"] == ""
    assert pushing.show(TIMER)["ActiveState"] == "active"
    assert pushing.show(TIMER)["UnitFileState"] == "enabled"


def test_the_key_is_for_that_unit_alone(pushing: Pushing) -> None:
    farm = pushing.farm
    for user in ("jada", "farmhand", "nobody"):
        done = farm.exec("runuser", "-u", user, "--", "cat", "/etc/jada-cloudwatch/key")
        assert (done.returncode, done.stdout) == (1, ""), user
    own = farm.exec("runuser", "-u", "jada-cloudwatch", "--", "cat", "/etc/jada-cloudwatch/key")
    assert CANARY in own.stdout
    everywhere = f"grep -rlsF --devices=skip -e {CANARY} /etc /home /opt /root /run /srv /tmp /usr/local /var"
    assert farm.exec("sh", "-c", everywhere).stdout.split() == ["/etc/jada-cloudwatch/key"]
    assert (
        CANARY
        not in farm.exec("sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '").stdout
    )
    assert CANARY not in farm.exec("journalctl", "--no-pager", "-o", "verbose").stdout
    assert CANARY not in json.dumps(pushing.show(UNIT))
    tool = {
        "tool_use": {"name": "Bash", "input": {"command": "cat /etc/jada-cloudwatch/key; ls /run", "description": "d"}}
    }
    farm.api.rule("look for it", tool, {"text": "{tool_result}"})
    seen = farm.cheap("--tools", "Bash", "look for it")
    assert seen.returncode == 0, seen
    assert CANARY not in seen.stdout


def test_the_unit_can_read_figures_and_nothing_else(pushing: Pushing) -> None:
    def heard(what: str) -> str:
        user = ("--reuid", "jada-cloudwatch", "--regid", "jada-cloudwatch", "--groups", "farmhand")
        return pushing.farm.exec("setpriv", *user, "/usr/bin/python3", "-I", "-c", CALL, what).stdout

    for what in ("GET /metrics", "GET /v1/status", "GET /v1/charges"):
        assert " 200 " in heard(what), what
    for what in ("POST /v1/tasks", "GET /v1/tasks", "GET /v1/results?batch=a", "PUT /v1/key", "PUT /v1/drain"):
        assert " 403 " in heard(what), what


HARDENED = {
    **{"User": "jada-cloudwatch", "Group": "jada-cloudwatch", "Type": "oneshot", "UMask": "0077"},
    **{"NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "ProtectSystem": "strict"},
    **{
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "PrivateIPC": "yes",
        "KeyringMode": "private",
    },
    **{"ProtectProc": "invisible", "ProcSubset": "pid", "ProtectClock": "yes", "ProtectControlGroups": "yes"},
    **{"ProtectHostname": "yes", "ProtectKernelLogs": "yes", "ProtectKernelModules": "yes"},
    **{"ProtectKernelTunables": "yes", "RestrictNamespaces": "yes", "RestrictRealtime": "yes"},
    **{"RestrictSUIDSGID": "yes", "MemoryDenyWriteExecute": "yes", "LockPersonality": "yes", "LimitCORE": "0"},
    **{"MemoryMax": str(256 << 20), "MemorySwapMax": "0", "TasksMax": "16", "NeedDaemonReload": "no"},
    **{"SupplementaryGroups": "farmhand", "StateDirectoryMode": "0755", "SystemCallArchitectures": "native"},
}


def test_hardening_as_systemd_loaded_it(pushing: Pushing) -> None:
    loaded = pushing.show(UNIT)
    assert {name: loaded[name] for name in HARDENED} == HARDENED
    assert sorted(loaded["RestrictAddressFamilies"].split()) == ["AF_INET", "AF_INET6", "AF_UNIX"]
    denied = loaded["IPAddressDeny"]
    assert "169.254.169.254/32" in denied
    verified = pushing.farm.ansible(
        "playbooks/verify.yml", "-e", pushing.values, "-e", "verify_canary=false", program="ansible-playbook"
    )
    assert verified.returncode == 0, verified.stdout[-3000:]


def test_an_outage_is_said_and_touches_no_task(pushing: Pushing) -> None:
    farm = pushing.farm
    farm.exec("sh", "-c", f"mkdir -p /run/systemd/system/{UNIT}.d")
    drop_in = "[Service]\nEnvironment=AWS_ACCESS_KEY_ID= AWS_SHARED_CREDENTIALS_FILE=/dev/null\n"
    farm.exec("tee", f"/run/systemd/system/{UNIT}.d/test.conf", input=drop_in)
    farm.exec("systemctl", "daemon-reload")
    try:
        assert pushing.push().returncode != 0
        assert farm.cheap("Still there?").returncode == 0
        note = farm.agent("GET", "/v1/status")[1]["cloudwatch"]
        assert note["at"]
        assert "NoCredentialsError" in note["problem"]
        assert "NoCredentialsError" in farm.exec("journalctl", "-u", UNIT, "-n", "20", "-o", "cat").stdout
    finally:
        farm.exec("rm", "-r", f"/run/systemd/system/{UNIT}.d")
        farm.exec("systemctl", "daemon-reload")
    assert pushing.push().returncode == 0


def test_without_the_variable_units_and_key_go(pushing: Pushing) -> None:
    farm = pushing.farm
    said = site(farm, *_STEP, "--check")
    assert any("Remove units and key" in what for what in changes(said))
    done = site(farm, *_SKIP)
    assert any("Remove units and key" in what for what in changes(done))
    assert farm.exec("systemctl", "is-active", TIMER).returncode != 0
    for path in (f"/etc/systemd/system/{UNIT}", f"/etc/systemd/system/{TIMER}", "/etc/jada-cloudwatch"):
        assert farm.exec("test", "-e", path).returncode == 1, path
    assert farm.agent("GET", "/v1/status")[1]["cloudwatch"] is None
    assert farm.cheap("And without?").returncode == 0
    assert changes(site(farm, *_STEP)) == []
