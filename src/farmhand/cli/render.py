"""Write to stdout: the answer, as it comes on a terminal and at once into a pipe, or one JSON object.

Into a pipe an answer goes byte for byte. On a terminal, and in JSON anywhere, nothing is written that a terminal would
take for more than text: see `say.CONTROL`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from farmhand.cli.say import CONTROL, printable
from farmhand.core.errors import FarmhandError
from farmhand.core.keys import without_secrets


def write_bytes(text: str) -> None:
    """`text` to stdout in UTF-8, whatever the locale says, with a line end; on a terminal as `printable` has it."""
    if sys.stdout.isatty():
        text = printable(text)
    data = text.encode("utf-8", "replace")
    sys.stdout.buffer.write(data if data.endswith(b"\n") else data + b"\n")
    sys.stdout.buffer.flush()


def write_json(value: dict[str, Any]) -> None:
    """One line of JSON to stdout."""
    write_bytes(json_text(value))


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON; what a terminal must not get stands in it as an escape, which means the same."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def error_object(error: FarmhandError) -> dict[str, Any]:
    """The JSON form of a failure that has no result."""
    said: dict[str, Any] = {"message": without_secrets(error.message), "hint": without_secrets(error.hint)}
    if lines := getattr(error, "lines", None):  # InvalidInput
        said["lines"] = [without_secrets(line) for line in lines]
    task_id = getattr(error, "task_id", "")  # Spooled
    spooled = {"id": task_id, "state": "spooled"} if task_id else {}
    return {**spooled, "error": {"code": error.code, **said}}


@contextmanager
def errors_as_json(wanted: bool) -> Iterator[None]:
    """Write an error that passes to stdout as well, if that is wanted."""
    try:
        yield
    except FarmhandError as error:
        if wanted:
            write_json(error_object(error))
        raise


def answer_text(result: dict[str, Any]) -> str:
    """The answer of a result: the structured one as JSON if there is one, else the text."""
    if result.get("structured") is not None:
        return json_text(result["structured"], indent=2)
    return str(result.get("text") or "")


class Printer:
    """Takes a task's events and writes its answer.

    On a terminal text is written as it comes. When an attempt is void and another one starts, only text that goes on
    from what stands there is written; if the answer in the end is another one, it is written whole, with a note.
    """

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream
        self._shown = ""
        self._coming = ""

    def on_event(self, event: dict[str, Any]) -> None:
        """Take one event of the wire."""
        if not self.stream:
            return
        if event.get("type") == "restart":
            self._coming = ""
        elif event.get("type") == "text":
            self._coming += str(event.get("text") or "")
            self._show(self._coming)

    def _show(self, text: str) -> None:
        if len(text) > len(self._shown) and text.startswith(self._shown):
            sys.stdout.write(printable(text[len(self._shown) :]))
            sys.stdout.flush()
            self._shown = text

    def finish(self, result: dict[str, Any]) -> None:
        """Write what of the answer is not written yet, and end the line."""
        answer = answer_text(result)
        if not self.stream:
            write_bytes(answer)
            return
        if not answer.startswith(self._shown):
            self.end_line()
            sys.stderr.write("(the answer was started again; this is all of it)\n")
            self._shown = ""
        self._show(answer)
        self.end_line()

    def end_line(self) -> None:
        """End the line that streaming left open."""
        if self._shown and not self._shown.endswith("\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()
