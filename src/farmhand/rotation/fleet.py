"""The actions of a rotation on farm hosts: hand over a key, run a canary, count attempts, delete a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from farmhand.core.errors import POT_SPENT, WireError
from farmhand.core.keys import Credential
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task
from farmhand.wire.transport import Transport

CANARY_TIMEOUT_S = 60.0
#: Seconds that an agent may be unavailable, or refuse the task because it is draining.
CANARY_PATIENCE_S = 15.0
#: Seconds for the whole canary task, queued and running.
CANARY_WITHIN_S = 180.0
#: Before all other queued tasks.
_PRIORITY = 1_000_000
#: Errors not caused by the key: the host accepts no tasks, or its day's budget is spent.
_NO_CANARY = frozenset({"draining", "budget"})
#: Errors of a reused connection after the agent or the network has failed.
_STALE = frozenset({"lost", "unreachable", "agent_down"})
#: Error codes that mean no agent was reached, or nothing that answers like one.
UNREACHED = _STALE | {
    "agent_missing", "host_key_unknown", "host_key_changed", "login_refused", "not_an_agent", "not_configured",
    "agent_too_old", "client_too_old", "bad_answer", "agent_error", "not_in_time",
}  # fmt: skip
T = TypeVar("T")


class RotationHost:
    """One farm host with one connection, opened over `way` on first use. Every call can be repeated safely.

    `pot` is the pot whose key is rotated, "" where there are none.
    """

    def __init__(self, name: str, way: Callable[[], Transport], pot: str = "") -> None:
        self.name = name
        self.pot = pot
        self._way = way
        self._client: Client | None = None

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _call(self, do: Callable[[Client], T]) -> T:
        """Call `do` with a client. Retry once if the connection was reused and is found dead."""
        reused = self._client is not None
        client = self._client = self._client or Client(self._way())
        try:
            return do(client)
        except WireError as error:
            self.close()
            if not reused or error.code not in _STALE:
                raise
        return self._call(do)

    def _status(self, fingerprint: str) -> dict[str, Any]:
        """Return the agent's status. Raise WireError `key_refused` if the API has refused this key on that host."""
        status = self._call(Client.status)
        for entry in _entries(status, fingerprint):
            if entry.get("state") == "refused":
                raise WireError("key_refused", f"{self.name}: the API refused the new key: {entry.get('reason')}")
        return status

    def hand_over(self, key: str, supersedes: str) -> None:
        """Replace the key `supersedes` by `key` on this host. Raise WireError."""
        self._call(lambda client: client.put_key(key, supersedes, pot=self.pot))

    def ensure(self, key: str, fingerprint: str, supersedes: str) -> int:
        """Hand over `key` unless already done. Return the number of attempts in flight on the old key.

        Raise WireError; `key_refused` if the API has refused the key on that host.
        """
        status = self._status(fingerprint)
        # A restarted agent no longer knows which key the new one has replaced.
        if self._about_pot(status).get("key") != fingerprint or not _entries(status, supersedes):
            self.hand_over(key, supersedes)
            status = self._call(Client.status)
        return sum(int(entry.get("running") or 0) for entry in _entries(status, supersedes))

    def _about_pot(self, status: dict[str, Any]) -> dict[str, Any]:
        """Return what the status says of the pot; all of it where there are none."""
        if not self.pot:
            return status
        return next((pot for pot in status.get("pots") or [] if pot["name"] == self.pot), {})

    def canary(self, task_id: str, key: str, fingerprint: str) -> str:
        """Run one task of a few tokens on `key`. Return "" if it was answered, else why no task could be run.

        Raise WireError, also for a task that did not succeed.
        """
        if self._about_pot(self._status(fingerprint)).get("state") in ("spent", "expired"):
            return ""  # no task can run on it now; the free call has shown that the API takes the key
        task: dict[str, Any] = {
            "id": task_id,
            "prompt": "Answer with the one word: ready",
            "max_tokens": 64,
            "timeout_s": CANARY_TIMEOUT_S,
            "priority": _PRIORITY,
            "labels": {"purpose": "rotate"},
        }
        brought: Credential = key
        if self.pot:
            task["pot"], brought = self.pot, [{"name": self.pot, "key": key}]
        waits: dict[str, Any] = {"resume_s": CANARY_PATIENCE_S, "within_s": CANARY_WITHIN_S}
        try:
            result = self._call(lambda client: run_task(client, task, brought, lambda _event: None, **waits))
        except WireError as error:
            if error.code == POT_SPENT:  # as above, and it need not be run later
                self._call(lambda client: client.cancel(task_id))
                return ""
            if error.code in _NO_CANARY:
                return error.message
            raise
        self._status(fingerprint)
        if result.get("state") == "succeeded":
            return ""
        problem = result.get("error") or {}
        if problem.get("code") in _NO_CANARY:
            return str(problem.get("message"))
        message = f"{self.name}: the canary task is {result.get('state')}: {problem.get('message')}"
        raise WireError("canary_failed", message)

    def take_back(self, old: str, new: str) -> None:
        """Replace the new key by the old one again. Raise WireError."""
        self.hand_over(old, new)
        self.forget(new)

    def forget(self, fingerprint: str) -> None:
        """Delete the key from the agent's memory. Raise WireError."""
        self._call(lambda client: client.forget_key(fingerprint))


def _entries(status: dict[str, Any], fingerprint: str) -> list[dict[str, Any]]:
    return [entry for entry in status.get("keys") or [] if entry.get("fingerprint") == fingerprint]
