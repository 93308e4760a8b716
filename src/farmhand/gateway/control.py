"""What the command line asks the running gateway."""

from __future__ import annotations

import http.client
import os
from typing import Any

import msgspec

from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, UsageError
from farmhand.core.listener import of_user
from farmhand.gateway.guard import read_token
from farmhand.gateway.tables import GatewayConfig

#: Errors that are the operator's own, by their code.
_KINDS: dict[str, type[FarmhandError]] = {kind.code: kind for kind in (NotConfigured, UsageError)}
#: Seconds for an answer. What is asked of the gateway may wait for a program that gives the key, or for the plan's CLI.
_PATIENCE_S = {"GET": 10.0, "POST": 200.0}
_MAX_ANSWER = 16 * 1024 * 1024


def ask(config: GatewayConfig, method: str, path: str, token: str = "", body: Any = None) -> dict[str, Any]:
    """Return the gateway's answer. Raise FarmUnreachable if none listens.

    Raise NotConfigured if it does not know us, or if another user's process listens there.

    `token` "" is that of the token file.
    """
    host, port = config.address
    headers = {"Authorization": f"Bearer {token or read_token(config.token_path)}", "X-Farmhand-Control": "1"}
    headers |= {"Content-Type": "application/json", "Host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_S[method])
    try:
        connection.connect()
        # Now that it has answered: another user's process that took the port meanwhile must not get the token.
        if not of_user(port, os.geteuid()):
            hint = "the token was not sent; stop that process, or set another listen"
            raise NotConfigured(f"a process of another user listens on {config.listen}", hint=hint)
        connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
        answer = connection.getresponse()
        status, content = answer.status, answer.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        hint = "start it: farmhand gateway serve"
        raise FarmUnreachable(f"no gateway answers on {config.listen}: {reason}", hint=hint) from None
    finally:
        connection.close()
    if status == 401:
        hint = f"another gateway, or another token than in {config.token_path}"
        raise NotConfigured(f"the gateway on {config.listen} does not accept this token", hint=hint)
    try:
        decoded: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        raise FarmUnreachable(f"what answers on {config.listen} is not the gateway (HTTP {status})") from None
    if status != 200:
        given = decoded.get("error")
        message = given.get("message") if isinstance(given, dict) else None
        if isinstance(given, dict) and (kind := _KINDS.get(str(given.get("code")))) is not None:
            raise kind(str(message), hint=str(given.get("hint") or ""))
        raise FarmhandError(f"the gateway answered HTTP {status}: {message or 'no reason given'}")
    return decoded
