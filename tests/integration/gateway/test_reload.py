"""Settings are swapped whole or not at all, under load: no turn fails, none sees a half of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.local_server import END, LLAMA, SSE, LocalServerPlay, Play, delta, until

TURN = {
    "model": "farmhand/mine",
    "max_tokens": 9,
    "stream": True,
    "messages": [{"role": "user", "content": "hello"}],
}
CONTROL = {"X-Farmhand-Control": "1"}
RELOADS = 50
#: Files that are none: not TOML, a key that is not known, a name that leads nowhere in otherwise good settings.
BROKEN = ("[[[", "color = 1\n", '[aliases]\nmine = {{ backend = "local:{}" }}\n')


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    async with GatewayProcess(tmp_path) as made:
        yield made


def settings(name: str, url: str) -> str:
    """Settings that hold together only as a whole: the alias leads to the one server that there is."""
    return f'[local.{name}]\nurl = "{url}"\nslots = 64\n[aliases]\nmine = {{ backend = "local:{name}" }}\n'


def answered(answers: Counter[str], workers: list[asyncio.Task[None]], number: int) -> bool:
    """Whether so many turns were answered, or one failed."""
    return answers.total() >= number or any(worker.done() for worker in workers)


async def test_fifty_reloads_under_load_with_turns_in_flight(gateway: GatewayProcess) -> None:
    held = asyncio.Event()

    def play(name: str) -> Play:
        async def answer(local: LocalServerPlay, writer: asyncio.StreamWriter) -> None:
            writer.write(SSE + delta(f"<{name}"))
            if name == "a" and len(local.turns) == 1:
                await held.wait()
            writer.write(delta(f"{name}>") + END)
            await writer.drain()

        return answer

    async with LocalServerPlay(LLAMA, play("a")).serve() as a, LocalServerPlay(LLAMA, play("b")).serve() as b:
        urls = {"a": a.url, "b": b.url}
        gateway.write(settings("a", a.url))
        await gateway.start()
        await gateway.until_up("local:a")
        long = asyncio.create_task(gateway.call("POST", "/v1/messages", TURN))
        await until(lambda: bool(a.turns))
        over, answers = asyncio.Event(), Counter[str]()

        async def load() -> None:
            while not over.is_set():
                status, headers, text = await gateway.call("POST", "/v1/messages", TURN)
                assert status == 200, text
                (name,) = [each for each in "ab" if f"<{each}" in text]
                assert (f"{name}>" in text, "message_stop" in text) == (True, True), text
                assert headers["x-farmhand-backend"] == f"local:{name}"
                answers[name] += 1

        workers = [asyncio.create_task(load()) for _ in range(4)]
        current = "a"
        for number in range(RELOADS):
            if number % 3 == 2:
                broken = BROKEN[number // 3 % len(BROKEN)]
                gateway.write(broken.format("gone") if "{{" in broken else broken)
                status, _, said = await gateway.call("POST", "/farmhand/v1/reload", {}, CONTROL)
                assert status >= 400, said
            else:
                current = "b" if current == "a" else "a"
                gateway.write(settings(current, urls[current]))
                status, _, said = await gateway.call("POST", "/farmhand/v1/reload", {}, CONTROL)
                assert status == 200, said
            names = [state["name"] for state in (await gateway.status())["states"]]
            assert names == [f"local:{current}", "subscription", "metered"]
            enough = answers.total() + 1
            await until(partial(answered, answers, workers, enough))
        over.set()
        await asyncio.gather(*workers)
        assert min(answers["a"], answers["b"]) > 0
        # The turn that began before the first reload ends as it began, by a server that the settings no longer name.
        gateway.write(settings("b", b.url))
        assert (await gateway.call("POST", "/farmhand/v1/reload", {}, CONTROL))[0] == 200
        held.set()
        status, _, text = await long
        assert (status, "<a" in text, "a>" in text, "message_stop" in text) == (200, True, True, True), text


async def test_hang_ups_in_a_row_end_with_the_last_settings(gateway: GatewayProcess) -> None:
    await gateway.start()
    for number in range(20):
        gateway.write(f'[local.n{number}]\nurl = "http://127.0.0.1:9"\n')
        gateway.hang_up()
    await gateway.until_listed("local:n19")
    assert "Traceback" not in gateway.log.read_text()
