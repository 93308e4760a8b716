"""Servers in threads end with the test that wanted them, whatever comes in between."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.serving import serving

TESTS = Path(__file__).resolve().parents[2]
#: The double of AWS lives as long as its process.
ALLOWED = {"support/serving.py", "support/fakeaws/server.py"}


def test_an_error_in_the_block_leaves_no_thread_and_no_socket() -> None:
    before = threading.enumerate()
    with pytest.raises(ZeroDivisionError), serving(ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)) as it:
        _ = 1 / (threading.enumerate() == before)
    assert threading.enumerate() == before
    assert it.socket.fileno() == -1


def test_there_is_no_other_way_in_the_tests() -> None:
    started = re.compile(r"target=[\w.]*serve_forever")
    found = {str(path.relative_to(TESTS)) for path in TESTS.rglob("*.py") if started.search(path.read_text())}
    assert found == ALLOWED
