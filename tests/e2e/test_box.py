"""playbooks/box.yml, whole: a container with a real sshd is the box that the stand-in for Lightsail makes.

site.yml is a short one here, but in the test that starts the real one; what that builds is proven elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.support.boxes import key_line
from tests.support.farm.checkout import copy_checkout
from tests.support.farm.container import Container
from tests.support.lightsail import FakeLightsail

ROOT = Path(__file__).parents[2]
_SITE = """- name: A short site
  hosts: "{{ site_hosts | default('farm') }}"
  become: true
  gather_facts: false
  tasks:
    - name: Leave a trace
      ansible.builtin.copy:
        content: "{{ inventory_hostname }} {{ ansible_user }}\\n"
        dest: /root/built
        mode: "0600"
"""
_DRAIN = """- name: A short drain
  hosts: "{{ drain_hosts | default('farm') }}"
  become: true
  gather_facts: false
  tasks:
    - name: Leave a trace
      ansible.builtin.copy:
        content: "{{ inventory_hostname }}"
        dest: /root/drained
        mode: "0600"
"""


class Station:
    """A checkout, an ssh key, and a login to the stand-ins."""

    def __init__(self, directory: Path, api: FakeLightsail, box: Container, moto: str) -> None:
        self.api, self.box, self.directory = api, box, directory
        self.checkout = copy_checkout(ROOT, directory / "checkout")
        self.known_hosts = directory / "known_hosts"
        self.identity = directory / "operator"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.identity)], check=True)
        (self.checkout / "site.yml").write_text(_SITE)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FARMHAND_"))} | {
            "AWS_ENDPOINT_URL": moto,
            "AWS_ENDPOINT_URL_LIGHTSAIL": api.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_CONFIG_FILE": "/nonexistent",
            "HOME": str(directory),
            "FARMHAND_AWS_ENVIRONMENT": "try",
            "FARMHAND_AWS_REGION": "us-east-1",
            "ANSIBLE_CONFIG": str(self.checkout / "ansible.cfg"),
            "ANSIBLE_SSH_ARGS": f"-F none -o ControlMaster=no -o UserKnownHostsFile={self.known_hosts}",
        }

    def run(self, *options: str, timeout_s: float = 180, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run playbooks/box.yml; both streams are in stdout."""
        given = {
            "box_name": "farm1",
            "box_public_key": f"{self.identity}.pub",
            "box_known_hosts_file": str(self.known_hosts),
            "box_poll_s": "0.1",
            "box_wait_s": "20",
        } | variables
        program = [str(ROOT / ".venv/bin/ansible-playbook"), "playbooks/box.yml", "-e", json.dumps(given), *options]
        return subprocess.run(
            program,
            cwd=self.checkout,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    @property
    def built(self) -> str:
        return self.box.exec("cat", "/root/built").stdout

    @property
    def record(self) -> Path:
        return self.checkout / "inventory/farm1.yml"


@pytest.fixture(scope="module")
def box() -> Iterator[Container]:
    container = Container(f"farmhand-box-{os.getpid()}")
    try:
        container.start()
        yield container
    finally:
        container.remove()


@pytest.fixture
def station(tmp_path: Path, box: Container) -> Iterator[Station]:
    box.authorize("")
    box.exec("rm", "-f", "/root/built")
    # What cloud-init does with user data that is a script.
    api = FakeLightsail(
        host_keys=box.host_keys(), addresses=[box.address], created=lambda script: box.exec("sh", "-c", script)
    )
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    api.start()
    moto.start()
    host, port = moto.get_host_and_port()
    yield Station(tmp_path, api, box, f"http://{host}:{port}")
    moto.stop()
    api.stop()


def test_from_nothing_to_a_built_host_and_back(station: Station) -> None:
    (station.checkout / "inventory/mine.yml").write_text("farm:\n  hosts:\n    other:\n      ansible_host: 192.0.2.1\n")

    checked = station.run("--check", "--diff", box_ssh_from="203.0.113.7/32")
    assert checked.returncode == 0, checked.stdout
    assert "US$ 24.00 a month: medium_3_0" in checked.stdout
    assert (station.api.changes(), station.record.exists(), station.known_hosts.exists()) == ([], False, False)

    first = station.run(box_ssh_from="203.0.113.7/32")
    assert first.returncode == 0, first.stdout
    assert first.stdout.index("US$ 24.00 a month") < first.stdout.index("make the instance")
    assert station.built == "farm1 admin\n"
    assert "other" not in first.stdout  # another host of the farm is not touched
    assert "a login" not in first.stdout

    station.api.calls.clear()
    again = station.run()
    assert again.returncode == 0, again.stdout
    assert "localhost                  : ok=5    changed=0" in again.stdout, again.stdout
    assert station.api.changes() == []

    unasked = station.run(box_state="absent", box_drain="false")
    assert unasked.returncode != 0
    assert "Nothing was removed. Give -e box_confirm=farm1" in unasked.stdout
    not_drained = station.run(box_state="absent", box_confirm="farm1")  # no agent answers in this container
    assert not_drained.returncode != 0, not_drained.stdout
    assert (station.api.changes(), station.record.exists()) == ([], True)

    (station.checkout / "playbooks/drain.yml").write_text(_DRAIN)
    gone = station.run(box_state="absent", box_confirm="farm1")
    assert gone.returncode == 0, gone.stdout
    assert station.box.exec("cat", "/root/drained").stdout == "farm1"
    assert gone.stdout.index("PLAY [A short drain]") < gone.stdout.index("detach the static address")
    assert (station.api.names(), station.record.exists(), station.known_hosts.read_text()) == ([], False, "")
    assert (station.checkout / "inventory/mine.yml").exists()


def test_a_machine_with_another_host_key_is_refused(station: Station) -> None:
    station.api.host_keys = [key_line(5)]

    done = station.run(box_ssh_from="203.0.113.7/32", box_ssh_wait_s="4")

    assert done.returncode != 0, done.stdout
    assert "PLAY [A short site]" not in done.stdout
    assert "Host key verification failed" in done.stdout or "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stdout
    assert station.built == ""
    assert station.known_hosts.read_text() == f"{station.box.address} {key_line(5)}\n"


def test_the_real_site_begins_on_the_new_box_alone(station: Station) -> None:
    (station.checkout / "site.yml").write_text((ROOT / "site.yml").read_text())
    (station.checkout / "inventory/mine.yml").write_text("farm:\n  hosts:\n    other:\n      ansible_host: 192.0.2.1\n")

    done = station.run(box_ssh_from="203.0.113.7/32", claude_cli_version="not-a-version")

    assert done.returncode == 2, done.stdout
    assert "PLAY [Build the farm]" in done.stdout
    assert "claude_cli_version" in done.stdout.partition("PLAY [Build the farm]")[2]
    assert "farm1" in done.stdout.partition("PLAY RECAP")[2]
    assert "other" not in done.stdout.partition("PLAY RECAP")[2]


@pytest.mark.parametrize(("status", "built"), [(1, ""), (2, "farm1 admin\n")], ids=["failed", "with warnings"])
def test_a_first_boot_that_failed_is_not_built_on(station: Station, status: int, built: str) -> None:
    """Source: cloud-init's documentation of `status`: 1 is an error, 2 a boot that is over and has warnings."""
    program = "/usr/bin/cloud-init"
    station.box.exec("sh", "-c", f"printf '#!/bin/sh\\necho status: error\\nexit {status}\\n' > {program}")
    station.box.exec("chmod", "0755", program)
    try:
        done = station.run(box_ssh_from="203.0.113.7/32")
    finally:
        station.box.exec("rm", program)
    assert (done.returncode != 0) == (built == ""), done.stdout
    assert station.built == built
