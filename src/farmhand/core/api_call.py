"""Calls from the workstation to the provider's API: the check that it accepts a key, and its Admin API."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from . import billing_refusals
from .addresses import is_safe
from .errors import WireError, not_configured
from .keys import check_format, redact

TIMEOUT_S = 15.0
#: Source: the provider's API reference, "List models": it needs a key and uses no tokens.
FREE_CALL = "/v1/models?limit=1"
VERSION = "2023-06-01"
ADMIN_PREFIX = "sk-ant-admin"
_MAX_ANSWER = 64 * 1024 * 1024


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect handler that follows no redirect, because one would send the key elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return None: do not follow the redirect."""


class ApiAnswer(NamedTuple):
    """An answer: HTTP status, decoded JSON or None, headers (names in lower case)."""

    status: int
    document: Any
    headers: Mapping[str, str]


def admin_problem(key: str, url: str) -> str:
    """Return why this Admin key must not be sent to this URL, or "" if it may be."""
    if not key.startswith(ADMIN_PREFIX):
        return f"admin_key_source names a key that is no Admin key ({ADMIN_PREFIX}…)"
    return "" if is_safe(url) else f"admin_url {url!r:.100} is neither https nor on this machine"


def call(
    key: str, url: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = TIMEOUT_S
) -> tuple[int, Any]:
    """Call the API once with `key`, as a POST if there is a body. Return (HTTP status, decoded JSON or None).

    Raise WireError: `not_configured` for an invalid URL, `api_unreachable` if there is no answer.
    """
    found = ask(url, path, {"x-api-key": check_format(key), "anthropic-version": VERSION}, body, timeout_s)
    return found.status, found.document


def ask(
    url: str, path: str, headers: Mapping[str, str], body: dict[str, Any] | None = None, timeout_s: float = TIMEOUT_S
) -> ApiAnswer:
    """Call the API once with these headers, as `call` does. Raise WireError."""
    if not url.startswith(("https://", "http://")):
        raise not_configured(f"upstream_url {url!r:.100} is not an http(s) URL", "correct it")
    data = None if body is None else json.dumps(body).encode()
    sent = {**headers} if body is None else {**headers, "content-type": "application/json"}
    request = urllib.request.Request(url.rstrip("/") + path, data=data, headers=sent)  # noqa: S310  (checked above)
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=timeout_s) as answer:
            return ApiAnswer(int(answer.status), _decoded(answer.read(_MAX_ANSWER)), _lower(answer.headers))
    except urllib.error.HTTPError as error:
        with error:
            return ApiAnswer(error.code, _decoded(error.read(65536)), _lower(error.headers))
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        message = f"{url} cannot be asked: {getattr(why, 'strerror', None) or redact(str(why))}"
        raise WireError("api_unreachable", message, "check the network and the proxy") from None


def free_call(key: str, url: str) -> int:
    """Return the HTTP status that the API at `url` gives to `key`: 200, or 401 for a key that it does not accept.

    Return 402 also if the API reports with another status that the credit is used up.
    """
    status, answer = call(key, url, FREE_CALL)
    error = answer.get("error") if status != 200 and isinstance(answer, dict) else None
    return 402 if status != 401 and isinstance(error, dict) and billing_refusals.refusal(status, error)[0] else status


def reason(answer: Any) -> str:
    """Return the message of the provider's error on one line, without keys."""
    error = answer.get("error") if isinstance(answer, dict) else None
    why = error.get("message") if isinstance(error, dict) else "no reason given"
    return redact(" ".join(str(why).split()))[:200]


def _lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        return None
