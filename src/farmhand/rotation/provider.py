"""The provider's part of a rotation: check whether a key works, and disable one.

Disabling uses the Admin API, which lists keys with a hint of their value and cannot create keys. Source: the provider's
pages "List API Keys" and "Update API Key", read 2026-11-24.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from ..core.api_call import admin_problem, call, free_call, reason
from ..core.errors import WireError
from ..core.keys import redact

CONSOLE = "https://platform.claude.com/settings/keys"
KEYS = "/v1/organizations/api_keys"
_PAGE = 100


class Provider:
    """The Messages API at `url` and, with an Admin key, the Admin API at `admin_url`."""

    def __init__(self, url: str, admin_key: str = "", admin_url: str = "") -> None:
        self._url = url
        self._admin_key = admin_key
        self._admin_url = admin_url

    @property
    def can_disable(self) -> bool:
        """Return whether an Admin key is configured."""
        return bool(self._admin_key)

    def alive(self, key: str) -> None:
        """Return if the API accepts `key`. Raises WireError `dead_key` if not, or `api_unreachable`."""
        status = free_call(key, self._url)
        if status == 401:
            raise WireError("dead_key", f"{self._url} does not know the new key (401)", "check it in the Console")
        if status in (402, 403):
            message = f"{self._url} does not serve the new key ({status})"
            raise WireError("dead_key", message, "see billing and limits in the Console")
        if status != 200:
            raise WireError("api_unreachable", f"{self._url} answered {status}", "try again later")

    def dead(self, key: str) -> bool:
        """Return whether the API does not know `key` (status 401 only). Raises WireError."""
        return free_call(key, self._url) == 401

    def disable(self, key: str) -> None:
        """Set `key` inactive. Raises WireError `retire_by_hand` with the reason if that is not possible."""
        if problem := admin_problem(self._admin_key, self._admin_url):
            raise _by_hand(problem)
        matches = [entry for entry in self._active() if hint_fits(str(entry.get("partial_key_hint") or ""), key)]
        if len(matches) != 1:
            names = ", ".join(repr(redact(str(entry.get("name"))))[:80] for entry in matches[:5])
            raise _by_hand(
                f"the Admin API shows several active keys that could be it: {names}"
                if matches
                else "the Admin API shows no active key that could be it"
            )
        self._admin(f"{KEYS}/{quote(str(matches[0].get('id')), safe='')}", {"status": "inactive"})

    def _active(self) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {"status": "active", "limit": _PAGE}
        while True:
            answer = self._admin(f"{KEYS}?{urlencode(query)}")
            data = answer.get("data")
            if not isinstance(data, list):
                raise _by_hand("the Admin API's list of keys is not of its form")
            yield from (entry for entry in data if isinstance(entry, dict))
            query["after_id"] = answer.get("last_id")
            if not (answer.get("has_more") and data and query["after_id"]):
                return

    def _admin(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            status, answer = call(self._admin_key, self._admin_url, path, body)
        except WireError as error:
            raise _by_hand(error.message) from None
        if status == 200 and isinstance(answer, dict):
            return answer
        raise _by_hand(f"the Admin API answered {status}: {reason(answer)}")


def hint_fits(hint: str, key: str) -> bool:
    """Return whether a hint such as `sk-ant-api03-R2D...igAA` matches `key`."""
    head, dots, tail = hint.partition("...")
    return bool(dots and head and tail) and len(head + tail) < len(key) and key.startswith(head) and key.endswith(tail)


def _by_hand(why: str) -> WireError:
    return WireError("retire_by_hand", why)
