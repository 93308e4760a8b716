"""What the tests of `farmhand batch` share: several real daemons as farm hosts of one inventory, and the command."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.integration.dispatch.conftest import Done, Workstation
from tests.support.agent import Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi


class Farm:
    """Daemons in directories of their own, each a host of the inventory that is reached without ssh."""

    def __init__(self, directory: Path, api: MessagesApi, workstation: Workstation) -> None:
        self.directory = directory
        self.api = api
        self.workstation = workstation
        self.agents: list[Agent] = []
        self.inventory = directory / "farm.ini"
        self.out = directory / "out.jsonl"
        self.input = directory / "in.jsonl"

    async def start(self, hosts: int = 1, **settings: Any) -> None:
        """Start so many daemons, farm1, farm2, …"""
        lines = ["[farm]"]
        for number in range(1, hosts + 1):
            home = self.directory / f"farm{number}"
            home.mkdir()
            agent = ForkedAgent(home, self.api.url, **{"idle_s": 30.0, "drain_s": 1.0, **settings})
            await agent.start()
            self.agents.append(agent)
            python = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
            lines.append(f"farm{number} {python} farmhand_socket={agent.socket}")
        self.inventory.write_text("\n".join(lines) + "\n")

    async def stop(self) -> None:
        """Stop them all."""
        for agent in self.agents:
            await agent.stop()

    def write(self, tasks: Iterable[Any]) -> None:
        """The input."""
        self.input.write_text("".join(json.dumps(task) + "\n" for task in tasks))

    def argv(self, *options: str) -> list[str]:
        """The command."""
        given = [] if any(option == "-" or "/" in option for option in options[:1]) else [str(self.input)]
        return ["farmhand", "batch", *given, *options, "--out", str(self.out), "-i", str(self.inventory)]

    async def batch(self, *options: str, stdin: bytes | None = None) -> Done:
        """Run it to its end."""
        return await self.workstation.run(*self.argv(*options), stdin=stdin)

    async def begin(self, *options: str) -> asyncio.subprocess.Process:
        """Start it."""
        return await self.workstation.start(*self.argv(*options))

    def results(self) -> list[dict[str, Any]]:
        """What is in the output."""
        if not self.out.exists():
            return []
        return [json.loads(line) for line in self.out.read_text().splitlines() if line.endswith("}")]

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Poll."""
        for _ in range(round(seconds / 0.05)):
            if condition():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it did not come to that")

    def asked(self, number: int) -> Callable[[], bool]:
        """Whether the API has had so many requests."""
        return lambda: len(self.api.posts) >= number

    def prompts(self) -> list[str]:
        """What the API was asked, oldest first."""
        bodies = [json.loads(post.body) for post in self.api.posts]
        return [b["messages"][-1]["content"] for b in bodies if isinstance(b["messages"][-1]["content"], str)] or [
            "".join(block["text"] for block in b["messages"][-1]["content"]) for b in bodies
        ]
