"""Whole answers whose usage is odd, or says that the price is another."""

from __future__ import annotations

from typing import Any

from tests.support.answers.parts import HELLO, JSON, STOP, USAGE, Case, end, message, start


def _usage(name: str, source: str, start_usage: Any = USAGE, end_usage: Any = ..., **more: Any) -> Case:
    return Case(name=name, source=source, body=start(start_usage) + HELLO + end(end_usage) + STOP, **more)


def _odd(name: str, value: Any) -> Case:
    """A figure that is not to be believed: the answer is kept, what it cost is not known."""
    source = "cline, opencode, LiteLLM: usage figures of gateways that are no counts"
    return _usage(f"usage {name}", source, USAGE, {"output_tokens": value}, tokens=None, factor=None, uncertain=1)


FIGURES = [
    _usage(
        "usage zeros in message_delta",
        "envoy ai-gateway 1631, sglang 33419",
        USAGE,
        dict.fromkeys(USAGE, 0) | {"output_tokens": 12},
    ),
    _usage("usage nulls in message_delta", "SwiftAnthropic 25", USAGE, dict.fromkeys(USAGE) | {"output_tokens": 12}),
    _usage(
        "usage only in message_delta",
        "sglang 20830: zeros in message_start",
        dict.fromkeys(USAGE, 0),
        USAGE | {"output_tokens": 12},
    ),
    _usage("usage repeated", "envoy ai-gateway 2239: counted twice", USAGE, USAGE | {"output_tokens": 12}),
    _usage("usage floats", "cline: 100.0", USAGE | {"input_tokens": 100.0}, {"output_tokens": 12.0}),
    _odd("one and a half", 1.5),
    _odd("far too large", 10**14),
    _odd("beyond 63 bits", 2**63),
    _odd("beyond 64 bits", 10**30),
    _odd("beyond all bounds", float("inf")),
    _odd("far above what was asked for", 60_000),
    _odd("negative", -12),
    _odd("a text", "12"),
    _odd("a truth", True),
    _odd("nested", {"total": 12}),
    _odd("null in message_delta", None),
    _usage("usage odd input", "as above", USAGE | {"input_tokens": -1}, tokens=None, factor=None, uncertain=1),
    _usage("usage missing in message_delta", "pi 6567", USAGE, None, tokens=None, factor=None, uncertain=1),
    _usage("usage missing", "pi 6567", ..., None, tokens=(0, 0, 0, 0), factor=None, uncertain=1),
    _usage("usage null", "LiteLLM", None, {}, tokens=(0, 0, 0, 0), factor=None, uncertain=1),
    _usage("usage a list", "hand-made gateways", [1], [2], tokens=(0, 0, 0, 0), factor=None, uncertain=1),
    _usage(
        "usage all zeros",
        "mlx-node 45: hardcoded 0",
        dict.fromkeys(USAGE, 0),
        {"output_tokens": 0},
        tokens=(0, 0, 0, 0),
        factor=None,
        uncertain=1,
    ),
    Case(
        name="usage null in a whole message",
        source="LiteLLM",
        body=message(usage=None),
        headers=JSON,
        tokens=(0, 0, 0, 0),
        factor=None,
        uncertain=1,
    ),
    Case(
        name="usage of 5000 digits",
        source="hostile",
        body=start() + HELLO + end().replace(b"12", b"1" * 5000) + STOP,
        tokens=None,
        factor=None,
        uncertain=1,
    ),
    Case(
        name="usage not a number",
        source="Python gateways: NaN",
        body=start() + HELLO + end().replace(b"12", b"NaN") + STOP,
        tokens=None,
        factor=None,
        uncertain=1,
    ),
    _usage("place us", "bifrost 5072, LiteLLM 21904: inference_geo", USAGE | {"inference_geo": "us"}, factor="1.1"),
    _usage(
        "place us told at the end", "bifrost 5072", USAGE, {"output_tokens": 12, "inference_geo": "us"}, factor="1.1"
    ),
    _usage(
        "place global",
        "the provider's data residency page",
        USAGE | {"inference_geo": "global", "service_tier": "standard", "speed": "standard"},
    ),
    _usage("place not available", "the provider's usage of older models", USAGE | {"inference_geo": "not_available"}),
    _usage(
        "place null",
        "the provider's usage",
        USAGE
        | {
            "inference_geo": None,
            "service_tier": None,
            "cache_creation": None,
            "server_tool_use": None,
            "iterations": None,
        },
    ),
    _usage("place eu", "a place without a price", USAGE | {"inference_geo": "eu"}, factor=None, uncertain=1),
    _usage("place odd", "hostile", USAGE | {"inference_geo": ["us"]}, factor=None, uncertain=1),
    _usage("fast", "LiteLLM 38378: speed", USAGE | {"speed": "fast"}, factor=None, uncertain=1),
    _usage("priority", "the provider's service tiers", USAGE | {"service_tier": "priority"}, factor=None, uncertain=1),
    _usage("batch", "the provider's service tiers", USAGE | {"service_tier": "batch"}, factor="0.5"),
    _usage(
        "compaction",
        "LiteLLM 27067: tokens in iterations only",
        USAGE,
        {
            "output_tokens": 12,
            "iterations": [
                {"type": "compaction", "input_tokens": 900, "output_tokens": 30},
                USAGE | {"type": "message", "output_tokens": 12},
            ],
        },
        tokens=(1000, 7, 9, 42),
    ),
    _usage(
        "one pass",
        "the provider's compaction guide",
        USAGE,
        {"output_tokens": 12, "iterations": [USAGE | {"type": "message", "output_tokens": 12}]},
    ),
    _usage(
        "passes of another model",
        "the provider's advisor tool",
        USAGE,
        {
            "output_tokens": 12,
            "iterations": [{"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 5}],
        },
        factor=None,
        uncertain=1,
    ),
    _usage(
        "passes that are none", "hostile", USAGE, {"output_tokens": 12, "iterations": "many"}, factor=None, uncertain=1
    ),
    _usage(
        "passes too large",
        "hostile",
        USAGE,
        {"output_tokens": 12, "iterations": [{"type": "compaction", "input_tokens": 2**62}] * 3},
        factor=None,
        uncertain=1,
    ),
    _usage(
        "kept an hour",
        "TeXRA 2995: cache_creation",
        USAGE | {"cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 5}},
    ),
    _usage(
        "kept, without the sum",
        "gateways that know the new form only",
        {"input_tokens": 100, "cache_read_input_tokens": 9, "cache_creation": {"ephemeral_5m_input_tokens": 7}},
    ),
    _usage(
        "kept for a time without a price",
        "a new time to live",
        USAGE | {"cache_creation": {"ephemeral_24h_input_tokens": 5}},
        tokens=None,
        factor=None,
        uncertain=1,
    ),
    _usage("long prompt", "the provider's pricing page", USAGE | {"input_tokens": 100_001}, tokens=(100_001, 7, 9, 12)),
    _usage(
        "searches",
        "the provider's pricing page: web search",
        USAGE | {"server_tool_use": {"web_search_requests": 3}},
        factor=None,
        uncertain=1,
    ),
    _usage(
        "no searches",
        "the provider's usage",
        USAGE | {"server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0}},
    ),
]
