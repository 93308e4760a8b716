"""What the meter costs: the latency it adds, and the requests that one core of it passes.

The meter runs in a process of its own on one core; an upstream that answers at once with canned bytes, and the client,
share the others. Direct calls and calls through the meter take turns, so that a machine that slows down slows both.

    python -m benchmarks.meter [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.raw_http import MODEL, Client, Upstream, request

#: Client connections of the throughput part; each has a grant of its own, as each task has.
CONNECTIONS = 32
_ASKED_A_ROUND = 300
_THROUGHPUT_S = 2.0
#: The target in requests a second: 4,000 before ADR 6, which accepts 1.31 times the processor time.
_RATE = 3000
_TICK = os.sysconf("SC_CLK_TCK")


def _pin(core: int) -> None:
    """Stay on one core; the last one where there are fewer."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[min(core, len(cores) - 1)]})


async def _serve_meter(socket: str, upstream_url: str) -> None:
    """The meter as the agent serves it; prints its task tokens, then serves until stdin ends."""
    from farmhand.meter import policy
    from farmhand.meter.grants import Grant, Key
    from farmhand.meter.http_server import MeterServer
    from farmhand.meter.meter import Meter
    from farmhand.meter.upstream import Upstream

    policy.MAX_REQUESTS = sys.maxsize
    meter = Meter(Upstream(upstream_url))
    door = MeterServer(meter)
    listening = await asyncio.get_running_loop().create_unix_server(door, socket)
    grants = [Grant(task_id=str(n), key=Key("sk-ant-benchmark-00000000"), model=MODEL) for n in range(CONNECTIONS)]
    print(json.dumps([meter.grants.issue(grant) for grant in grants]), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    listening.close()
    await door.close(0)


@asynccontextmanager
async def _process(
    *arguments: str, module: str = "benchmarks.meter"
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    """A part in a process of its own, and the line of JSON that it prints when it is ready."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdin is not None  # noqa: S101  (both are pipes)
        assert child.stdout is not None  # noqa: S101
        yield child, json.loads(await child.stdout.readline())
        child.stdin.close()
    finally:
        if child.returncode is None:
            await asyncio.wait_for(child.wait(), 20)


def _cpu_s(pid: int) -> float:
    """Seconds of processor time a process has taken. Source: fields 14 and 15 in proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


async def _latencies(direct: Client, metered: Client, token: str, rounds: int, *, stream: bool) -> list[list[float]]:
    """Seconds of each request, direct and through the meter, in turns; the first round does not count."""
    asking = request(token, stream=stream)
    taken: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for client, seconds in zip((direct, metered), taken, strict=True):
            round_s = [await client.ask(asking) for _ in range(_ASKED_A_ROUND)]
            if number:
                seconds += round_s
    return taken


async def _throughput(clients: list[Client], tokens: list[str], seconds: float, *, stream: bool) -> float:
    """Requests a second of all `clients` at once."""
    end = time.perf_counter() + seconds

    async def ask(client: Client, token: str) -> int:
        asking, count = request(token, stream=stream), 0
        while time.perf_counter() < end:
            await client.ask(asking)
            count += 1
        return count

    started = time.perf_counter()
    counts = await asyncio.gather(*(ask(client, token) for client, token in zip(clients, tokens, strict=True)))
    return sum(counts) / (time.perf_counter() - started)


def _row(what: str, ours: float, reference: float, unit: str, target: str, ratio: float) -> dict[str, Any]:
    shown = (round(value, 3) for value in (ours, reference, ratio))
    return dict(zip(("what", "ours", "reference", "ratio"), (what, *shown), strict=True)) | {
        "unit": unit,
        "target": target,
    }


async def _measure(rounds: int) -> list[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    rows: list[dict[str, Any]] = []
    upstream = await loop.create_server(Upstream, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/meter.sock"
        async with _process("--serve", socket, f"http://127.0.0.1:{port}") as (meter, tokens):
            direct = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in tokens]
            metered = [(await loop.create_unix_connection(Client, socket))[1] for _ in tokens]
            for name, stream in (("plain", False), ("streaming", True)):
                both = await _latencies(direct[0], metered[0], tokens[0], rounds, stream=stream)
                for part, target in ((50, "<= 0.6"), (99, "<= 3")):
                    base, ours = (statistics.quantiles(one, n=100)[part - 1] * 1000 for one in both)
                    what = f"meter: added latency p{part}, {name}"
                    rows.append(_row(what, ours - base, base, "ms", target, ours / base))
                rates: list[tuple[float, float, float]] = []
                for number in range(rounds + 1):
                    base = await _throughput(direct, tokens, _THROUGHPUT_S / 4, stream=stream)
                    before, started = _cpu_s(meter.pid), time.perf_counter()
                    ours = await _throughput(metered, tokens, _THROUGHPUT_S, stream=stream)
                    wall = time.perf_counter() - started
                    if number:
                        rates.append((ours, base, (_cpu_s(meter.pid) - before) / (ours * wall)))
                ours, base, cpu = (statistics.median(values) for values in zip(*rates, strict=True))
                rows.append(_row(f"meter: {name}", ours, base, "requests/s", f">= {_RATE}", ours / base))
                what = f"meter: {name}, requests in a second of one core's time"
                rows.append(_row(what, 1 / cpu, _RATE, "requests/s", f">= {_RATE}", 1 / cpu / _RATE))
    upstream.close()
    return rows


def measure(rounds: int = 5) -> list[dict[str, Any]]:
    """Rows of the table: what, ours, reference (a direct call, or the target), unit, target, ratio.

    The wall figures of requests a second fall when anything else runs; those of processor time hardly do.
    """
    allowed = os.sched_getaffinity(0)
    _pin(1)
    try:
        return asyncio.run(_measure(rounds))
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> int:
    """Print the table; write the rows as JSON where asked."""
    parser = argparse.ArgumentParser(prog="benchmarks.meter", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row as JSON")
    parser.add_argument("--serve", nargs=2, metavar=("SOCKET", "UPSTREAM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        _pin(0)
        asyncio.run(_serve_meter(*options.serve))
        return 0
    rows = measure(options.rounds)
    print(f"{'what':<58} {'ours':>10} {'reference':>10} {'ratio':>7} {'unit':<11} target")
    for row in rows:
        figures = f"{row['ours']:>10.3f} {row['reference']:>10.3f} {row['ratio']:>7.2f}"
        print(f"{row['what']:<58} {figures} {row['unit']:<11} {row['target']}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
