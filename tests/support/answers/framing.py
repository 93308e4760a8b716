"""Whole answers in odd frames: lines, names, types, encodings, what comes behind the end."""

from __future__ import annotations

import gzip
import zlib

from tests.support.answers.parts import ERROR, HELLO, JSON, PLAIN, SSE, TEXT, Case, end, message, start

FRAMING = [
    Case(name="plain", source="the provider's streaming reference"),
    Case(
        name="done after the end",
        source="pi 3708, tau 692: [DONE] behind message_stop",
        body=PLAIN + b"data: [DONE]\n\n",
    ),
    Case(name="event done", source="pi 3708: event: done", body=PLAIN + b"event: done\ndata: [DONE]\n\n"),
    Case(
        name="done in place of message_stop",
        source="tau 692: Copilot ends with [DONE] only",
        body=start() + HELLO + end() + b"data: [DONE]\n\n",
    ),
    Case(
        name="no message_stop",
        source="LiteLLM 32159, cc-switch 6462: stream ends after message_delta",
        body=start() + HELLO + end(),
    ),
    Case(name="no final newline", source="anthropic-sdk-python: last line without an end", body=PLAIN.rstrip(b"\n")),
    Case(name="no final blank line", source="as above", body=PLAIN.rstrip(b"\n") + b"\n"),
    Case(
        name="no blank lines",
        source="claude-code-router: data lines only, one after the other",
        body=b"".join(line + b"\n" for line in PLAIN.split(b"\n") if line.startswith(b"data")),
    ),
    Case(name="crlf", source="gateways on IIS", body=PLAIN.replace(b"\n", b"\r\n")),
    Case(name="crlf byte by byte", source="as above", body=PLAIN.replace(b"\n", b"\r\n"), piece=1),
    Case(name="lone cr", source="the HTML standard: CR ends a line", body=PLAIN.replace(b"\n", b"\r"), piece=7),
    Case(
        name="byte order mark",
        source="the HTML standard: one BOM is skipped",
        body=b"\xef\xbb\xbf" + PLAIN.removeprefix(b"event: message_start\n"),
    ),
    Case(name="byte by byte", source="anthropic-sdk-typescript: UTF-8 split between chunks", piece=1),
    Case(name="until the connection ends", source="HTTP/1.0 proxies", ending="close", piece=3),
    Case(
        name="no event names",
        source="openclaw 37571, claude-code-proxy 32: event lines are stripped",
        body=PLAIN.replace(b"event:", b":"),
    ),
    Case(
        name="names only",
        source="gateways that strip type",
        body=PLAIN.replace(b'"type": "message_', b'"t": "message_').replace(
            b'"type": "content_block_', b'"t": "content_block_'
        ),
    ),
    Case(
        name="comments",
        source="OpenRouter: `: OPENROUTER PROCESSING`",
        body=b": OPENROUTER PROCESSING\n\n" + PLAIN.replace(b"\n\n", b"\n\n: ping\n\n"),
    ),
    Case(
        name="keepalive inside an event",
        source="CLIProxyAPI 4047: heartbeat between event and data",
        body=PLAIN.replace(b"\ndata:", b"\n: keep-alive\n\ndata:"),
    ),
    Case(
        name="id and retry lines", source="the HTML standard", body=PLAIN.replace(b"data:", b"id: 7\nretry: 10\ndata:")
    ),
    Case(
        name="data over several lines",
        source="the HTML standard: data lines are joined",
        body=PLAIN.replace(b'{"type"', b'{\ndata: "type"'),
    ),
    Case(name="no space after data", source="the HTML standard", body=PLAIN.replace(b"data: ", b"data:")),
    Case(name="error after the end", source="envoy ai-gateway: error frames behind the answer", body=PLAIN + ERROR),
    Case(
        name="garbage after the end",
        source="nginx appends its error page",
        body=PLAIN + b"<html>\x00\xff\n\ndata: {\n\n",
    ),
    Case(name="cut after the end", source="node-fetch: premature close", ending="cut"),
    Case(
        name="silence after the end", source="litellm-rs 402: connection stays open behind message_stop", ending="hang"
    ),
    Case(
        name="pings after the end",
        source="litellm-rs 402: heartbeats behind message_stop",
        body=PLAIN + b"event: ping\ndata: {}\n\n" * 9000,
        ending="hang",
    ),
    Case(name="no content-type", source="hand-made gateways", headers={}),
    Case(name="stream called json", source="cc-switch: body_looks_like_sse", headers=JSON),
    Case(name="stream called text", source="as above", headers={"content-type": "text/plain; charset=utf-8"}),
    Case(
        name="content-type in capitals",
        source="RFC 9110: types know no case",
        headers={"content-type": "Text/Event-Stream;Charset=UTF-8"},
    ),
    Case(
        name="request id of other bytes",
        source="hostile: a header that is no UTF-8",
        headers=SSE | {"request-id": "req_\xfc\xff" * 99},
    ),
    Case(
        name="gzip",
        source="anthropic-sdk-python: encoded though identity was asked for",
        body=gzip.compress(PLAIN),
        headers=SSE | {"content-encoding": "gzip"},
    ),
    Case(
        name="gzip in pieces",
        source="as above",
        body=gzip.compress(PLAIN),
        headers=SSE | {"content-encoding": "GZIP"},
        piece=5,
    ),
    Case(name="gzip without a word", source="proxies that drop content-encoding", body=gzip.compress(PLAIN)),
    Case(name="deflate", source="as gzip", body=zlib.compress(PLAIN), headers=SSE | {"content-encoding": "deflate"}),
    Case(name="whole message", source="LiteLLM: stream is ignored", body=message(), headers=JSON, ending="length"),
    Case(name="whole message called a stream", source="as above", body=b"\n " + message()),
    Case(
        name="whole message with a mark",
        source=".NET gateways: BOM before JSON",
        body=b"\xef\xbb\xbf" + message(),
        headers=JSON,
        piece=2,
    ),
    Case(
        name="whole message, content is text",
        source="claude-code-router: content as a string",
        body=message(TEXT),
        headers=JSON,
    ),
    Case(
        name="gzip whole message",
        source="as gzip",
        body=gzip.compress(message()),
        headers=JSON | {"content-encoding": "gzip"},
    ),
]
