"""The role `gateway` in a home of its own: unit and agent as text, check mode, a second run, absent, what it refuses.

That real systemd runs the unit is shown by tests/e2e/test_gateway_service.py. No launchd is here: a stand-in for
launchctl keeps what is loaded, and the agent is judged by its text.
"""

from __future__ import annotations

import asyncio
import json
import os
import plistlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked_modules import FORKED

CHECKOUT = Path(__file__).resolve().parents[3]
#: Keeps the loaded agent as a file beside it, and notes each call but the questions. As launchd does, it
#: knows the label for a while after bootout, and fails to load it meanwhile; the first load fails without a reason.
LAUNCHCTL = """#!/bin/sh
cd "$(dirname "$0")"
case $1 in
print)
    if test -e draining; then
        rm draining
    else
        test -e loaded
    fi ;;
bootstrap)
    if test -e draining -o -e loaded -o ! -e tried; then
        touch tried
        echo "Bootstrap failed: 5: Input/output error" >&2
        exit 5
    fi
    cp "$3" loaded && echo "$@" >> calls ;;
bootout) touch draining && rm loaded && echo "$@" >> calls ;;
*) exit 64 ;;
esac
"""


@dataclass
class Operator:
    """A home in which `farmhand` is installed; no manager of this user runs."""

    home: Path

    def __post_init__(self) -> None:
        self.put(".local/bin/farmhand", "#!/bin/sh\n", 0o755)
        self.put("bin/launchctl", LAUNCHCTL, 0o755)
        # The machine's own manager is not this home's.
        self.put("bin/systemctl", "#!/bin/sh\nexit 1\n", 0o755)

    def put(self, name: str, text: str, mode: int) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def files(self) -> set[str]:
        """What is there, but what Ansible keeps for itself."""
        found = {str(path.relative_to(self.home)) for path in self.home.rglob("*")}
        return {name for name in found if not name.startswith((".ansible", ".cache", "bin"))}

    async def play(self, *options: str, status: int = 0, **variables: Any) -> str:
        process = await asyncio.create_subprocess_exec(
            *("ansible-playbook", "playbooks/gateway.yml", "-e", json.dumps(variables), *options),
            env={
                **FORKED,
                "PATH": f"{self.home}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(self.home),
                "LANG": "C.UTF-8",
                "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
                "ANSIBLE_LOCALHOST_WARNING": "False",
                "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
            },
            cwd=CHECKOUT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out = (await asyncio.wait_for(process.communicate(), 300))[0].decode()
        assert process.returncode == status, out
        return out


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def changed(out: str) -> int:
    match = re.search(r"changed=(\d+)", out)
    assert match, out
    return int(match[1])


def options(unit: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))


async def test_the_unit(operator: Operator) -> None:
    operator.put(".config/systemd/user/default.target.wants/other.service", "", 0o644)
    before = operator.files()
    path = operator.home / ".config/systemd/user/farmhand-gateway.service"
    foreseen = await operator.play("--check", "--diff", gateway_manager="systemd")
    assert operator.files() == before
    assert "+ExecStart=" in foreseen
    done = await operator.play(gateway_manager="systemd")
    assert changed(done) == changed(foreseen) == 2
    assert "starts at the next login" in done
    unit = options(path.read_text())
    assert unit["ExecStart"] == f"{operator.home}/.local/bin/farmhand gateway serve"
    # The gateway reads gateway.env itself: systemd would write the lines that it does not know into the journal.
    assert "EnvironmentFile" not in unit
    assert "XDG_" not in path.read_text()
    assert (unit["Type"], unit["Restart"], unit["NoNewPrivileges"]) == ("notify", "on-failure", "yes")
    link = operator.home / ".config/systemd/user/default.target.wants/farmhand-gateway.service"
    assert link.resolve() == path
    assert changed(await operator.play(gateway_manager="systemd")) == 0
    # Token and ledger are where the operator's shell has them.
    await operator.play(gateway_manager="systemd", gateway_state_dir=f"{operator.home}/state")
    assert f"Environment=XDG_STATE_HOME={operator.home}/state\n" in path.read_text()
    await operator.play(gateway_manager="systemd")
    # Another package is another unit, so that the running process is replaced.
    operator.put(".local/share/farmhand/installed", "wheel 2\n", 0o644)
    assert changed(await operator.play(gateway_manager="systemd")) == 1
    foreseen = await operator.play("--check", gateway_manager="systemd", farmhand_state="absent")
    assert path.exists()
    gone = await operator.play(gateway_manager="systemd", farmhand_state="absent")
    assert changed(gone) == changed(foreseen) == 1
    left = [name for name in operator.files() if "gateway" in name or "wants/" in name]
    assert left == [".config/systemd/user/default.target.wants/other.service"]
    assert changed(await operator.play(gateway_manager="systemd", farmhand_state="absent")) == 0


async def test_the_agent(operator: Operator) -> None:
    home = operator.home
    path, calls = home / "Library/LaunchAgents/farmhand.gateway.plist", home / "bin/calls"
    operator.put(".local/share/farmhand/installed", "-- 1 --\n", 0o644)
    await operator.play(gateway_manager="launchd", gateway_config_dir=f"{home}/etc", gateway_state_dir=f"{home}/state")
    agent = plistlib.loads(path.read_bytes())
    log = f"{home}/Library/Logs/farmhand-gateway.log"
    assert agent == {
        "Label": "farmhand.gateway",
        "ProgramArguments": [f"{home}/.local/bin/farmhand", "gateway", "serve"],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ExitTimeOut": 45,
        "Umask": 0o077,
        "EnvironmentVariables": {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "XDG_CONFIG_HOME": f"{home}/etc",
            "XDG_STATE_HOME": f"{home}/state",
        },
        "HardResourceLimits": {"Core": 0},
        "SoftResourceLimits": {"NumberOfFiles": 8192},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    assert path.stat().st_mode & 0o777 == 0o644
    assert (home / "bin/loaded").read_bytes() == path.read_bytes()
    same: dict[str, Any] = {"gateway_config_dir": f"{home}/etc", "gateway_state_dir": f"{home}/state"}
    assert changed(await operator.play(gateway_manager="launchd", **same)) == 0
    await operator.play(gateway_manager="launchd")  # other settings: unloaded and loaded again
    verbs = [line.split()[0] for line in calls.read_text().splitlines()]
    assert verbs == ["bootstrap", "bootout", "bootstrap"]
    assert "XDG_CONFIG_HOME" not in plistlib.loads(path.read_bytes())["EnvironmentVariables"]
    await operator.play(gateway_manager="launchd", farmhand_state="absent")
    assert not path.exists()
    assert not (home / "bin/loaded").exists()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"gateway_command": "/nowhere/farmhand"}, "run playbooks/workstation.yml"),
        ({"gateway_command": "/x/farm hand"}, "without spaces"),
        ({"gateway_manager": "runit"}, "launchd"),
    ],
)
async def test_a_wrong_variable_is_refused(operator: Operator, variables: dict[str, str], words: str) -> None:
    before = operator.files()
    assert words in await operator.play(status=2, **{"gateway_manager": "systemd"} | variables)
    assert operator.files() == before


@pytest.mark.parametrize("place", ["unit, a directory", "link, a file", "agent, a directory"])
async def test_what_is_in_the_way_is_refused_and_left_alone(operator: Operator, place: str) -> None:
    units = operator.home / ".config/systemd/user"
    unit, link = units / "farmhand-gateway.service", units / "default.target.wants/farmhand-gateway.service"
    agent = operator.home / "Library/LaunchAgents/farmhand.gateway.plist"
    path = {"unit": unit, "link": link, "agent": agent}[place.partition(",")[0]]
    path.parent.mkdir(parents=True)
    if "directory" in place:
        path.mkdir()
    else:
        path.write_text("mine")
    before = operator.files()
    manager = "launchd" if path == agent else "systemd"
    for options in (("--check",), (), ("-e", "farmhand_state=absent")):
        out = await operator.play(*options, gateway_manager=manager, status=2)
        assert f"{path} is in the way" in out
    assert operator.files() == before


async def test_an_environment_file_that_others_can_read_is_refused_and_left_alone(operator: Operator) -> None:
    operator.put(".config/farmhand/gateway.env", "A_KEY=sk-ant-test-CANARY\n", 0o640)
    before = operator.files()
    out = await operator.play("--diff", gateway_manager="systemd", status=2)
    assert f"chmod 600 {operator.home}/.config/farmhand/gateway.env" in out
    assert "CANARY" not in out
    assert operator.files() == before
    (operator.home / ".config/farmhand/gateway.env").chmod(0o600)
    out = await operator.play("--diff", gateway_manager="systemd")
    assert "CANARY" not in out
