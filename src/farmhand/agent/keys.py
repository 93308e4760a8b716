"""The keys in memory, by fingerprint: those that are held, and those that the API refused."""

from __future__ import annotations

from farmhand.meter import ApiError, Key


class Keys:
    """Which key a task runs on. A refused key's value is forgotten at once; its fingerprint and the reason stay.

    A task runs on the key that it came with while that is held, else on the default, the one that was brought last.
    A task whose own key was refused runs on no other until somebody brings one.

    A rotation puts a key in the place of another: whoever still brings the old one, read before the change, runs on
    the new one. The old one is in reserve until it is forgotten: should the API refuse the new one, it is used again.
    """

    def __init__(self) -> None:
        self._held: dict[str, Key] = {}
        self._refused: dict[str, ApiError] = {}
        self._default: str | None = None
        self._on_trial: set[str] = set()
        #: Fingerprint of a key → that of the key in its place.
        self._successors: dict[str, str] = {}
        self._reserve: Key | None = None

    @property
    def default(self) -> Key | None:
        """The key of tasks that came without one; None while there is none, or it was refused."""
        return self._held.get(self._default or "")

    @property
    def held(self) -> list[str]:
        """Fingerprints of the keys that can be used."""
        return list(self._held)

    @property
    def refused(self) -> dict[str, ApiError]:
        """Fingerprint → why, of the keys that were refused and not brought again; the latest last."""
        return self._refused

    @property
    def refusal(self) -> ApiError | None:
        """Why the latest of the refused keys was refused."""
        return next(reversed(self._refused.values()), None)

    @property
    def reserve(self) -> str | None:
        """Fingerprint of the key that a rotation has replaced and not told us to forget."""
        return self._reserve.fingerprint if self._reserve is not None else None

    @property
    def unusable(self) -> list[str]:
        """Fingerprints of the refused keys whose tasks can run on no other."""
        return [fingerprint for fingerprint in self._refused if self.of(fingerprint) is None]

    def hold(self, key: Key) -> None:
        """A client brings `key`: it is the default now. One that was refused is on trial."""
        self._successors.pop(key.fingerprint, None)
        if self._refused.pop(key.fingerprint, None) is not None:
            self._on_trial.add(key.fingerprint)
        self._held[key.fingerprint] = key
        self._default = key.fingerprint

    def replace(self, key: Key) -> None:
        """`key` takes the place of all others."""
        self.hold(key)
        self._held = {key.fingerprint: key}
        self._refused.clear()
        self._reserve = None

    def supersede(self, fingerprint: str, key: Key) -> None:
        """`key` takes the place of all others; the key of `fingerprint`, which it replaces, stays in reserve."""
        old = self._held.get(fingerprint) or (self._reserve if self.reserve == fingerprint else None)
        self.replace(key)
        if fingerprint != key.fingerprint:
            self._successors[fingerprint] = key.fingerprint
            self._reserve = old

    def stand_in(self, key: Key) -> Key:
        """The key in the place of `key`, if there is one that can be used; else `key` itself."""
        return self._held.get(self._last(key.fingerprint), key)

    def forget(self, fingerprint: str) -> bool:
        """Drop the key's value for good, even if it is the default. False: it was not here."""
        found = self._held.pop(fingerprint, None) is not None or self.reserve == fingerprint
        if self.reserve == fingerprint:
            self._reserve = None
        return found

    def _last(self, fingerprint: str) -> str:
        # No ring: a key that takes another's place, or is brought, has no successor itself.
        while fingerprint in self._successors:
            fingerprint = self._successors[fingerprint]
        return fingerprint

    def refuse(self, key: Key, problem: ApiError) -> None:
        """The API does not take `key`."""
        self._on_trial.discard(key.fingerprint)
        if self.reserve == key.fingerprint:
            self._reserve = None
        if self._held.pop(key.fingerprint, None) is not None:
            self._refused[key.fingerprint] = problem
            self._fall_back(key.fingerprint)

    def _fall_back(self, refused: str) -> None:
        """The key that `refused` has replaced takes its place again."""
        old, self._reserve = self._reserve, None
        if old is None or self._successors.pop(old.fingerprint, None) is None:
            return
        self._successors[refused] = old.fingerprint
        self._held[old.fingerprint] = old
        self._default = old.fingerprint

    def prove(self, key: Key) -> None:
        """The API has answered to `key`."""
        self._on_trial.discard(key.fingerprint)

    def on_trial(self, key: Key) -> bool:
        """Whether `key` was refused before and has not been answered to since: then one task at a time tries it."""
        return key.fingerprint in self._on_trial

    def drop(self, fingerprint: str) -> None:
        """Forget a key that no task waits for, unless it is the default."""
        if fingerprint != self._default:
            self._held.pop(fingerprint, None)

    def of(self, fingerprint: str | None) -> Key | None:
        """The key to run a task on that came with the key of `fingerprint`; None: it has to wait for one."""
        fingerprint = self._last(fingerprint or "")
        if fingerprint in self._refused:
            return None
        return self._held.get(fingerprint) or self.default
