"""What an operator does and looks at on the way through a runbook; see test_runbooks.py and test_runbooks_two.py."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import Any

from tests.e2e.test_interrupt import until
from tests.support.farm import files
from tests.support.farm.container import Container
from tests.support.farm.run import Completed
from tests.support.farm.workstation import Workstation
from tests.support.runbook import Runbook

#: The price table that comes with the sources grows old, and that is no fault of a runbook.
_OLD = {"prices"}


def done(command: Completed, status: int = 0) -> str:
    """What it said on both outputs; it ended with `status`."""
    said = command.stdout + command.stderr
    assert command.returncode == status, f"{command.args} ended with {command.returncode}:\n{said[-4000:]}"
    return said


def red(said: str) -> dict[str, str]:
    """The doctor's red lines: the fix by what is red."""
    found = re.findall(r"^RED +(\S+(?: \S+)?)  .*\n +fix: (.*)$", said, re.MULTILINE)
    return {name: fix for name, fix in found if name not in _OLD}


def doctor(station: Workstation, command: str) -> tuple[str, dict[str, str]]:
    """What the doctor says, and its red lines."""
    ran = station.shell(command)
    assert ran.returncode in (0, 1), ran
    return ran.stdout, red(ran.stdout)


def listed(station: Workstation, **addresses: str) -> None:
    """What the operator does to inventory/hosts.yml with an editor: these hosts, in the form of the example."""
    path = station.checkout / "inventory" / "hosts.yml"
    example = path.read_text("utf-8")
    head, farm1 = re.fullmatch(r"(.*?  hosts:\n)(    farm1:\n.*)", example, re.DOTALL).groups()  # type: ignore[union-attr]
    entry = farm1.partition("    farm2:")[0]
    entries = [
        re.sub(r"ansible_host: \S+", f"ansible_host: {address}", entry).replace("farm1:", f"{name}:", 1)
        for name, address in addresses.items()
    ]
    path.write_text(head + "".join(entries), "utf-8")


def set_variables(station: Workstation) -> None:
    """What the operator does to inventory/group_vars/farm.yml with an editor: their API and, where needed, its CA."""
    path = station.checkout / "inventory" / "group_vars" / "farm.yml"
    text = re.sub(r"(?<=jada_agent_upstream_url: ).*", station.api.url, path.read_text("utf-8"))
    if any(files.EXTRA_CA_DIR.glob("*.crt")):  # as for the demo's farm
        text += f"base_ca_certificates_dir: {files.EXTRA_CA_DIR}\n"
    path.write_text(text, "utf-8")


def know(station: Workstation, book: Runbook, box: Container) -> None:
    """The host key of a new box: shown, compared with what the provider's console shows, added."""
    done(station.shell(book.command("ssh-keyscan", ADDRESS=box.fixed)))
    shown = done(station.shell(book.command("ssh-keygen -lf box.pub")))
    console = done(box.exec(*book.command("ssh-keygen -lf /etc").split()))
    assert shown.split()[:2] == console.split()[:2]
    done(station.shell(book.command("cat box.pub")))


def ready(station: Workstation) -> None:
    """The API answers as usual, and nothing else is left of a test before."""
    station.switch_api(on=True)
    station.api.clear()
    station.api.keys(station.key)


def tasks_file(station: Workstation, name: str, *tasks: dict[str, Any]) -> Path:
    """A batch's input in the checkout."""
    path = station.checkout / name
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks), "utf-8")
    return path


def results(path: Path) -> dict[str, dict[str, Any]]:
    """The results in a batch's output by their ids, without a line that is being written. No id may be there twice."""
    text = path.read_text("utf-8") if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    assert len({line["id"] for line in lines}) == len(lines), "a task is in the output twice"
    return {line["id"]: line for line in lines}


def waits(station: Workstation, command: str, words: str) -> str:
    """The line of `farmhand status` with these words, once it is there. It names a time to come."""
    pattern = re.compile(rf"^farm1: \d+ tasks? waits?: (.*{words}.*), until (\d\d:\d\d:\d\d)$", re.MULTILINE)
    found: re.Match[str] = until(lambda: pattern.search(done(station.shell(command))), f"{words!r} in the status")
    return found[1]


def make_key(station: Workstation) -> str:
    """A new key, made in the Console; those that are there stay good."""
    key = f"sk-ant-test-night-{secrets.token_hex(16)}"
    station.api.keys(*station.api.accepted(), key)
    return key


def hosts_cost(said: str) -> dict[str, float]:
    """The US$ by host of `farmhand cost --by host`."""
    return {name: float(usd) for name, usd in re.findall(r"^(farm\d) +([\d.]+) ", said, re.MULTILINE)}


def forget(station: Workstation, name: str) -> None:
    """What the operator does to hosts.json with an editor."""
    path = station.config_dir / "hosts.json"
    known = json.loads(path.read_text("utf-8"))
    del known["hosts"][name]
    path.write_text(json.dumps(known, indent=2), "utf-8")
