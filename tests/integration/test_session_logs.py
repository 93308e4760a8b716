"""The session logs of the real CLI, and what the real ccusage says of the same logs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

from farmhand.core.money import PICO_PER_USD, pico
from farmhand.cost.sessions import Interactive, OnDay, interactive, read
from farmhand.cost.store import CostStore
from tests.support.ccusage import daily
from tests.support.claude import claude_binary
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.unit.cost.ledgers import TABLE, new_store
from tests.unit.cost.test_sessions import line, write

#: Models whose prices ccusage brings along, and which are the same in our table.
KNOWN = ("claude-haiku-4-5-20251001", "claude-opus-4-7", "claude-sonnet-4-6")


def ours(tmp_path: Path, config_dir: Path) -> Interactive:
    """What farmhand reads in the logs."""
    store: CostStore = new_store(tmp_path / "cost.db")
    places = [config_dir / "projects"]
    found = interactive(store, TABLE, 0, places, read(store, places))
    store.close()
    return found


def tokens(days: list[OnDay]) -> dict[tuple[str, str], tuple[int, ...]]:
    """Our tokens by day and model."""
    return {
        (day.day, day.model): (
            day.input_tokens,
            day.output_tokens,
            day.cache_creation_input_tokens,
            day.cache_read_input_tokens,
        )
        for day in days
    }


def breakdowns(theirs: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """ccusage's rows by day and model."""
    return {(day["date"], row["modelName"]): row for day in theirs["daily"] for row in day["modelBreakdowns"]}


def their_tokens(theirs: dict[str, Any]) -> dict[tuple[str, str], tuple[int, ...]]:
    """ccusage's tokens by day and model."""
    kinds = ("inputTokens", "outputTokens", "cacheCreationTokens", "cacheReadTokens")
    return {key: tuple(row[kind] for kind in kinds) for key, row in breakdowns(theirs).items()}


async def claude(api: MessagesApi, home: Path, *arguments: str) -> None:
    """One session of the real CLI, as an operator has it."""
    process = await asyncio.create_subprocess_exec(
        str(claude_binary()),
        *("-p", "--model", "claude-haiku-5-5"),
        *arguments,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "CLAUDE_CONFIG_DIR": str(home / "config"),
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_API_KEY": DEFAULT_KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
        cwd=home,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output


async def test_the_real_cli_s_logs_say_what_the_api_counted_and_ccusage_agrees(
    tmp_path: Path, api: MessagesApi
) -> None:
    await claude(api, tmp_path, "Hello")
    await claude(api, tmp_path, "--continue", "And again")
    usages = [entry.usage for entry in api.posts if entry.usage]
    found = ours(tmp_path, tmp_path / "config")
    assert found.messages == len(usages) >= 2
    kinds = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    for kind in kinds:
        assert sum(getattr(day, kind) for day in found.days) == sum(usage[kind] for usage in usages)
    assert tokens(found.days) == their_tokens(daily(tmp_path / "config", tmp_path))
    raw = "".join(path.read_text() for path in (tmp_path / "config/projects").rglob("*.jsonl"))
    assert raw.count('"usage":{"input_tokens"') > len(usages), "the CLI writes no line twice any more"


def test_ccusage_counts_and_prices_the_same_logs_alike(tmp_path: Path) -> None:
    projects = tmp_path / "config" / "projects"
    entries = [
        line(
            f"m{number}",
            f"r{number}",
            KNOWN[number % len(KNOWN)],
            hours=-number * 5,
            input_tokens=number * 7,
            output_tokens=number * 3,
            cache_creation_input_tokens=number * 11,
            cache_read_input_tokens=number * 101,
        )
        for number in range(1, 60)
    ]
    write(projects / "p" / "one.jsonl", *entries[:40], *entries[:40], *entries[30:50])
    write(projects / "q" / "two.jsonl", *entries[20:], entries[0])
    found, theirs = ours(tmp_path, tmp_path / "config"), daily(tmp_path / "config", tmp_path)
    assert found.messages == len(entries)
    assert tokens(found.days) == their_tokens(theirs)
    for day in found.days:
        theirs_usd = breakdowns(theirs)[day.day, day.model]["cost"]
        # Theirs are floats: they agree to a nano-dollar.
        assert abs(pico(Decimal(repr(theirs_usd))) - (day.estimate_pico or 0)) < PICO_PER_USD // 10**9
    total = pico(Decimal(repr(theirs["totals"]["totalCost"])))
    assert abs(total - found.estimate_pico) < PICO_PER_USD // 10**9


def test_where_ccusage_and_we_differ(tmp_path: Path) -> None:
    """It takes the first line of an answer, of which the output may still be growing; we take the last."""
    projects = tmp_path / "config" / "projects"
    write(projects / "p" / "one.jsonl", line(output_tokens=2), line(output_tokens=2), line(output_tokens=90))
    found, theirs = ours(tmp_path, tmp_path / "config"), daily(tmp_path / "config", tmp_path)
    assert [day.output_tokens for day in found.days] == [90]
    assert theirs["totals"]["outputTokens"] == 2
