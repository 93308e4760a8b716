"""moto's server in this process, changed by the modules beside this one, with control paths and faults in front."""

from __future__ import annotations

import os
import socket
import threading
from types import TracebackType
from typing import Self

from werkzeug.serving import make_server

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
        handler = _quiet(MotoRequestHandler)
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


def _quiet(handler: type) -> type:
    """moto's handler without a line for each request."""
    return type("Handler", (handler,), {"log_request": lambda *_: None})
