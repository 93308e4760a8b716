"""Answers to a task with a schema."""

from __future__ import annotations

from typing import Any

from tests.support.answers.parts import (
    ATTEMPTS,
    JSON,
    OPEN,
    STOP,
    TOOL,
    Case,
    block,
    close,
    end,
    message,
    partial,
    start,
    text,
)


def _schema(name: str, source: str, blocks: bytes, **more: Any) -> Case:
    given: dict[str, Any] = {"structured": {"name": "Ada"}} | more
    body = start() + blocks + end(stop_reason="tool_use") + STOP
    return Case(name=name, source=source, body=body, schema=True, text="", stop_reason="tool_use", **given)


def _unanswered(name: str, source: str, events: bytes, **more: Any) -> Case:
    given: dict[str, Any] = {"state": "failed", "code": "no_answer", "text": "", "stop_reason": ""} | more
    return Case(name=name, source=source, body=start() + events + STOP, schema=True, **given)


STRUCTURED = [
    _schema(
        "schema",
        "the provider's tool use reference",
        TOOL + partial("") + partial('{"name": "A') + partial('da"}') + close(),
    ),
    _schema(
        "schema, input in the start",
        "sglang, vLLM: whole input at once",
        block({"type": "tool_use", "name": "answer", "input": {"name": "Ada"}}) + close(),
    ),
    _schema(
        "schema, input as a text",
        "gateways that pass on function arguments",
        block({"type": "tool_use", "name": "answer", "input": '{"name": "Ada"}'}) + close(),
    ),
    _schema("schema, a piece that is the object", "LiteLLM", TOOL + partial({}) + partial({"name": "Ada"}) + close()),
    Case(
        name="schema, input as a text in a whole message",
        source="gateways that pass on function arguments",
        body=message([{"type": "tool_use", "name": "answer", "input": '{"name": "Ada"}'}], stop_reason="tool_use"),
        headers=JSON,
        schema=True,
        text="",
        structured={"name": "Ada"},
        stop_reason="tool_use",
    ),
    _schema("schema, null pieces", "LiteLLM", TOOL + partial(None) + partial('{"name": "Ada"}') + close()),
    _schema(
        "schema, text on the tool's block", "sglang 24293", TOOL + text("Here: ") + partial('{"name": "Ada"}') + close()
    ),
    _schema(
        "schema, two calls",
        "parallel tool use",
        TOOL
        + partial('{"name": "Ada"}')
        + close()
        + TOOL.replace(b'"index": 0', b'"index": 1')
        + partial('{"name": "Bob"}', 1)
        + close(1),
    ),
    _schema(
        "schema, a server's tool first",
        "vercel/ai",
        block({"type": "server_tool_use", "name": "web_search", "input": {}})
        + partial('{"q": 1}')
        + close()
        + TOOL.replace(b'"index": 0', b'"index": 1')
        + partial('{"name": "Ada"}', 1)
        + close(1),
    ),
    _schema(
        "schema, fenced text",
        "models that were not forced",
        OPEN + text("```json\n" + '{"name": "Ada"}\n```') + close(),
    ),
    _schema(
        "schema, half an emoji",
        "anthropic-sdk-typescript",
        TOOL + partial('{"name": "A\ud83d"}') + close(),
        structured={"name": "A\ufffd"},
    ),
    _schema(
        "schema, escaped half an emoji",
        "anthropic-sdk-typescript",
        TOOL + partial('{"name": "A\\ud83d"}') + close(),
        structured={"name": "A\ufffd"},
    ),
    Case(
        name="schema, whole message",
        source="LiteLLM: stream is ignored",
        body=message([{"type": "tool_use", "name": "answer", "input": {"name": "A\ud83d"}}], stop_reason="tool_use"),
        headers=JSON,
        schema=True,
        text="",
        structured={"name": "A\ufffd"},
        stop_reason="tool_use",
    ),
    _unanswered(
        "schema, max_tokens",
        "the provider's stop reasons",
        TOOL + partial('{"name": "A') + end(stop_reason="max_tokens"),
    ),
    _unanswered(
        "schema, context window exceeded",
        "langchain-anthropic",
        TOOL + partial('{"name": "A') + end(stop_reason="model_context_window_exceeded"),
    ),
    _unanswered(
        "schema, no JSON",
        "vercel/ai: partial JSON that never ends",
        TOOL + partial('{"name": A') + close() + end(stop_reason="tool_use"),
        requests=ATTEMPTS,
        tokens=None,
        factor="any",
    ),
]
