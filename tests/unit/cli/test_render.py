from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest

from farmhand.cli.render import Printer, answer_text, write_json
from farmhand.cli.say import one_line
from farmhand.cli.signals import Stopped
from farmhand.core.errors import TaskFailed
from farmhand.core.readable import CONTROL, printable


class Terminal(io.StringIO):
    """What a terminal shows."""

    def isatty(self) -> bool:
        return True


def show(*events: dict[str, Any], result: dict[str, Any]) -> tuple[str, str]:
    """What a terminal and stderr show in the end."""
    with redirect_stdout(Terminal()) as out, redirect_stderr(io.StringIO()) as err:
        printer = Printer(stream=True)
        for event in events:
            printer.on_event(event)
        printer.finish(result)
    return out.getvalue(), err.getvalue()


def text(piece: str) -> dict[str, Any]:
    return {"type": "text", "text": piece}


RESTART = {"type": "restart", "reason": "reconnected"}


def test_text_as_it_comes_with_one_line_end() -> None:
    assert show(text("a"), text("b"), result={"text": "ab"}) == ("ab\n", "")
    assert show(text("a\n"), result={"text": "a\n"}) == ("a\n", "")
    assert show(result={"text": "late"}) == ("late\n", "")


def test_after_a_restart_only_what_goes_on_is_written() -> None:
    assert show(text("ab"), RESTART, text("a"), text("bc"), result={"text": "abc"}) == ("abc\n", "")
    assert show(text("ab"), RESTART, text("abc"), result={"text": "abcd"}) == ("abcd\n", "")


def test_another_answer_is_written_whole_with_a_note() -> None:
    out, err = show(text("ab"), RESTART, text("xy"), result={"text": "xyz"})
    assert out == "ab\nxyz\n"
    assert err.count("\n") == 1


def test_a_terminal_gets_no_commands_from_an_answer() -> None:
    assert printable("a\x1b[2Jb\x07\r\n\tc\x9b1m\x7f") == "a\ufffd[2Jb\ufffd\ufffd\n\tc\ufffd1m\ufffd"
    assert show(text("\x1b]0;x"), result={"text": "\x1b]0;x"})[0] == "\ufffd]0;x\n"


def test_a_pipe_gets_the_bytes_as_they_are(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = Printer(stream=False)
    printer.on_event(text("ignored"))
    printer.finish({"text": "a\x1b[2Jé\r\n"})
    assert capfdbinary.readouterr().out == "a\x1b[2Jé\r\n".encode()


def test_a_pipe_gets_the_text_as_it_comes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = Printer(stream=True)
    for piece, so_far in (("a\x1b[2J", b"a\x1b[2J"), ("é", "é".encode()), ("\r\n", b"\r\n")):
        printer.on_event(text(piece))
        assert capfdbinary.readouterr().out == so_far
    printer.finish({"text": "a\x1b[2Jé\r\nb"})
    assert capfdbinary.readouterr().out == b"b\n"


def test_ctrl_c_at_the_moment_that_text_is_seen_ends_its_line() -> None:
    """The signal comes when the terminal has the text, before the write returns."""

    class Seen(Terminal):
        def write(self, text: str, /) -> int:
            super().write(text)
            raise Stopped(signal.SIGINT)

    with redirect_stdout(out := Seen()):
        printer = Printer(stream=True)
        with pytest.raises(Stopped):
            printer.on_event(text("ab"))
        for _ in range(2):  # a second Ctrl-C
            with suppress(Stopped):
                printer.end_line()
    assert out.getvalue() == "ab\n"


def test_another_answer_in_a_pipe_is_no_success(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = Printer(stream=True)
    printer.on_event(text("ab"))
    printer.on_event(RESTART)
    with pytest.raises(TaskFailed, match="what was read is not the answer") as caught:
        printer.report({"id": "t1", "state": "succeeded", "text": "xyz"}, as_json=False)
    assert "--id t1" in str(caught.value)
    assert capfdbinary.readouterr().out == b"ab\n"


def test_what_is_read_as_it_comes(tmp_path: Path) -> None:
    program = "from farmhand.cli.render import *; import sys; sys.stderr.write(str(is_read_as_it_comes()))"

    def said(**where: Any) -> bytes:
        done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=True, **where)
        return bytes(done.stderr)

    ours, theirs = pty.openpty()
    assert [said(stdout=subprocess.PIPE), said(stdout=theirs)] == [b"True", b"True"]
    os.close(ours)
    os.close(theirs)
    with (tmp_path / "out").open("wb") as file:
        assert [said(stdout=file), said(stdout=subprocess.DEVNULL)] == [b"False", b"False"]


@pytest.mark.parametrize(
    ("answer", "first", "last"),
    [
        ("Sure:\n```c++\na\n```\nor\n```python title=x\nb\n\nc\n```\nbye", "a\n", "b\n\nc\n"),
        ("```\r\na\r\nb\r\n```\r\n", "a\nb\n", "a\nb\n"),
        ("1. do\n   ~~~sh\n   ls\n   ~~~\n", "ls\n", "ls\n"),
        ("````md\n```\ninner\n```\n````", "```\ninner\n```\n", "```\ninner\n```\n"),
        ("```\ncut off", "cut off\n", "cut off\n"),
        ("no code", "no code\n", "no code\n"),
    ],
)
def test_only_the_code(capfd: pytest.CaptureFixture[str], answer: str, first: str, last: str) -> None:
    for which, expected in (("first", first), ("last", last)):
        Printer(stream=False, extract=which).finish({"text": answer})
        out, err = capfd.readouterr()
        assert out == expected
        assert ("no block of code" in err) == (answer == "no code")


def test_a_structured_answer_is_json() -> None:
    assert answer_text({"structured": {"a": "é"}, "text": "x"}) == '{\n  "a": "é"\n}'
    assert answer_text({"structured": [], "text": "x"}) == "[]"
    assert answer_text({"structured": None, "text": "x"}) == "x"


EVIL = "a\x1b[2J\x9b31m\x07\x7f\u202eb\u2066c\u2069\u200e\u200f\u061c\u2028\ud83d é\n\t"


def test_json_has_escapes_for_what_a_terminal_must_not_get(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_json({"text": EVIL, EVIL: [EVIL]})
    line = capfdbinary.readouterr().out
    assert not CONTROL.search(line.decode())
    assert json.loads(line) == {"text": EVIL, EVIL: [EVIL]}
    assert json.loads(answer_text({"structured": {"a": EVIL}})) == {"a": EVIL}
    assert not CONTROL.search(answer_text({"structured": {"a": EVIL}}))
    assert "é".encode() in line


def test_text_for_a_terminal_has_nothing_that_turns_it_or_cannot_be_encoded() -> None:
    shown = printable(EVIL)
    assert not CONTROL.search(shown)
    assert shown.endswith(" é\n\t")
    assert len(shown) == len(EVIL)
    assert one_line(EVIL).count("\ufffd") > 10
    assert "\n" not in one_line(EVIL)


@pytest.mark.parametrize("printer", [True, False])
def test_an_answer_is_safe_on_a_terminal_and_whole_in_a_pipe(printer: bool) -> None:
    """`printer` False: written at once, as with --schema and farmhand flush ID."""
    program = (
        "from farmhand.cli.render import Printer\n"
        f"Printer(stream={printer}).finish({{'text': {EVIL.replace(chr(0xD83D), '')!r}}})"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    subprocess.run([sys.executable, "-c", program], stdout=theirs, env=environment, check=True)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert not CONTROL.search(shown.replace("\r\n", "\n"))
    if not printer:
        piped = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
        assert piped.stdout == EVIL.replace(chr(0xD83D), "").encode() + b"\n"
