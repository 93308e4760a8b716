"""The state machine: staged → switched → verified → drained → retired, and back to the old key from all but the last.

Keys are looked up in their source by fingerprint whenever they are needed; the state has fingerprints only.
"""

from __future__ import annotations

import time
from typing import Any

from ..core.errors import WireError
from ..core.keys import check_format, fingerprint
from .sources import Slots
from .state import ROLLED_BACK, ROLLING_BACK, STEPS, State
from .steps import Steps, Unfinished


class Machine(Steps):
    """One rotation, from what is asked for to what is done."""

    # --- what can be asked for ------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Where things stand, as plain data. It has no key."""
        state, slots = self._memory.load(), self._source.read()
        current, now = fingerprint(slots.current), time.time()
        seen = self._memory.first_seen(current, min(now, self._source.since() or now))
        about: dict[str, Any] = {"current": current, "age_days": round((now - seen) / 86400, 1), "step": "none"}
        if state is not None:
            names = ("step", "old", "new", "started_at", "updated_at", "why", "hosts")
            about |= {name: getattr(state, name) for name in names}
        about["unfinished"] = state is not None and state.unfinished
        return about

    def reached(self, step: str) -> bool:
        """Whether the rotation that goes on, or the last one, has done `step`."""
        state = self._memory.load()
        return state is not None and state.reached(step)

    def check_idle(self) -> None:
        """Raise WireError `rotation_unfinished` if a rotation goes on: there is no room for another."""
        state = self._memory.load()
        if state is not None and state.unfinished:
            raise _busy(state)

    def would_stage(self, new: str) -> bool:
        """Whether `stage` would begin a rotation: the same checks, and nothing is changed. Raises WireError."""
        new = _checked(new)
        state, slots = self._memory.load(), self._source.read()
        if state is not None and state.unfinished:
            if state.new == fingerprint(new):
                return False
            raise _busy(state)
        if fingerprint(new) == fingerprint(slots.current):
            return False
        if slots.next is not None or slots.previous is not None:
            hint = "take that line out: it is left from something else"
            raise WireError(
                "not_configured", "the key source has a NEXT or PREVIOUS key, and no rotation goes on", hint
            )
        self._tell("asking the API whether it takes the new key")
        self._provider.alive(new)
        return True

    def stage(self, new: str) -> bool:
        """Take a new key in. False: it is the current one or staged already. Raises WireError, with nothing changed."""
        if not self.would_stage(new):
            return False
        slots, now = self._source.read(), time.time()
        state = State("staging", fingerprint(slots.current), fingerprint(new), now, now)
        state.hosts = {place.name: {"state": "unreached", "why": "not asked yet"} for place in self._places}
        self._memory.first_seen(state.old, min(now, self._source.since() or now))
        self._save(state, f"rotating from {state.old} to {state.new}")
        self._tell("putting the new key beside the old one")
        self._source.write(Slots(slots.current, next=new))
        self._memory.first_seen(state.new, now)
        self._save_step(state, "staged")
        return True

    def advance(self, target: str = "retired") -> bool:
        """Go on to `target`, one of STEPS. False: there already. Raises WireError: `rotation_failed` if it had to be
        rolled back, Unfinished if it stopped on the way.
        """
        state = self._memory.load()
        if state is None or state.step == ROLLED_BACK:
            raise WireError("no_rotation", "no rotation goes on", "begin one: farmhand rotate")
        if state.step == ROLLING_BACK:
            self._roll_back(state, state.why)
            raise _failed(state)
        changed = False
        for step in STEPS[: STEPS.index(target) + 1]:
            if state.reached(step):
                continue
            changed = True
            try:
                getattr(self, f"_to_{step}")(state)
            except Unfinished:
                raise
            except WireError as error:
                if state.step in ("retiring", "dead"):
                    raise Unfinished(error.code, error.message, error.hint) from None
                self._roll_back(state, str(error))
                raise _failed(state) from None
        return changed

    def abort(self) -> bool:
        """Go back to the old key. False: nothing goes on. Raises WireError if the old key is dead already."""
        state = self._memory.load()
        if state is None or not state.unfinished:
            return False
        if state.step in ("retiring", "dead"):
            old = self._source.read().find(state.old)
            if state.step == "dead" or (old is not None and self._provider.dead(old)):
                raise WireError("too_late", f"the old key {state.old} is dead already", "farmhand rotate --resume")
        self._roll_back(state, state.why if state.step == ROLLING_BACK else "asked for")
        return True


def _checked(key: str) -> str:
    try:
        return check_format(key)
    except ValueError as error:
        raise WireError("bad_key", f"the new key: {error}", "nothing was changed") from None


def _busy(state: State) -> WireError:
    message = f"a rotation from {state.old} to {state.new} is at {state.step}"
    return WireError("rotation_unfinished", message, "finish it with --resume, or take it back with --abort")


def _failed(state: State) -> WireError:
    message = f"rolled back to the old key {state.old}: {state.why}"
    return WireError("rotation_failed", message, "the new key is in use nowhere; correct that and rotate again")
