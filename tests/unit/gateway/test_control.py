"""The command line sends the gateway's token to a process of its own user only."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from farmhand.core.errors import NotConfigured
from farmhand.core.listener import of_user
from farmhand.gateway import control
from farmhand.gateway.config import parse
from farmhand.gateway.tables import GatewayConfig

TOKEN = "fhg-test-0123456789abcdefghijklmnopqrstuv"
#: It listens, as another user where that can be had, and prints what it is sent.
STRANGER = """
import os, socket, sys
if os.geteuid() == 0:
    os.setuid(65534)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdout.buffer.write(server.accept()[0].recv(9999))
"""


def settings(port: int) -> GatewayConfig:
    return parse(f'listen = "127.0.0.1:{port}"\n')


def test_another_users_listener_gets_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:  # its own user's then: the check has to believe that it is another
        monkeypatch.setattr("farmhand.gateway.control.os.geteuid", lambda: os.getuid() + 1)
    with subprocess.Popen([sys.executable, "-I", "-c", STRANGER], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        port = int(stranger.stdout.readline())
        with pytest.raises(NotConfigured, match=f"a process of another user listens on 127.0.0.1:{port}") as caught:
            control.ask(settings(port), "GET", "/farmhand/v1/status", TOKEN)
        assert "the token was not sent" in str(caught.value.hint)
        assert stranger.stdout.read() == b""


def test_our_own_listener_gets_it(tmp_path: Path) -> None:
    found: list[str | None] = []

    class Own(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"a": 1}')

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Own) as own:
        threading.Thread(target=own.handle_request, daemon=True).start()
        assert control.ask(settings(own.server_port), "GET", "/farmhand/v1/status", TOKEN) == {"a": 1}
        assert of_user(own.server_port, os.geteuid())
        assert not of_user(own.server_port, os.geteuid() + 1)
    assert found == [f"Bearer {TOKEN}"]
