"""The messages of the wire: HTTP headers, the version check, errors, one request as plain bytes, a verb's answer.

`X-Farmhand-Wire` is sent with every request and every response; both sides refuse another version.
"""

from __future__ import annotations

import json
import re
from http.client import HTTPException, HTTPMessage
from typing import Any

from farmhand import __version__
from farmhand.core import keys
from farmhand.core.errors import WireError
from farmhand.wire import connection, schema
from farmhand.wire.decode import MAX_SMALL_BYTES, Misfit, decode
from farmhand.wire.schema import AGENT_HEADER, KEY_HEADER, WIRE, WIRE_HEADER

#: Characters that need no quoting in a path or a query.
_PLAIN = re.compile(r"[A-Za-z0-9._~-]*")
#: The most characters of a host's message that are shown.
_SHOWN = 1000


def request_headers(key: str | None = None) -> dict[str, str]:
    """Return the headers of a request. A key is checked first, so that it cannot end a header line."""
    headers = {WIRE_HEADER: str(WIRE), "User-Agent": f"farmhand/{__version__}", "Accept": "application/json"}
    if key is not None:
        try:
            headers[KEY_HEADER] = keys.check_format(key)
        except ValueError as error:
            raise WireError("bad_key", str(error), "check the key source") from None
    return headers


def check_wire(headers: HTTPMessage, name: str) -> None:
    """Raise WireError `agent_too_old`, `client_too_old` or `not_an_agent` for an answer of another wire version."""
    spoken = headers.get(WIRE_HEADER, "")
    if spoken == str(WIRE):
        return
    if not (spoken.isascii() and spoken.isdigit() and len(spoken) < 6):
        hint = "check the address in hosts.json"
        raise WireError("not_an_agent", f"{name}: what answers there is not a jada-agent", hint)
    agent = headers.get(AGENT_HEADER, "of unknown version")[:40]
    said = f"{name}: the agent {agent} speaks wire {spoken}, this client {__version__} speaks wire {WIRE}"
    if int(spoken) < WIRE:
        raise WireError("agent_too_old", said, "upgrade the farm host: farmhand up")
    raise WireError("client_too_old", said, "upgrade farmhand on this machine")


def answer(
    status: int,
    headers: HTTPMessage,
    body: bytes,
    name: str,
    kind: Any = Any,
    most: int = MAX_SMALL_BYTES,
) -> dict[str, Any]:
    """Return the JSON object of a response, checked to have the fields of `kind`.

    Raise WireError for an error answer and for everything that is not of the wire. With `bad_answer` an agent answered,
    but it is unknown whether it carried out the request.
    """
    problem = _problem(body, status) if status >= 400 else None
    if problem is not None and problem.code in ("agent_too_old", "client_too_old"):
        raise problem
    check_wire(headers, name)
    if status >= 400:
        no_reason = f"{name}: the agent answered with HTTP {status} and no reason"
        raise problem or WireError("agent_error", no_reason, status=status)
    return decoded(body, name, kind, most)


def decoded(data: bytes, name: str, kind: Any, most: int = MAX_SMALL_BYTES) -> dict[str, Any]:
    """Return the JSON object in `data`, received from the host `name`. Raise WireError `bad_answer`."""
    try:
        found: dict[str, Any] = decode(data, kind, most)
        return found
    except Misfit as misfit:
        raise bad_answer(name, str(misfit)) from None


def bad_answer(name: str, what: str) -> WireError:
    """Return the error for an answer of the host `name` that does not follow the wire; `what` is the reason."""
    said = f"{name}: its answer is not one of the wire: {keys.redact(what)}"
    return WireError("bad_answer", said, "see jada-agent's journal there")


def _problem(body: bytes, status: int) -> WireError | None:
    """Return the error object of a body, or None if it has none."""
    try:
        error = decode(body, schema.ErrorAnswer, MAX_SMALL_BYTES)["error"]
    except Misfit:
        return None
    said, hint = (keys.redact(text)[:_SHOWN] for text in (error["message"], error.get("hint", "")))
    return WireError(error["code"], said, hint, status)


def whole_request(method: str, path: str, *, body: bytes = b"", key: str | None = None) -> bytes:
    """Return a request as bytes for `jada-agent bridge`, for a channel that writes once and then reads."""
    lines = [f"{method} {path} HTTP/1.1", "Host: jada-agent", f"Content-Length: {len(body)}", "Connection: close"]
    lines += ["Content-Type: application/json"] if body else []
    lines += [f"{name}: {value}" for name, value in request_headers(key).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body


def whole_response(raw: bytes, name: str) -> connection.AgentResponse:
    """Return the response that the bridge printed, with its head read. Raise WireError `not_an_agent`."""
    try:
        return connection.whole_response(raw)
    except HTTPException:
        said = f"{name}: what answers there does not speak HTTP"
        raise WireError("not_an_agent", said, "see jada-agent's journal") from None


def marked(mark: str, said: dict[str, Any]) -> bytes:
    """Return the line with which a verb of jada-agent answers. The login shell may print something around it."""
    return f"{mark}{json.dumps(said, separators=(',', ':'))}\n".encode("ascii")


def unmarked(mark: str, output: str) -> bytes | None:
    """Return the JSON of the line that `marked` made, in everything that the host printed, or None."""
    _, found, rest = output.partition(mark)
    return rest.partition("\n")[0].encode("utf-8", "replace") if found else None


def path_of(*parts: str, **query: Any) -> str:
    """Return the path of a call. A query field that is "" is left out."""
    fields = "&".join(f"{name}={_quoted(str(value))}" for name, value in query.items() if value != "")
    return "/v1/" + "/".join(map(_quoted, parts)) + (f"?{fields}" if fields else "")


def _quoted(text: str) -> str:
    """Return `text` quoted for a path or a query. Most text needs no quoting, and then urllib is not imported."""
    if _PLAIN.fullmatch(text):
        return text
    from urllib.parse import quote

    return quote(text, safe="")
