"""Hostile requests over real sockets: each is refused before its body is read, and the gateway goes on.

Each row is one way in which a web page, another user of the machine or a broken client reaches a local server. None of
them needs a backend: the settings are the shipped ones, and what passes the guard is answered with advice.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.gateway.guard import make_token, read_token, token_of
from tests.support.gateway_inside import TOKEN, GatewayInside, gateway_inside
from tests.support.raw_http import RawAnswer, head, send

TURN = json.dumps({"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "CANARY"}]}).encode()
LENGTH = f"Content-Length: {len(TURN)}"
DEEP = b'{"model":"x","max_tokens":1,"messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
NUL = b'{"model":"x","max_tokens":1,"messages":[{"role":"user","content":"a\\u0000b"}]}'
SURROGATE = b'{"model":"x","max_tokens":1,"messages":[{"role":"user","content":"\\ud800"}]}'
MESSAGES = "/v1/messages"


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[GatewayInside]:
    async with gateway_inside(tmp_path) as served:
        yield served


async def turn(inside: GatewayInside, *headers: str, target: str = MESSAGES, body: bytes = TURN) -> RawAnswer:
    """A turn with these headers beside those of an honest client; one that is given in full replaces its own."""
    given = {line.partition(":")[0].lower() for line in headers}
    usual = [inside.host, inside.auth, inside.json, f"Content-Length: {len(body)}"]
    lines = [line for line in usual if line.partition(":")[0].lower() not in given]
    return await send(inside.port, head("POST", target, *lines, *[line for line in headers if line[-1] != "-"]) + body)


async def test_an_honest_turn_gets_advice(inside: GatewayInside) -> None:
    answer = await turn(inside)
    assert answer.status == 402
    assert b"farmhand" in answer.body.lower()
    assert answer.headers["x-farmhand-backend"] == "advice"


#: What is sent → the status. PORT stands for the port; a name with "-" after its colon is left out.
REFUSED: dict[str, tuple[list[str], int]] = {
    "a rebound name": (["Host: evil.example:PORT"], 421),
    "a name that begins with ours": (["Host: localhost.evil.example:PORT"], 421),
    "a name that ends with ours": (["Host: evil-localhost:PORT"], 421),
    "another port": (["Host: 127.0.0.1:1"], 421),
    "no port": (["Host: localhost"], 421),
    "the wildcard address": (["Host: 0.0.0.0:PORT"], 421),
    "a trailing dot": (["Host: localhost.:PORT"], 421),
    "Origin null": (["Origin: null"], 403),
    "a foreign Origin": (["Origin: http://evil.example"], 403),
    "an Origin that begins with ours": (["Origin: http://localhost.evil.example"], 403),
    "our own Origin": (["Origin: http://127.0.0.1:PORT"], 403),
    "an empty Origin": (["Origin: "], 403),
    "another site": (["Sec-Fetch-Site: cross-site"], 403),
    "the same site": (["Sec-Fetch-Site: same-site"], 403),
    "the same origin": (["Sec-Fetch-Site: same-origin"], 403),
    "two sites": (["Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"], 403),
    "no token": (["Authorization:-"], 401),
    "a wrong token": (["Authorization: Bearer nothing"], 401),
    "another scheme": ([f"Authorization: Basic {TOKEN}"], 401),
    "a token with more behind it": ([f"Authorization: Bearer {TOKEN}x"], 401),
    "a token of other bytes": (["Authorization: Bearer t\xf6ken"], 401),
    "text/plain": (["Content-Type: text/plain"], 415),
    "text/plain that mentions JSON": (["Content-Type: text/plain; application/json"], 415),
    "a form": (["Content-Type: application/x-www-form-urlencoded"], 415),
    "no content type": (["Content-Type:-"], 415),
    "100 MB": (["Content-Length: 104857600"], 413),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_and_the_next_request_is_answered(inside: GatewayInside, name: str) -> None:
    headers, status = REFUSED[name]
    answer = await turn(inside, *[line.replace("PORT", str(inside.port)) for line in headers])
    assert answer.status == status, answer
    assert not [header for header in answer.headers if header.startswith("access-control-")]
    assert b"CANARY" not in answer.body
    error = json.loads(answer.body)
    assert (error["type"], bool(error["error"]["message"])) == ("error", True)
    assert (await turn(inside)).status == 402


async def test_a_request_without_a_host_or_with_two_is_refused(inside: GatewayInside) -> None:
    usual = (inside.auth, inside.json, LENGTH)
    for hosts in ([], [inside.host, inside.host], [inside.host, "Host: evil.example"], ["Host: evil", inside.host]):
        answer = await send(inside.port, head("POST", MESSAGES, *hosts, *usual) + TURN)
        assert answer.status in (400, 421), (hosts, answer)
    for name in ("localhost", "[::1]"):  # an honest client's other names
        answer = await send(inside.port, head("POST", MESSAGES, f"Host: {name}:{inside.port}", *usual) + TURN)
        assert answer.status == 402


async def test_a_refusal_has_the_form_of_the_dialect_that_was_asked(inside: GatewayInside) -> None:
    for target in ("/v1/chat/completions", "/c/chat/v1/chat/completions", "/v1/responses"):
        answer = await turn(inside, "Authorization: Bearer nothing", target=target)
        error = json.loads(answer.body)
        assert (answer.status, set(error)) == (401, {"error"})
        assert answer.headers["x-should-retry"] == "false"


async def test_the_token_may_come_as_a_key_too_and_beside_another(inside: GatewayInside) -> None:
    assert (await turn(inside, "Authorization:-", f"x-api-key: {TOKEN}")).status == 402
    assert (await turn(inside, "Authorization: Bearer sk-ant-test-other", f"x-api-key: {TOKEN}")).status == 402
    assert (await turn(inside, "x-api-key: sk-ant-test-other")).status == 402
    assert (await turn(inside, "Authorization:-", "x-api-key: sk-ant-test-other")).status == 401


async def test_a_token_in_the_query_opens_nothing(inside: GatewayInside) -> None:
    for target in (f"{MESSAGES}?token={TOKEN}", f"{MESSAGES}?api_key={TOKEN}", f"{MESSAGES}?beta=true&key={TOKEN}"):
        assert (await turn(inside, "Authorization:-", target=target)).status == 401


async def test_a_harness_on_node_is_no_web_page(inside: GatewayInside) -> None:
    assert (await turn(inside, "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: none")).status == 402
    assert (await turn(inside, "Sec-Fetch-Mode: cors", "Accept-Language: *")).status == 402


async def test_a_preflight_gets_no_leave(inside: GatewayInside) -> None:
    ask = ("Access-Control-Request-Method: POST", "Access-Control-Request-Private-Network: true")
    page = await send(inside.port, head("OPTIONS", MESSAGES, inside.host, "Origin: http://evil.example", *ask))
    bare = await send(inside.port, head("OPTIONS", MESSAGES, inside.host, inside.auth, *ask))
    assert (page.status, bare.status) == (403, 405)
    assert not [name for name in (*page.headers, *bare.headers) if name.startswith("access-control-")]


#: A request line or header → the statuses that refuse it.
ODD: dict[str, tuple[str, str]] = {
    "out of a class": ("POST", "/c/../v1/messages"),
    "out of a class, written otherwise": ("POST", "/c/%2e%2e/v1/messages"),
    "into the control path": ("POST", "/c/chat/../../farmhand/v1/reload"),
    "two slashes": ("POST", "//v1/messages"),
    "an absolute target": ("POST", "http://127.0.0.1/v1/messages"),
    "a proxy's target": ("CONNECT", "evil.example:443"),
    "a path that is none": ("GET", "/v1/files"),
    "a state that is not kept": ("GET", "/v1/responses/resp_1"),
    "another method": ("DELETE", "/v1/messages"),
    "a file": ("GET", "/../../etc/passwd"),
    "a header in the path": ("POST", "/v1/messages%0d%0aX-Farmhand-Control:%201"),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_path_reaches_nothing(inside: GatewayInside, name: str) -> None:
    method, target = ODD[name]
    request = head(method, target, inside.host, inside.auth, inside.json, LENGTH) + TURN
    answer = await send(inside.port, request)
    assert answer.status in (400, 404, 405), answer
    assert inside.answering.metrics.counts() == []  # it was no turn


async def test_the_control_paths_want_their_header_too(inside: GatewayInside) -> None:
    path = "/farmhand/v1/status"
    assert (await send(inside.port, head("GET", path, inside.host, inside.auth))).status == 403
    assert (await send(inside.port, head("GET", path, inside.host, "X-Farmhand-Control: 1"))).status == 401
    answer = await send(inside.port, head("GET", path, inside.host, inside.auth, "X-Farmhand-Control: 1"))
    assert answer.status == 200


async def test_without_a_token_it_says_that_it_runs_and_nothing_else(inside: GatewayInside) -> None:
    health = await send(inside.port, head("GET", "/health", inside.host))
    assert (health.status, set(json.loads(health.body))) == (200, {"ok", "version"})
    for path in ("/", "/api/hello"):
        hello = await send(inside.port, head("HEAD", path, inside.host))
        assert (hello.status, hello.body) == (200, b"")
    for path in ("/metrics", "/v1/models", "/farmhand/v1/status", "/farmhand/v1/decisions"):
        assert (await send(inside.port, head("GET", path, inside.host))).status == 401
    page = await send(inside.port, head("GET", "/health", inside.host, "Origin: http://evil.example"))
    assert page.status == 403


async def test_two_lengths_and_a_head_that_is_too_large_are_no_request(inside: GatewayInside) -> None:
    both = head("POST", MESSAGES, inside.host, inside.auth, inside.json, LENGTH, "Transfer-Encoding: chunked") + TURN
    twice = head("POST", MESSAGES, inside.host, inside.auth, inside.json, LENGTH, "Content-Length: 3") + TURN
    large = head("POST", MESSAGES, inside.host, inside.auth, inside.json, LENGTH, f"X-Large: {'a' * 70_000}") + TURN
    many = head("POST", MESSAGES, inside.host, inside.auth, *[f"X-{n}: {'a' * 500}" for n in range(140)]) + TURN
    for request in (both, twice, large, many):
        assert (await send(inside.port, request)).status in (0, 400, 431)
    assert (await turn(inside)).status == 402


@pytest.mark.parametrize("body", [DEEP, NUL, SURROGATE, b"\xff{}", b"[]", b"{", b"", b"null"])
async def test_a_body_that_is_no_request_is_a_400(inside: GatewayInside, body: bytes) -> None:
    for target in (MESSAGES, "/v1/chat/completions"):
        answer = await turn(inside, target=target, body=body)
        assert answer.status == 400, answer
        assert json.loads(answer.body)["error"]["message"]
    assert (await turn(inside)).status == 402


async def test_words_of_a_client_get_into_no_header(inside: GatewayInside) -> None:
    evil = "x\r\nX-Evil: 1"
    body = json.dumps({"model": evil, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}).encode()
    for answer in (
        await turn(inside, body=body),
        await turn(inside, "X-Farmhand-Work-Class: chat%0d%0aX-Evil: 1"),
        await turn(inside, target="/c/chat%0d%0aX-Evil:%201/v1/messages"),
    ):
        assert answer.status in (400, 402, 404)
        assert "x-evil" not in answer.headers
    assert (await turn(inside, "X-Farmhand-Work-Class: nonsense")).status == 400
    assert (await turn(inside, target="/c/nonsense/v1/messages")).status == 400


async def test_many_slow_connections_hold_up_nobody(inside: GatewayInside) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", inside.port) for _ in range(300)]
    for number, (_, writer) in enumerate(slow):
        start = head("POST", MESSAGES, inside.host, inside.auth, inside.json, "Content-Length: 1000")
        writer.write(start[: len(start) // 2] if number % 2 else start + b"{")
    assert (await turn(inside)).status == 402
    for _, writer in slow:
        writer.close()


async def test_failed_tokens_are_slowed_down(inside: GatewayInside, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    for _ in range(40):
        assert (await turn(inside, "Authorization: Bearer nothing")).status == 401
    assert waits
    assert set(waits) == {1.0}


def test_the_token_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "gateway.token"
    token = token_of(path)
    assert (stat.S_IMODE(path.stat().st_mode), len(token) > 32) == (0o600, True)
    assert token_of(path) == read_token(path) == token
    assert make_token(path) != token
    path.chmod(0o644)
    with pytest.raises(NotConfigured, match="chmod 600"):
        token_of(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(NotConfigured, match="has no token"):
        read_token(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotConfigured):
        token_of(path)
    assert not os.path.exists(tmp_path / "elsewhere")
