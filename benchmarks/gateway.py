"""The gateway beside LiteLLM and claude-code-router: what each adds to a turn, and what it takes.

One model server with canned answers, turns of 50 KB, answers of 50 deltas. Each gateway has the first core for itself,
the model server and the clients share the second. Direct calls and the gateways take turns. What a gateway adds is the
difference of the percentiles.

    python -m benchmarks --only gateway [--rounds N]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from benchmarks import gateway_policy
from benchmarks.driver import resident_mb
from benchmarks.gateways import CCR, LITELLM, OURS, WAYS, Gateway, start, there
from benchmarks.ground import Ground
from benchmarks.meter import _cpu_s, _pin
from benchmarks.model_server import IdleClient, ModelServer, request, turn
from benchmarks.raw_http import Client
from benchmarks.rows import Row
from tests.support.farm import FarmError

DIRECT = "direct"
#: Turns at once, and seconds of a measurement of each; turns of each client at the least, however slow the gateway is.
AT_ONCE = {1: 0.5, 16: 0.8}
_LEAST = {1: 4, 16: 1}
IDLE = 1000
#: Seconds that the idle streams are watched, and the longest silence that a client may see.
_WATCHED_S = 26.0
_SILENCE_S = 12.0
#: Seconds that a gateway has to open the idle streams.
_OPEN_S = 120.0
_P50 = {"chat": "<= 0.9", "messages": "<= 0.9", "translated": "<= 1.6"}
_RATES = {
    ("chat", False): ">= 2,500",
    ("messages", False): ">= 2,500",
    ("chat", True): ">= 2,000",
    ("messages", True): ">= 2,000",
    ("translated", True): ">= 800",
}
_SAID = {
    "chat": "Chat, passed on",
    "messages": "Messages, passed on",
    "translated": "Messages, translated",
}


class Case(NamedTuple):
    """What is measured: a way, plain or streamed, so many turns at once."""

    way: str
    streamed: bool
    at_once: int

    @property
    def words(self) -> str:
        """As a row names it."""
        return f"{_SAID[self.way]}, {'streamed' if self.streamed else 'plain'}"


class Taken:
    """What was measured of one case by one way: the seconds of each turn, and the turns in a second of each round."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.rates: list[float] = []
        self.per_cpu: list[float] = []

    def percentile(self, part: int) -> float:
        """In milliseconds."""
        return statistics.quantiles(self.seconds, n=100)[part - 1] * 1000

    @property
    def rate(self) -> float:
        """Turns a second."""
        return statistics.median(self.rates)

    @property
    def note(self) -> str:
        """How many of them a second of the gateway's own processor time is enough for, whoever else is busy."""
        return f"{statistics.median(self.per_cpu):,.0f} in a second of its processor time"


async def _round(port: int, asked: bytes, at_once: int, seconds: float) -> list[float]:
    """Ask from so many connections; the seconds of each turn."""
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(at_once)]
    end = time.perf_counter() + seconds
    taken: list[float] = []

    async def ask(client: Client) -> None:
        count = 0
        while time.perf_counter() < end or count < _LEAST[at_once]:
            taken.append(await client.ask(asked))
            count += 1

    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*map(ask, clients))
    finally:
        for client in clients:
            if client.transport is not None:
                client.transport.abort()
    return taken


async def _compare(running: dict[str, Gateway], upstream: int, rounds: int) -> dict[tuple[Case, str], Taken]:
    """Each case by each way in turns; the first round does not count."""
    taken: dict[tuple[Case, str], Taken] = defaultdict(Taken)
    cases = [Case(way, streamed, number) for way in WAYS for streamed in (False, True) for number in AT_ONCE]
    for number in range(-1, rounds):
        for case in cases:
            asks, answers = WAYS[case.way]
            for name in (DIRECT, *running):
                gateway = running.get(name)
                if gateway is None:
                    asked, port = request(upstream, answers, "-", turn(answers, "m", stream=case.streamed)), upstream
                elif case.way in gateway.models:
                    body = turn(asks, gateway.models[case.way], stream=case.streamed)
                    asked, port = request(gateway.port, asks, gateway.token, body), gateway.port
                else:
                    continue
                pid = os.getpid() if gateway is None else gateway.process.pid
                before, began = _cpu_s(pid), time.perf_counter()
                try:
                    found = await _round(port, asked, case.at_once, AT_ONCE[case.at_once])
                except (RuntimeError, TimeoutError, ConnectionError) as error:
                    if name in (DIRECT, OURS):
                        raise FarmError(f"{name}, {case.words}: {error!r}") from None
                    print(f"({name}, {case.words}, {case.at_once} at once: {error!r})", file=sys.stderr, flush=True)
                    continue
                if number < 0:
                    continue
                one = taken[case, name]
                one.seconds += found
                one.rates.append(len(found) / (time.perf_counter() - began))
                one.per_cpu.append(len(found) / max(_cpu_s(pid) - before, 0.01))
    return taken


async def _begun(clients: list[IdleClient], most: int, end: float) -> None:
    """Wait until all but `most` of the streams have begun, or for the time `end`."""
    while sum(not one.heard for one in clients) > most and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Idle(NamedTuple):
    """What `IDLE` streams that stand still cost a gateway: MB, share of a core; how many were served, and had pings."""

    rest: float
    more: float
    cpu: float
    open: int
    pinged: int


async def _idle(name: str, upstream: int, home: Path) -> Idle:
    """Open the streams at a gateway that has done nothing else yet, and watch them."""
    loop = asyncio.get_running_loop()
    gateway = await asyncio.to_thread(start, name, upstream, home)
    clients: list[IdleClient] = []
    try:
        way = "translated"
        body = turn("messages", gateway.models[way], stream=True)
        # The first turn loads what is loaded late.
        await _round(gateway.port, request(gateway.port, "messages", gateway.token, body), 1, 0.0)
        await asyncio.sleep(1)
        rest = resident_mb(gateway.process.pid)
        body = turn("messages", gateway.models[way], stream=True, hold=True)
        asked = request(gateway.port, "messages", gateway.token, body)
        end = loop.time() + _OPEN_S
        while len(clients) < IDLE and loop.time() < end:
            client = (await loop.create_connection(IdleClient, "127.0.0.1", gateway.port))[1]
            clients.append(client)
            if client.transport is not None:
                client.transport.write(asked)
            await _begun(clients[-32:], 16, end)
        await _begun(clients, 0, end)
        served = [one for one in clients if one.head.startswith(b"HTTP/1.1 200")]
        heard = [one.heard for one in served]
        before, began = _cpu_s(gateway.process.pid), loop.time()
        await asyncio.sleep(_WATCHED_S)
        now = loop.time()
        cpu = (_cpu_s(gateway.process.pid) - before) / (now - began)
        pinged = sum(
            one.heard > had and max(one.longest, now - one.last) <= _SILENCE_S
            for one, had in zip(served, heard, strict=True)
        )
        return Idle(rest, resident_mb(gateway.process.pid) - rest, cpu, len(served), pinged)
    finally:
        for client in clients:
            if client.transport is not None:
                client.transport.abort()
        await asyncio.to_thread(gateway.stop)


def _latencies(case: Case, taken: dict[tuple[Case, str], Taken]) -> list[Row]:
    rows = []
    for part in (50, 99):
        added = {
            name: taken[case, name].percentile(part) - taken[case, DIRECT].percentile(part)
            for name in (OURS, LITELLM, CCR)
            if (case, name) in taken
        }
        ours = added.pop(OURS)
        target = {50: _P50[case.way], 99: "<= 4"}[part] if case.at_once == 1 else ""
        what = f"gateway: added p{part}, {case.words}, {case.at_once} at once"
        rows.append(Row(what=what, ours=ours, unit="ms", target=target))
        for name, figure in added.items():
            limit = {LITELLM: "ratio <= 0.125", CCR: "ratio <= 0.333"}[name]
            target = limit if part == 50 and case.at_once == 1 else ""
            rows.append(Row(what=what, ours=ours, reference=figure, against=name, unit="ms", target=target))
    return rows


def _rates(case: Case, taken: dict[tuple[Case, str], Taken]) -> list[Row]:
    ours = taken[case, OURS]
    kind = "streams" if case.streamed else "requests"
    what = f"gateway: {kind} a second, {_SAID[case.way]}"
    target = _RATES.get((case.way, case.streamed), "")
    rows = [Row(what=what, ours=ours.rate, unit=f"{kind}/s", target=target, note=ours.note)]
    for name in (LITELLM, CCR):
        if found := taken.get((case, name)):
            target = "ratio >= 10" if name == LITELLM else ""
            figures = {"ours": ours.rate, "reference": found.rate}
            rows.append(Row(what=what, **figures, against=name, unit=f"{kind}/s", target=target, note=found.note))
    return rows


def _standing(figures: dict[str, Idle], starts: dict[str, float]) -> list[Row]:
    ours = figures.pop(OURS)
    rest, idle = "gateway: memory at rest", f"gateway: {IDLE:,} idle streams of 50 KB: "
    rows = [
        Row(what=rest, ours=ours.rest, unit="MB", target="<= 60"),
        Row(what=f"{idle}memory more", ours=ours.more, unit="MB", target="<= 35", note=f"{ours.open:,} open"),
        Row(what=f"{idle}pings at most 12 s apart", ours=ours.pinged, unit="streams", target=f">= {IDLE:,}"),
        Row(what=f"{idle}share of a core", ours=ours.cpu * 100, unit="%", target="<= 5"),
        Row(what="gateway: start to listening", ours=starts[OURS], unit="s", target="<= 0.6"),
    ]
    for name, one in figures.items():
        about = {"reference": one.rest, "against": name}
        rows.append(Row(what=rest, ours=ours.rest, unit="MB", **about))  # type: ignore[arg-type]
        note = f"it has {one.open:,} open, {one.pinged:,} of them with pings, {one.cpu:.0%} of a core"
        rows.append(
            Row(what=f"{idle}memory more", ours=ours.more, reference=one.more, against=name, unit="MB", note=note)
        )
    for name, seconds in starts.items():
        if name != OURS:
            what = "gateway: start to listening"
            rows.append(Row(what=what, ours=starts[OURS], reference=seconds, against=name, unit="s"))
    return rows


async def _measure(ground: Ground) -> list[Row]:
    server = await asyncio.get_running_loop().create_server(ModelServer, "127.0.0.1", 0, backlog=1024)
    upstream = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bench-gateway-", ignore_cleanup_errors=True) as directory:
        running = await asyncio.to_thread(there, (OURS, LITELLM, CCR), upstream, Path(directory))
        try:
            taken = await _compare(running, upstream, ground.rounds)
            loaded = {name: resident_mb(gateway.process.pid) for name, gateway in running.items()}
        finally:
            for gateway in running.values():
                await asyncio.to_thread(gateway.stop)
        figures = {name: await _idle(name, upstream, Path(directory, f"{name}-idle")) for name in running}
    server.close()
    rows: list[Row] = []
    for case in dict.fromkeys(case for case, _ in taken):
        rows += _latencies(case, taken)
        if case.at_once > 1:
            rows += _rates(case, taken)
    rows += _standing(figures, {name: gateway.start_s for name, gateway in running.items()})
    for name in (LITELLM, CCR):
        if name in loaded:
            what = "gateway: memory after all these turns"
            rows.append(Row(what=what, ours=loaded[OURS], reference=loaded[name], against=name, unit="MB"))
    for what, seconds in gateway_policy.best().items():
        target = "<= 60" if what != gateway_policy.FACTS else ""
        rows.append(Row(what=f"gateway: policy: {what}", ours=seconds * 1e6, unit="µs", target=target))
    return rows


def measure(ground: Ground) -> list[Row]:
    """The rows of the gateway. FarmError if ours cannot be measured; which other one cannot is said and left out."""
    allowed = os.sched_getaffinity(0)
    _pin(1)
    try:
        return asyncio.run(_measure(ground))
    finally:
        os.sched_setaffinity(0, allowed)
