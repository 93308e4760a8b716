"""Chat streams of local servers, as they are and as they were reported to be, and what clients must make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

#: A part that a client must see: ("text", text), ("thinking", text), ("tool", name, arguments).
Seen = tuple[Any, ...]


class Case(msgspec.Struct, frozen=True):
    """A stream: its bytes, the parts, and why it ended; `stop` "error" for one that must fail."""

    name: str
    body: bytes
    parts: tuple[Seen, ...]
    stop: str
    usage: tuple[int, int, int] | None = (7, 3, 5)


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}


def sse(*events: Any, end: str = "\n") -> bytes:
    """Events as bytes: an object is encoded, text is a whole line."""
    lines = [one if isinstance(one, str) else f"data: {msgspec.json.encode(one).decode()}" for one in events]
    return "".join(f"{line}{end}{end}" for line in lines).encode()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of a Chat stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **more}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "qwen", "choices": [choice]}


def used(**more: Any) -> dict[str, Any]:
    """The chunk with the usage, which has no choice."""
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "qwen", "choices": []} | {
        "usage": USAGE | more
    }


def say(text: str) -> dict[str, Any]:
    return chunk({"content": text})


def tool(index: int | None, arguments: Any = None, *, name: str | None = None, ident: str | None = None) -> Any:
    """A chunk with a fragment of a tool call."""
    return chunk({"tool_calls": [fragment(index, arguments, name=name, ident=ident)]})


def fragment(index: int | None, arguments: Any = None, *, name: str | None = None, ident: str | None = None) -> Any:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    call = {"index": index, "id": ident, "type": "function", "function": function}
    return {key: value for key, value in call.items() if value is not None}


def call_a(index: int | None, arguments: Any) -> Any:
    return fragment(index, arguments, name="look", ident="c1")


def call_b(index: int | None, arguments: Any) -> Any:
    return fragment(index, arguments, name="find", ident="c2")


def look(arguments: Any) -> dict[str, Any]:
    """A chunk with the beginning of the first call."""
    return chunk({"tool_calls": [call_a(0, arguments)]})


def find(arguments: Any) -> dict[str, Any]:
    """A chunk with the beginning of the second call."""
    return chunk({"tool_calls": [call_b(1, arguments)]})


def whole(*events: Any, finish: str = "stop", usage: bool = True, end: str = "\n") -> bytes:
    """A stream with its usual end."""
    return sse(*events, chunk({}, finish), *([used()] if usage else []), "data: [DONE]", end=end)


def last(*events: Any) -> bytes:
    """A stream whose last event before the usage has the finish already."""
    return sse(*events, used(), "data: [DONE]")


def case(name: str, body: bytes, *parts: Seen, stop: str = "end_turn", **more: Any) -> Case:
    return Case(name, body, parts, stop, **more)


ROLE = chunk({"role": "assistant", "content": None})
A = {"path": "a.py"}
B = {"q": "b", "n": 2}
OPEN_A, REST_A = '{"path":', '"a.py"}'
OPEN_B, REST_B = '{"q":"b",', '"n":2}'
ALL_A, ALL_B = OPEN_A + REST_A, OPEN_B + REST_B
LOOK, FIND = ("tool", "look", A), ("tool", "find", B)
ERROR: dict[str, Any] = {"stop": "error", "usage": None}

CASES: Sequence[Case] = [
    case("text", whole(ROLE, say("Hel"), say("lo")), ("text", "Hello")),
    case("nothing", whole(ROLE)),
    case("empty deltas", whole(ROLE, say(""), chunk({}), say("x"), chunk({"content": None})), ("text", "x")),
    case("no usage", whole(say("x"), usage=False), ("text", "x"), usage=None),
    case("usage with every chunk", whole(say("x") | {"usage": USAGE}), ("text", "x")),
    case("usage with the finish", last(say("x"), chunk({}, "stop") | {"usage": USAGE}, "data: [DONE]"), ("text", "x")),
    case("usage null", whole(say("x") | {"usage": None}), ("text", "x")),
    case("length", whole(say("x"), finish="length"), ("text", "x"), stop="max_tokens"),
    case("content filter", whole(say("x"), finish="content_filter"), ("text", "x"), stop="refusal"),
    case("refusal text", whole(chunk({"refusal": "no"})), ("text", "no")),
    # ollama#4357, sglang#3912: the finish is "" until the end
    case("an empty finish", whole(chunk({"content": "a"}, ""), chunk({"content": "b"}, "")), ("text", "ab")),
    case("no DONE", sse(say("x"), chunk({}, "stop"), used()), ("text", "x")),
    case("finish with the last text", last(chunk({"content": "x"}, "stop")), ("text", "x")),
    case("unicode", whole(say("Grüße 🐎"), say("\u2028\r\n")), ("text", "Grüße 🐎\u2028\r\n")),
    case("crlf", whole(say("a"), say("b"), end="\r\n"), ("text", "ab")),
    case("cr", whole(say("a"), say("b"), end="\r"), ("text", "ab")),
    case("comments and names", whole(": ping", "event: x\nid: 1", say("a"), ":", say("b")), ("text", "ab")),
    case("empty data", whole(say("a"), "data:", say("b")), ("text", "ab")),
    case("no blank lines", whole(say("a"), say("b")).replace(b"\n\n", b"\n"), ("text", "ab")),
    case("byte order mark", b"\xef\xbb\xbf" + whole(say("a")), ("text", "a")),
    # thinking
    case(
        "reasoning_content then text",
        whole(chunk({"reasoning_content": "h"}), chunk({"reasoning_content": "m"}), say("x")),
        ("thinking", "hm"),
        ("text", "x"),
    ),
    case("reasoning then text", whole(chunk({"reasoning": "hm"}), say("x")), ("thinking", "hm"), ("text", "x")),
    # claude-code-router#1397: reasoning, then calls
    case(
        "reasoning then a call",
        whole(chunk({"reasoning_content": "hm"}), look(""), tool(0, OPEN_A), tool(0, REST_A)),
        ("thinking", "hm"),
        LOOK,
        stop="tool_use",
    ),
    case(
        "thinking in the middle",
        whole(say("a"), chunk({"reasoning_content": "hm"}), say("b")),
        ("text", "a"),
        ("thinking", "hm"),
        ("text", "b"),
    ),
    # one call
    case(
        "a call in fragments",
        whole(look(""), *(tool(0, c) for c in ALL_A), finish="tool_calls"),
        LOOK,
        stop="tool_use",
    ),
    # litellm#25605, litellm#25836: a call in one chunk lost its arguments
    case("a call in one chunk", whole(look(ALL_A)), LOOK, stop="tool_use"),
    # CLIProxyAPI#876: the finish is "stop" after a call
    case(
        "finish stop after a call",
        whole(say("I look."), look(ALL_A), finish="stop"),
        ("text", "I look."),
        LOOK,
        stop="tool_use",
    ),
    case("finish tool_calls without one", whole(say("x"), finish="tool_calls"), ("text", "x")),
    # new-api#6046: the last fragment comes with the finish, the usage after it
    case(
        "the last fragment with the finish",
        last(look(OPEN_A), chunk({"tool_calls": [fragment(0, REST_A)]}, "tool_calls")),
        LOOK,
        stop="tool_use",
    ),
    # LM Studio: the arguments come in a last event only
    case(
        "arguments in the last event",
        last(look(""), chunk({"tool_calls": [fragment(0, ALL_A)]}, "tool_calls")),
        LOOK,
        stop="tool_use",
    ),
    case(
        "arguments in a last message",
        last(look(""), chunk(None, "tool_calls", message={"tool_calls": [call_a(None, ALL_A)]})),
        LOOK,
        stop="tool_use",
    ),
    case(
        "a last message says nothing twice",
        last(
            say("x"),
            look(ALL_A),
            chunk(
                None,
                "stop",
                message={"content": "x", "tool_calls": [call_a(None, ALL_A)]},
            ),
        ),
        ("text", "x"),
        LOOK,
        stop="tool_use",
    ),
    case("a whole message", last(chunk(None, "stop", message={"content": "x"})), ("text", "x")),
    # vllm#54236: a call without arguments
    case("no arguments", whole(tool(0, None, name="now", ident="c1")), ("tool", "now", {}), stop="tool_use"),
    case("empty arguments", whole(tool(0, "", name="now", ident="c1")), ("tool", "now", {}), stop="tool_use"),
    case("null arguments", whole(tool(0, "null", name="now", ident="c1")), ("tool", "now", {}), stop="tool_use"),
    case("blank before", whole(look(" \n"), tool(0, ALL_A)), LOOK, stop="tool_use"),
    case("encoded twice", whole(look('"{\\"path\\":\\"a.py\\"}"')), LOOK, stop="tool_use"),
    # litellm#37792: Ollama's arguments are an object
    case("arguments as an object", whole(look(A)), LOOK, stop="tool_use"),
    case("no id", whole(tool(0, OPEN_A, name="look"), tool(0, REST_A)), LOOK, stop="tool_use"),
    case(
        "the name after the id",
        whole(tool(0, ident="c1"), tool(0, OPEN_A, name="look"), tool(0, REST_A)),
        LOOK,
        stop="tool_use",
    ),
    case(
        "the name with each fragment",
        whole(*(look(part) for part in (OPEN_A, REST_A, ""))),
        LOOK,
        stop="tool_use",
    ),
    case("the old form", whole(chunk({"function_call": {"name": "look", "arguments": ALL_A}})), LOOK, stop="tool_use"),
    # several calls
    case(
        "one after the other",
        whole(
            look(OPEN_A),
            tool(0, REST_A),
            find(OPEN_B),
            tool(1, REST_B),
        ),
        LOOK,
        FIND,
        stop="tool_use",
    ),
    # headroom#2890, any-llm#1305, Qwen-Agent#943, sglang#39782: fragments of two calls in turns
    case(
        "interleaved",
        whole(
            look(""),
            find(""),
            tool(0, OPEN_A),
            tool(1, OPEN_B),
            tool(0, REST_A),
            tool(1, REST_B),
        ),
        LOOK,
        FIND,
        stop="tool_use",
    ),
    case(
        "both in each chunk",
        whole(
            chunk({"tool_calls": [call_a(0, OPEN_A), call_b(1, OPEN_B)]}),
            chunk({"tool_calls": [fragment(1, REST_B), fragment(0, REST_A)]}),
        ),
        LOOK,
        FIND,
        stop="tool_use",
    ),
    case(
        "the later one is whole first",
        whole(look(OPEN_A), find(ALL_B), tool(0, REST_A)),
        LOOK,
        FIND,
        stop="tool_use",
    ),
    # ollama#15457: each call has the index 0
    case(
        "every index 0",
        whole(look(ALL_A), tool(0, ALL_B, name="find", ident="c2")),
        LOOK,
        FIND,
        stop="tool_use",
    ),
    case(
        "every index 0, no ids",
        whole(tool(0, ALL_A, name="look"), tool(0, ALL_B, name="find")),
        LOOK,
        FIND,
        stop="tool_use",
    ),
    case(
        "every index 0, the first without arguments",
        whole(tool(0, "", name="now", ident="c0"), tool(0, ALL_B, name="find", ident="c2")),
        ("tool", "now", {}),
        FIND,
        stop="tool_use",
    ),
    # ollama#7881: no index
    case(
        "no index",
        whole(
            tool(None, ALL_A, name="look", ident="c1"),
            tool(None, OPEN_B, name="find", ident="c2"),
            tool(None, REST_B),
        ),
        LOOK,
        FIND,
        stop="tool_use",
    ),
    case(
        "the same id twice",
        whole(look(ALL_A), tool(1, ALL_B, name="find", ident="c1")),
        LOOK,
        FIND,
        stop="tool_use",
    ),
    # vllm#47901, lmstudio-bug-tracker#723: a call without arguments, and one after it
    case(
        "a call after one without arguments",
        whole(tool(0, "", name="now", ident="c0"), find(OPEN_B), tool(1, REST_B), finish="tool_calls"),
        ("tool", "now", {}),
        FIND,
        stop="tool_use",
    ),
    case("indexes from 1", whole(tool(1, ALL_A, name="look", ident="c1")), LOOK, stop="tool_use"),
    # eino-ext#976: text between two calls
    case(
        "text between calls",
        whole(
            look(OPEN_A),
            say("\n"),
            tool(0, REST_A),
            find(ALL_B),
        ),
        LOOK,
        ("text", "\n"),
        FIND,
        stop="tool_use",
    ),
    case(
        "text after a call",
        whole(look(ALL_A), say("done")),
        LOOK,
        ("text", "done"),
        stop="tool_use",
    ),
    # what fails
    case("cut in the text", sse(ROLE, say("x")), **ERROR),
    case("cut at once", b"", **ERROR),
    case("cut in an event", sse(say("x")) + b'data: {"choices": [{"de', **ERROR),
    # GenieX#1243: and at the end too
    case("an empty finish at the end", sse(chunk({"content": "a"}, ""), "data: [DONE]"), **ERROR),
    case("DONE without a finish", sse(say("x"), "data: [DONE]"), **ERROR),
    case("cut in a call", sse(look(OPEN_A)), **ERROR),
    case("error amid the stream", sse(say("x"), {"error": {"message": "out of memory", "code": 500}}), **ERROR),
    # litellm#40578: an error and [DONE]
    case("error and DONE", sse({"error": {"message": "queue full"}}, "data: [DONE]"), **ERROR),
    # llama.cpp#16109, coddy-agent#106: an error as a field of its own
    case("error as a field", sse(say("x"), 'error: {"code":400,"message":"no room"}', "data: [DONE]"), **ERROR),
    case("two choices", whole({"choices": [{"index": 0, "delta": {}}, {"index": 1, "delta": {}}]}), **ERROR),
    case("the second choice", whole({"choices": [{"index": 1, "delta": {"content": "b"}}]}), **ERROR),
    case("no JSON", sse(say("x"), "data: {oh no}"), **ERROR),
    case("no object", sse(say("x"), "data: [1]"), **ERROR),
    case("an unknown finish", whole(say("x"), finish="abort"), **ERROR),
    case("a call without a name", whole(tool(0, ALL_A, ident="c1")), **ERROR),
    case("arguments that are a list", whole(look("[1]")), **ERROR),
    case("content of another type", whole(chunk({"content": 7})), **ERROR),
]
