"""What stands in front of moto: writes of the services whose conditions moto checks in two steps come one at a time."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.fakeaws.front import Front


class Slow:
    """A WSGI application that counts how many requests are in it at the same time."""

    def __init__(self) -> None:
        self._inside, self.most = 0, 0
        self._lock = threading.Lock()

    def __call__(self, env: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(0.02)
        with self._lock:
            self._inside -= 1
        start("200 OK", [])
        return [b""]


def request(service: str, method: str) -> dict[str, Any]:
    """The WSGI environ of a request that was signed for a service."""
    signed = f"AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/{service}/aws4_request"
    return {
        "PATH_INFO": "/",
        "REQUEST_METHOD": method,
        "HTTP_AUTHORIZATION": signed,
        "wsgi.input": io.BytesIO(),
    }


@pytest.mark.parametrize(
    ("service", "method", "alone"),
    [
        ("dynamodb", "POST", True),
        ("s3", "PUT", True),
        ("secretsmanager", "POST", True),
        ("s3", "GET", False),
        ("batch", "POST", False),
    ],
)
def test_one_at_a_time(service: str, method: str, alone: bool) -> None:
    slow = Slow()
    front = Front(slow)
    with ThreadPoolExecutor(6) as many:
        for _ in range(6):
            many.submit(front, request(service, method), lambda *_: None)
    assert (slow.most == 1) is alone
