"""Lines of CloudWatch as they come: late ones, a log that cannot be read, the rest of a task's text."""

from __future__ import annotations

from typing import Any

from farmhand.aws.environment.logs import LogLine, LogReader, TaskTextReader, follow
from farmhand.core.errors import FarmhandError


class Lines(LogReader):
    """A log whose looks bring these lines, each a look; an error is raised."""

    def __init__(self, *looks: list[str] | FarmhandError) -> None:
        self.looks = list(looks)
        self.streams: list[str] = []

    def add(self, streams: Any) -> None:
        """See LogReader."""
        self.streams += streams

    def new(self) -> list[LogLine]:
        """See LogReader."""
        look = self.looks.pop(0) if self.looks else []
        if isinstance(look, FarmhandError):
            raise look
        return [LogLine(1, "code/agent/1", line) for line in look]


def text_reader(lines: Lines) -> tuple[TaskTextReader, list[str]]:
    said: list[str] = []
    reader = TaskTextReader(None, "code", said.append)  # type: ignore[arg-type]
    reader._reader = lines
    return reader, said


def test_lines_that_come_after_the_end_are_waited_for() -> None:
    runs = iter([True, False, False, False, False, False, False, False])
    slept: list[float] = []
    lines = Lines(["one"], [], ["late"], [], [], ["too late"])
    found = [line.text for line in follow(lines, lambda: next(runs), slept.append)]
    assert found == ["one", "late"]
    assert len(slept) < 6


def test_what_had_ended_before_is_read_at_once() -> None:
    slept: list[float] = []
    assert [line.text for line in follow(Lines(["one"], ["two"]), lambda: False, slept.append)] == ["one", "two"]
    assert not any(slept)


def test_a_task_s_text_is_the_agents_and_its_stream_is_named_after_the_task() -> None:
    lines = Lines(['{"farmhand.text":"a"}', "farmhand: x", '{"farmhand.text":"b"}'])
    reader, _ = text_reader(lines)
    assert reader.new("arn:aws:ecs:us-east-1:1:task/farmhand-try/abc") == "ab"
    assert lines.streams == ["code/agent/abc"]


def test_a_log_that_cannot_be_read_is_told_once_and_the_whole_text_comes_in_the_end() -> None:
    reader, said = text_reader(Lines(FarmhandError("not allowed", hint="add it"), ['{"farmhand.text":"a"}']))
    assert [reader.new(), reader.new()] == ["", ""]
    assert said == ["its text is not shown as it comes: not allowed (add it)"]
    assert reader.rest("the answer", "", lambda _s: None).strip() == "the answer"


def test_the_rest_is_what_was_not_shown() -> None:
    slept: list[float] = []
    late = Lines([], ['{"farmhand.text":" answer"}'])
    assert text_reader(late)[0].rest("the answer", "look: the", slept.append) == " answer"
    assert text_reader(Lines())[0].rest("the answer", "look: the answer\n", slept.append) == ""
    assert text_reader(Lines())[0].rest("", "", slept.append) == ""
    assert len(slept) == 2
