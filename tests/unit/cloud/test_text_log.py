"""A task's text as lines of the container's log."""

from __future__ import annotations

import msgspec
import pytest

from farmhand.aws.environment.logs import LogLine
from farmhand.cloud.ending import TextLog
from farmhand.core.shard import TaskText


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [msgspec.json.decode(line, type=TaskText).text for line in capsys.readouterr().err.splitlines()]


def test_it_is_written_once_a_second_whole_and_in_short_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = TextLog(on=True)
    log.add("one\ntw")
    log.flush()
    log.add("o" * 3000)
    log.flush()
    assert said(capsys) == ["one\ntw"]
    log.flush(all_of_it=True)
    assert [len(line) for line in said(capsys)] == [2000, 1000]
    log.flush(all_of_it=True)
    assert said(capsys) == []


def test_nothing_is_written_unless_the_order_asks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    log = TextLog(on=False)
    log.add("secret plans")
    log.flush(all_of_it=True)
    assert said(capsys) == []


def test_what_looks_like_a_key_is_not_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    log = TextLog(on=True)
    log.add("it is sk-ant-test-abcdefghijklmnop, really")
    log.flush(all_of_it=True)
    assert "abcdefghij" not in said(capsys)[0]


@pytest.mark.parametrize(
    ("stream", "line", "text"),
    [
        ("code/agent/1", '{"farmhand.text":"a\\nb"}', "a\nb"),
        ("code/worker/1", '{"farmhand.text":"a"}', None),
        ("code/agent/1", '{"farmhand.text":5}', None),
        ("code/agent/1", '{"cost_usd": 1}', None),
        ("code/agent/1", "farmhand: hello", None),
        ("code/agent/1", '{"farmhand.text":', None),
    ],
)
def test_only_the_agents_own_lines_are_a_task_s_text(stream: str, line: str, text: str | None) -> None:
    assert LogLine(1, stream, line).task_text == text
