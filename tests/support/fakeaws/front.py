"""What stands in front of moto: the control paths `/_…`, the faults, and the lock of DynamoDB."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from tests.support.fakeaws.control import CALLS, CONTROLS, FAULTS
from tests.support.fakeaws.options import ITSELF

#: Services and methods that are served one at a time. moto checks a condition and writes in two steps: of two writers
#: at once both would pass it.
_ONE_AT_A_TIME = {"dynamodb": ("POST",), "s3": ("PUT", "POST", "DELETE"), "secretsmanager": ("POST",)}
#: What botocore speaks to CloudWatch.
_CBOR = "rpc-v2-cbor"
#: How containers name themselves.
AGENT = "farmhand-agent"
_Start = Callable[..., Any]


class Front:
    """The WSGI application."""

    def __init__(self, moto: Callable[[dict[str, Any], _Start], Iterable[bytes]]) -> None:
        self._moto = moto
        self._locks = {service: threading.Lock() for service in _ONE_AT_A_TIME}

    def __call__(self, env: dict[str, Any], start: _Start) -> Iterable[bytes]:
        path = env["PATH_INFO"]
        body = _body(env)
        if control := CONTROLS.get(path):
            return _controlled(control, body, start)
        service, action = _service(env), _action(env, body)
        caller = env.get("HTTP_USER_AGENT", "")
        if service and ITSELF not in caller and AGENT not in caller:
            CALLS.add(
                (service, f"{action}?{query}" if service == "s3" and (query := env.get("QUERY_STRING")) else action)
            )
        fault = FAULTS.take(service, action, caller)
        if fault is None:
            return self._pass(service, env, start)
        time.sleep(fault.delay)
        if fault.after:
            list(self._pass(service, env, lambda *_: None))
        if fault.reset:
            env["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        if not fault.answers:
            return self._pass(service, env, start)
        status, headers, text = fault.answer(service, cbor=env.get("HTTP_SMITHY_PROTOCOL") == _CBOR)
        start(f"{status} Injected", [*headers, ("Content-Length", str(len(text)))])
        return [text]

    def _pass(self, service: str, env: dict[str, Any], start: _Start) -> Iterable[bytes]:
        if env["REQUEST_METHOD"] in _ONE_AT_A_TIME.get(service, ()):
            with self._locks[service]:
                return self._moto(env, start)
        return self._moto(env, start)


def _body(env: dict[str, Any]) -> bytes:
    """The body, which stays to be read. One that is sent in chunks is moto's to read."""
    if env.get("HTTP_TRANSFER_ENCODING"):
        return b""
    body: bytes = env["wsgi.input"].read(int(env.get("CONTENT_LENGTH") or 0))
    env["wsgi.input"] = io.BytesIO(body)
    return body


def _service(env: dict[str, Any]) -> str:
    """The service that the request was signed for."""
    signed = env.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
    return str(signed[3]) if len(signed) > 3 else ""


def _action(env: dict[str, Any], body: bytes) -> str:
    if target := env.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    if "urlencoded" in env.get("CONTENT_TYPE", "") and (found := parse_qs(body.decode("utf-8", "replace"))):
        return found.get("Action", [""])[0]
    path = str(env["PATH_INFO"])
    if env.get("HTTP_SMITHY_PROTOCOL") == _CBOR:
        return path.rpartition("/")[2]
    return f"{env['REQUEST_METHOD']} {path}"


def _controlled(control: Callable[[dict[str, Any]], Any], body: bytes, start: _Start) -> Iterable[bytes]:
    try:
        status, answer = "200 OK", control(json.loads(body or b"{}"))
    except Exception as error:  # the caller gets it in one line
        status, answer = "400 Bad Request", {"error": f"{type(error).__name__}: {error}"}
    text = json.dumps(answer).encode()
    start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [text]
