from __future__ import annotations

import os
import pty
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from farmhand.cli import prompt
from farmhand.core.errors import UsageError

Feed = Callable[[int], None]


def assemble(*arguments: Any, **options: Any) -> str:
    """The text of a prompt that has neither pictures nor PDFs."""
    text, files = prompt.assemble(*arguments, **options)
    assert files == []
    return text


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


def connected() -> tuple[int, int]:
    """The two ends of a socket pair, as Node's and Bun's `spawn` make stdin."""
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize("make", [os.pipe, connected], ids=["pipe", "socket"])
def test_stdin_on_which_nothing_comes_is_left_out_with_one_line(
    make: Callable[[], tuple[int, int]],
    stdin: Feed,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert prompt.GIVE_UP_AFTER_S == 3
    monkeypatch.setattr(prompt, "GIVE_UP_AFTER_S", 0.05)
    ours, theirs = make()
    stdin(ours)
    assert assemble("hello", []) == "hello"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--no-stdin" in said
    os.close(theirs)


@pytest.mark.parametrize("make", [os.pipe, connected], ids=["pipe", "socket"])
@pytest.mark.parametrize("files", [[], ["-"]])
def test_what_comes_later_is_waited_for_where_stdin_is_asked_for(
    make: Callable[[], tuple[int, int]], files: list[str], stdin: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt, "GIVE_UP_AFTER_S", 0.01)
    ours, theirs = make()
    os.set_blocking(ours, False)
    stdin(ours)

    def slowly() -> None:
        for piece in (b"la", b"te"):
            time.sleep(0.1)
            os.write(theirs, piece)
        os.close(theirs)

    writer = threading.Thread(target=slowly)
    writer.start()
    assert assemble("hello" if files else "-", files) == ("hello\n\nlate" if files else "late")
    writer.join()


def test_a_socket_is_read_beside_an_argument(stdin: Feed) -> None:
    ours, theirs = connected()
    os.write(theirs, b"The barn is red.\n")
    os.close(theirs)
    stdin(ours)
    assert assemble("What colour is it?", []) == "What colour is it?\n\nThe barn is red.\n"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_that_has_no_end_is_left_out_with_one_line(
    kind: socket.SocketKind, stdin: Feed, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    theirs.send(b"a packet")
    stdin(ours.detach())
    assert assemble("hello", []) == "hello"
    assert capsys.readouterr().err.endswith("so it is left out: it is a socket, but not a stream\n")
    for argument, files in ((None, ""), ("-", ""), ("hello", "-")):
        with pytest.raises(UsageError, match="it is a socket, but not a stream"):
            assemble(argument, list(files))
    theirs.close()


def test_a_fifo_is_read(stdin: Feed, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    ours = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    theirs = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.write(theirs, b"data")
    os.close(theirs)
    stdin(ours)
    assert assemble("sum up", []) == "sum up\n\ndata"


def test_stdin_that_cannot_be_read_is_one_line(stdin: Feed, capsys: pytest.CaptureFixture[str]) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(listening.getsockname()).close()
    stdin(listening.detach())
    assert assemble("hello", []) == "hello"
    assert "stdin cannot be read" in capsys.readouterr().err
    with pytest.raises(UsageError, match="stdin cannot be read: "):
        assemble("-", [])


def test_a_fifo_as_a_file_is_waited_for_with_a_line_and_a_regular_file_is_not(
    stdin: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(os.open(os.devnull, os.O_RDONLY))
    said: list[str] = []

    def waits_for(what: str) -> AbstractContextManager[None]:
        said.append(what)
        return nullcontext()

    monkeypatch.setattr(prompt, "waits_for", waits_for)
    fifo, plain = tmp_path / "fifo", tmp_path / "plain"
    os.mkfifo(fifo)
    plain.write_text("hens")
    ours = os.open(fifo, os.O_RDWR)
    os.write(ours, b"cows")
    threading.Timer(0.2, os.close, [ours]).start()
    assert "cows" in assemble("sum up", [str(fifo), str(plain)])
    assert said == [f"reading {fifo}"]


def test_files_with_nothing_in_them_are_told_and_are_no_prompt(
    stdin: Feed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(os.open(os.devnull, os.O_RDONLY))
    (tmp_path / "report.txt").touch()
    (tmp_path / "blank.png").write_text(" \n")
    (tmp_path / "notes.txt").write_text("hens")
    report, blank, notes = (str(tmp_path / name) for name in ("report.txt", "blank.png", "notes.txt"))
    assert assemble("sum up", [report, blank]).startswith(f"sum up\n\n----- file: {report} -----\n")
    assert capsys.readouterr().err == f"farmhand: -f {report}, {blank}: nothing is in it\n"
    assert "hens" in assemble(None, [report, notes])
    assert capsys.readouterr().err == f"farmhand: -f {report}: nothing is in it\n"
    with pytest.raises(UsageError, match="the prompt is empty"):
        assemble(None, [report, blank])


def test_a_file_whose_name_is_not_utf_8(stdin: Feed, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(name).write_text("x")
    assert assemble(None, [name], use_stdin=False) == f"----- file: {tmp_path}/caf\ufffd -----\nx"
    with pytest.raises(UsageError, match="caf\ufffd2: No such file"):
        assemble(None, [name + "2"], use_stdin=False)
    with pytest.raises(UsageError, match="null byte"):
        assemble(None, ["a\0b"], use_stdin=False)


def test_bad_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\ntwo\nthree \xff\n")
    with pytest.raises(UsageError, match="at byte 14, in line 3"):
        assemble(None, [f"{tmp_path}/a"], use_stdin=False)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_paid_for(stdin: Feed, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a").write_bytes("café\r\n".encode(encoding))
    assert assemble(None, [f"{tmp_path}/a"], use_stdin=False) == f"----- file: {tmp_path}/a -----\ncafé\r\n"
    stdin(pipe("café".encode(encoding)))
    assert assemble(None, []) == "café"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        *((b"", "is empty"), (b" \n\t", "is empty"), (b"ab\0", "NUL byte at 2"), (b"\xc3\x28", "UTF-8 at byte 0")),
        *((b"\xff\xfea\0b", "UTF-16 at byte"), (b"\xff\xfe\0\0a\0", "it is binary"), (b"\xef\xbb\xbf", "is empty")),
    ],
)
def test_bad_stdin(stdin: Feed, data: bytes, words: str) -> None:
    stdin(pipe(data))
    with pytest.raises(UsageError, match=words):
        assemble(None, [])


def test_size(stdin: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_stdin_is_not_asked_for_and_left_out_at_once() -> None:
    for argument, files in (("p", ["-"]), ("-", [])):
        with pytest.raises(UsageError, match="--no-stdin leaves it out"):
            assemble(argument, files, use_stdin=False)
