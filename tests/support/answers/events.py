"""Whole answers of odd events: repeated, missing, unknown, with texts that no text should be."""

from __future__ import annotations

from tests.support.answers.parts import (
    ERROR,
    HELLO,
    JSON,
    OPEN,
    PLAIN,
    STOP,
    TEXT,
    TOOL,
    Case,
    block,
    close,
    delta,
    end,
    event,
    message,
    partial,
    start,
    text,
)
from tests.support.messages_api.verbatim import Ending

#: What comes in place of `message_stop`, and how the stream ends.
ENDS: list[tuple[str, bytes, Ending]] = [
    ("cut", b"", "cut"),
    ("cut in the event", STOP[:-9], "cut"),
    ("silence", b"", "hang"),
    ("error", ERROR, "chunked"),
]

EVENTS = [
    *(
        Case(name=f"{kind} without data", source="anthropic-sdk-typescript 861", body=body)
        for kind, body in [
            ("content_block_stop", PLAIN.replace(close(), b"event: content_block_stop\ndata:\n\n")),
            ("content_block_delta", PLAIN.replace(close(), b"event: content_block_delta\ndata:\n\n" + close())),
        ]
    ),
    Case(
        name="half a content_block_stop",
        source="proxies that cut lines",
        body=PLAIN.replace(close(), close()[:-6] + b"\n\n"),
    ),
    *(
        Case(
            name=f"{how} before message_stop",
            source="node-fetch: premature close",
            body=start() + HELLO + end() + behind,
            ending=ending,
        )
        for how, behind, ending in ENDS
    ),
    Case(name="message_stop twice", source="llmgateway 927: duplicate end events", body=PLAIN + STOP),
    Case(name="message_start twice", source="private-ai-gateway: duplicate message_start", body=start() + PLAIN),
    Case(
        name="message_delta twice",
        source="LiteLLM: usage chunk of its own",
        body=start() + HELLO + end({"output_tokens": 0}) + end() + STOP,
    ),
    Case(
        name="asked anew behind a proxy",
        source="gateways with fallback: a second message replaces the first",
        body=start() + OPEN + text("half an ans") + PLAIN.replace(b"msg_1", b"msg_2"),
        factor=None,
        uncertain=1,
    ),
    Case(
        name="pings and unknown events",
        source="the provider's versioning page: new events may come",
        body=(event("ping") + event("message_annotated", data=[1])).join([start(), HELLO, end(), STOP]),
    ),
    Case(
        name="unknown block and delta",
        source="vercel/ai: unknown block types",
        body=start()
        + block({"type": "hologram"})
        + delta({"type": "photon_delta", "photon": "x"})
        + close()
        + OPEN.replace(b'"index": 0', b'"index": 1')
        + text(TEXT, 1)
        + close(1)
        + end()
        + STOP,
    ),
    Case(
        name="thinking",
        source="langchain-anthropic: thinking and signature deltas",
        body=start()
        + block({"type": "thinking", "thinking": "", "signature": ""})
        + delta({"type": "thinking_delta", "thinking": "hm"})
        + delta({"type": "signature_delta", "signature": "x=="})
        + close()
        + HELLO
        + end()
        + STOP,
    ),
    Case(
        name="redacted thinking",
        source="vercel/ai: redacted_thinking",
        body=start() + block({"type": "redacted_thinking", "data": "x=="}) + close() + HELLO + end() + STOP,
    ),
    Case(
        name="compaction block",
        source="vercel/ai 12718: compaction_delta with null",
        body=start()
        + block({"type": "compaction", "content": None})
        + delta({"type": "compaction_delta", "content": None})
        + close()
        + HELLO
        + end()
        + STOP,
    ),
    Case(
        name="server tool blocks",
        source="vercel/ai: server_tool_use in a text answer",
        body=start()
        + block({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})
        + partial('{"q":1}')
        + close()
        + block({"type": "web_search_tool_result", "content": []}, 1)
        + close(1)
        + HELLO
        + end()
        + STOP,
    ),
    Case(
        name="citations",
        source="anthropic-sdk-python: citations_delta",
        body=start()
        + OPEN
        + text("hello ")
        + delta({"type": "citations_delta", "citation": {"cited_text": "x"}})
        + text("wörld 🐄")
        + close()
        + end()
        + STOP,
    ),
    Case(
        name="text in content_block_start",
        source="anthropic-sdk-typescript, sglang: first words in the start",
        body=start() + block({"type": "text", "text": "hello "}) + text("wörld 🐄") + close() + end() + STOP,
    ),
    Case(
        name="null text",
        source="LiteLLM: text null in a delta",
        body=start() + OPEN + text(None) + text("hello ") + text(None) + text("wörld 🐄") + close() + end() + STOP,
    ),
    Case(
        name="null in content_block_start",
        source="as above",
        body=start() + block({"type": "text", "text": None}) + block(None) + text(TEXT) + close() + end() + STOP,
    ),
    Case(
        name="no text, null delta, list delta",
        source="one-api: empty deltas",
        body=start()
        + OPEN
        + delta({"type": "text_delta"})
        + delta(None)
        + delta([])
        + text(7)
        + text(TEXT)
        + close()
        + end()
        + STOP,
    ),
    Case(
        name="delta without a type",
        source="claude-code-router: type is dropped",
        body=start() + OPEN + delta({"text": TEXT}) + close() + end() + STOP,
    ),
    Case(
        name="half an emoji",
        source="anthropic-sdk-typescript: text cut in a surrogate pair",
        body=start() + OPEN + text("w\ud83d") + close() + end() + STOP,
        text="w\ufffd",
    ),
    Case(
        name="an emoji in two halves",
        source="as above",
        body=start() + OPEN + text("hello wörld \ud83d") + text("\udc04") + close() + end() + STOP,
    ),
    Case(
        name="halves the wrong way round",
        source="as above",
        body=start() + OPEN + text("\udc04a\ud83d") + text("b") + close() + end() + STOP,
        text="\ufffda\ufffdb",
    ),
    Case(
        name="half an emoji in the start",
        source="as above",
        body=start() + block({"type": "text", "text": "\ud83d"}) + close() + end() + STOP,
        text="\ufffd",
    ),
    Case(
        name="half an emoji in the whole message",
        source="as above",
        body=message([{"type": "text", "text": "a\ud83d"}]),
        headers=JSON,
        text="a\ufffd",
    ),
    Case(
        name="not UTF-8",
        source="latin-1 gateways",
        body=(start() + OPEN + text("w@rld") + close() + end() + STOP).replace(b"@", b"\xf6"),
        text="w\ufffdrld",
    ),
    Case(
        name="raw tab in a text",
        source="hand-made JSON",
        body=(start() + OPEN + text("a@b") + close() + end() + STOP).replace(b"@", b"\t"),
        text="a\tb",
    ),
    Case(
        name="no content_block_stop",
        source="cc-switch 7044: dangling blocks",
        body=start() + OPEN + text(TEXT) + end() + STOP,
    ),
    Case(
        name="no content_block_start",
        source="cc-switch 7044: index missing",
        body=start() + event("content_block_delta", delta={"type": "text_delta", "text": TEXT}) + end() + STOP,
    ),
    Case(
        name="blocks in turns",
        source="sglang 24293: interleaved blocks",
        body=start()
        + OPEN
        + block({"type": "text", "text": ""}, 1)
        + text("hello ", 0)
        + text("wörld ", 1)
        + text("🐄", 0)
        + close(1)
        + close()
        + end()
        + STOP,
    ),
    Case(
        name="damaged ping",
        source="proxies that cut keep-alives",
        body=start() + b'event: ping\ndata: {"type"\n\n' + HELLO + end() + STOP,
    ),
    Case(
        name="no message_start",
        source="sglang 20830: message_start is late or missing",
        body=HELLO + end() + STOP,
        tokens=None,
        factor=None,
        uncertain=1,
    ),
    Case(
        name="stop_reason null",
        source="anthropic-sdk-python: stop_reason null at the end",
        body=start() + HELLO + end(stop_reason=None) + STOP,
        stop_reason="",
    ),
    Case(
        name="pause_turn",
        source="the provider's stop reasons",
        body=start() + HELLO + end(stop_reason="pause_turn") + STOP,
        stop_reason="pause_turn",
    ),
    Case(
        name="context window exceeded",
        source="langchain-anthropic: model_context_window_exceeded",
        body=start() + HELLO + end(stop_reason="model_context_window_exceeded") + STOP,
        stop_reason="model_context_window_exceeded",
    ),
    Case(
        name="max_tokens",
        source="the provider's stop reasons",
        body=start() + HELLO + end(stop_reason="max_tokens") + STOP,
        stop_reason="max_tokens",
    ),
    Case(
        name="tool_use without tools",
        source="claude-code: tool_use nobody offered",
        body=start()
        + HELLO
        + TOOL.replace(b'"index": 0', b'"index": 1')
        + close(1)
        + end(stop_reason="tool_use")
        + STOP,
        stop_reason="tool_use",
    ),
    Case(
        name="empty text",
        source="anthropic-sdk-python 461: empty content blocks",
        body=start() + OPEN + close() + end({"output_tokens": 2}) + STOP,
        text="",
        tokens=(100, 7, 9, 2),
    ),
    Case(
        name="no blocks",
        source="anthropic-sdk-python 977: no text block at all",
        body=start() + end({"output_tokens": 2}) + STOP,
        text="",
        tokens=(100, 7, 9, 2),
    ),
    Case(
        name="refusal",
        source="the provider's stop reasons",
        body=start() + HELLO + end(stop_reason="refusal") + STOP,
        state="failed",
        code="refusal",
        text="",
        stop_reason="",
    ),
]
