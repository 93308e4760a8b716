"""What the daemon makes of lines that a task's sandbox sent, forged ones included."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from farmhand.agent.engines import EngineError
from farmhand.agent.engines.cli import CliOutput


def delta(text: str) -> bytes:
    """One piece of streamed text as the CLI writes it."""
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    return msgspec.json.encode({"type": "stream_event", "event": event})


def test_text_closing_lines_and_noise() -> None:
    heard: list[str] = []
    output = CliOutput(heard.append)
    output.take(delta("a"))
    output.take(b'{"type":"stream_event","event":{"type":"message_start","message":{"id":"x"}}}')
    output.take(delta("b"))
    output.take(b'{"type":"result","result":"b","is_error":false,"num_turns":2,"structured_output":{"n":1}}')
    output.take(b'{"type":"farmhand.exit","rc":0,"signal":0,"oom":false,"stderr":""}')
    assert heard == ["a", "\n\n", "b"]
    assert output.said is not None
    assert (output.said.result, output.said.num_turns, output.said.structured()) == ("b", 2, {"n": 1})
    assert output.ended is not None
    assert output.ended.rc == 0


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"text",
        b"[]",
        b"\xff",
        b'{"type":3}',
        b'{"type":"stream_event"}',
        b'{"type":"stream_event","event":[]}',
        b'{"type":"stream_event","event":{"type":"content_block_delta","delta":"x"}}',
        b'{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":1}}}',
        b'{"type":"result","num_turns":"many"}',
        b'{"type":"farmhand.exit","rc":[],"oom":"yes"}',
        b'{"type":"result","structured_output":' + b"[" * 100_000,
    ],
)
def test_a_forged_line_is_left_aside(line: bytes) -> None:
    output = CliOutput(lambda _text: None)
    output.take(line)
    assert (output.said, output.ended, output.text) == (None, None, [])


@pytest.mark.parametrize("text", ["x", "x" * 100_000])
def test_text_without_end_ends_the_attempt(text: str) -> None:
    kept: list[str] = []
    output = CliOutput(kept.append)

    def flood() -> None:
        for _ in range(1_000_000):
            output.take(delta(text))

    with pytest.raises(EngineError) as error:
        flood()
    assert error.value.code == "output_limit"
    assert not error.value.retryable


def test_a_structured_answer_that_is_a_bomb_is_none() -> None:
    output = CliOutput(lambda _text: None)
    output.take(b'{"type":"result","num_turns":1,"structured_output":[' + b"[]," * 2_000_000 + b"[]]}")
    assert output.said is not None
    tracemalloc.start()
    with pytest.raises(EngineError) as error:
        output.said.structured()
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert error.value.code == "no_answer"
