"""claude-cheap at a terminal and with the stdin that other programs give it."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import BIN, CHECKOUT, Workstation, received
from tests.integration.dispatch.sshd import Sshd
from tests.support.messages_api import MessagesApi


async def test_text_comes_as_it_is_made_on_a_terminal(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    api.state.event_s = 0.15
    pieces = await at_a_terminal(workstation, "hello")
    assert len(pieces) > 2
    assert b"".join(pieces).endswith(b"hello\r\n")


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
async def test_a_terminal_that_is_not_utf_8_gets_the_answer_with_replacements(
    workstation: Workstation, farm: Sshd, api: MessagesApi, variables: dict[str, str]
) -> None:
    prompt = "one é, one 😀 and the end"
    (workstation.home / "prompt").write_text(prompt)
    workstation.environment |= variables
    for options in ([], ["--json"]):
        said = b"".join(await at_a_terminal(workstation, "-f", str(workstation.home / "prompt"), *options))
        assert b"and the end" in said
    piped = await workstation.run("claude-cheap", "-f", str(workstation.home / "prompt"))
    assert prompt.encode() in piped.out


async def test_stdin_of_nodes_spawn_is_a_socket_and_is_read(
    workstation: Workstation, farm: Sshd, api: MessagesApi, tmp_path: Path
) -> None:
    program = tmp_path / "spawn.js"
    program.write_text(
        "const { spawn } = require('child_process');\n"
        "const task = spawn('claude-cheap', ['What colour is it?'], { stdio: ['pipe', 'inherit', 'inherit'] });\n"
        "setTimeout(() => task.stdin.end('The barn is red.\\n'), Number(process.argv[2]));\n"
        "task.on('exit', (status) => process.exit(status));\n"
    )
    for wait_ms in ("0", "500"):
        process = await asyncio.create_subprocess_exec("node", str(program), wait_ms, env=workstation.environment)
        assert await asyncio.wait_for(process.wait(), 120) == 0
    assert received(api) == ["What colour is it?\n\nThe barn is red.\n"] * 2


async def test_a_silent_stdin_is_left_out_with_one_line(workstation: Workstation, farm: Sshd, api: MessagesApi) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = await workstation.start("claude-cheap", "hello", stdin=theirs.fileno())
        out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    assert b"hello" in out
    assert err.count(b"\n") == 1
    assert b"nothing came on stdin within 3 s" in err
    assert received(api) == ["hello"]


async def at_a_terminal(workstation: Workstation, *arguments: str) -> list[bytes]:
    """What `claude-cheap` shows on a terminal, in the pieces that it comes in. It ends well."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        str(BIN / "claude-cheap"),
        *arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=workstation.environment,
        cwd=CHECKOUT,
    )
    os.close(theirs)
    pieces = await asyncio.to_thread(read_terminal, ours)
    assert await process.wait() == 0, pieces
    return pieces


def read_terminal(descriptor: int) -> list[bytes]:
    """What is written to a terminal until its last writer has gone, piece by piece."""
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # EIO: how Linux says that the other side is closed
            return pieces
        if not piece:
            return pieces
        pieces.append(piece)
