"""What a rotation does at the farm hosts: hand over a key, run a canary, count attempts, have a key forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..core.errors import WireError
from ..wire.client import Client
from ..wire.follow import run_task
from ..wire.transport import SshTransport, Transport, UnixTransport

CANARY_TIMEOUT_S = 60.0
#: How long an agent may be away meanwhile, or refuse the task since it is draining.
CANARY_PATIENCE_S = 15.0
#: Until it has ended, in the queue and at work.
CANARY_WITHIN_S = 180.0
#: Ahead of everything that is queued.
_PRIORITY = 1_000_000
#: Not the key's fault: the host takes no tasks, or its day's budget is spent.
_NO_CANARY = frozenset({"draining", "budget"})
#: What a connection that was good before may answer once the agent or the line behind it has gone.
_STALE = frozenset({"lost", "unreachable", "agent_down"})
#: What an entry of hosts.json may say of the way, beside its name and address.
_WAY = ("port", "user", "options", "ssh_config", "identity_file", "known_hosts_file")
T = TypeVar("T")
#: Codes that say that no agent was spoken to, or none that answers as one does.
UNREACHED = frozenset(
    {
        "unreachable", "lost", "agent_down", "agent_missing", "host_key_unknown", "host_key_changed", "login_refused",
        "not_an_agent", "not_configured", "agent_too_old", "client_too_old", "bad_answer", "agent_error",
        "not_in_time",
    }
)  # fmt: skip


class RotationHost:
    """One farm host, over one connection, which is made when it is needed. Every call may be made again.

    `entry` is as in hosts.json, with its `name`; or it has the `socket` of the agent on this machine.
    """

    def __init__(self, entry: Mapping[str, Any], connect_timeout_s: float = 10.0) -> None:
        self.name = str(entry["name"])
        self._entry = entry
        self._connect_timeout_s = connect_timeout_s
        self._client: Client | None = None

    def close(self) -> None:
        """Drop the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _transport(self) -> Transport:
        way: dict[str, Any] = {"name": self.name, "connect_timeout_s": self._connect_timeout_s}
        if self._entry.get("socket"):
            return UnixTransport(str(self._entry["socket"]), **way)
        way |= {what: self._entry[what] for what in _WAY if self._entry.get(what)}
        return SshTransport(str(self._entry["address"]), **way)

    def _call(self, do: Callable[[Client], T]) -> T:
        """`do` with a client; once more if the connection was there already and has turned out to be dead."""
        reused = self._client is not None
        client = self._client = self._client or Client(self._transport())
        try:
            return do(client)
        except WireError as error:
            self.close()
            if not reused or error.code not in _STALE:
                raise
        return self._call(do)

    def _status(self, fingerprint: str) -> dict[str, Any]:
        """What the agent says of itself. Raises WireError `key_refused` if the API has refused this key there."""
        status = self._call(Client.status)
        for entry in _entries(status, fingerprint):
            if entry.get("state") == "refused":
                raise WireError("key_refused", f"{self.name}: the API refused the new key: {entry.get('reason')}")
        return status

    def hand_over(self, key: str, supersedes: str) -> None:
        """`key` takes the place of the key `supersedes` there. Raises WireError."""
        self._call(lambda client: client.put_key(key, supersedes))

    def ensure(self, key: str, fingerprint: str, supersedes: str) -> int:
        """Hand it over if that is not done yet. How many attempts on the old key are in flight.

        Raises WireError; `key_refused` where the API has refused the key there.
        """
        status = self._status(fingerprint)
        # An agent that has started again does not know any more what the key has replaced.
        if status.get("key") != fingerprint or not _entries(status, supersedes):
            self.hand_over(key, supersedes)
            status = self._call(Client.status)
        return sum(int(entry.get("running") or 0) for entry in _entries(status, supersedes))

    def canary(self, task_id: str, key: str, fingerprint: str) -> str:
        """Run one task of a few tokens on `key`: "" if it was answered on it, else why none could be run.

        Raises WireError, also for a task that did not succeed.
        """
        task = {
            "id": task_id,
            "prompt": "Answer with the one word: ready",
            "max_tokens": 64,
            "timeout_s": CANARY_TIMEOUT_S,
            "priority": _PRIORITY,
            "labels": {"purpose": "rotate"},
        }
        waits: dict[str, Any] = {"resume_s": CANARY_PATIENCE_S, "within_s": CANARY_WITHIN_S}
        try:
            result = self._call(lambda client: run_task(client, task, key, lambda _event: None, **waits))
        except WireError as error:
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
        """The old key takes the place of the new one again. Raises WireError."""
        self.hand_over(old, new)
        self.forget(new)

    def forget(self, fingerprint: str) -> None:
        """The agent drops that key from its memory. Raises WireError."""
        self._call(lambda client: client.forget_key(fingerprint))


def _entries(status: dict[str, Any], fingerprint: str) -> list[dict[str, Any]]:
    return [entry for entry in status.get("keys") or [] if entry.get("fingerprint") == fingerprint]
