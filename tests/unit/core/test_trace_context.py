"""A caller's trace context is taken if it is valid, and is never an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core.trace_context import (
    TraceContext,
    below,
    context_of,
    from_environment,
    of_caller,
    traces_url,
    untraced,
    with_trace,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("given_", "taken"),
    [
        (PARENT, PARENT),
        (f" {PARENT}\t", PARENT),
        (f"00-{'1' * 32}-{'2' * 16}-01", f"00-{'1' * 32}-{'2' * 16}-01"),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        # What later versions and flags add is not passed on as if it were understood.
        (f"00-{TRACE}-{SPAN}-ff", PARENT),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", PARENT),
    ],
)
def test_a_valid_one_is_taken(given_: str, taken: str) -> None:
    assert context_of(given_) == TraceContext(taken)


@pytest.mark.parametrize(
    "bad",
    [
        *(
            None,
            7,
            "",
            "garbage",
            PARENT.upper(),
            f"ff-{TRACE}-{SPAN}-01",
            f"{PARENT}-more",
            f"{PARENT}\n",
            f"{PARENT}.",
        ),
        *(
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE[:-1]}-{SPAN}-01",
            f"0-{TRACE}-{SPAN}-01",
        ),
        *(f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-0x", f"00_{TRACE}_{SPAN}_01"),
        *("\u0660\u0660" + PARENT[2:], "x" * 100_000, f"{PARENT},{PARENT}"),
    ],
)
def test_garbage_is_dropped(bad: object) -> None:
    assert context_of(bad, "a=b") is None


@pytest.mark.parametrize(
    ("given_", "taken"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("a=1 , ,\tb@c=2", "a=1,b@c=2"),
        *((bad, "") for bad in ("A=1", "a", "a=", "a=1,a=2", "a=b=c", "a=\x01", "a=é", "=1", "a=1;b=2\n", 7)),
        (",".join(f"k{n}=1" for n in range(33)), ""),
        ("a=" + "1" * 600, ""),
        # A vendor's entry may hold anything: what looks like a key goes nowhere.
        ("a=sk-ant-test-0000000000000000", ""),
    ],
)
def test_a_state_is_passed_on_whole_or_not_at_all(given_: object, taken: str) -> None:
    assert context_of(PARENT, given_) == TraceContext(PARENT, taken)


@given(st.text(max_size=60), st.text(max_size=40))
def test_nothing_in_the_environment_is_an_error(parent: str, state: str) -> None:
    found = from_environment({"TRACEPARENT": parent, "TRACESTATE": state})
    assert found is None or context_of(found.traceparent, found.tracestate) == found


def test_it_is_a_task_s_fields_and_the_cli_s_environment() -> None:
    found = from_environment({"TRACEPARENT": PARENT, "TRACESTATE": "a=1"})
    assert found is not None
    assert found.fields() == {"traceparent": PARENT, "tracestate": "a=1"}
    assert found.environment() == {"TRACEPARENT": PARENT, "TRACESTATE": "a=1"}
    assert TraceContext(PARENT).environment() == {"TRACEPARENT": PARENT}


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("", ""),
        ("none", ""),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://[::1]:4318/", "https://[::1]:4318/v1/traces"),
        ("https://collector.example/otlp", "https://collector.example/otlp/v1/traces"),
        ("https://collector.example/otlp/v1/traces", "https://collector.example/otlp/v1/traces"),
    ],
)
def test_the_collector_s_address(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


@pytest.mark.parametrize(
    "bad",
    [
        "localhost:4318",
        "grpc://h:4317",
        "http://",
        "http://u:p@h",
        "http://h?x=1",
        "http://h:0",
        "http://h h",
        "http://h:x",
    ],
)
def test_what_is_no_address(bad: str) -> None:
    with pytest.raises(ValueError, match="an address such as"):
        traces_url(bad)


def test_a_span_to_come_is_in_its_parent_s_trace_or_begins_one() -> None:
    own = below(TraceContext(PARENT, "a=1"))
    assert (own.traceparent[:36], own.traceparent[52:], own.tracestate) == (PARENT[:36], "-01", "a=1")
    assert own.traceparent != PARENT
    first, second = below(None), below(None)
    assert context_of(first.traceparent) == first
    assert (first.sampled, first.traceparent[3:35] != second.traceparent[3:35]) == (True, True)
    assert not below(TraceContext(f"00-{TRACE}-{SPAN}-00")).sampled


def test_a_task_takes_a_trace_and_is_the_same_task_without_it() -> None:
    task, trace = {"id": "one", "prompt": "x"}, TraceContext(PARENT, "a=1")
    sent = json.loads(with_trace(json.dumps(task).encode(), trace))
    assert sent == task | {"traceparent": PARENT, "tracestate": "a=1"}
    assert (untraced(sent), with_trace(b"{}", None)) == (task, b"{}")


def test_the_caller_s_trace_goes_along_only_where_there_are_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)
    monkeypatch.setenv("TRACESTATE", "")
    assert of_caller("http://127.0.0.1:4318") == {"traceparent": PARENT}
    assert (of_caller(""), of_caller("none")) == ({}, {})
    monkeypatch.setenv("TRACEPARENT", "garbage")
    assert of_caller("http://127.0.0.1:4318") == {}
