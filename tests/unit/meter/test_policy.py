"""What passes the policy, and that nothing else can be read in what is sent."""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farmhand.meter import policy
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import MessageRequest

MODEL = "claude-haiku-5-5"
BODY: dict[str, Any] = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}


def read(body: bytes | dict[str, Any], *, max_tokens: int = 1000) -> MessageRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return policy.read(data, model=MODEL, max_tokens=max_tokens)


def refused(body: bytes | dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as refusal:
        read(body)
    assert refusal.value.status in {400, 403}
    assert "\n" not in refusal.value.message
    assert len(refusal.value.message) < 600
    assert not refusal.value.retryable
    return refusal.value


# --- what is sent ------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=6,
)


def escaped(draw: st.DrawFn, text: str) -> str:
    """`text` as a JSON string, each character written in one of the ways there are."""
    pieces = []
    for character in text:
        plain = json.dumps(character, ensure_ascii=False)[1:-1]
        units = character.encode("utf-16-be")
        long = "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
        pieces.append(draw(st.sampled_from([plain, long, long.upper().replace("\\U", "\\u")])))
    return '"' + "".join(pieces) + '"'


def written(draw: st.DrawFn, value: Any) -> str:
    """`value` as JSON with odd escapes and spaces, and with doubled keys, of which the last counts."""
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    if isinstance(value, str):
        return escaped(draw, value)
    if isinstance(value, list):
        return f"[{space}" + f",{space}".join(written(draw, one) for one in value) + "]"
    if isinstance(value, dict):
        members = [(name, written(draw, inner)) for name, inner in value.items()]
        doubled = [(name, draw(st.sampled_from(['"x"', "1", "{}", "[]"]))) for name in value if draw(st.booleans())]
        return "{" + ",".join(f"{escaped(draw, name)}{space}:{text}" for name, text in doubled + members) + "}"
    return json.dumps(value)


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    used = {"type": "tool_use", "id": "t", "name": "look", "input": draw(st.dictionaries(TEXT, ANYTHING, max_size=3))}
    messages = [
        {"role": "user", "content": draw(TEXT)},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": draw(TEXT)}]},
    ]
    tool = {"name": "look", "input_schema": draw(st.dictionaries(TEXT, ANYTHING, max_size=3))}
    document = {"model": MODEL, "max_tokens": 5, "system": draw(TEXT), "messages": messages, "tools": [tool]}
    return document, written(draw, document).encode()


def doubled(text: bytes) -> list[str]:
    """The keys that an object in `text` has twice."""
    found: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in members]
        found.extend(name for name in set(names) if names.count(name) > 1)
        return dict(members)

    json.loads(text, object_pairs_hook=pairs)
    return found


@given(requests())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_parser_reads_in_it_what_was_checked(request_: tuple[dict[str, Any], bytes]) -> None:
    document, text = request_
    sent = read(text).body
    assert json.loads(sent) == msgspec.json.decode(sent) == document
    assert not doubled(sent)
    # However a document is written, it is the same text: the provider's prompt cache goes by it.
    assert sent == read(json.dumps(json.loads(text), indent=1).encode()).body == read(sent).body


def test_a_longer_conversation_begins_with_the_same_text() -> None:
    short = read(BODY | {"messages": BODY["messages"]}).body
    long = read(BODY | {"messages": [*BODY["messages"], {"role": "assistant", "content": "é"}]}).body
    assert long.startswith(short.removesuffix(b"]}"))


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"claude-opus-5-5","model":"%s","max_tokens":5,"messages":[]}',
        b'{"\\u006dodel":"claude-opus-5-5","model":"%s","max_tokens":5,"messages":[]}',
        b'{"model":"%s","max_tokens":999999,"max_tokens":5,"messages":[]}',
        b'{"tools":[{"type":"web_search_20250305"}],"tools":[],"model":"%s","max_tokens":5,"messages":[]}',
    ],
)
def test_of_doubled_keys_one_is_left(text: bytes) -> None:
    sent = read(text.replace(b"%s", MODEL.encode())).body
    assert not doubled(sent)
    assert json.loads(sent)["model"] == MODEL
    assert json.loads(sent)["max_tokens"] == 5


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"%s","max_tokens":5,"model":"claude-opus-5-5","messages":[]}',
        b'{"model":"%s","max_tokens":5,"m\\u006fdel":"claude-opus-5-5","messages":[]}',
        b'{"model":"%s","max_tokens":5,"tools":[],"tool\\u0073":[{"type":"web_search_20250305"}],"messages":[]}',
    ],
)
def test_the_last_of_doubled_keys_is_what_is_checked(text: bytes) -> None:
    assert refused(text.replace(b"%s", MODEL.encode())).status == 403


GOOD = json.dumps(BODY).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD + b"x",
        GOOD + GOOD,
        GOOD + b"\0",
        GOOD[:-1],
        GOOD.replace(b"hello", b"\xff"),
        GOOD.replace(b"hello", b"\xed\xa0\x80"),
        GOOD.replace(b"hello", b"\xc0\xaf"),
        GOOD.replace(b"hello", b"\\ud800"),
        GOOD.replace(b"hello", b"\\udc00\\ud800"),
        GOOD.replace(b"hello", b"\\x41"),
        GOOD.replace(b"hello", b"\n"),
        GOOD.replace(b"64", b"NaN"),
        GOOD.replace(b"64", b"Infinity"),
        GOOD.replace(b"64", b"1e999"),
        GOOD.replace(b"64", b"9" * 5000),
        GOOD.replace(b"64", b"-" + b"9" * 5000),
        GOOD.replace(b"64", b"9" * 300),
        GOOD.replace(b"64", b"064"),
        GOOD.replace(b'"hello"', b"[" * 100_000),
        GOOD.replace(b'"hello"', b'{"a":' * 5000 + b"1" + b"}" * 5000),
        GOOD.replace(b'"hello"', b"[" + b"{}," * 200_000 + b"{}]"),
        GOOD.replace(b'"hello"', b"[" + b'"",' * 200_000 + b'""]'),
    ],
    ids=lambda text: str(text[:90]),
)
def test_what_is_no_plain_json_of_some_size_is_refused(text: bytes) -> None:
    assert refused(text).status == 400


@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": -1},
        {"max_tokens": -(2**70)},
        {"max_tokens": 2**70},
        {"max_tokens": 1.5},
        {"max_tokens": 64.0},
        {"max_tokens": "64"},
        {"max_tokens": True},
        {"max_tokens": None},
        {"max_tokens": 1001},
        {"stream": 1},
        {"stream": None},
        {"model": None},
        {"model": [MODEL]},
        {"model": MODEL + " "},
        {"messages": "x"},
        {"messages": ["x"]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [{"role": "user", "content": {"type": "text"}}]},
        {"messages": [{"role": "user", "content": "x", "tools": []}]},
        {"messages": [{"role": "user", "content": [{"type": ["text"]}]}]},
        {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": {"type": "document"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "web_fetch_tool_result", "content": []}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_addition", "tool": {}}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "compaction", "content": "x"}]}]},
        {"system": [{"type": "document", "source": {"type": "url", "url": "https://evil.example/"}}]},
        {"system": 5},
        {"tools": {"type": "custom"}},
        {"tools": [{"type": ["custom"]}]},
        {"tools": [{"type": "tool_search_tool_regex_20251119", "name": "x"}]},
        {"thinking": {"type": "enabled", "budget_tokens": 1001}},
        {"thinking": {"type": "enabled", "budget_tokens": 10**30}},
        {"thinking": {"type": "enabled", "budget_tokens": -1}},
        {"thinking": {"type": "enabled", "budget_tokens": "1000"}},
        {"thinking": {"type": "enabled", "budget_tokens": 1e9}},
        {"fallbacks": [{"model": "claude-opus-5-5"}]},
        {"thread": {"id": "x"}},
        {"compaction": {}},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}, {"type": "compact_20260904"}]}},
        {"context_management": {"edits": [{}]}},
        {"context_management": {"edits": {"type": "clear_thinking_20251015"}}},
        {"context_management": {"edits": [], "compact": True}},
        {"context_management": "compact"},
    ],
    ids=lambda more: str(more)[:100],
)
def test_what_does_not_pass(more: dict[str, Any]) -> None:
    refused(BODY | more)


@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": 0},
        {"max_tokens": 1000},
        {"thinking": {"type": "enabled", "budget_tokens": 1000}},
        {"thinking": {"type": "adaptive"}},
        {"thinking": None},
        {"context_management": None},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919", "keep": {"type": "tool_uses"}}]}},
        {"tools": None, "system": None, "metadata": None},
        {"messages": [{"role": "system", "content": "x", "output_config": {"effort": "low"}}]},
    ],
    ids=lambda more: str(more)[:100],
)
def test_what_the_cli_sends_passes(more: dict[str, Any]) -> None:
    assert json.loads(read(BODY | more).body) == BODY | more


def test_a_long_conversation_with_pictures_and_code_passes() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 500_000}}
    code = '{"a": [1, 2, 3], "b": "\\\\"},\n' * 10_000
    messages: list[dict[str, Any]] = [{"role": "user", "content": "begin"}]
    for turn in range(30):
        used = {"type": "tool_use", "id": f"t{turn}", "name": "Read", "input": {}}
        result = {"type": "tool_result", "tool_use_id": f"t{turn}", "content": code}
        messages.append({"role": "assistant", "content": [used]})
        messages.append({"role": "user", "content": [result, image] if turn == 0 else [result]})
    body = json.dumps(BODY | {"messages": messages}).encode()
    assert len(body) > 8_000_000
    assert json.loads(read(body).body)["messages"] == messages


# --- headers ------------------------------------------------------------------------------------------


def test_only_headers_that_are_named_pass() -> None:
    headers = {
        "authorization": "Bearer jt-x",
        "x-api-key": "jt-x",
        "content-type": "application/json; charset=utf-16",
        "content-encoding": "gzip",
        "accept": "application/json",
        "user-agent": "x" * 300,
        "anthropic-version": "2023-06-01",
        "anthropic-workspace-id": "w",
        "x-stainless-os": "Linux",
    }
    assert policy.forwarded(headers) == {
        "content-type": "application/json",
        "accept": "application/json",
        "anthropic-version": "2023-06-01",
    }


@pytest.mark.parametrize("version", ["2023-06-01\udcff", "latest", "", "2023-06-01, 2026-10-21", "٢٠٢٣-06-01"])
def test_an_odd_version_does_not_pass(version: str) -> None:
    assert "anthropic-version" not in policy.forwarded({"anthropic-version": version})


def test_betas_that_are_not_known_are_left_out_and_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "_left_out", set())
    asked = {"anthropic-beta": "effort-2025-11-24, compact-2026-01-12,, x\udcff y,context-management-2025-06-27"}
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            passed = policy.forwarded(asked)["anthropic-beta"]
        policy.forwarded({"anthropic-beta": ",".join(f"beta-{n}" for n in range(500))})
        policy.forwarded({"anthropic-beta": ",".join(f"later-{n}" for n in range(500))})
    assert passed == "effort-2025-11-24,context-management-2025-06-27"
    assert sum("compact-2026-01-12" in record.getMessage() for record in caplog.records) == 1
    assert len(caplog.records) <= 100
    assert policy.forwarded({"anthropic-beta": "compact-2026-01-12"}) == {"content-type": "application/json"}
