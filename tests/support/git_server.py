"""A git server on loopback that wants a token: `git http-backend` behind HTTP, with a log of what it was sent."""

from __future__ import annotations

import base64
import os
import subprocess
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.serving import serving

BACKEND = "/usr/lib/git-core/git-http-backend"


class GitServer:
    """`with GitServer(directory, token) as server:` serves the repositories in `directory`; "" wants no token."""

    def __init__(self, directory: Path, token: str = "", host: str = "127.0.0.1") -> None:
        self.directory, self.token = directory, token
        #: Path and Authorization of each request.
        self.asked: list[tuple[str, str]] = []
        #: Where requests are sent elsewhere, "" for nowhere.
        self.redirect = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._open = ExitStack()
        self.url = f"http://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._open.enter_context(serving(self._server))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        given = request.headers.get("authorization", "")
        self.asked.append((request.path, given))
        if self.redirect:
            request.send_response(302)
            request.send_header("location", self.redirect + request.path)
            request.end_headers()
            return
        wanted = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        if self.token and given != f"Basic {wanted}":
            request.send_response(401)
            request.send_header("www-authenticate", 'Basic realm="git"')
            request.send_header("content-length", "0")
            request.end_headers()
            return
        self._serve(request)

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.directory),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run([BACKEND], env=environ, input=body, capture_output=True, check=True)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        status, headers = 200, []
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name == "Status":
                status = int(value.split()[0])
            else:
                headers.append((name, value))
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        request.send_header("content-length", str(len(rest)))
        request.end_headers()
        request.wfile.write(rest)
