"""The Admin API's keys: list them, show one, set one's name and status. The status is what the Messages API goes by.

Source: the provider's pages "List API Keys", "Get API Key" and "Update API Key", read 2026-11-24. Assumed, since they
do not say: parameters and fields that are not known are refused; an archived key stays archived.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from multidict import MultiMapping

from tests.support.messages_api import validate
from tests.support.messages_api.errors import ApiError, bad

if TYPE_CHECKING:
    from tests.support.messages_api.state import State

PATH = "/v1/organizations/api_keys"
STATUSES = ("active", "inactive", "archived", "expired")
_USER = {"id": "user_01WCz1FkmYMm4gnmykNKUu3Q", "type": "user"}


@dataclass
class KeyRecord:
    """What the organisation knows of a key."""

    key: str
    name: str
    status: str = "active"
    expires_at: str | None = None


@dataclass
class KeyRing:
    """Every key there has been, by id."""

    records: dict[str, KeyRecord] = field(default_factory=dict)

    def learn(self, keys: frozenset[str]) -> None:
        """A key that is accepted is active; one that is not any more, and that nobody has set, is gone."""
        for key in sorted(keys):
            self.records.setdefault(key_id(key), KeyRecord(key, f"key {len(self.records) + 1}")).status = "active"
        for name, record in list(self.records.items()):
            if record.status == "active" and record.key not in keys:
                del self.records[name]

    def clear(self) -> None:
        """Forget all."""
        self.records.clear()


def key_id(key: str) -> str:
    """The id of a key."""
    return "apikey_01" + hashlib.sha256(key.encode()).hexdigest()[:22]


def methods(path: str) -> tuple[str, ...] | None:
    """The methods of a path of these endpoints; None for another."""
    if path == PATH:
        return ("GET",)
    return ("GET", "POST") if path.startswith(f"{PATH}/") and path.count("/") == 4 else None


def answer(path: str, method: str, query: MultiMapping[str], headers: Any, raw: bytes, state: State) -> dict[str, Any]:
    """The answer to a call. Raises ApiError."""
    validate.check_headers(headers, frozenset(state.admin_keys))
    state.key_ring.learn(state.current_keys())
    if path == PATH:
        return _list(query, state)
    record = state.key_ring.records.get(path.removeprefix(f"{PATH}/"))
    if record is None:
        raise ApiError(404, "API key not found")
    if method == "POST":
        validate.check_content_type(headers)
        _update(record, validate.parse(raw), state)
    return _shown(record)


def _list(query: MultiMapping[str], state: State) -> dict[str, Any]:
    for name in query:
        if name not in ("after_id", "before_id", "created_by_user_id", "limit", "status", "workspace_id"):
            raise bad(name, "Extra inputs are not permitted")
    text = query.get("limit", "20")
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise bad("limit", "Input should be between 1 and 1000")
    status = query.get("status")
    if status is not None and status not in STATUSES:
        raise bad("status", f"Input should be one of {', '.join(map(repr, STATUSES))}")
    if "after_id" in query and "before_id" in query:
        raise bad("after_id", "only one of after_id and before_id may be given")
    shown = [_shown(record) for record in state.key_ring.records.values() if status in (None, record.status)]
    if query.get("created_by_user_id", _USER["id"]) != _USER["id"] or "workspace_id" in query:
        shown = []
    ids = [entry["id"] for entry in shown]
    for name in ("after_id", "before_id"):
        if name in query and query[name] not in ids:
            raise bad(name, "not found")
    if "after_id" in query:
        shown = shown[ids.index(query["after_id"]) + 1 :]
    if "before_id" in query:
        shown = shown[: ids.index(query["before_id"])]
    page = shown[-int(text) :] if "before_id" in query else shown[: int(text)]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"data": page, "has_more": len(page) < len(shown), **ends}


def _update(record: KeyRecord, body: dict[str, Any], state: State) -> None:
    for name in body:
        if name not in ("name", "status"):
            raise bad(name, "Extra inputs are not permitted")
    name, status = body.get("name", record.name), body.get("status", record.status)
    if not isinstance(name, str) or not 1 <= len(name) <= 500:
        raise bad("name", "String should have 1 to 500 characters")
    if status not in STATUSES[:3]:
        raise bad("status", f"Input should be {' or '.join(map(repr, STATUSES[:3]))}")
    if record.status == "archived" and status != "archived":
        raise bad("status", "an archived key cannot be changed")
    record.name, record.status = name, status
    state.keys = state.keys | {record.key} if status == "active" else state.keys - {record.key}


def _shown(record: KeyRecord) -> dict[str, Any]:
    return {
        "id": key_id(record.key),
        "type": "api_key",
        "name": record.name,
        "status": record.status,
        "partial_key_hint": f"{record.key[:16]}...{record.key[-4:]}",
        "created_at": "2026-11-01T00:00:00.000000Z",
        "created_by": _USER,
        "expires_at": record.expires_at,
        "principal": None,
        "scope": {"type": "workspace", "workspace_id": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ"},
        "workspace_id": None,
    }
