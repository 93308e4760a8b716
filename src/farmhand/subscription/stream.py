"""What a run of the CLI says, line by line (`--output-format stream-json`), and how its end is judged."""

from __future__ import annotations

import json
from typing import Any

from farmhand.core.errors import Refused, TaskFailed
from farmhand.core.keys import redact
from farmhand.subscription import rate
from farmhand.subscription.gate import would_bill

_LIMITS = b'{"type":"rate_limit_event"'
_COUNTS = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "cache_creation_input_tokens": "cacheCreationInputTokens",
    "cache_read_input_tokens": "cacheReadInputTokens",
}


class CliRun:
    """What one run has said so far."""

    def __init__(self) -> None:
        #: Its last result, {} until it came.
        self.result: dict[str, Any] = {}
        #: What it said of the plan's limits; None until it said anything.
        self.use: rate.PlanUse | None = None
        #: Whether it has said with what it will ask, and that was in order.
        self.checked = False
        #: Whether it asks the model again by itself: it does so when an answer was cut.
        self.again = False
        #: How many lines could not be read.
        self.unread = 0

    def take(self, line: bytes) -> dict[str, Any]:
        """Return what a line says, {} for none. Raise Refused if the run would bill something else, or has tools."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            self.unread += bool(line.strip())
            return self.take(rest) if (rest := _limits_in(line)) else {}
        if not isinstance(value, dict):
            return {}
        if value.get("type") == "system" and value.get("subtype") == "init":
            _check_begin(value)
            self.checked = True
        elif value.get("type") == "rate_limit_event":
            self.use = rate.read(value.get("rate_limit_info")) or self.use
        elif value.get("type") == "user":
            self.again = True
        elif value.get("type") == "result":
            self.result = value
        return value

    def failure(self, status: int | None, stderr: str = "") -> TaskFailed | None:
        """Return why the run failed, None if it did not. `status` is None while the process has not ended.

        A good one has one turn, no is_error, and exit status 0; subtype says "success" for all. After a stream that
        was cut, the CLI asks the model to go on, in a second turn: then its result is the end of the answer alone.
        """
        said = self.result
        if not status and not said.get("is_error") and said.get("num_turns") == 1:
            return None
        if not status and not said.get("is_error") and said.get("num_turns"):
            return TaskFailed("claude's answer was cut on its way, and begun again", code="cli_error")
        words = " ".join(redact(str(said.get("result") or stderr or "no output")).split())[:300]
        ended = "" if status is None else f" (exit status {status})"
        return TaskFailed(f"claude failed on your login{ended}: {words}", code="cli_error")

    def usage(self) -> dict[str, int]:
        """Return the wire's usage from the result's `modelUsage`; its `usage` is zero after a fallback."""
        by_model = self.result.get("modelUsage")
        used = [each for each in by_model.values() if isinstance(each, dict)] if isinstance(by_model, dict) else []
        return {ours: sum(_count(each.get(theirs)) for each in used) for ours, theirs in _COUNTS.items()}


def _limits_in(line: bytes) -> bytes:
    """Return the event of the plan's limits that stands in the middle of another line; b"" for none.

    CLI 2.1.74 wrote it so (anthropics/claude-code#49640), and it is what tells of extra usage.
    """
    start = line.find(_LIMITS)
    if start < 0:
        return b""
    try:
        _, end = json.JSONDecoder().raw_decode(text := line[start:].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return b""
    return text[:end].encode()


def _check_begin(said: dict[str, Any]) -> None:
    """Check the first event of a run: no key, no tool, no MCP server."""
    if said.get("apiKeySource") != "none":
        raise would_bill(str(said.get("apiKeySource")))
    if said.get("tools") or said.get("mcp_servers"):
        raise Refused("claude began with tools on a plan", hint="farmhand doctor", code="subscription_off")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
