"""moto's server in this process, changed by the modules beside this one, with control paths and faults in front."""

from __future__ import annotations

import os
import socket
import threading
import traceback
from types import TracebackType
from typing import Any, Self

from werkzeug.serving import WSGIRequestHandler, make_server

from tests.support import aws_models
from tests.support.fakeaws.fargate import end_all
from tests.support.fakeaws.options import ACCOUNT, OPTIONS


class Server:
    """`with Server(port):` serves. Sets the port in OPTIONS. Raise OSError if the port is taken."""

    def __init__(self, port: int) -> None:
        os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT
        # Nothing starts from an image here, and there are 1,300 for each region that is asked, after each reset.
        os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
        aws_models.read_once()  # moto reads some as it is imported
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

        from tests.support.fakeaws.front import Front
        from tests.support.fakeaws.patches import change_moto

        application = DomainDispatcherApplication(create_backend_app)
        application.debug = True
        handler = type("Handler", (_KeptAlive, MotoRequestHandler), {})
        with socket.create_server((OPTIONS.host, port)) as listener:
            self._server = make_server(
                OPTIONS.host, port, Front(application), threaded=True, request_handler=handler, fd=listener.fileno()
            )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        OPTIONS.port = self._server.port
        os.environ["MOTO_PORT"] = str(OPTIONS.port)
        change_moto()
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_all()  # the rest ends with this process


class _KeptAlive(WSGIRequestHandler):
    """Answers one request after the other on a connection, as AWS does, and writes no line for each.

    werkzeug's own closes it after each answer: a third of this process's time went into connections and their threads.
    """

    protocol_version = "HTTP/1.1"
    #: An answer goes out in one piece: a second one would wait until the client has acknowledged the first.
    wbufsize = 1 << 16

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def run_wsgi(self) -> None:
        if self.headers.get("Expect", "").strip().lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        # Of a body in chunks, nobody knows here how much has been read.
        self.close_connection = self.close_connection or "Transfer-Encoding" in self.headers
        begun: list[Any] = []
        try:
            body = b"".join(self.server.app(self.make_environ(), lambda *given: begun.extend(given)))  # type: ignore[arg-type]
        except ConnectionError:
            self.close_connection = True
            return
        except Exception:
            traceback.print_exc()
            begun, body = ["500 Internal Server Error", []], b""
        status, headers = begun[:2]
        self.send_response(int(status[:3]), status[4:])
        if self.command == "HEAD" or status[:3] in ("204", "304"):
            body = b""
        elif "content-length" not in {name.lower() for name, _ in headers}:
            headers = [*headers, ("Content-Length", str(len(body)))]
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
