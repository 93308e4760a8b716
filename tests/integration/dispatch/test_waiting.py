"""What claude-cheap says while it waits: on a real terminal, over a real sshd, for the real daemon."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import BIN, Workstation, entry
from tests.integration.dispatch.sshd import Sshd
from tests.support.agent import Agent
from tests.support.messages_api import Fault, MessagesApi
from tests.support.screen import screen

CHEAP = str(BIN / "claude-cheap")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_host_that_is_drained_is_told_at_once_and_the_first_signal_ends_the_wait(
    workstation: Workstation, farm: Sshd, agent: Agent, number: signal.Signals
) -> None:
    await agent.call("PUT", "/v1/drain", body={"mode": "queue"})
    process = await workstation.start("claude-cheap", "--id", "one", "hello")
    assert process.stderr is not None
    line = (await asyncio.wait_for(process.stderr.readline(), 120)).decode()
    assert line.startswith("claude-cheap: this host is being emptied and takes no tasks")
    assert "it is asked again for 60 s" in line
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out, err) == (128 + number, b"", b"claude-cheap: stopped\n")
    status, _ = await agent.call("GET", "/v1/tasks/one")
    assert status == 404


async def test_a_drain_that_ends_in_time_is_waited_for(workstation: Workstation, farm: Sshd, agent: Agent) -> None:
    await agent.call("PUT", "/v1/drain", body={"mode": "queue"})
    process = await workstation.start("claude-cheap", "hello")
    assert process.stderr is not None
    await asyncio.wait_for(process.stderr.readline(), 120)
    await agent.call("PUT", "/v1/drain", body={"mode": "off"})
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, err) == (0, b"")
    assert b"hello" in out


@pytest.fixture
async def mute() -> asyncio.Server:
    """A port that takes connections and says nothing."""
    return await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)


@pytest.mark.parametrize(("columns", "shown"), [(80, "connecting to farm1 ("), (16, "connecting to…")])
async def test_connecting_is_said_and_is_gone_afterwards(
    workstation: Workstation, farm: Sshd, mute: asyncio.Server, tmp_path: Path, columns: int, shown: str
) -> None:
    async with mute:
        workstation.write_hosts(farm1=entry(farm) | {"port": mute.sockets[0].getsockname()[1]})
        argv = [CHEAP, "--connect-timeout", "4", "--fallback", "none", "x"]
        with screen(tmp_path, argv, workstation.environment, columns=columns) as terminal:
            lines = await terminal.until(shown)
            assert len(lines) == 1  # it is cut, and does not wrap
            lines = await terminal.until("[4]")
            assert not any(shown in line for line in lines)
            assert lines[0].startswith("claude-cheap:")


@pytest.mark.parametrize(
    ("verb", "shown"),
    [
        ("status", "connecting"),
        ("cost", "asking the hosts for what is new"),
        ("report", "asking the hosts for what is"),
    ],
)
async def test_verbs_that_ask_hosts_say_so_too(
    workstation: Workstation, farm: Sshd, mute: asyncio.Server, tmp_path: Path, verb: str, shown: str
) -> None:
    async with mute:
        workstation.write_hosts(farm1=entry(farm) | {"port": mute.sockets[0].getsockname()[1]})
        argv = [str(BIN / "farmhand"), verb, "--connect-timeout", "3"]
        with screen(tmp_path, argv, workstation.environment, columns=80) as terminal:
            await terminal.until(shown)
            lines = await terminal.until("[4]")
            assert not any(line.startswith(shown) for line in lines)


async def test_a_dumb_terminal_gets_plain_lines_and_a_background_nothing(
    workstation: Workstation, farm: Sshd, mute: asyncio.Server, tmp_path: Path
) -> None:
    async with mute:
        workstation.write_hosts(farm1=entry(farm) | {"port": mute.sockets[0].getsockname()[1]})
        argv = [CHEAP, "--connect-timeout", "3", "--fallback", "none", "x"]
        with screen(tmp_path, argv, workstation.environment | {"NO_COLOR": "1"}, term="dumb") as terminal:
            lines = await terminal.until("[4]")
            assert [line for line in lines if line.startswith("connecting")] == ["connecting to farm1"]
            raw = terminal.tmux("capture-pane", "-p", "-e")
            assert "\x1b" not in raw
        behind = ["bash", "-ic", f"{' '.join(argv)} </dev/null & wait $!"]
        with screen(tmp_path, behind, workstation.environment, columns=120) as terminal:
            lines = await terminal.until("[4]")
            assert not any(line.startswith("connecting") for line in lines)


async def test_nothing_is_said_in_a_pipe(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    api.state.event_s = 1.5
    done = await workstation.run("claude-cheap", "hello")
    assert (done.status, done.err) == (0, "")


async def test_a_refusal_of_the_api_is_said_until_the_answer_comes(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    api.fault(Fault(kind="status", status=529, retry_after=5))
    with screen(tmp_path, [CHEAP, "hello"], workstation.environment, columns=60) as terminal:
        [line] = await terminal.until("farm1: the API says 529 and is asked again in ")
        assert len(line) < 60
        lines = await terminal.until("[0]")
    assert len(lines) == 2  # the answer, and the shell's word
    assert "hello" in lines[0]
