"""Three hosts against one, where the API's latency dominates: `farmhand batch` over ssh, from its start to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.batch import rate
from benchmarks.ground import Ground
from benchmarks.rows import Row, interleaved, medians
from tests.support.farm import Farm
from tests.support.farm.container import Container
from tests.support.farm.run import check

HOSTS = 3
TASKS = 960
#: So long that what the machine under the hosts can do is not what bounds them.
LATENCY_MS = 1_000.0


@contextmanager
def _copies(farm: Farm) -> Iterator[list[Container]]:
    """More hosts beside the farm's own, on its network: copies of it, as it was built."""
    image = f"{farm.name}:bench"
    copies = [
        Container(f"{farm.name}-{number}", f"farm{number}", shared_network=farm.container.network, image=image)
        for number in range(2, HOSTS + 1)
    ]
    with ExitStack() as undo:
        undo.callback(check, ["docker", "image", "rm", "--force", image])
        check(["docker", "commit", farm.container.name, image])
        for copy in copies:
            undo.callback(copy.remove)
            copy.start()
        yield copies


def _inventory(farm: Farm, copies: list[Container]) -> Path:
    """The farm's inventory with the copies in it. They have its host keys."""
    known = farm.state / "bench_known_hosts"
    addresses = [farm.container.address, *(copy.address for copy in copies)]
    known.write_text("".join(f"{address} {key}\n" for address in addresses for key in farm.container.host_keys()))
    text = (farm.inventory / "hosts.yml").read_text(encoding="utf-8")
    (variables,) = json.loads(text.replace(str(farm.state / "known_hosts"), str(known)))["farm"]["hosts"].values()
    hosts = {f"farm{number}": {**variables, "ansible_host": address} for number, address in enumerate(addresses, 1)}
    for copy in copies:
        hosts[copy.hostname]["ansible_control_path"] = f"%(directory)s/{copy.name}"
    path = farm.state / "bench_hosts.yml"
    path.write_text(json.dumps({"farm": {"hosts": hosts}}))
    return path


def measure(ground: Ground) -> list[Row]:
    """The row of several hosts."""
    farm, tasks = ground.farm, max(32 * HOSTS, ground.tasks(TASKS))
    with _copies(farm) as copies, ground.latency(LATENCY_MS):
        inventory = str(_inventory(farm, copies))
        ways = {
            "three": lambda: rate(ground, tasks, "-i", inventory),
            "one": lambda: rate(ground, tasks, "-i", inventory, "--hosts", "farm1"),
        }
        middle = medians(interleaved(ways, ground.rounds))
    return [
        Row(
            what=f"farmhand batch, {tasks} text tasks, three hosts",
            ours=middle["three"],
            reference=middle["one"],
            against="one host",
            unit="tasks/s",
            target="ratio >= 2.5",
            note=f"API latency {LATENCY_MS:g} ms",
        )
    ]
