"""Putting a message together from the events of a stream, damaged ones included."""

from __future__ import annotations

import pytest

from farmhand.agent.engines.reader import MessageReader
from farmhand.meter.errors import ApiError
from tests.support.answers.parts import ERROR, HELLO, OPEN, TEXT, TOOL, block, close, end, partial, start, text


def read(stream: bytes) -> MessageReader:
    """What the reader has of `stream`, each event of one `event` and one `data` line."""
    reader = MessageReader(lambda _text: None)
    for event in stream.split(b"\n\n")[:-1]:
        name, _, data = event.partition(b"\n")
        reader.take([(name.removeprefix(b"event: ").decode(), data.removeprefix(b"data:").strip())])
    reader.close()
    return reader


@pytest.mark.parametrize(
    "odd",
    [
        b"event: content_block_stop\ndata:\n\n",
        b"event: content_block_delta\ndata:\n\n",
        b"event: content_block_start\ndata:\n\n",
        close()[:-6] + b"\n\n",
        close()[:-6].replace(b"event: content_block_stop", b"event: ") + b"\n\n",
    ],
)
def test_a_damaged_event_that_brings_nothing_costs_nothing(odd: bytes) -> None:
    reader = read(start() + HELLO + odd + end())
    assert (reader.text, reader.stop_reason) == (TEXT, "end_turn")


@pytest.mark.parametrize(
    "odd",
    [
        text("of content_block_stop")[:-6] + b"\n\n",
        text("of content_block_stop")[:-6].replace(b"event: content_block_delta", b"event: ") + b"\n\n",
        block({"type": "text", "text": "content_block_stop"})[:-6] + b"\n\n",
        b'event: content_block_delta\ndata: {"ty\n\n',
    ],
)
def test_a_damaged_event_that_may_have_brought_a_part_is_asked_for_again(odd: bytes) -> None:
    with pytest.raises(ApiError, match="not JSON") as problem:
        read(start() + HELLO + odd + end())
    assert problem.value.retryable


def test_an_error_behind_the_stop_reason_takes_nothing_away_and_one_before_it_all() -> None:
    reader = read(start() + HELLO + end() + ERROR)
    assert (reader.text, reader.stop_reason, reader.ended) == (TEXT, "end_turn", True)
    with pytest.raises(ApiError):
        read(start() + HELLO + ERROR + end())


def test_a_stop_reason_is_that_of_its_own_message() -> None:
    with pytest.raises(ApiError, match="cut"):
        read(start() + HELLO + end() + start(name="msg_2") + OPEN + text("hel"))


@pytest.mark.parametrize(
    "events",
    [
        block({"type": "tool_use", "name": "answer", "input": '{"n":1}'}),
        TOOL + partial({"n": 1}),
        TOOL + partial({}) + partial({"n": 1}) + partial({}),
        TOOL + partial('{"n":') + partial("1}"),
        TOOL + partial(None) + partial('{"n":1}') + partial({}),
    ],
)
def test_a_tool_s_input_as_gateways_write_it(events: bytes) -> None:
    assert read(start() + events + close() + end(stop_reason="tool_use")).tool_input == '{"n":1}'
