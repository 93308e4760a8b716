from __future__ import annotations

import io
from typing import Any

import pytest

from farmhand.cli.render import Printer, answer_text, printable


def show(*events: dict[str, Any], result: dict[str, Any]) -> tuple[str, str]:
    """What a terminal and stderr show in the end."""
    out, err = io.StringIO(), io.StringIO()
    printer = Printer(stream=True, out=out, err=err)
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


def test_a_structured_answer_is_json() -> None:
    assert answer_text({"structured": {"a": "é"}, "text": "x"}) == '{\n  "a": "é"\n}'
    assert answer_text({"structured": [], "text": "x"}) == "[]"
    assert answer_text({"structured": None, "text": "x"}) == "x"
