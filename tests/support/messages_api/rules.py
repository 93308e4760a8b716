"""Scripted answers. A rule is stateless: the turn it is at is counted in the conversation itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


class ToolUse(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A call to answer with; without `input` the smallest one that the tool's schema allows."""

    name: str
    input: dict[str, Any] | None = None


class Step(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One answer: text, tool uses, or both. `{tool_result}` in the text stands for the last tool result."""

    text: str = ""
    tool_use: ToolUse | list[ToolUse] | None = None

    @property
    def tool_uses(self) -> list[ToolUse]:
        """The calls as a list."""
        if self.tool_use is None:
            return []
        return self.tool_use if isinstance(self.tool_use, list) else [self.tool_use]


class Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """When the last user text contains `contains` and the request has the tools the steps call, answer with `steps`.

    The first step answers the user's text, the next one its tool results, and so on; after the last step the answer
    is the last tool result as text.
    """

    contains: str
    steps: list[Step]
    model: str = ""


class Turn(msgspec.Struct, kw_only=True):
    """Where a conversation is: its last user text, how many answers followed, the last tool result."""

    prompt: str
    text: str
    answers: int
    tool_result: str


def flatten(content: object) -> str:
    """The text of a message's or a tool result's content."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(flatten(b.get("text", b.get("content", ""))) for b in content if isinstance(b, dict))
    return ""


def read_turn(messages: list[dict[str, Any]]) -> Turn:
    """Find the last user message that is not a tool result, and what came after it."""
    start = 0
    for i, message in enumerate(messages):
        if message["role"] == "user" and not _results(message):
            start = i
    content = messages[start]["content"]
    last = (
        content if isinstance(content, str) else next((b["text"] for b in reversed(content) if b["type"] == "text"), "")
    )
    after = messages[start + 1 :]
    results = [r for m in after for r in _results(m)]
    return Turn(
        prompt=last,
        text=flatten(content),
        answers=sum(m["role"] == "assistant" for m in after),
        tool_result=flatten(results[-1].get("content", "")) if results else "",
    )


def _results(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [] if isinstance(content, str) else [b for b in content if b["type"] == "tool_result"]


class Rules:
    """The rules in force; the newest that matches wins."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, *rules: Rule) -> None:
        """Add rules."""
        self._rules.extend(rules)

    def clear(self) -> None:
        """Forget all."""
        self._rules.clear()

    def all(self) -> list[Rule]:
        """The rules in force, oldest first."""
        return list(self._rules)

    def step(self, turn: Turn, model: str, tools: Iterable[str]) -> Step | None:
        """The scripted answer for this turn."""
        offered = set(tools)
        for rule in reversed(self._rules):
            if rule.contains not in turn.text or (rule.model and rule.model != model):
                continue
            if any(use.name not in offered for step in rule.steps for use in step.tool_uses):
                continue
            return rule.steps[turn.answers] if turn.answers < len(rule.steps) else Step(text="{tool_result}")
        return None
