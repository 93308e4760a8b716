from __future__ import annotations

import os
import pty
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farmhand import task
from farmhand.cli import prompt
from farmhand.cli.prompt import assemble
from farmhand.errors import UsageError

Feed = Callable[[int], None]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    """Make a descriptor the process's stdin."""
    opened: list[int] = []

    def feed(descriptor: int) -> None:
        opened.append(descriptor)
        monkeypatch.setattr(sys, "stdin", os.fdopen(descriptor, "r", closefd=False))

    yield feed
    for descriptor in opened:
        os.close(descriptor)


def pipe(data: bytes) -> int:
    """A pipe with `data` in it, its other end closed."""
    ours, theirs = os.pipe()
    os.write(theirs, data)
    os.close(theirs)
    return ours


def test_only_an_argument_leaves_devices_alone(stdin: Feed) -> None:
    stdin(os.open(os.devnull, os.O_RDONLY))
    assert assemble("hello\n", []) == "hello\n"


def test_only_an_argument_leaves_a_terminal_alone(stdin: Feed) -> None:
    ours, theirs = pty.openpty()
    stdin(theirs)
    assert assemble("hello", []) == "hello"
    with pytest.raises(UsageError, match="there is no prompt"):
        assemble(None, [])
    os.write(ours, b"typed\n\x04")
    assert assemble("-", []) == "typed\n"
    os.close(ours)


def test_stdin_alone_and_beside_an_argument(stdin: Feed) -> None:
    stdin(pipe("é\r\n ".encode()))
    assert assemble(None, []) == "é\r\n "
    stdin(pipe(b"data"))
    assert assemble("sum up", []) == "sum up\n\ndata"
    stdin(pipe(b"data"))
    assert assemble("sum up", [], use_stdin=False) == "sum up"
    stdin(pipe(b""))
    assert assemble("sum up", []) == "sum up"


def test_a_redirected_file_is_read_but_not_one_that_a_loop_is_reading(stdin: Feed, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("one\ntwo\n")
    descriptor = os.open(tmp_path / "list", os.O_RDONLY)
    stdin(descriptor)
    os.lseek(descriptor, 4, os.SEEK_SET)
    assert assemble("one", []) == "one"
    os.lseek(descriptor, 0, os.SEEK_SET)
    assert assemble("both", []) == "both\n\none\ntwo\n"


def test_files_come_last_under_their_names(stdin: Feed, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("A\n")
    (tmp_path / "b").write_text("B")
    stdin(pipe(b"in"))
    names = [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert assemble("arg", names) == (
        f"arg\n\nin\n\n----- file: {names[0]} -----\nA\n\n\n----- file: {names[1]} -----\nB"
    )
    stdin(os.open(os.devnull, os.O_RDONLY))
    assert assemble(None, names[:1]) == f"----- file: {names[0]} -----\nA\n"


def test_a_pipe_that_nobody_writes_to_is_noted_and_given_up(
    stdin: Feed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prompt, "NOTE_AFTER_S", 0.05)
    monkeypatch.setattr(prompt, "GIVE_UP_AFTER_S", 0.1)
    ours, theirs = os.pipe()
    stdin(ours)
    with pytest.raises(UsageError, match="nothing came on stdin"):
        assemble("hello", [])
    assert "--no-stdin" in capsys.readouterr().err
    os.close(theirs)


def test_a_slow_pipe_is_waited_for(stdin: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "NOTE_AFTER_S", 0.05)
    ours, theirs = os.pipe()
    stdin(ours)

    def slowly() -> None:
        time.sleep(0.15)
        os.write(theirs, b"late")
        os.close(theirs)

    writer = threading.Thread(target=slowly)
    writer.start()
    assert assemble("hello", []) == "hello\n\nlate"
    writer.join()


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "is empty"), (b" \n\t", "is empty"), (b"ab\0", "NUL byte at 2"), (b"\xc3\x28", "UTF-8 at byte 0")],
)
def test_bad_stdin(stdin: Feed, data: bytes, words: str) -> None:
    stdin(pipe(data))
    with pytest.raises(UsageError, match=words):
        assemble(None, [])


def test_size(stdin: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prompt.MAX_PROMPT_BYTES == task.MAX_PROMPT_BYTES
    monkeypatch.setattr(prompt, "MAX_PROMPT_BYTES", 10)
    stdin(pipe(b"0123456789"))
    assert assemble(None, []) == "0123456789"
    stdin(pipe(b"0123456789a"))
    with pytest.raises(UsageError) as caught:
        assemble(None, [])
    assert caught.value.code == "too_large"
    with pytest.raises(UsageError, match="12 bytes"):
        assemble("é" * 6, [], use_stdin=False)


def test_no_stdin_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert assemble("hello", []) == "hello"
    with pytest.raises(UsageError, match="is empty"):
        assemble(None, [])
