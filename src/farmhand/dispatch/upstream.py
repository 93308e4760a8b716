"""Whether the Messages API takes a key, asked from the workstation with a call that costs nothing."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any

from farmhand.errors import FarmhandError, NotConfigured, Refused
from farmhand.wire.keys import check_format

_TIMEOUT_S = 15.0
#: Source: the provider's API reference, "List models": needs a key, uses no tokens.
_FREE_CALL = "/v1/models?limit=1"
_VERSION = "2023-06-01"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def check_key(key: str, upstream_url: str) -> None:
    """Return if the API accepts `key`. Raises NotConfigured for one that it does not know, Refused for one that it does
    not serve, FarmhandError `api_unreachable` where it cannot be asked. No message holds the key.
    """
    if not upstream_url.startswith(("https://", "http://")):
        raise NotConfigured(f"upstream_url {upstream_url!r:.100} is not an http(s) URL", hint="correct it")
    request = urllib.request.Request(  # noqa: S310  (the scheme is checked above)
        upstream_url.rstrip("/") + _FREE_CALL,
        headers={"x-api-key": check_format(key), "anthropic-version": _VERSION},
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(error.code, upstream_url) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        message = f"{upstream_url} cannot be asked: {getattr(why, 'strerror', None) or why}"
        raise FarmhandError(message, hint="check the network and the proxy", code="api_unreachable") from None


def _refusal(status: int, upstream_url: str) -> FarmhandError:
    if status == 401:
        hint = "make a new one in the Console and put it there: farmhand rotate"
        return NotConfigured(f"{upstream_url} does not know the key (401)", hint=hint, code="bad_key")
    if status in (402, 403, 429):
        return Refused(
            f"{upstream_url} does not serve the key ({status})", hint="see billing and limits in the Console"
        )
    return FarmhandError(f"{upstream_url} answered {status}", hint="try again later", code="api_unreachable")
