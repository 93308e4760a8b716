"""What http.client makes of an agent's answers under our bounds, and of what no agent sends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.wire.connection import AgentConnection, AgentResponse, Endless, TooLong, whole_response

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def answered(raw: bytes, step: int = 65536) -> Iterator[AgentResponse]:
    """The answer `raw`, which comes over a socket in pieces of `step` bytes; then the other side hangs up."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs, contextlib.suppress(OSError):
            theirs.recv(65536)
            for start in range(0, len(raw), step):
                theirs.sendall(raw[start : start + step])

    thread = threading.Thread(target=send)
    thread.start()
    with ours:
        connection = AgentConnection(ours)
        connection.patience(5.0, 5.0)
        connection.request("GET", "/p")
        try:
            yield connection.getresponse()
        finally:
            ours.close()
            thread.join()


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.integers(1, 50), st.booleans())
def test_bodies_in_chunks(pieces: list[bytes], step: int, trailer: bool) -> None:
    body = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    with answered(CHUNKED + body + b"0\r\n" + b"X-Trailer: 1\r\n" * trailer + b"\r\n", step) as response:
        assert response.read_all(1 << 20) == b"".join(pieces)
        assert response.isclosed()
        assert not response.will_close


@given(st.binary(max_size=300), st.integers(1, 50), st.booleans())
def test_bodies_by_length(body: bytes, step: int, close: bool) -> None:
    head = OK + b"Connection: close\r\n" * close + b"content-LENGTH: %d\r\n\r\n" % len(body)
    with answered(head + body + b"HTTP/1.1 500 of the next answer", step) as response:
        assert response.read_all(1 << 20) == body
        assert response.will_close == close


def test_a_body_up_to_the_end_where_the_agent_says_that_it_closes() -> None:
    with answered(OK + b"Connection: close\r\n\r\nabc") as response:
        assert response.read_all(10) == b"abc"


def test_answers_without_a_body_and_one_that_goes_before() -> None:
    with answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\nX-A: 1\r\nx-a: 2\r\n\r\n") as response:
        assert (response.status, response.headers.get("X-a"), response.isclosed()) == (204, "1", True)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2000 X\r\n\r\n",
        b"HTTP/1.1 abc X\r\n\r\n",
        b"HTTP/2 200 X\r\n\r\n",
        OK + b"X-Cut",
        OK + b"Content-Length: 12",
        OK + b"no colon\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1e3\r\n\r\n",
        OK + b"X: " + b"y" * (3 * 65536),
        OK + b"X: y\r\n" * 101 + b"\r\n",
        OK + b"Content-Length: 5\r\n\r\nabc",
        CHUNKED + b"5\r\nabc",
        CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"-3\r\nabc",
        CHUNKED + b"3\r\nabc\r\n",
    ],
)
def test_answers_that_are_cut_off_or_wrong(raw: bytes) -> None:
    with pytest.raises(HTTPException), answered(raw) as response:
        response.read_all(1 << 20)


@pytest.mark.parametrize("raw", [OK + b"Content-Length: 5\r\n\r\nabc", CHUNKED + b"5\r\nabc", OK + b"Content-Le"])
def test_what_is_cut_off_is_told_from_what_is_wrong(raw: bytes) -> None:
    with pytest.raises(IncompleteRead), answered(raw) as response:
        response.read_all(1 << 20)


def test_nothing_at_all_is_no_answer() -> None:
    with pytest.raises(RemoteDisconnected), answered(b""):
        pass


def test_a_request_and_its_answer_on_one_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = AgentConnection(ours)
        connection.patience(5.0, 5.0)
        for number in range(2):
            connection.request("POST", "/p", b"body", {"X-A": str(number)})
            sent = theirs.recv(65536)
            assert sent.startswith(b"POST /p HTTP/1.1\r\nHost: jada-agent\r\n")
            assert sent.endswith(b"\r\nX-A: %d\r\n\r\nbody" % number)
            theirs.sendall(OK + b"Content-Length: 1\r\n\r\n%d" % number)
            assert connection.getresponse().read_all(10) == b"%d" % number
        with pytest.raises(ValueError, match="Invalid header value"):
            connection.request("GET", "/p", None, {"X-A": "1\r\nX-B: 2"})


def test_a_body_is_never_longer_than_it_may_be() -> None:
    for head in (b"Content-Length: 5\r\n\r\n", b"Connection: close\r\n\r\n"):
        assert whole_response(OK + head + b"12345").read_all(5) == b"12345"
        with pytest.raises(TooLong, match="more than 4 bytes"):
            whole_response(OK + head + b"12345").read_all(4)


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000, CHUNKED + b"0\r\n" + b"X-A: b\r\n" * 50_000]
)
def test_what_carries_an_answer_has_an_end(raw: bytes) -> None:
    with pytest.raises(HTTPException), answered(raw) as response:
        response.read_all(1024)


@pytest.mark.parametrize("head", [b"Content-Length: 99999999999\r\n\r\n", b"X-A: b\r\nX-B: "])
def test_an_answer_that_goes_on_and_on_is_given_up_whatever_comes(head: bytes) -> None:
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            theirs.sendall(OK + head)
            while not ended.wait(0.01):
                theirs.sendall(b"x")

    thread = threading.Thread(target=send)
    thread.start()
    connection = AgentConnection(ours)
    connection.patience(5.0, 0.3)
    connection.request("GET", "/p")
    with pytest.raises(Endless, match="has not ended"):
        connection.getresponse().read_all(1 << 40)
    ended.set()
    ours.close()
    thread.join()
    theirs.close()
