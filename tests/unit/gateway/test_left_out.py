"""What is not refused: a value that asks for nothing, and what only advises. The latter is named to the client."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.unit.gateway.requests import of_chat, of_messages, of_responses, request
from tests.unit.gateway.test_refusals import TEXT, TOOL, USE, answered, system

NOTHING: list[tuple[str, dict[str, Any]]] = [
    ("messages", of_messages(container=None, mcp_servers=[], thread=None, safeguards=None)),
    ("messages", of_messages(TEXT | {"citations": None})),
    ("messages", of_messages(tools=[TOOL | {"allowed_callers": ["direct"]}])),
    ("messages", answered(USE | {"caller": {"type": "direct"}})),
    ("chat", of_chat(n=1, modalities=["text"], audio=None, functions=[])),
    ("responses", of_responses(top_logprobs=0, prompt=None, store=False)),
]


@pytest.mark.parametrize(("dialect", "document"), NOTHING)
def test_a_value_that_asks_for_nothing_is_not_refused(dialect: str, document: dict[str, Any]) -> None:
    assert request(dialect, document).body


ADVICE: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    (
        "messages",
        of_messages(
            TEXT | {"cache_control": {"type": "ephemeral"}},
            metadata={"user_id": "u"},
            thinking={"type": "adaptive"},
            context_management={"edits": []},
            service_tier="auto",
            output_config={"effort": "high"},
        ),
        ("metadata", "thinking", "context_management", "service_tier", "cache_control", "effort"),
    ),
    ("messages", system(content="now", output_config={"effort": "low"}), ("output_config",)),
    ("messages", answered({"type": "thinking", "thinking": "hm", "signature": "s"}, TEXT), ("thinking",)),
    (
        "chat",
        of_chat(store=True, user="u", prompt_cache_key="k", metadata={}),
        ("store", "user", "prompt_cache_key", "metadata"),
    ),
    (
        "responses",
        of_responses(
            {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "e"},
            include=["reasoning.encrypted_content"],
            reasoning={"effort": "low", "summary": "auto"},
            prompt_cache_key="k",
            client_metadata={},
        ),
        ("include", "reasoning", "prompt_cache_key", "client_metadata"),
    ),
]


@pytest.mark.parametrize(("dialect", "document", "omitted"), ADVICE)
def test_what_only_advises_is_left_out_and_named(
    dialect: str, document: dict[str, Any], omitted: tuple[str, ...]
) -> None:
    made = request(dialect, document)
    assert made.omitted == omitted
    assert not any(name in msgspec.json.decode(made.body) for name in omitted)
