"""The provider's part of a rotation: check whether a key works, and disable one.

Disabling uses the Admin API, which lists keys with a hint of their value and cannot create keys. Source: the provider's
pages "List API Keys" and "Update API Key", read 2026-11-24.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from farmhand.core.api_call import FREE_CALL, VERSION, admin_problem, ask, call, free_call, reason
from farmhand.core.errors import WireError
from farmhand.core.keys import check_format, other_kind, redact

CONSOLE = "https://platform.claude.com/settings/keys"
KEYS = "/v1/organizations/api_keys"
_PAGE = 100
#: The header of an answer that names the key's workspace, and the form of its value. Seen in copies of answers of 2026.
_WORKSPACE, _WORKSPACE_ID = "anthropic-workspace-id", re.compile(r"wrkspc_\w{1,64}", re.ASCII)


def check_key(key: str, upstream_url: str) -> None:
    """Return if the API accepts the operator's key. No message contains it.

    Raise NotConfigured if it is unknown, Refused if it is not served, FarmhandError `api_unreachable`.
    """
    try:
        hint = "make a new one in the Console and put it there: farmhand rotate"
        _check(key, upstream_url, "the key", unknown="bad_key", unserved="refused", hint=hint)
    except WireError as error:
        raise error.at() from None


def _check(key: str, url: str, what: str, *, unknown: str, unserved: str, hint: str) -> None:
    """Return if the API accepts `key`. Raise WireError with the codes `unknown`, `unserved`, or `api_unreachable`.

    What is no metered key is not sent there, but `refused`.
    """
    if other := other_kind(key):
        raise WireError("refused", f"{what} is {other} and no metered key", "name the source of a metered key")
    status = free_call(key, url)
    if status == 401:
        raise WireError(unknown, f"{url} does not know {what} (401)", hint)
    if status in (402, 403):
        raise WireError(unserved, f"{url} does not serve {what} ({status})", "see billing and limits in the Console")
    if status != 200:
        raise WireError("api_unreachable", f"{url} answered {status}", "try again later")


def workspace_of(key: str, url: str) -> str:
    """Return the workspace that the API names in its answer to the key, "" if it names none. Raise WireError."""
    answer = ask(url, FREE_CALL, {"x-api-key": check_format(key), "anthropic-version": VERSION})
    found = answer.headers.get(_WORKSPACE, "")
    return found if _WORKSPACE_ID.fullmatch(found) else ""


@dataclass
class Provider:
    """The Messages API at `url` and, with an Admin key, the Admin API at `admin_url`."""

    url: str
    admin_key: str = ""
    admin_url: str = ""

    def alive(self, key: str) -> None:
        """Return if the API accepts the new key. Raise WireError `dead_key` if not, or `api_unreachable`."""
        hint = "check it in the Console"
        _check(key, self.url, "the new key", unknown="dead_key", unserved="dead_key", hint=hint)

    def dead(self, key: str) -> bool:
        """Return whether the API does not know `key` (status 401 only). Raise WireError."""
        return free_call(key, self.url) == 401

    def disable(self, key: str) -> None:
        """Set `key` inactive. Raise WireError `retire_by_hand` with the reason if that is not possible."""
        if problem := admin_problem(self.admin_key, self.admin_url):
            raise _by_hand(problem)
        matches = self._entries(key)
        if not matches:
            raise _by_hand("the Admin API shows no active key that could be it")
        if len(matches) > 1:
            names = ", ".join(repr(redact(str(entry.get("name"))))[:80] for entry in matches[:5])
            raise _by_hand(f"the Admin API shows several active keys that could be it: {names}")
        self._admin(f"{KEYS}/{quote(str(matches[0].get('id')), safe='')}", {"status": "inactive"})

    def ends_at(self, key: str) -> datetime | None:
        """Return when `key` ends, as the Admin API says; None if it does not say, or does not show it for certain.

        Raise WireError.
        """
        if problem := admin_problem(self.admin_key, self.admin_url):
            raise _by_hand(problem)
        matches = self._entries(key)
        if len(matches) != 1 or not isinstance(text := matches[0].get("expires_at"), str):
            return None
        try:
            ends = datetime.fromisoformat(text)
        except ValueError:
            raise _by_hand("the Admin API's end of the key is no time") from None
        return ends if ends.tzinfo else ends.replace(tzinfo=UTC)

    def _entries(self, key: str) -> list[dict[str, Any]]:
        """Return the active keys that may be `key`."""
        return [entry for entry in self._active() if hint_fits(str(entry.get("partial_key_hint") or ""), key)]

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
            status, answer = call(self.admin_key, self.admin_url, path, body)
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
