"""A check that the Messages API accepts a key, with the package's errors."""

from __future__ import annotations

from farmhand.core.api_call import free_call
from farmhand.core.errors import FarmhandError, NotConfigured, Refused, WireError


def check_key(key: str, upstream_url: str) -> None:
    """Return if the API accepts `key`. No message contains the key.

    Raises NotConfigured if it is unknown, Refused if it is not served, FarmhandError `api_unreachable`.
    """
    try:
        status = free_call(key, upstream_url)
    except WireError as error:
        kind = NotConfigured if error.code == "not_configured" else FarmhandError
        raise kind(error.message, hint=error.hint, code=error.code) from None
    if status != 200:
        raise _refusal(status, upstream_url)


def _refusal(status: int, upstream_url: str) -> FarmhandError:
    if status == 401:
        hint = "make a new one in the Console and put it there: farmhand rotate"
        return NotConfigured(f"{upstream_url} does not know the key (401)", hint=hint, code="bad_key")
    if status in (402, 403):
        return Refused(
            f"{upstream_url} does not serve the key ({status})", hint="see billing and limits in the Console"
        )
    return FarmhandError(f"{upstream_url} answered {status}", hint="try again later", code="api_unreachable")
