"""The registry's answer to the question for an image: where it is none, the command says so in one line."""

from __future__ import annotations

import hashlib
import socketserver
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from farmhand.aws.client import Aws
from farmhand.aws.environment.image import Registry
from farmhand.core.errors import FarmUnreachable, NotConfigured
from tests.support.serving import serving

LOGIN = b64encode(b"AWS:a-password-of-a-test").decode()
DIGEST = f"sha256:{'a' * 64}"


@contextmanager
def answering(answer: str) -> Iterator[tuple[str, list[str]]]:
    """A server with one answer to everything: its address, and the requests it gets."""
    seen: list[str] = []

    class OneAnswer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = []
            while (line := self.rfile.readline().decode().strip()) != "":
                lines.append(line)
            seen.append("\n".join(lines))
            self.wfile.write(answer.encode())

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), OneAnswer)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen


def digest(url: str) -> str:
    login = {"authorizationData": [{"authorizationToken": LOGIN, "proxyEndpoint": url}]}
    client: Any = SimpleNamespace(get_authorization_token=lambda: login)
    return Registry(cast("Aws", SimpleNamespace(client=lambda _name: client))).digest("a/b", "key-1")


def http(status: str, *headers: str) -> str:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "Connection: close", "", ""])


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ("SSH-2.0-OpenSSH_9.2\r\n", FarmUnreachable, "no HTTP"),
        ("", FarmUnreachable, "does not answer"),
        (http("200 OK", "Content-Type: text/html"), FarmUnreachable, "without a digest"),
        (http("200 OK", "Docker-Content-Digest: sha256:abc"), FarmUnreachable, "without a digest"),
        (http("200 OK", f"Docker-Content-Digest: {DIGEST} -e x=1"), FarmUnreachable, "without a digest"),
        (http("500 Oops"), FarmUnreachable, "500"),
        (http("403 No"), NotConfigured, "ecr:BatchGetImage"),
    ],
)
def test_what_is_no_answer_of_a_registry_is_one_line(answer: str, error: type[Exception], said: str) -> None:
    with answering(answer) as (url, _), pytest.raises(error) as caught:
        digest(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert LOGIN not in str(caught.value)


def test_an_image_has_its_digest_and_one_that_is_not_there_has_none() -> None:
    for answer, expected in ((http("200 OK", f"Docker-Content-Digest: {DIGEST}"), DIGEST), (http("404 No"), "")):
        with answering(answer) as (url, _):
            assert digest(url) == expected


def test_a_registry_that_sends_no_digest_has_the_manifests_hash() -> None:
    body = '{"schemaVersion": 2}'
    kind = "Content-Type: application/vnd.docker.distribution.manifest.v2+json"
    head = ["HTTP/1.1 200 OK", kind, f"Content-Length: {len(body)}", "Connection: close", "", body]
    with answering("\r\n".join(head)) as (url, seen):
        assert digest(url) == f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"
    assert [one.split()[0] for one in seen] == ["HEAD", "GET"]


def test_a_redirect_does_not_get_the_login() -> None:
    with (
        answering(http("200 OK", f"Docker-Content-Digest: {DIGEST}")) as (other, seen),
        answering(http("307 Elsewhere", f"Location: {other}/v2/")) as (url, first),
    ):
        digest(url)
    assert [f"Basic {LOGIN}" in one for one in first] == [True]
    assert [LOGIN in one for one in seen] == [False]
