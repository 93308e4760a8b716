"""`farmhand cost` and `farmhand report` over a million tasks, and the measured constants that its savings rest on.

The ledger is made up by a seed and merged as from a host, in a process of its own; then the command itself is run over
what was merged. Beside it: the request bodies of the real CLI and of the farm's own engine, against the constants in
farmhand/cost/overhead.py.

    python -m benchmarks.cost [--tasks N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core.prices import price_table
from farmhand.core.task import Usage
from farmhand.cost.overhead import LEAN_BYTES, PLAIN_BYTES
from farmhand.cost.store import CostStore, pull
from farmhand.wire.client import Client
from tests.support.agent import Agent
from tests.support.claude import claude_binary
from tests.support.messages_api import DEFAULT_KEY, MessagesApi

TASKS = 1_000_000
ROUNDS = 5
#: A prompt of this many bytes is what both bodies are measured with.
PROMPT = "Hello"
_SPAN_S = 90 * 86400
_ENCODER = msgspec.json.Encoder()


class MadeUp(Client):
    """A host with a ledger of so many tasks over 90 days: 500 batches, 20 label sets, three models, three engines."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._start = time.time() - _SPAN_S
        self._table = price_table()
        #: Seconds that went into making lines up, which a real host's would come over ssh.
        self.made_s = 0.0

    def status(self) -> dict[str, Any]:
        """What the merge asks of a status."""
        return {"ledger": {"id": "made-up"}}

    def charges(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """One charge per task."""
        return self._timed(self._charges(after, limit))

    def _timed(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            started = time.perf_counter()
            line = next(lines, None)
            self.made_s += time.perf_counter() - started
            if line is None:
                return
            yield line

    def _charges(self, after: int, limit: int) -> Iterator[bytes]:
        for no in range(after + 1, min(after + limit, self._tasks) + 1):
            row, usage, at = self._row(no)
            pico = self._table.cost(row["model"], Usage(**usage), economy=row["economy"], at=at)
            usd = f"{(pico or 0) / 10**12:.12f}"
            row |= {"charge_id": no, "created_at": at, "cost_usd": usd, "price_version": "x"}
            yield _ENCODER.encode({**row, **usage})

    def finished(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """The tasks."""
        return self._timed(self._finished(after, limit))

    def _finished(self, after: int, limit: int) -> Iterator[bytes]:
        for no in range(after + 1, min(after + limit, self._tasks) + 1):
            row, usage, at = self._row(no)
            row |= {"finish_seq": no, "id": f"{no:032x}", "state": "failed" if no % 97 == 0 else "succeeded"}
            yield _ENCODER.encode({**row, **usage, "created_at": at, "started_at": at, "finished_at": at + 3})

    def _row(self, no: int) -> tuple[dict[str, Any], dict[str, int], float]:
        chance = random.Random(no)  # noqa: S311  (figures, no secrets)
        economy = chance.random() < 0.3
        row: dict[str, Any] = {
            "model": chance.choice(("claude-haiku-5-5",) * 8 + ("claude-sonnet-5-5", "claude-opus-5-5")),
            "engine": "economy" if economy else chance.choice(("api", "api", "api", "cli")),
            "economy": economy,
            "batch": f"batch-{no * 500 // self._tasks}",
            "labels": {"team": f"team-{chance.randrange(20)}"},
            "work_class": chance.choice(("", "summary", "extract")),
        }
        usage = {
            "input_tokens": chance.randrange(50, 4000),
            "output_tokens": chance.randrange(5, 900),
            "cache_read_input_tokens": chance.choice((0, 0, 2000)),
        }
        return row, usage, self._start + no * _SPAN_S / self._tasks


def fill(path: Path, tasks: int) -> dict[str, float]:
    """Merge a made-up ledger, then again with nothing new: seconds of both, peak memory in MB."""
    store = CostStore(path)
    agent = MadeUp(tasks)
    started = time.perf_counter()
    pull(store, "farm1", agent)
    first = time.perf_counter() - started - agent.made_s
    started = time.perf_counter()
    pull(store, "farm1", agent)
    again = time.perf_counter() - started
    store.close()
    return {"first_s": first, "again_s": again, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _filled(directory: Path, tasks: int) -> dict[str, float]:
    """`fill` in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.cost", "--tasks", str(tasks), "--fill", str(directory / f"{tasks}.db")]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _command(directory: Path, tasks: int, *arguments: str, verb: str = "cost") -> tuple[float, float]:
    """(wall seconds, peak MB) of `farmhand cost` or `report` over what was merged. RuntimeError where it fails."""
    config = directory / "config.toml"
    config.write_text(f'cost_store = "{directory}/{tasks}.db"\nbox_usd_month = "24"\n')
    (directory / "hosts.json").write_text('{"hosts": {"farm1": {"address": "farm1"}}}')
    program = Path(sys.executable).with_name("farmhand")
    quiet = ["--no-interactive"] if verb == "cost" else []
    argv = [str(program), verb, "--config", str(config), "--no-merge", *quiet, *arguments]
    started = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"farmhand {verb} ended with status {process.returncode}")
    return took, usage.ru_maxrss / 1024


async def bodies() -> dict[str, int]:
    """Bytes of the request that a short prompt makes: of plain `claude -p` with a fresh home, and of our api engine."""
    with tempfile.TemporaryDirectory() as home:
        async with MessagesApi() as api:
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": home,
                "ANTHROPIC_BASE_URL": api.url,
                "ANTHROPIC_API_KEY": DEFAULT_KEY,
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "DISABLE_AUTOUPDATER": "1",
            }
            argv = [str(claude_binary()), "-p", "--model", "claude-haiku-5-5", PROMPT]
            quiet = asyncio.subprocess.DEVNULL
            plain = await asyncio.create_subprocess_exec(
                *argv, env=environment, cwd=home, stdin=quiet, stdout=quiet, stderr=quiet
            )
            if await plain.wait() != 0:
                raise RuntimeError("plain claude -p failed against the loopback API")
            sizes = {"plain": api.posts[-1].size}
            agent = Agent(Path(home), api.url)
            await agent.start()
            await agent.run(id="size", prompt=PROMPT)
            await agent.stop()
            sizes["lean"] = api.posts[-1].size
            return sizes


def _row(what: str, ours: float, reference: float, unit: str, target: str, digits: int = 2) -> dict[str, Any]:
    ratio = round(ours / reference, 3) if reference else None
    shown = {"ours": round(ours, digits), "reference": round(reference, digits)}
    return {"what": what, **shown, "unit": unit, "target": target, "ratio": ratio}


def measure(tasks: int = TASKS, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """The rows of the table. `reference` is the target's figure, or what the growth is measured against."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        few = max(1, tasks // 100)
        small, large = _filled(directory, few), _filled(directory, tasks)
        ways = {"": (), " --by label": ("--by", "label"), " --by day --json": ("--by", "day", "--json")}
        rows = []
        for way, arguments in ways.items():
            taken = [_command(directory, tasks, *arguments) for _ in range(rounds)]
            seconds = statistics.median(wall for wall, _ in taken)
            rows.append(_row(f"farmhand cost{way}, {tasks:,} tasks", seconds, 5.0, "s", "at most 5 s"))
        most, least = (statistics.median(_command(directory, n)[1] for _ in range(rounds)) for n in (tasks, few))
        page = directory / "report.html"
        drawn = {
            n: [_command(directory, n, "--html", str(page), verb="report") for _ in range(rounds)] for n in (few, tasks)
        }
        seconds = statistics.median(wall for wall, _ in drawn[tasks])
        rows.append(_row(f"farmhand report --html, {tasks:,} tasks", seconds, 10.0, "s", "at most 10 s"))
        large_mb, small_mb = (statistics.median(peak for _, peak in drawn[n]) for n in (tasks, few))
        beside = f"{tasks:,} tasks beside {few:,}"
        rows.append(_row(f"memory of the report, {beside}", large_mb, small_mb, "MB", "ratio at most 1.2", 0))
        rows.append(_row("size of the report's page", page.stat().st_size / 1e6, 0, "MB", "shown"))
    rows.append(_row(f"memory of farmhand cost, {beside}", most, least, "MB", "ratio at most 1.2", 0))
    peaks = (large["peak_mb"], small["peak_mb"])
    rows.append(_row(f"memory of the merge, {beside}", *peaks, "MB", "ratio at most 1.2", 0))
    rows.append(_row(f"first merge of {tasks:,} tasks", large["first_s"], 0, "s", "once", 1))
    rows.append(_row("a merge with nothing new", large["again_s"], 2.0, "s", "at most 2 s", 3))
    sizes = asyncio.run(bodies())
    rows.append(
        _row("baseline of the cost: plain claude -p sends", sizes["plain"], PLAIN_BYTES, "bytes", "ratio at least 1", 0)
    )
    rows.append(
        _row("baseline of the cost: the api engine sends", sizes["lean"], LEAN_BYTES, "bytes", "ratio at most 1", 0)
    )
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=TASKS, help="default: %(default)s")
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        print(json.dumps(fill(options.fill, options.tasks)))
        return 0
    print(f"{'what':<48} {'ours':>12} {'reference':>12} {'unit':<6} {'ratio':>7}  target")
    for row in measure(options.tasks):
        numbers = f"{row['ours']:>12,} {row['reference']:>12,}"
        print(f"{row['what']:<48} {numbers} {row['unit']:<6} {row['ratio'] or '':>7}  {row['target']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
