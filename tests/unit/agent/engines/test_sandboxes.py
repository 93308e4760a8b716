"""Connections that wait for their task. That they are sandboxes of one task each is shown in tests/e2e."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farmhand.agent.engines import EngineError, sandboxes
from farmhand.agent.engines.sandboxes import SandboxPool


class Listener:
    """Stands for task.sock: counts who came, and can hang up."""

    def __init__(self) -> None:
        self.lines: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines.append((reader, writer))

    async def until(self, count: int) -> None:
        for _ in range(12000):
            if len(self.lines) >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.lines)} came, not {count}")


def pool(directory: Path, wanted: int) -> SandboxPool:
    return SandboxPool(directory, 9, wanted)


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    found = Listener()
    server = await asyncio.start_unix_server(found.accept, tmp_path / "task.sock")
    yield found
    server.close()
    for _, writer in found.lines:
        writer.close()


async def test_each_serves_one_task_and_another_takes_its_place(tmp_path: Path, listener: Listener) -> None:
    waiting = pool(tmp_path, 2)
    _, first = await waiting.take("none")
    await listener.until(3)
    first.write(b"order\n")
    assert await listener.lines[0][0].readline() == b"order\n"
    _, second = await waiting.take("none")
    await listener.until(4)
    second.write(b"another order\n")
    assert await listener.lines[1][0].readline() == b"another order\n"
    waiting.close()
    for reader, _ in listener.lines[2:]:
        assert await reader.read() == b""
    first.close()
    second.close()


async def test_one_that_has_died_is_passed_over(tmp_path: Path, listener: Listener) -> None:
    waiting = pool(tmp_path, 1)
    (await waiting.take("none"))[1].close()
    await listener.until(2)
    listener.lines[1][1].close()
    assert await waiting._idle[0][0].read() == b""
    reader, writer = await waiting.take("none")
    await listener.until(3)
    listener.lines[2][1].write(b"alive\n")
    assert await reader.readline() == b"alive\n"
    writer.close()
    waiting.close()


async def test_without_spares_each_is_started_for_its_task(tmp_path: Path, listener: Listener) -> None:
    waiting = pool(tmp_path, 0)
    for _ in range(2):
        (await waiting.take("none"))[1].close()
    await listener.until(2)
    assert waiting._filling is None


async def test_a_rest_ends_those_that_wait(tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "WAIT_S", 0.05)
    waiting = pool(tmp_path, 1)
    (await waiting.take("none"))[1].close()
    await listener.until(2)
    assert await listener.lines[1][0].read() == b""


async def test_where_none_can_be_had_the_task_hears_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no sandbox to be had: .*/task.sock: No such file"):
        await pool(tmp_path, 1).take("none")
