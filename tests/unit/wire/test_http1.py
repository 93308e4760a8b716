"""Answers as http.client reads them, which is the reference here; and what no server should send."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.wire import http1
from farmhand.wire.http1 import MAX_HEADERS, MAX_LINE, ByteReader, HttpConnection, HttpError, NoAnswer, Response

OK = b"HTTP/1.1 200 OK\r\n"


def response(raw: bytes, step: int = 65536) -> Response:
    """The answer in `raw`, which comes in pieces of at most `step` bytes."""
    stream = io.BytesIO(raw)
    return Response(ByteReader(lambda most: stream.read(min(most, step))))


def by_http_client(raw: bytes) -> tuple[int, bytes, bool]:
    class Fake:
        def makefile(self, *_: Any) -> io.BytesIO:
            return io.BytesIO(raw)

    answer = http.client.HTTPResponse(Fake())  # type: ignore[arg-type]
    answer.begin()
    return answer.status, answer.read(), bool(answer.will_close)


def chunked(pieces: list[bytes], trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50), st.booleans())
def test_bodies_in_chunks(pieces: list[bytes], step: int, trailer: bool) -> None:
    raw = chunked(pieces, b"X-Trailer: 1\r\n" if trailer else b"")
    ours = response(raw, step)
    assert (ours.status, ours.read(1 << 20), ours.will_close) == by_http_client(raw)
    assert ours.isclosed()
    assert ours.read1() == b""


@given(st.binary(max_size=300), st.integers(1, 50), st.sampled_from([b"", b"Connection: close\r\n"]))
def test_bodies_by_length(body: bytes, step: int, close: bytes) -> None:
    raw = OK + close + b"content-LENGTH: %d\r\n\r\n" % len(body) + body
    ours = response(raw + b"HTTP/1.1 500 of the next answer", step)
    assert (ours.status, ours.read(1 << 20), ours.will_close) == by_http_client(raw)
    assert ours.isclosed()


def test_a_body_up_to_the_end() -> None:
    answer = response(OK + b"\r\nabc")
    assert (answer.will_close, answer.isclosed()) == (True, False)
    assert answer.read1(2) == b"ab"
    assert answer.read(10) == b"c"


def test_interim_answers_and_answers_without_a_body() -> None:
    early = response(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100 + OK + b"Content-Length: 0\r\n\r\n")
    assert (early.status, early.headers.get("Link")) == (200, "")
    with pytest.raises(http1.HttpError, match="interim"):
        response(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 101 + OK + b"\r\n")
    answer = response(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    assert (answer.status, answer.headers.get("X-a"), answer.isclosed()) == (204, "1", True)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 2000 X\r\n\r\n",
        b"HTTP/1.1 abc X\r\n\r\n",
        b"HTTP/2 200 X\r\n\r\n",
        OK + b"X-Cut",
        OK + b"no colon\r\n\r\n",
        OK + b" folded: 1\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1e3\r\n\r\n",
        OK + b"X: " + b"y" * (MAX_LINE + 2 * 65536),
        OK + b"X: y\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    ],
)
def test_heads_that_are_none(raw: bytes) -> None:
    with pytest.raises(HttpError):
        response(raw)


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 5\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ],
)
def test_bodies_that_are_cut_off_or_wrong(raw: bytes) -> None:
    with pytest.raises(HttpError):
        response(raw).read(1 << 20)


def test_nothing_at_all_is_no_answer() -> None:
    with pytest.raises(NoAnswer):
        response(b"")


def test_a_request_and_its_answer_on_one_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = HttpConnection(ours)
        for number in range(2):
            connection.request("POST", "/p", b"body", {"X-A": str(number)})
            sent = theirs.recv(65536)
            assert sent == b"POST /p HTTP/1.1\r\nHost: jada-agent\r\nX-A: %d\r\nContent-Length: 4\r\n\r\nbody" % number
            theirs.sendall(OK + b"Content-Length: 1\r\n\r\n%d" % number)
            assert connection.getresponse().read(10) == b"%d" % number
        with pytest.raises(ValueError, match="line end"):
            connection.request("GET", "/p", None, {"X-A": "1\r\nX-B: 2"})
        connection.request("PUT", "/v1/key", None, {})
        assert b"Content-Length: 0\r\n" in theirs.recv(65536)


def test_a_body_is_never_longer_than_it_may_be() -> None:
    for head in (b"Content-Length: 5\r\n\r\n", b"\r\n"):
        assert response(OK + head + b"12345").read(5) == b"12345"
        with pytest.raises(http1.HttpError, match="more than 4 bytes"):
            response(OK + head + b"12345").read(4)


def test_trailers_have_an_end() -> None:
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    assert response(chunked + b"X-A: b\r\n" * 100 + b"\r\n").read(9) == b"ok"
    with pytest.raises(http1.HttpError, match="too many trailers"):
        response(chunked + b"X-A: b\r\n" * 101 + b"\r\n").read(9)


def test_an_answer_that_goes_on_and_on_is_given_up_whatever_comes() -> None:
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            theirs.sendall(OK + b"Content-Length: 99999999999\r\n\r\n")
            while not ended.wait(0.01):
                theirs.sendall(b"x")

    thread = threading.Thread(target=send)
    thread.start()
    connection = http1.HttpConnection(ours)
    connection.patience(5.0, 0.3)
    with pytest.raises(http1.Endless, match="has not ended"):
        connection.getresponse().read(1 << 40)
    ended.set()
    ours.close()
    thread.join()
    theirs.close()
