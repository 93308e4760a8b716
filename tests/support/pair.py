"""A pair of containers with a loopback Messages API on the gateway of its network."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any, Self

from farmhand.core.ids import new_task_id
from farmhand.places.containers import ContainerPair, ContainerTransport, PairSettings
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task
from tests.support.farm.api import LoopbackApi

ROOT = Path(__file__).parents[2]


class Pair:
    """Two containers of their own names. `network` "shared" gives the worker the agent's network, as on Fargate."""

    def __init__(self, state: Path, part: str, network: str = "none", **settings: Any) -> None:
        self.name = f"farmhand-{part}-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
        self.api_process = LoopbackApi(state, ROOT)
        self._network = f"container:{self.name}-agent" if network == "shared" else network
        self._settings = settings
        self.pair: ContainerPair

    def listen(self) -> None:
        """Start the API on the gateway of the network."""
        docker("network", "create", "--label", "farmhand", self.name)
        network = json.loads(docker("network", "inspect", self.name))[0]
        self.api_process.start(network["IPAM"]["Config"][0]["Gateway"])
        self.pair = ContainerPair(
            PairSettings(
                checkout=ROOT, upstream_url=self.api.url, name=self.name, network=self._network, **self._settings
            )
        )

    def up(self) -> None:
        """Start the API, then both containers."""
        self.listen()
        self.pair.up(print)

    def fresh(self) -> Pair:
        """This pair, with an API that has no rules, latency or log."""
        self.api.clear()
        self.api.keys(self.api_process.key)
        return self

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def down(self) -> None:
        """Remove all of it."""
        self.pair.down(delete_data=True)
        self.api_process.stop()

    @property
    def api(self) -> Any:
        """The API's control client."""
        return self.api_process.control

    def transport(self) -> ContainerTransport:
        """The way to the agent."""
        return ContainerTransport(self.pair.agent, "docker", 10.0)

    def run(self, **task: Any) -> dict[str, Any]:
        """The result of a task."""
        with Client(self.transport()) as client:
            return run_task(client, {"id": new_task_id(), **task}, self.api_process.key, lambda _event: None)

    def inside(self, command: str, **task: Any) -> str:
        """What `command` prints as the Bash tool of a task of its own."""
        self.api.rule("look around", bash(f"{command}; true"), {"text": "{tool_result}"})
        result = self.run(prompt="look around", tools=["Bash"], **task)
        assert result["state"] == "succeeded", result
        return str(result["text"])


def bash(command: str) -> dict[str, Any]:
    """A step of the model: it asks for one command."""
    return {"tool_use": {"name": "Bash", "input": {"command": command, "description": "a command"}}}


def docker(*words: str) -> str:
    """The stdout of a docker command that must succeed."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
