"""playbooks/box.yml on EC2, whole: the container that moto's instance stands for is built by the real site.yml.

It starts from the image of a built host, so that site.yml has little to do, and has no login before the instance is
made: then cloud-init would put in the key pair's key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.ec2.models import amis, elastic_ip_addresses, instances
from moto.ec2.responses import general
from moto.server import ThreadedMotoServer

from tests.e2e.test_box import ROOT, Station
from tests.integration.aws.test_box_ec2 import CONSOLE, image
from tests.support.farm.api import LoopbackApi
from tests.support.farm.container import Container
from tests.support.farm.control import wire_answer, wire_request
from tests.support.farm.image import REFRESH, host_image
from tests.support.farm.run import run
from tests.support.lightsail import FakeLightsail
from tests.support.messages_api.answer import echo

FROM = "203.0.113.7/32"


@pytest.fixture
def box() -> Iterator[Container]:
    container = Container(f"farmhand-box-ec2-{os.getpid()}", image=host_image())
    try:
        container.start()
        yield container
    finally:
        container.remove()


@pytest.fixture
def station(tmp_path: Path, box: Container, monkeypatch: pytest.MonkeyPatch) -> Iterator[Station]:
    keys = "\n".join(f"{key} root@debian\r" for key in box.host_keys())
    monkeypatch.setattr(general, "SAMPLE_CONSOLE_OUTPUT", CONSOLE.format(keys=keys))
    monkeypatch.setattr(amis, "AMIS", [*amis.AMIS[:20], image(1)])
    monkeypatch.setenv("MOTO_AMIS_PATH", "these alone")
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "true")
    monkeypatch.setattr(elastic_ip_addresses, "random_ip", lambda: box.address)
    begin = instances.InstanceBackend.run_instances

    def run_instances(self: Any, *args: Any, **given: Any) -> Any:
        material = self.key_pairs[given["key_name"]].material_public
        box.authorize(material.decode() if isinstance(material, bytes) else material)
        return begin(self, *args, **given)

    monkeypatch.setattr(instances.InstanceBackend, "run_instances", run_instances)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    made = Station(tmp_path, FakeLightsail(), box, f"http://{host}:{port}")
    (made.checkout / "site.yml").write_text((ROOT / "site.yml").read_text())
    state = tmp_path / "state"
    state.mkdir()
    api = LoopbackApi(state, made.checkout)
    api.start(box.gateway)
    made.env |= {"FARMHAND_KEY_SOURCE": f"file:{api.key_file}", "UPSTREAM": api.control.url}
    yield made
    api.stop()
    run(["curl", "-fsS", "-X", "POST", f"http://{host}:{port}/moto-api/reset"])
    moto.stop()


def test_a_box_on_ec2_is_built_used_drained_and_removed(station: Station) -> None:
    box = station.box
    given: dict[str, Any] = {"box_provider": "ec2", "box_ssh_from": FROM}
    given |= {"jada_agent_upstream_url": station.env["UPSTREAM"], "farmhand_known_hosts_file": str(station.known_hosts)}
    checked = station.run("--check", "--diff", **given)
    assert checked.returncode == 0, checked.stdout
    assert "t3.medium 30.37, 40 GB disk 3.20, static address 3.65" in " ".join(checked.stdout.split())
    assert (station.record.exists(), station.known_hosts.exists()) == (False, False)

    made = station.run(*REFRESH, timeout_s=1200, **given)

    assert made.returncode == 0, made.stdout[-6000:]
    assert made.stdout.index("a month: t3.medium") < made.stdout.index("make the instance farmhand-try-farm1")
    known = station.known_hosts.read_text()
    assert {f"{box.address} {key}" for key in box.host_keys()} <= set(known.splitlines())
    host = json.loads(station.record.read_text().split("\n", 2)[2])["farm"]["hosts"]["farm1"]
    assert (host["ansible_host"], host["farmhand_box"]["provider"]) == (box.address, "ec2")
    answered = run([str(ROOT / ".venv/bin/claude-cheap"), "Say hello"], env=station.env, timeout_s=180)
    assert answered.stdout == echo("Say hello") + "\n", answered.stderr

    unasked = station.run(box_state="absent", timeout_s=600)
    assert unasked.returncode != 0
    assert "Nothing was removed. Give -e box_confirm=farm1" in unasked.stdout
    status, about = wire_answer(box.exec("jada-agent", "bridge", input=wire_request("GET", "/v1/status")).stdout)
    assert (status, about["drain"]) == (200, "queue")

    gone = station.run(box_state="absent", box_confirm="farm1", timeout_s=600)
    assert gone.returncode == 0, gone.stdout[-6000:]
    assert gone.stdout.index("PLAY [Drain the farm]") < gone.stdout.index("terminate the instance")
    assert not station.record.exists()
    assert box.address not in station.known_hosts.read_text()
    hosts = json.loads((station.directory / ".config/farmhand/hosts.json").read_text())["hosts"]
    assert hosts == {}
    again = station.run(box_state="absent", box_provider="ec2")
    assert again.returncode == 0, again.stdout
