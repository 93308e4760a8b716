"""Conversations over real ssh, the chat on a terminal, and an answer that goes into a pipe as it comes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import stat
from pathlib import Path

import pytest

from farmhand.core.readable import dollars
from tests.integration.dispatch.conftest import BIN, CHECKOUT, Workstation, received
from tests.integration.dispatch.sshd import Sshd
from tests.support.agent import Agent, bodies
from tests.support.messages_api import MessagesApi, Rule, Step
from tests.support.pictures import png


def kept(workstation: Workstation) -> Path:
    return workstation.home / ".local/state/farmhand/conversations"


def asked(api: MessagesApi) -> list[list[str]]:
    """The texts of the messages of each request."""
    return [[message["content"] for message in body["messages"]] for body in bodies(api)]


async def test_each_turn_is_a_task_with_all_that_was_said(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    first = await workstation.run("claude-cheap", "--conversation", "barn", "--system", "Be brief.", "one")
    assert first.status == 0, first.err
    assert first.err.startswith("claude-cheap: barn: turn 1, US$ 0.0000")
    failed = await workstation.run("claude-cheap", "-c", "--max-usd", "0.0000001", "too dear")
    assert (failed.status, failed.out) == (5, b""), failed.err
    second = await workstation.run("claude-cheap", "--continue", "two")
    assert second.status == 0, second.err
    assert "barn: turn 2, US$ " in second.err
    answer = first.out.decode().removesuffix("\n")
    assert asked(api) == [["one"], ["one", answer, "two"]]
    assert [body["system"] for body in bodies(api)] == ["Be brief."] * 2
    path = kept(workstation) / "barn.json"
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    told = json.loads(path.read_text())
    assert [turn["prompt"] for turn in told["turns"]] == ["one", "two"]
    assert f"{dollars(told['cost_usd'])} in all" in second.err


async def test_the_one_used_last_goes_on_and_bad_ones_are_told(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    none = await workstation.run("claude-cheap", "-c", "x")
    assert (none.status, none.err.count("\n")) == (2, 1)
    assert "there is no conversation to go on with" in none.err
    for name, prompt in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        assert (await workstation.run("claude-cheap", "--conversation", name, prompt)).status == 0
    assert (await workstation.run("claude-cheap", "-c", "a3")).status == 0
    assert [said[0] for said in asked(api)] == ["a1", "b1", "a1", "a1"]
    (kept(workstation) / "a.json").write_text('{"name": 1}')
    for arguments, status, what in (
        (["-c", "x"], 3, "a.json cannot be used"),
        (["--conversation", "../x", "x"], 2, "does not match"),
        (["--conversation", "b", "--tools", "Bash", "x"], 2, "--tools and a conversation exclude each other"),
        (["--conversation", "b", "--engine", "cli", "x"], 2, "needs the engine api"),
        (["--conversation", "b", "--fallback", "queue", "x"], 2, "--fallback and a conversation"),
        (["--chat"], 2, "--chat needs a terminal"),
    ):
        done = await workstation.run("claude-cheap", *arguments)
        assert (done.status, done.out, done.err.count("\n")) == (status, b"", 1), done.err
        assert what in done.err


async def test_a_picture_stays_in_the_conversation(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    (workstation.home / "cow.png").write_bytes(png(30, 30))
    picture = str(workstation.home / "cow.png")
    assert (await workstation.run("claude-cheap", "--conversation", "p", "look", "-f", picture)).status == 0
    assert (await workstation.run("claude-cheap", "-c", "again")).status == 0
    assert [[type(m["content"]).__name__ for m in body["messages"]] for body in bodies(api)] == [
        ["list"],
        ["list", "str", "str"],
    ]


class Chat:
    """`claude-cheap --chat` on a terminal, driven as a person does."""

    def __init__(self) -> None:
        self.shown = b""

    async def start(self, workstation: Workstation, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        self.process = await asyncio.create_subprocess_exec(
            str(BIN / "claude-cheap"),
            "--chat",
            *arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=workstation.environment | {"TERM": "xterm"},
            cwd=CHECKOUT,
            preexec_fn=_own_terminal,
        )
        os.close(theirs)
        os.set_blocking(self.ours, False)

    async def until(self, text: bytes) -> bytes:
        """Read until `text` is shown. Return what came before it."""
        async with asyncio.timeout(120):
            while text not in self.shown:
                try:
                    self.shown += os.read(self.ours, 65536)
                except BlockingIOError:
                    await asyncio.sleep(0.05)
                except OSError as error:
                    raise AssertionError(self.shown) from error
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)


def _own_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def test_a_chat_goes_on_after_ctrl_c_and_ends_with_ctrl_d(
    workstation: Workstation, farm: Sshd, api: MessagesApi, agent: Agent
) -> None:
    chat = Chat()
    await chat.start(workstation, "--conversation", "talk")
    await chat.until(b"conversation talk; /exit or Ctrl-D leaves")
    await chat.until(b"> ")
    chat.type(b"ome\x01s\x05 word\r")  # line editing: Ctrl-A, Ctrl-E
    await chat.until(b"talk: turn 1, US$ ")
    await chat.until(b"> ")
    chat.type(b"given up\x03")
    await chat.until(b"> ")
    api.state.event_s = 0.5
    chat.type(b"a long story\r")
    for _ in range(2400):
        if (await agent.get("/v1/tasks?state=running"))["tasks"]:
            break
        await asyncio.sleep(0.05)
    chat.type(b"\x03")
    await chat.until(b"task cancelled")
    await chat.until(b"> ")
    api.state.event_s = 0.0
    chat.type(b"/exti\r")
    await chat.until(b"/exti is no command of the chat")
    await chat.until(b"> ")
    chat.type(b"two \\\r")
    await chat.until("… ".encode())
    chat.type(b"lines\r")
    await chat.until(b"talk: turn 2, US$ ")
    await chat.until(b"> ")
    chat.type(b"\x04")
    assert await asyncio.wait_for(chat.process.wait(), 120) == 0
    os.close(chat.ours)
    turns = json.loads((kept(workstation) / "talk.json").read_text())["turns"]
    assert [turn["prompt"] for turn in turns] == ["some word", "two \nlines"]
    assert "given up" not in received(api)


async def test_an_answer_goes_into_a_pipe_as_it_comes(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    api.state.event_s = 0.3
    process = await workstation.start("claude-cheap", "tell a story")
    assert process.stdout is not None
    pieces = []
    while piece := await asyncio.wait_for(process.stdout.read(65536), 120):
        pieces.append(piece)
    assert await process.wait() == 0
    assert len(pieces) > 2
    assert b"".join(pieces).endswith(b"story\n")


async def test_a_reader_that_leaves_ends_the_task(
    workstation: Workstation, farm: Sshd, api: MessagesApi, agent: Agent
) -> None:
    api.state.event_s = 0.5
    process = await workstation.start("claude-cheap", "--id", "left", "one two three four five six seven eight")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.read(1), 120)
    process.stdout._transport.close()  # type: ignore[attr-defined]
    assert await asyncio.wait_for(process.wait(), 120) == 128 + signal.SIGPIPE
    assert (await agent.get("/v1/tasks/left"))["task"]["state"] == "cancelled"


@pytest.mark.parametrize("option", ["--extract", "-x", "--extract-last"])
async def test_only_the_code_of_an_answer(workstation: Workstation, farm: Sshd, api: MessagesApi, option: str) -> None:
    api.rule(Rule(contains="list", steps=[Step(text="Sure:\n\n```sh\nls -l\n```\nThat is it.")]))
    done = await workstation.run("claude-cheap", option, "list files")
    assert (done.status, done.out) == (0, b"ls -l\n"), done.err
    refused = await workstation.run("claude-cheap", option, "--json", "x")
    assert (refused.status, refused.err.count("\n")) == (2, 1)


async def test_a_conversation_and_a_task_run_again_stay_on_their_pot(
    workstation: Workstation, farm: Sshd, api: MessagesApi
) -> None:
    keys = {name: f"sk-ant-test-{name}-00000000000000000000" for name in ("PLAN", "PAID")}
    api.state.keys = frozenset(keys.values())
    workstation.environment |= keys
    tables = "".join(f'[pots.{name.lower()}]\nkey_source = "env:{name}"\n' for name in keys)
    (workstation.config_dir / "config.toml").write_text(tables)
    commands: list[list[str]] = [
        ["claude-cheap", "--conversation", "barn", "--pot", "paid", "one"],
        ["claude-cheap", "-c", "two"],
        ["claude-cheap", "--pot", "paid", "--id", "cow", "three"],
        ["farmhand", "again", "cow"],
        ["farmhand", "again", "cow", "--pot", "plan"],
    ]
    for command in commands:
        done = await workstation.run(*command)
        assert done.status == 0, done.err
    assert [post.headers["x-api-key"] for post in api.posts] == [keys["PAID"]] * 4 + [keys["PLAN"]]
    # One that is not there any more is no pot to stay on.
    (workstation.config_dir / "config.toml").write_text(tables.replace("paid", "other"))
    workstation.environment["PAID"] = keys["PAID"].replace("PAID", "MORE")
    assert (await workstation.run("claude-cheap", "-c", "four")).status == 0
    assert api.posts[-1].headers["x-api-key"] == keys["PLAN"]
