"""`farmhand top` on a real terminal, over real ssh: it draws, follows, and leaves the terminal as it was."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import termios

import pytest

from tests.integration.dispatch.conftest import BIN, CHECKOUT, Workstation, entry
from tests.integration.dispatch.sshd import Sshd
from tests.integration.dispatch.test_fallback import down
from tests.support.agent import Agent
from tests.support.schemas import check


async def until(ours: int, wanted: bytes) -> bytes:
    """What the terminal shows, until `wanted` is in it."""
    shown = b""
    while wanted not in shown:
        shown += await asyncio.wait_for(asyncio.to_thread(os.read, ours, 65536), 120)
    return shown


@pytest.mark.parametrize(("key", "status"), [(b"q", 0), (b"SIGINT", 0), (b"SIGTERM", 143)])
async def test_it_is_live_until_it_is_ended(
    workstation: Workstation, farm: Sshd, agent: Agent, key: bytes, status: int
) -> None:
    workstation.write_hosts(farm1=entry(farm), farm2=down(farm))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    before = termios.tcgetattr(theirs)
    process = await asyncio.create_subprocess_exec(
        str(BIN / "farmhand"), "top", "--interval", "0.2",
        stdin=theirs, stdout=theirs, stderr=theirs, env=workstation.environment | {"TERM": "xterm"}, cwd=CHECKOUT,
        start_new_session=True,
    )  # fmt: skip
    shown = await until(ours, b"running")
    shown += await until(ours, b"Connection refused")
    assert b"\x1b[?1049h" in shown
    assert b"farm2" in shown
    # A task without a key: the next figures have it.
    await agent.submit({"id": "one", "prompt": "hello"}, key={})
    await until(ours, b"1 task waits")
    # And the day's money, which this host says without a budget.
    await until(ours, b"today (UTC): US$ 0.00 spent on 1 of 2 hosts")
    if key.startswith(b"SIG"):
        process.send_signal(signal.Signals[key.decode()])
    else:
        os.write(ours, key)
    left = await until(ours, b"\x1b[?1049l")
    assert await asyncio.wait_for(process.wait(), 120) == status
    assert b"Traceback" not in left
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


async def test_what_is_printed_is_what_the_schemas_say(workstation: Workstation, farm: Sshd) -> None:
    workstation.write_hosts(farm1=entry(farm))
    for verb, words in {"run": ("--json", "hello"), "status": ("--json",), "cost": ("--json",)}.items():
        done = await workstation.run("farmhand", verb, *words)
        assert done.status == 0, done.err
        check(verb, json.loads(done.out))


async def test_into_a_pipe_it_is_lines(workstation: Workstation, farm: Sshd) -> None:
    workstation.write_hosts(farm1=entry(farm))
    done = await workstation.run("farmhand", "top")
    assert done.status == 0
    assert done.out.decode().startswith("farm1: running, 0 running, 0 queued, 0 awaiting a key, slots in use: api 0/")
    workstation.write_hosts(farm1=down(farm))
    done = await workstation.run("farmhand", "top")
    assert (done.status, done.out) == (4, b"")
    assert "farm1" in done.err
