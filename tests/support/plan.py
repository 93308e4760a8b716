"""The operator's plan in a test: the real claude CLI, unmodified, whose provider is the loopback stand-in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.support.claude import claude_binary
from tests.support.gateway import GatewayProcess
from tests.support.messages_api import MessagesApi
from tests.support.provider import ProviderHost

TOKEN = "sk-ant-oat01-test-CANARY-LOGIN-000000000000"
#: The subscription alone takes turns.
RULE = '[[rule]]\ntry = ["local", "subscription"]\n'
#: Notes with what it was started, and becomes the CLI.
_NOTING = """#!/bin/sh
env > {directory}/$$.environ
printf '%s\\n' "$@" > {directory}/$$.argv
exec {program} "$@"
"""


def settings(*, rule: str = RULE, **table: object) -> str:
    """gateway.toml with the subscription on; `table` has keys of its own."""
    given = {"enabled": True, "terms_read": "2026-11-28", "warm_s": 0} | table
    lines = [f"{name} = {_toml(value)}" for name, value in given.items()]
    return rule + "[subscription]\n" + "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {json.dumps(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


class Plan:
    """`async with Plan(directory) as plan:` `plan.environ` is what a gateway has; `plan.api` is the provider."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "plan"
        self.api = MessagesApi(keys=(TOKEN,))
        self.environ: dict[str, str] = {}

    async def __aenter__(self) -> Plan:
        (self.directory / "bin").mkdir(parents=True)
        program = self.directory / "bin" / "claude"
        program.write_text(_NOTING.format(directory=self.directory, program=claude_binary()))
        program.chmod(0o755)
        await self.api.start()
        self.host = ProviderHost(self.directory, self.api.url)
        await self.host.__aenter__()
        self.environ = {"CLAUDE_CODE_OAUTH_TOKEN": TOKEN, **self.host.environ}
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.host.__aexit__(*error)
        await self.api.stop()

    @property
    def bin(self) -> str:
        """The directory of the CLI, for PATH."""
        return str(self.directory / "bin")

    def use(self, gateway: GatewayProcess, **more: str) -> None:
        """Give the gateway its CLI and its token."""
        path = f"{self.bin}:{gateway.environ['PATH']}"
        gateway.environ |= self.environ | {"PATH": path, "TMPDIR": str(gateway.home)} | more

    def runs(self) -> list[int]:
        """The process ids of the turns, in no order."""
        return [int(path.stem) for path in self.directory.glob("*.argv") if path.read_text().startswith("-p\n")]

    def argv(self, pid: int) -> list[str]:
        """With what a turn was started."""
        return (self.directory / f"{pid}.argv").read_text().splitlines()

    def child_environ(self, pid: int) -> dict[str, str]:
        """Its whole environment."""
        lines = (self.directory / f"{pid}.environ").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def said(self) -> list[str]:
        """What the model was told by the user, request by request."""
        found = []
        for post in self.api.posts:
            messages = json.loads(post.body)["messages"]
            found.append("".join(part["text"] for part in messages[0]["content"]))
        return found

    def credentials(self) -> set[tuple[str, str]]:
        """The credentials of all requests: the login's token, and a key."""
        headers = [{name.lower(): value for name, value in post.headers.items()} for post in self.api.log]
        return {(each.get("authorization", ""), each.get("x-api-key", "")) for each in headers}


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def text_turn(dialect: str, text: str, /, **more: Any) -> tuple[str, dict[str, Any]]:
    """The path and the body of a text turn in a dialect."""
    messages = [{"role": "user", "content": text}]
    body: dict[str, Any] = {"model": "farmhand/chat", "messages": messages, "max_tokens": 2000}
    if dialect == "responses":
        body = {"model": "farmhand/chat", "input": messages, "max_output_tokens": 2000, "store": False}
    return {"messages": "/v1/messages", "chat": "/v1/chat/completions", "responses": "/v1/responses"}[dialect], (
        body | more
    )


async def closed(gateway: GatewayProcess, code: str | None) -> dict[str, Any]:
    """The subscription's state, once it is closed for this reason; None: once it is open."""
    found: dict[str, Any] = {}
    for _ in range(1200):
        found = next(one for one in (await gateway.status())["states"] if one["name"] == "subscription")
        if (found["closed"] or {}).get("code") == code:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"the subscription is not {code}: {found}")
