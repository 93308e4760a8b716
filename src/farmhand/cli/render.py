"""Output on stdout: the answer, streamed on a terminal and byte for byte into a pipe, or one JSON object.

On a terminal, and in all JSON, control characters are replaced or escaped: see `readable.CONTROL`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from farmhand.cli.say import note
from farmhand.cli.waiting import WaitLine
from farmhand.core.errors import FarmhandError, NotConfigured, TaskFailed, from_result
from farmhand.core.keys import without_secrets
from farmhand.core.readable import CONTROL, printable


def write_bytes(text: str) -> None:
    """Write `text` to stdout in UTF-8 in any locale, with a line end; on a terminal through `printable`."""
    if sys.stdout.isatty():
        text = printable(text)
    data = text.encode("utf-8", "replace")
    sys.stdout.buffer.write(data if data.endswith(b"\n") else data + b"\n")
    sys.stdout.buffer.flush()


def is_read_as_it_comes() -> bool:
    """Return whether stdout is a terminal, a pipe or a socket. A file gets an answer as a whole or not at all."""
    if sys.stdout.isatty():
        return True
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _write(text: str) -> None:
    """Write a piece of an answer at once: through `printable` on a terminal, elsewhere in UTF-8 as it is."""
    if sys.stdout.isatty():
        sys.stdout.write(printable(text))
    else:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.flush()


def _code(answer: str, which: str) -> str:
    """Return the first or the last fenced block of code in the Markdown `answer`; the answer itself if it has none."""
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError:
        hint = "install farmhand with the extra workstation"
        raise FarmhandError("--extract needs the package markdown-it-py", hint=hint) from None
    blocks = [token.content for token in MarkdownIt("commonmark").parse(answer) if token.type == "fence"]
    if not blocks:
        note("the answer has no block of code: this is all of it")
        return answer
    return blocks[0 if which == "first" else -1]


def write_json(value: dict[str, Any]) -> None:
    """Write one line of JSON to stdout."""
    write_bytes(json_text(value))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON. Control characters are written as escapes, which mean the same."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def error_object(error: FarmhandError) -> dict[str, Any]:
    """Return the JSON object of an error for which there is no task result."""
    said: dict[str, Any] = {"message": without_secrets(error.message), "hint": without_secrets(error.hint)}
    if lines := getattr(error, "lines", None):  # InvalidInput
        said["lines"] = [without_secrets(line) for line in lines]
    document: dict[str, Any] = {"error": {"code": error.code, **said}}
    if task_id := getattr(error, "task_id", None):  # Spooled
        document = {"id": task_id, "state": "spooled"} | document
    return document


def missing_package(error: ModuleNotFoundError) -> NotConfigured | None:
    """Return what to do about a package of one of farmhand's extras that is not installed; None of any other module.

    It is named itself, and not `farmhand[EXTRA]`: pip looks for that where it cannot be found.
    """
    from importlib.metadata import requires

    def plain(name: str) -> str:
        return re.sub("[-_.]+", "-", name).lower()

    name = plain((error.name or "").partition(".")[0])
    for requirement in requires("farmhand") or ():
        found = re.match(r"([\w.-]+).*\bextra *== *['\"](\w+)['\"]", requirement)
        if found and plain(found[1]) == name:
            hint = f"{sys.executable} -m pip install {name}"
            return NotConfigured(f"the Python package {name} is not installed", hint=hint)
    return None


@contextmanager
def errors_as_json(wanted: bool) -> Iterator[None]:
    """If `wanted`, write a FarmhandError of the body to stdout as JSON, and raise it again.

    A package of an extra that is missing is such an error as well.
    """
    try:
        yield
    except FarmhandError as error:
        if wanted:
            write_json(error_object(error))
        raise
    except ModuleNotFoundError as error:
        if (missing := missing_package(error)) is None:
            raise
        if wanted:
            write_json(error_object(missing))
        raise missing from None


def answer_text(result: dict[str, Any]) -> str:
    """Return a result's answer: its structured answer as JSON if there is one, else its text."""
    if result.get("structured") is not None:
        return json_text(result["structured"], indent=2)
    return str(result.get("text") or "")


class Printer:
    """A writer of one task's answer, fed with the task's events.

    With `stream`, text is written as it comes. If the task is attempted again, text is written only where it continues
    what was written already. If the final answer differs from that, it is written as a whole on a terminal, with a
    note; a program that reads a pipe could not tell the two apart, so there it is an error. With `extract`, `first` or
    `last`, only that block of code is written. With `events` each event that the answer is made of is written as JSON.
    `wait` is closed by the first text that is written.
    """

    def __init__(self, *, stream: bool, extract: str = "", events: bool = False) -> None:
        self.stream = stream
        self.events = events
        self.wait = WaitLine()
        self.extract = extract
        self._shown = ""
        self._coming = ""

    def on_event(self, event: dict[str, Any]) -> None:
        """Handle one event of the task's stream."""
        if self.events and event.get("type") in ("restart", "text"):
            self.wait.close()
            write_json({name: event[name] for name in ("type", "text") if name in event})
        if event.get("type") == "restart":
            self._coming = ""
        elif event.get("type") == "text" and self.stream:
            self._coming += str(event.get("text") or "")
            self.wait.close()
            self._show(self._coming)
        elif event.get("type") == "text":
            self.wait.on("the answer comes")

    def _show(self, text: str) -> None:
        if len(text) > len(self._shown) and text.startswith(self._shown):
            # Noted before it is written: Ctrl-C comes as soon as somebody sees the text.
            rest, self._shown = text[len(self._shown) :], text
            _write(rest)

    def finish(self, result: dict[str, Any]) -> None:
        """Write the rest of the answer and end the line."""
        answer = answer_text(result)
        if not self.stream:
            write_bytes(_code(answer, self.extract) if self.extract else answer)
            return
        if not answer.startswith(self._shown):
            self.end_line()
            if not sys.stdout.isatty():
                what = "the answer was started again after a part of it was written: what was read is not the answer"
                hint = f"the whole answer: the same command with --id {result.get('id')}"
                raise TaskFailed(what, hint=hint, code="answer_restarted")
            sys.stderr.write("(the answer was started again; this is all of it)\n")
            self._shown = ""
        self._show(answer)
        self.end_line()

    def report(self, result: dict[str, Any], *, as_json: bool) -> int:
        """Print a task's result and return the exit status. Raises the task's failure."""
        failure = from_result(result)
        if as_json:
            write_json(result)
            if failure is not None:
                note(str(failure))
            return 0 if failure is None else failure.exit_code
        if failure is not None:
            self.end_line()
            raise failure
        self.finish(result)
        if result.get("stop_reason") not in ("", "end_turn"):
            from farmhand.core.readable import cut_off  # decimal would be imported by every answer

            if cut := cut_off(result):
                note(cut)
        return 0

    def end_line(self) -> None:
        """End a line that streaming has left open, and the one that says what is waited for."""
        self.wait.close()
        if self._shown and not self._shown.endswith("\n"):
            self._shown += "\n"
            _write("\n")
