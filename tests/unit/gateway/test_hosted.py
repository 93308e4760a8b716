"""Tools that a provider runs, asked for in Chat Completions and Responses: refused by their place, never dropped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from farmhand.gateway.carries import ChatOptions
from farmhand.gateway.dialects import chat, responses, to_chat, to_messages
from farmhand.gateway.turn import CannotCarry

TYPES = (
    *("web_search", "web_search_preview", "file_search", "code_interpreter", "image_generation", "mcp"),
    *("computer_use_preview", "local_shell", "shell", "apply_patch", "namespace", "tool_search", "custom", "tomorrow"),
)
CASES: list[tuple[str, dict[str, Any], str]] = [
    *(("responses", {"tools": [{"type": "function", "name": "a"}, {"type": one}]}, "tools[1]") for one in TYPES),
    *(("chat", {"tools": [{"type": one}]}, "tools[0]") for one in ("web_search", "custom", "tomorrow")),
    ("responses", {"tool_choice": {"type": "web_search"}}, "tool_choice"),
    ("responses", {"input": [{"type": "web_search_call", "id": "w", "status": "completed"}]}, "input[0]"),
    # Without a word in it, it is a search at its defaults.
    ("chat", {"web_search_options": {}}, "web_search_options"),
    ("chat", {"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
]


@pytest.mark.parametrize(("dialect", "fields", "place"), CASES)
@pytest.mark.parametrize("to", ["local", "metered"])
def test_a_hosted_tool_is_refused_by_its_place(dialect: str, fields: dict[str, Any], place: str, to: str) -> None:
    said = {"input": "hi"} if dialect == "responses" else {"messages": [{"role": "user", "content": "hi"}]}
    turn = {"chat": chat, "responses": responses}[dialect].read(json.dumps({"model": "m"} | said | fields).encode(), {})
    sends: dict[str, Callable[[], object]] = {
        "local": lambda: to_chat.request(turn, ChatOptions(model="m")),
        "metered": lambda: to_messages.request(turn, to_messages.PaidOptions(model="m")),
    }
    with pytest.raises(CannotCarry, match=f"^{re.escape(place)} is "):
        sends[to]()
