"""The keys in memory by fingerprint, and the reasons why the API refused others."""

from __future__ import annotations

from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Key


class Keys:
    """The keys in memory, and the choice of the key for a task.

    A refused key's value is dropped at once; its fingerprint and the reason are kept.

    A task runs on its own key while that is held, otherwise on the default key, which is the latest one received. A
    task whose own key was refused runs on no other until a client sends a key.

    A rotation replaces a key with a new one. Clients that still send the old key, which they read before the rotation,
    run on the new one. The old key stays in reserve until it is forgotten, and is used again if the API refuses the new
    one.
    """

    def __init__(self) -> None:
        self._held: dict[str, Key] = {}
        #: Fingerprint → reason of the keys that were refused and not sent again, the latest last.
        self.refused: dict[str, ApiError] = {}
        self._default: str | None = None
        self._on_trial: set[str] = set()
        #: Fingerprint of a key → fingerprint of the key that replaced it.
        self._successors: dict[str, str] = {}
        #: The key that a rotation has replaced but not yet asked to forget, if any.
        self._reserve: dict[str, Key] = {}

    @property
    def default(self) -> Key | None:
        """Return the key for tasks without one, or None if there is none or it was refused."""
        return self._held.get(self._default or "")

    @property
    def held(self) -> list[str]:
        """Return the fingerprints of the usable keys."""
        return list(self._held)

    @property
    def refusal(self) -> ApiError | None:
        """Return the reason for the latest refusal."""
        return next(reversed(self.refused.values()), None)

    @property
    def reserve(self) -> str | None:
        """Return the fingerprint of the key in reserve."""
        return next(iter(self._reserve), None)

    @property
    def unusable(self) -> list[str]:
        """Return the fingerprints of the refused keys whose tasks can run on no other key."""
        return [fingerprint for fingerprint in self.refused if self.of(fingerprint) is None]

    def hold(self, key: Key) -> None:
        """Store `key` and make it the default. A key that was refused before is on trial."""
        self._successors.pop(key.fingerprint, None)
        if self.refused.pop(key.fingerprint, None) is not None:
            self._on_trial.add(key.fingerprint)
        self._held[key.fingerprint] = key
        self._default = key.fingerprint

    def replace(self, key: Key) -> None:
        """Replace all keys with `key`."""
        self.hold(key)
        self._held = {key.fingerprint: key}
        self.refused.clear()
        self._reserve.clear()

    def supersede(self, fingerprint: str, key: Key) -> None:
        """Replace all keys with `key`. The key with `fingerprint`, which it supersedes, stays in reserve."""
        old = self._held.get(fingerprint) or self._reserve.get(fingerprint)
        self.replace(key)
        if fingerprint != key.fingerprint:
            self._successors[fingerprint] = key.fingerprint
            self._reserve = {fingerprint: old} if old else {}

    def renew(self, fingerprint: str, token: Key) -> Key:
        """Give the bearer token with `fingerprint` the value of `token`, and return it.

        Running tasks use it from their next request on. One that was refused is held again, on trial.
        """
        held = self._held.get(fingerprint)
        if held is None:
            held = Key(token.reveal(), bearer=token.bearer, renews=fingerprint)
            self.hold(held)
        else:
            held.renew(token.reveal())
        return held

    def stand_in(self, key: Key) -> Key:
        """Return the usable key that replaced `key`, if any, otherwise `key`."""
        return self._held.get(self._last(key.fingerprint), key)

    def forget(self, fingerprint: str) -> bool:
        """Drop the key's value for good, even if it is the default. Return False if it was not held."""
        dropped = [keys.pop(fingerprint, None) for keys in (self._held, self._reserve)]
        return any(dropped)

    def _last(self, fingerprint: str) -> str:
        # There is no cycle: a key that replaces another, or is sent by a client, has no successor.
        while fingerprint in self._successors:
            fingerprint = self._successors[fingerprint]
        return fingerprint

    def refuse(self, key: Key, problem: ApiError) -> None:
        """Record that the API refused `key`."""
        self._on_trial.discard(key.fingerprint)
        self._reserve.pop(key.fingerprint, None)
        if self._held.pop(key.fingerprint, None) is None:
            return
        self.refused[key.fingerprint] = problem
        for fingerprint, old in self._reserve.items():  # the key that it had replaced takes its place again
            if self._successors.pop(fingerprint, None) is not None:
                self._successors[key.fingerprint] = fingerprint
                self._held[fingerprint] = old
                self._default = fingerprint
        self._reserve.clear()

    def prove(self, key: Key) -> None:
        """Record that the API accepted `key`."""
        self._on_trial.discard(key.fingerprint)

    def on_trial(self, key: Key) -> bool:
        """Return whether `key` was refused before and has not succeeded since: then one task at a time tries it."""
        return key.fingerprint in self._on_trial

    def drop(self, fingerprint: str) -> None:
        """Drop a key that no task waits for, unless it is the default."""
        if fingerprint != self._default:
            self._held.pop(fingerprint, None)

    def of(self, fingerprint: str | None) -> Key | None:
        """Return the key for a task that came with `fingerprint`, or None if the task has to wait for one."""
        fingerprint = self._last(fingerprint or "")
        if fingerprint in self.refused:
            return None
        return self._held.get(fingerprint) or self.default
