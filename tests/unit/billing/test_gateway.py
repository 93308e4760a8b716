"""Whose a base URL is: our gateway's, nobody's, somebody else's; and what the guard makes of it."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from farmhand.billing import Report, find
from farmhand.billing.gateway import DEFAULT_LISTEN, OwnGateway
from farmhand.core.keys import GATEWAY_PREFIX
from farmhand.gateway.tables import GatewayConfig
from tests.support.serving import serving
from tests.unit.billing.conftest import Station

TOKEN = f"{GATEWAY_PREFIX}test-0123456789abcdefghijklmnopqrstuv"
KEY = "sk-ant-test-first-0000000000"
OURS = ("farmhand", b'{"ok":true,"version":"1"}')


@contextmanager
def listening(server: str, body: bytes, status: int = 200) -> Iterator[int]:
    """Something that answers /health, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = server, ""

        def version_string(self) -> str:
            return server

        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as made:
        yield made.server_port


@contextmanager
def silent() -> Iterator[int]:
    """A port on which nothing listens, and nothing will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def configure(home: Path, port: int) -> None:
    path = home / ".config/farmhand/gateway.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'listen = "127.0.0.1:{port}"\n')


def test_the_default_address_is_the_gateway_s() -> None:
    assert GatewayConfig().listen == DEFAULT_LISTEN


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}", "http://localhost:{}/", "http://127.0.0.1:{}/c/planning"])
def test_the_gateway_s_own_address_is_ours(tmp_path: Path, url: str) -> None:
    with listening(*OURS) as port:
        configure(tmp_path, port)
        own = OwnGateway(tmp_path, {})
        found = own.whose(url.format(port))
        assert (found.ours.endswith(f":{port}"), found.note) == (True, "")
        assert own.spared({"ANTHROPIC_BASE_URL": url.format(port)}) == {"ANTHROPIC_BASE_URL"}
        with_token = {"ANTHROPIC_BASE_URL": url.format(port), "ANTHROPIC_AUTH_TOKEN": TOKEN}
        assert own.spared(with_token) == {"ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"}
        # Another bearer token bills its issuer as soon as the URL is gone.
        assert own.spared(with_token | {"ANTHROPIC_AUTH_TOKEN": "sk-ant-test-two"}) == {"ANTHROPIC_BASE_URL"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://127.0.0.1:{}", "is not your gateway"),
        ("http://user:pass@127.0.0.1:{}", "is not your gateway"),
        ("http://127.0.0.1:{}/v1/evil", "is not your gateway"),
        ("http://127.0.0.1:{}?to=evil", "is not your gateway"),
        ("http://127.0.0.2:{}", "nothing answers on 127.0.0.2"),
        ("http://127.0.0.1.evil.example:{}", "not the provider's"),
        ("http://proxy.example", "not the provider's"),
        ("http://[::1", "not a URL"),
        ("http://127.0.0.1:99999", "not a URL"),
    ],
)
def test_what_only_looks_like_ours_is_not(tmp_path: Path, url: str, words: str) -> None:
    with listening(*OURS) as port:
        configure(tmp_path, port)
        found = OwnGateway(tmp_path, {}).whose(url.format(port))
        assert found.ours == ""
        assert words in found.note
        assert "take it out" in found.note
        assert "pass" not in found.note


@pytest.mark.parametrize(
    "answers",
    [
        ("uvicorn", b'{"ok":true}', 200),
        ("farmhand", b'{"status":"ok"}', 200),
        ("farmhand", b'{"ok":true}', 404),
        ("LiteLLM", b"I'm alive!", 200),
    ],
)
def test_what_answers_otherwise_is_somebody_else(tmp_path: Path, answers: tuple[str, bytes, int]) -> None:
    with listening(*answers) as port:
        configure(tmp_path, port)
        found = OwnGateway(tmp_path, {}).whose(f"http://127.0.0.1:{port}")
        assert "is not your gateway" in found.note


def test_a_gateway_on_another_address_than_the_settings_is_somebody_else_s(tmp_path: Path) -> None:
    with listening(*OURS) as port:
        assert "is not your gateway" in OwnGateway(tmp_path, {}).whose(f"http://127.0.0.1:{port}").note


def test_a_listener_of_another_user_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.stat(tmp_path)
    with listening(*OURS) as port:
        configure(tmp_path, port)
        monkeypatch.setattr(
            "farmhand.billing.gateway.os.stat", lambda _: os.stat_result([*found[:4], found.st_uid + 1, *found[5:]])
        )
        assert "another user" in OwnGateway(tmp_path, {}).whose(f"http://127.0.0.1:{port}").note


def test_what_never_ends_its_answer_gets_no_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then would keep a limit of each read for ever."""
    monkeypatch.setattr("farmhand.billing.gateway._PATIENCE_S", 0.3)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nServer: farmhand\r\n\r\n")
                while not over.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        port = server.getsockname()[1]
        configure(tmp_path, port)
        assert "is not your gateway" in OwnGateway(tmp_path, {}).whose(f"http://127.0.0.1:{port}").note
        over.set()
        thread.join()


def test_a_dead_port_says_how_to_start_it_only_where_it_is_the_gateway_s(tmp_path: Path) -> None:
    with silent() as port:
        own = OwnGateway(tmp_path, {})
        assert own.whose(f"http://127.0.0.1:{port}").note == f"nothing answers on 127.0.0.1:{port}; take it out"
        configure(tmp_path, port)
        assert "farmhand gateway serve" in OwnGateway(tmp_path, {}).whose(f"http://127.0.0.1:{port}").note


def read(station: Station, environ: dict[str, str] | None = None) -> Report:
    return find(station.home, environ or {}, ask=False, ask_shell=False, root=station.root)


SETTINGS = ".claude/settings.json"


def in_settings(port: int) -> dict[str, str | bytes]:
    env = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}", "ANTHROPIC_AUTH_TOKEN": TOKEN}
    return {".bashrc": "# nothing\n", SETTINGS: json.dumps({"env": env})}


def in_bashrc(port: int) -> dict[str, str | bytes]:
    return {
        ".bashrc": f"export ANTHROPIC_BASE_URL=http://127.0.0.1:{port}\nexport ANTHROPIC_AUTH_TOKEN={TOKEN}\n",
    }


@pytest.mark.parametrize("files", [in_settings, in_bashrc])
def test_our_gateway_is_no_leak_and_stays(station: Station, files: object) -> None:
    assert callable(files)
    with listening(*OURS) as port:
        configure(station.home, port)
        station.put(files(port))
        found = read(station)
        [verdict] = [v for v in found.verdicts if v.kind == "bash interactive"]
        assert (verdict.billed, verdict.metered, verdict.gateway) == ("gateway", False, f"127.0.0.1:{port}")
        assert "; it is not logged in, so nothing is billed, and in " in found.line()
        assert f" your gateway on 127.0.0.1:{port} decides who pays" in found.line()
        assert not found.metered
        done = station.present()
        assert (done["changed"], done["left"]) == (False, [])


@pytest.mark.parametrize("name", [".bashrc", SETTINGS])
def test_a_dead_one_is_said_in_one_line_and_taken_out(station: Station, name: str) -> None:
    with silent() as port:
        configure(station.home, port)
        station.put(in_settings(port) if name == SETTINGS else in_bashrc(port))
        line = read(station).line()
        assert f"{name}" in line
        assert f"nothing answers on 127.0.0.1:{port}; start the gateway" in line
        assert "\n" not in line
        assert TOKEN not in json.dumps(read(station).as_dict())
        assert station.present()["changed"]
        assert not read(station).metered


def test_a_key_beside_our_gateway_is_a_leak_still(station: Station) -> None:
    with listening(*OURS) as port:
        configure(station.home, port)
        station.put({".bashrc": f"export ANTHROPIC_BASE_URL=http://127.0.0.1:{port}\nexport ANTHROPIC_API_KEY={KEY}\n"})
        found = read(station)
        assert found.metered
        assert "ANTHROPIC_BASE_URL" not in found.line()
        station.present()
        assert "ANTHROPIC_BASE_URL=http" in station.read(".bashrc")
        assert KEY not in station.read(".bashrc")


def test_a_switch_to_another_provider_is_not_hidden_by_our_gateway(station: Station) -> None:
    with listening(*OURS) as port:
        configure(station.home, port)
        station.put(
            {".bashrc": f"export ANTHROPIC_BASE_URL=http://127.0.0.1:{port}\nexport CLAUDE_CODE_USE_VERTEX=1\n"}
        )
        assert read(station).metered
