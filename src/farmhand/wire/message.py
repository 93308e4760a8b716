"""HTTP as the wire uses it: headers, the check of versions, errors, and one request as plain bytes.

`X-Farmhand-Wire` is sent with every request and answered with every response; both sides refuse another version.
"""

from __future__ import annotations

import io

from .. import __version__
from ..core import keys
from ..core.errors import WireError
from . import http1, schema

TYPE_CHECKING = False  # as in http1
if TYPE_CHECKING:
    from typing import Any

WIRE = 1
WIRE_HEADER = "X-Farmhand-Wire"
AGENT_HEADER = "X-Farmhand-Agent"
KEY_HEADER = "X-Farmhand-Key"
#: Characters of a host's own words that are shown.
_SHOWN = 1000


def request_headers(key: str | None = None) -> dict[str, str]:
    """The headers of a request; with a key, which is checked first so that it can never end a header line."""
    headers = {WIRE_HEADER: str(WIRE), "User-Agent": f"farmhand/{__version__}", "Accept": "application/json"}
    if key is not None:
        try:
            headers[KEY_HEADER] = keys.check_format(key)
        except ValueError as error:
            raise WireError("bad_key", str(error), "check the key source") from None
    return headers


def check_wire(headers: http1.Headers, name: str) -> None:
    """Refuse an answer of another wire version: WireError `agent_too_old`, `client_too_old` or `not_an_agent`."""
    spoken = headers.get(WIRE_HEADER, "")
    if spoken == str(WIRE):
        return
    agent = headers.get(AGENT_HEADER, "of unknown version")[:40]
    if not (spoken.isascii() and spoken.isdigit() and len(spoken) < 6):
        raise WireError(
            "not_an_agent", f"{name}: what answers there is not a jada-agent", "check the address in hosts.json"
        )
    message = f"{name}: the agent {agent} speaks wire {spoken}, this client {__version__} speaks wire {WIRE}"
    if int(spoken) < WIRE:
        raise WireError("agent_too_old", message, "upgrade the farm host: farmhand up")
    raise WireError("client_too_old", message, "upgrade farmhand on this machine")


def answer(
    status: int,
    headers: http1.Headers,
    body: bytes,
    name: str,
    check: schema.Check = schema.anything,
    most: int = schema.MAX_SMALL_BYTES,
) -> Any:
    """The JSON of a response that passes `check`. Raises WireError for an error answer and for all that is not of the
    wire: `bad_answer` where an agent answered, and nobody knows whether it did what was asked.
    """
    problem = _problem(body) if status >= 400 else None
    if problem is not None and problem.code in ("agent_too_old", "client_too_old"):
        problem.status = status
        raise problem
    check_wire(headers, name)
    if status >= 400:
        error = problem or WireError("agent_error", f"{name}: the agent answered with HTTP {status} and no reason")
        error.status = status
        raise error
    return decoded(body, name, check, most)


def decoded(data: bytes, name: str, check: schema.Check, most: int = schema.MAX_SMALL_BYTES) -> Any:
    """The JSON in `data`, which came from the host `name`. Raises WireError `bad_answer`."""
    try:
        return schema.decode(data, check, most)
    except schema.Misfit as misfit:
        raise bad_answer(name, str(misfit)) from None


def bad_answer(name: str, what: str) -> WireError:
    """What the host `name` sends is not of the wire: `what` says of an answer what is wrong with it."""
    return WireError(
        "bad_answer",
        f"{name}: its answer is not one of the wire: {keys.redact(what)}",
        "see jada-agent's journal there",
    )


def _problem(body: bytes) -> WireError | None:
    """The error object of a body, if it is one."""
    try:
        error = schema.decode(body, schema.ERROR_ANSWER, schema.MAX_SMALL_BYTES)["error"]
    except schema.Misfit:
        return None
    return WireError(error["code"], keys.redact(error["message"])[:_SHOWN], keys.redact(error.get("hint", ""))[:_SHOWN])


def whole_request(method: str, path: str, *, body: bytes = b"", key: str | None = None) -> bytes:
    """A request as the bytes to write to `jada-agent bridge`: for a channel that sends once and then reads."""
    lines = [f"{method} {path} HTTP/1.1", "Host: jada-agent", f"Content-Length: {len(body)}", "Connection: close"]
    lines += ["Content-Type: application/json"] if body else []
    lines += [f"{name}: {value}" for name, value in request_headers(key).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body


def parse_response(raw: bytes, name: str, check: schema.Check) -> dict[str, Any]:
    """The JSON object of a whole response as the bridge printed it, once it has passed `check`. Raises WireError."""
    try:
        response = http1.Response(http1.ByteReader(io.BytesIO(raw).read))
        body = response.read(schema.MAX_SMALL_BYTES)
    except http1.HttpError:
        raise WireError(
            "not_an_agent", f"{name}: what answers there does not speak HTTP", "see jada-agent's journal"
        ) from None
    found: dict[str, Any] = answer(response.status, response.headers, body, name, check)
    return found
