"""The steps of a rotation, and the way back. Each looks at how things are before it changes them.

What a step is about to change is written down first: so a step that was cut off anywhere is simply done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from ..core.errors import WireError
from ..core.keys import fingerprint
from .fleet import UNREACHED, RotationHost
from .provider import CONSOLE, Provider
from .sources import RotationSource, Slots
from .state import ROLLED_BACK, ROLLING_BACK, Memory, State

#: How often a host is asked whether attempts on the old key have ended, and the API whether the old key is dead.
_POLL_S = 0.2
#: A key that was proven longer ago than this is proven again before anything is switched.
_PROOF_S = 60.0
#: A host that has come to hosts.json since the rotation began.
_UNKNOWN = {"state": "unreached"}


class Unfinished(WireError):
    """A step cannot be completed now, through no fault of the new key: nothing is rolled back, `--resume` goes on."""


class Steps:
    """What `Machine` goes through. `tell` gets a line for people before each thing that is done; no line holds a key.

    `drain_s`: how long attempts on the old key may take to end; `retire_s`: how long to wait until the API refuses the
    old key. `force`: retire the old key although a host that could not be reached may hold it.
    """

    def __init__(
        self,
        source: RotationSource,
        places: Sequence[RotationHost],
        provider: Provider,
        memory: Memory,
        *,
        tell: Callable[[str], None] = lambda _line: None,
        drain_s: float = 3900.0,
        retire_s: float = 30.0,
        force: bool = False,
    ) -> None:
        self._source = source
        self._places = list(places)
        self._provider = provider
        self._memory = memory
        self._tell = tell
        self._drain_s = drain_s
        self._retire_s = retire_s
        self._force = force

    def close(self) -> None:
        """Drop the connections to the hosts."""
        for place in self._places:
            place.close()

    # --- the steps ------------------------------------------------------------------------------------------------

    def _to_staged(self, state: State) -> None:
        """Only after a crash while staging: the new key has arrived, or it never did."""
        if self._source.read().find(state.new) is None:
            raise WireError("key_missing", "the new key was not stored before a crash", "farmhand rotate again")
        self._save_step(state, "staged")

    def _to_switched(self, state: State) -> None:
        slots = self._source.read()
        current, new = fingerprint(slots.current), self._key(slots, state.new)
        if current not in (state.old, state.new):
            raise WireError("key_source_changed", f"the key source has a third key now: {current}")
        if current == state.old and time.time() - state.updated_at > _PROOF_S:
            self._provider.alive(new)
        self._save_step(state, "switching")
        wanted = Slots(new, previous=slots.find(state.old))
        if slots != wanted:
            self._tell("replacing the key in its source")
            self._source.write(wanted)
        for place in self._places:
            self._tell(f"{place.name}: handing over the new key")
            self._at(state, place, partial(place.hand_over, new, state.old))
        if self._places and not self._reached(state):
            raise WireError("unreachable", "no farm host could be reached: " + self._unreached(state))
        self._save_step(state, "switched")

    def _to_verified(self, state: State) -> None:
        new = self._key(self._source.read(), state.new)
        task_id = f"rotate-{state.new}-{int(state.started_at * 1000):x}"
        answered = 0
        self._ensure_all(state, new)
        for place in self._reached(state):
            self._tell(f"{place.name}: running a canary task on the new key")
            why = ""

            def canary(place: RotationHost = place) -> None:
                nonlocal why
                why = place.canary(task_id, new, state.new)

            if self._at(state, place, canary):
                answered += not why
                state.hosts[place.name] = {"state": "switched" if why else "verified", "why": why}
        if self._places and not answered:
            whys = "; ".join(f"{name}: {about['why']}" for name, about in state.hosts.items())
            raise WireError("canary_failed", f"no farm host could run a canary task: {whys}")
        self._save_step(state, "verified")

    def _to_drained(self, state: State) -> None:
        new = self._key(self._source.read(), state.new)
        self._tell(f"waiting for attempts on {state.old} to end")
        deadline = time.monotonic() + self._drain_s
        while busy := {name: count for name, count in self._ensure_all(state, new).items() if count}:
            if time.monotonic() > deadline:
                where = ", ".join(f"{count} at {name}" for name, count in busy.items())
                message = f"attempts on the old key {state.old} still run after {self._drain_s:g} s: {where}"
                raise Unfinished("still_running", message, "farmhand rotate --resume goes on waiting")
            time.sleep(_POLL_S)
        for place in self._reached(state):
            state.hosts[place.name] |= {"state": "drained"}
        self._save_step(state, "drained")

    def _to_retired(self, state: State) -> None:
        slots = self._source.read()
        old = slots.find(state.old)
        if not state.reached("dead"):
            if old is None:
                message = f"the old key {state.old} is not in its source any more, so nobody can prove that it is dead"
                raise Unfinished("key_missing", message, f"put it back, or disable it at {CONSOLE} and --abort")
            self._all_drained(state, self._key(slots, state.new))
            self._save_step(state, "retiring")
            self._kill(state, old)
            self._save_step(state, "dead")
        for place in self._reached(state):
            self._tell(f"{place.name}: having the old key forgotten")
            self._at(state, place, partial(place.forget, state.old), after="drained")
        if old is not None:
            self._tell("removing the old key from its source")
            self._source.write(Slots(self._key(slots, state.new)))
        self._save_step(state, "retired")

    def _kill(self, state: State, old: str) -> None:
        """The old key is disabled, and the API says so. Raises Unfinished with what is left to be done by hand."""
        self._tell("asking the API whether the old key is dead")
        if self._provider.dead(old):
            return
        why = "admin_key_source is not set"
        if self._provider.can_disable:
            self._tell("disabling the old key through the Admin API")
            try:
                self._provider.disable(old)
            except WireError as error:
                why = error.message
            else:
                why = f"the Admin API disabled it, and it still works after {self._retire_s:g} s"
        deadline = time.monotonic() + self._retire_s
        while not self._provider.dead(old):
            # Without the Admin API whoever disables it by hand needs longer than we may wait.
            if time.monotonic() > deadline or not self._provider.can_disable:
                since = time.strftime("%Y-%m-%d", time.gmtime(self._memory.first_seen(state.old, time.time())))
                message = f"the old key {state.old} (seen here since {since}) still works: {why}"
                hint = f"disable it at {CONSOLE}, then farmhand rotate --resume proves that it is dead"
                raise Unfinished("retire_by_hand", message, hint)
            time.sleep(_POLL_S)

    def _all_drained(self, state: State, new: str) -> None:
        """Every host that may hold the old key has been reached and runs nothing on it, or that is waived."""
        busy = {name for name, count in self._ensure_all(state, new).items() if count}
        for place in self._reached(state):
            state.hosts[place.name]["state"] = "switched" if place.name in busy else "drained"
        left = {name: about for name, about in state.hosts.items() if about["state"] != "drained"}
        if left and not self._force:
            where = "; ".join(f"{name} ({about['why'] or about['state']})" for name, about in left.items())
            message = f"the old key {state.old} is not retired: these hosts may hold it: {where}"
            raise Unfinished(
                "hosts_unreached",
                message,
                "bring them back and farmhand rotate --resume; farmhand rotate --resume --force does not wait for them",
            )

    # --- back -----------------------------------------------------------------------------------------------------

    def _roll_back(self, state: State, why: str) -> None:
        """The old key in its place again, in the source and at every host that can be reached."""
        state.why = why
        self._save(state, f"going back to {state.old}: {why}", ROLLING_BACK)
        slots = self._source.read()
        old, current = slots.find(state.old), fingerprint(slots.current)
        if current == state.new and old is None:
            raise WireError(
                "key_missing", f"the old key {state.old} is not in its source any more: there is no way back"
            )
        # A third key that somebody has put there is theirs, and stays.
        wanted = Slots(old if old is not None and current == state.new else slots.current)
        if slots != wanted:
            self._source.write(wanted)
        if old is not None:
            for place in self._places:
                self._tell(f"{place.name}: handing over the old key")
                if self._at(state, place, partial(place.hand_over, old, state.new), back=True):
                    self._at(state, place, partial(place.forget, state.new), back=True)
        self._save_step(state, ROLLED_BACK)

    # --- hosts ----------------------------------------------------------------------------------------------------

    def _ensure_all(self, state: State, new: str) -> dict[str, int]:
        """Every host that can be reached has the new key; attempts on the old one by host. Raises `key_refused`."""
        busy: dict[str, int] = {}
        for place in self._places:

            def ensure(place: RotationHost = place) -> None:
                busy[place.name] = place.ensure(new, state.new, state.old)

            before = state.hosts.get(place.name, {}).get("state", "unreached")
            self._at(state, place, ensure, after="switched" if before == "unreached" else before)
        return busy

    def _at(
        self, state: State, place: RotationHost, do: Callable[[], None], after: str = "switched", back: bool = False
    ) -> bool:
        """Do something at a host, and note whether it could be reached."""
        try:
            do()
        except WireError as error:
            # What a host itself refuses, whatever for, is its own problem; on the way back no host may keep the others.
            if error.code not in UNREACHED and not error.status and not back:
                raise
            self._tell(f"{place.name} cannot be reached: {error.message}")
            state.hosts[place.name] = {"state": "unreached", "why": error.message}
            return False
        why = state.hosts.get(place.name, {}).get("why", "") if after != "switched" else ""
        state.hosts[place.name] = {"state": after, "why": why}
        return True

    def _reached(self, state: State) -> list[RotationHost]:
        return [place for place in self._places if state.hosts.get(place.name, _UNKNOWN)["state"] != "unreached"]

    def _unreached(self, state: State) -> str:
        return "; ".join(about["why"] for about in state.hosts.values() if about["state"] == "unreached")

    # --- small things ---------------------------------------------------------------------------------------------

    def _key(self, slots: Slots, wanted: str) -> str:
        key = slots.find(wanted)
        if key is None:
            raise WireError("key_source_changed", f"the key source has no key {wanted} any more")
        return key

    def _save(self, state: State, line: str, step: str = "") -> None:
        self._tell(line)
        state.step = step or state.step
        self._memory.save(state)

    def _save_step(self, state: State, step: str) -> None:
        self._save(state, step.replace("_", " "), step)
