"""(f): a loop around the official SDK, as a user would write it: JSONL in, JSONL out, so many requests at once.

ANTHROPIC_API_KEY=… python sdk_loop.py IN.jsonl OUT.jsonl --concurrency 32
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import IO, Any

from anthropic import AsyncAnthropic


async def _one(client: AsyncAnthropic, gate: asyncio.Semaphore, task: dict[str, Any], out: IO[str]) -> None:
    async with gate:
        answer = await client.messages.create(
            model="claude-haiku-5-5", max_tokens=4096, messages=[{"role": "user", "content": task["prompt"]}]
        )
    text = "".join(block.text for block in answer.content if block.type == "text")
    out.write(json.dumps({"prompt": task["prompt"], "text": text, "usage": answer.usage.model_dump()}) + "\n")


async def _all(tasks: list[dict[str, Any]], out: IO[str], concurrency: int) -> None:
    gate = asyncio.Semaphore(concurrency)
    async with AsyncAnthropic() as client:
        await asyncio.gather(*(_one(client, gate, task, out) for task in tasks))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    with open(options.source, encoding="utf-8") as lines, open(options.target, "w", encoding="utf-8") as results:
        asyncio.run(_all([json.loads(line) for line in lines], results, options.concurrency))
