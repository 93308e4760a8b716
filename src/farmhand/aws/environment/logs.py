"""What tasks and jobs have written, from the environment's log group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.shard import TaskText
from farmhand.core.typed import ready

#: Source: FilterLogEvents, logStreamNames.
_MOST_STREAMS = 100
#: Seconds between two looks; events may arrive late, so each look begins that long before the last event.
POLL_S, _LATE_MS = 2.0, 10_000
#: Looks without a new line after the end. Seen: airflow#40875, digdag#1593: last lines were lost.
_LATE_LOOKS = 2


@dataclass(frozen=True)
class LogLine:
    """A line. `at` is in Unix milliseconds; `stream` is SIZE/CONTAINER/ID."""

    at: int
    stream: str
    text: str

    @property
    def container(self) -> str:
        """Return which container wrote it."""
        return [*self.stream.split("/"), "", ""][1]

    @property
    def task_text(self) -> str | None:
        """Return the part of the task's text that the line brings, None for any other line."""
        if self.container != "agent" or not self.text.startswith("{"):
            return None
        try:
            return msgspec.json.decode(self.text, type=ready(TaskText)).text
        except ValueError:
            return None


class LogReader:
    """The lines of `streams`, each once; more streams may be added while it is read. Raise FarmhandError."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._streams: dict[str, None] = {}
        self._seen: set[str] = set()
        self._since = 0

    def add(self, streams: Sequence[str]) -> None:
        """Read these as well."""
        self._streams.update(dict.fromkeys(streams))

    def new(self) -> list[LogLine]:
        """Return the lines that were not returned before, the oldest first."""
        streams = [*self._streams]
        found: list[LogLine] = []
        for start in range(0, len(streams), _MOST_STREAMS):
            found += self._read(streams[start : start + _MOST_STREAMS])
        found.sort(key=lambda line: line.at)
        if found:
            self._since = max(self._since, found[-1].at - _LATE_MS)
        return found

    def _read(self, streams: list[str]) -> Iterator[LogLine]:
        group = self._aws.names.logs
        with explained(f"reading the log group {group}"):
            pages = self._aws.client("logs").get_paginator("filter_log_events")
            try:
                for page in pages.paginate(logGroupName=group, logStreamNames=streams, startTime=self._since):
                    for event in page["events"]:
                        name = (
                            f"{event['logStreamName']} {event.get('eventId') or event['timestamp']} {event['message']}"
                        )
                        if name not in self._seen:
                            self._seen.add(name)
                            yield LogLine(
                                int(event["timestamp"]), event["logStreamName"], event["message"].rstrip("\n")
                            )
            except Exception as error:
                # A stream is made with its first line.
                if code_of(error) != "ResourceNotFoundException":
                    raise
                if len(streams) > 1:
                    for stream in streams:
                        yield from self._read([stream])
                elif "group" in str(error).lower():
                    raise NotConfigured(f"there is no log group {group}", hint="farmhand cloud up") from None


def follow(reader: LogReader, goes_on: Callable[[], bool], sleep: Callable[[float], None]) -> Iterator[LogLine]:
    """Yield lines as they come, until `goes_on` is false and nothing new has come since.

    The last lines reach the log some time after the container's end: they are waited for, if it was seen to run.
    """
    late = 0
    while True:
        more = goes_on()
        lines = reader.new()
        yield from lines
        if more:
            late = _LATE_LOOKS
        elif not lines:
            late -= 1
            if late < 0:
                return
        sleep(POLL_S if more or late else 0.0)


class TaskTextReader:
    """The text of one task on Fargate, from its agent's lines. A log that cannot be read is told once by `say`."""

    def __init__(self, aws: Aws, size: str, say: Callable[[str], None]) -> None:
        self._reader, self._size, self._say = LogReader(aws), size, say
        self._broken = False

    def new(self, arn: str = "") -> str:
        """Return what has come since; `arn` is the task's, which may be another one after a start that failed."""
        if self._broken:
            return ""
        if arn:
            self._reader.add([f"{self._size}/agent/{arn.rpartition('/')[2]}"])
        try:
            return "".join(line.task_text or "" for line in self._reader.new())
        except FarmhandError as error:
            self._broken = True
            self._say(f"its text is not shown as it comes: {error}")
            return ""

    def rest(self, whole: str, shown: str, sleep: Callable[[float], None]) -> str:
        """Return what is still to be shown of a task whose result has the text `whole`, and of which `shown` was."""
        late = ""
        for _ in range(_LATE_LOOKS):
            if whole.strip() in shown + late:
                break
            sleep(POLL_S)
            late += self.new()
        return late if whole.strip() in shown + late else f"{late}\n{whole}"
