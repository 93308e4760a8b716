"""The state machine: staged → switched → verified → drained → retired, with a way back from all but the last.

Each step checks the current state before a change and first records what it will change, so an interrupted step can
simply be repeated. Keys are looked up in their source by fingerprint when needed; the state has fingerprints only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

from farmhand.core.errors import WireError
from farmhand.core.keys import check_format, fingerprint
from farmhand.rotation.fleet import UNREACHED, RotationHost
from farmhand.rotation.provider import CONSOLE, Provider
from farmhand.rotation.sources import RotationSource, Slots
from farmhand.rotation.state import ROLLED_BACK, ROLLING_BACK, STEPS, Memory, State

#: Seconds between polls of a host for attempts on the old key, and of the API for the old key's state.
_POLL_S = 0.2
#: Maximum age in seconds of a proof that the new key works. An older proof is repeated before switching.
_PROOF_S = 60.0
T = TypeVar("T")


class Unfinished(WireError):
    """A step cannot be completed now, but not because of the new key: no rollback, `--resume` continues."""


@dataclass
class Machine:
    """One rotation. `tell` gets a line for people before each action; no line contains a key.

    `drain_s` is how long attempts on the old key may take to end; `retire_s` how long to wait until the API refuses the
    old key. `force` retires the old key even if a host that could not be reached may hold it.
    """

    source: RotationSource
    hosts: Sequence[RotationHost]
    provider: Provider
    memory: Memory
    tell: Callable[[str], None]
    drain_s: float = 3900.0
    retire_s: float = 30.0
    force: bool = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the lock of the rotation; close the connections to the hosts at the end. Raise WireError."""
        with self.memory.lock():
            try:
                yield
            finally:
                for host in self.hosts:
                    host.close()

    def status(self) -> dict[str, Any]:
        """Return the status as plain data, without any key."""
        state, current = self.memory.load(), fingerprint(self.source.read().current)
        age_days = (time.time() - self._first_seen(current)) / 86400
        about: dict[str, Any] = {"current": current, "age_days": round(age_days, 1), "step": "none"}
        if state is not None:
            names = ("step", "old", "new", "started_at", "updated_at", "why", "hosts")
            about |= {name: getattr(state, name) for name in names}
        about["unfinished"] = state is not None and state.unfinished
        return about

    def reached(self, step: str) -> bool:
        """Return whether the current rotation, or else the last one, has done `step`."""
        state = self.memory.load()
        return state is not None and state.reached(step)

    def unfinished(self) -> State | None:
        """Return the rotation in progress, or None."""
        state = self.memory.load()
        return state if state is not None and state.unfinished else None

    def check_idle(self) -> None:
        """Raise WireError `rotation_unfinished` if a rotation is in progress, since only one is possible."""
        if state := self.unfinished():
            message = f"a rotation from {state.old} to {state.new} is at {state.step}"
            raise WireError("rotation_unfinished", message, "finish it with --resume, or take it back with --abort")

    def would_stage(self, new: str) -> bool:
        """Return whether `stage` would begin a rotation, with the same checks but no changes. Raise WireError."""
        try:
            check_format(new)
        except ValueError as error:
            raise WireError("bad_key", f"the new key: {error}", "nothing was changed") from None
        state, slots = self.unfinished(), self.source.read()
        if state is not None and state.new == fingerprint(new):
            return False
        self.check_idle()
        if fingerprint(new) == fingerprint(slots.current):
            return False
        if slots.next is not None or (slots.previous is not None and not self.source.keeps_previous):
            message = "the key source has a NEXT or PREVIOUS key, and no rotation goes on"
            raise WireError("not_configured", message, "take that line out: it is left from something else")
        self.tell("asking the API whether it takes the new key")
        self.provider.alive(new)
        return True

    def stage(self, new: str) -> bool:
        """Stage a new key. Return False if it is current or already staged. Raise WireError, with nothing changed."""
        if not self.would_stage(new):
            return False
        slots, now = self.source.read(), time.time()
        state = State("staging", fingerprint(slots.current), fingerprint(new), now, now)
        state.hosts = {host.name: {"state": "unreached", "why": "not asked yet"} for host in self.hosts}
        self._first_seen(state.old)
        self.tell(f"rotating from {state.old} to {state.new}")
        self.memory.save(state)
        self.tell("putting the new key beside the old one")
        self.source.write(Slots(slots.current, next=new))
        self.memory.first_seen(state.new, now)
        self._save(state, "staged")
        return True

    def advance(self, target: str = "retired") -> bool:
        """Continue to `target`, one of STEPS. Return False if already there.

        Raise WireError `rotation_failed` after a rollback, Unfinished if it stopped on the way.
        """
        state = self.memory.load()
        if state is None or state.step == ROLLED_BACK:
            raise WireError("no_rotation", "no rotation goes on", "begin one: farmhand rotate")
        if state.step == ROLLING_BACK:
            self._fail(state, state.why)
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
                self._fail(state, str(error))
        return changed

    def abort(self) -> bool:
        """Return to the old key; False if nothing is in progress. Raise WireError if the old key is already dead.

        Where somebody has taken the old key out of its source, the new one stays, and the rotation is over.
        """
        state = self.unfinished()
        if state is None:
            return False
        if state.step in ("retiring", "dead"):
            old = self.source.read().find(state.old)
            if state.step == "dead" or (old is not None and self.provider.dead(old)):
                raise WireError("too_late", f"the old key {state.old} is dead already", "farmhand rotate --resume")
        slots = self.source.read()
        if fingerprint(slots.current) == state.new and slots.find(state.old) is None:
            lost = f"the old key {state.old} was not in its source any more"
            state.why = f"{lost}: {state.new} stays in use, and nobody has proven that the other one is dead"
            self._save(state, ROLLED_BACK)
        else:
            self._roll_back(state, state.why if state.step == ROLLING_BACK else "asked for")
        return True

    def _to_staged(self, state: State) -> None:
        """Finish staging after a crash: the new key was stored, or it never was."""
        if self.source.read().find(state.new) is None:
            raise WireError("key_missing", "the new key was not stored before a crash", "farmhand rotate again")
        self._save(state, "staged")

    def _to_switched(self, state: State) -> None:
        slots = self.source.read()
        current, new = fingerprint(slots.current), _key(slots, state.new)
        if current not in (state.old, state.new):
            raise WireError("key_source_changed", f"the key source has a third key now: {current}")
        if current == state.old and time.time() - state.updated_at > _PROOF_S:
            self.provider.alive(new)
        self._save(state, "switching")
        wanted = Slots(new, previous=slots.find(state.old))
        if slots != wanted:
            self.tell("replacing the key in its source")
            self.source.write(wanted)
        for host in self.hosts:
            self.tell(f"{host.name}: handing over the new key")
            self._at(state, host, partial(host.hand_over, new, state.old))
        if self.hosts and not self._reached(state):
            whys = "; ".join(about["why"] for about in state.hosts.values() if about["state"] == "unreached")
            raise WireError("unreachable", f"no farm host could be reached: {whys}")
        self._save(state, "switched")

    def _to_verified(self, state: State) -> None:
        new = _key(self.source.read(), state.new)
        task_id = f"rotate-{state.new}-{int(state.started_at * 1000):x}"
        answered = 0
        self._ensure_all(state, new)
        for host in self._reached(state):
            self.tell(f"{host.name}: running a canary task on the new key")
            why = self._at(state, host, partial(host.canary, task_id, new, state.new))
            if why is not None:
                answered += not why
                state.hosts[host.name] = {"state": "switched" if why else "verified", "why": why}
        if self.hosts and not answered:
            whys = "; ".join(f"{name}: {about['why']}" for name, about in state.hosts.items())
            raise WireError("canary_failed", f"no farm host could run a canary task: {whys}")
        self._save(state, "verified")

    def _to_drained(self, state: State) -> None:
        new = _key(self.source.read(), state.new)
        self.tell(f"waiting for attempts on {state.old} to end")
        deadline = time.monotonic() + self.drain_s
        while busy := self._ensure_all(state, new):
            if time.monotonic() > deadline:
                where = ", ".join(f"{count} at {name}" for name, count in busy.items())
                message = f"attempts on the old key {state.old} still run after {self.drain_s:g} s: {where}"
                raise Unfinished("still_running", message, "farmhand rotate --resume goes on waiting")
            time.sleep(_POLL_S)
        for host in self._reached(state):
            state.hosts[host.name]["state"] = "drained"
        self._save(state, "drained")

    def _to_retired(self, state: State) -> None:
        slots = self.source.read()
        old = slots.find(state.old)
        if not state.reached("dead"):
            if old is None:
                message = f"the old key {state.old} is not in its source any more, so nobody can prove that it is dead"
                raise Unfinished("key_missing", message, f"put it back, or disable it at {CONSOLE} and --abort")
            self._check_drained(state, _key(slots, state.new))
            self._save(state, "retiring")
            self._kill(state, old)
            self._save(state, "dead")
        for host in self._reached(state):
            self.tell(f"{host.name}: having the old key forgotten")
            self._at(state, host, partial(host.forget, state.old), after="drained")
        if old is not None:
            self.tell("removing the old key from its source")
            self.source.write(Slots(_key(slots, state.new)))
        self._save(state, "retired")

    def _check_drained(self, state: State, new: str) -> None:
        """Check that every host that may hold the old key was reached and runs nothing on it, unless `force` is set."""
        busy = self._ensure_all(state, new)
        for host in self._reached(state):
            state.hosts[host.name]["state"] = "switched" if host.name in busy else "drained"
        left = {name: about for name, about in state.hosts.items() if about["state"] != "drained"}
        if left and not self.force:
            where = "; ".join(f"{name} ({about['why'] or about['state']})" for name, about in left.items())
            message = f"the old key {state.old} is not retired: these hosts may hold it: {where}"
            resume = "farmhand rotate --resume"
            hint = f"bring them back and {resume}; {resume} --force does not wait for them"
            raise Unfinished("hosts_unreached", message, hint)

    def _kill(self, state: State, old: str) -> None:
        """Disable the old key and confirm with the API. Raise Unfinished with what remains to be done by hand."""
        self.tell("asking the API whether the old key is dead")
        if self.provider.dead(old):
            return
        why = "admin_key_source is not set"
        if self.provider.admin_key:
            self.tell("disabling the old key through the Admin API")
            try:
                self.provider.disable(old)
            except WireError as error:
                why = error.message
            else:
                why = f"the Admin API disabled it, and it still works after {self.retire_s:g} s"
        deadline = time.monotonic() + self.retire_s
        while not self.provider.dead(old):
            # Without the Admin API, disabling it by hand takes longer than this can wait.
            if time.monotonic() > deadline or not self.provider.admin_key:
                since = time.strftime("%Y-%m-%d", time.gmtime(self.memory.first_seen(state.old, time.time())))
                message = f"the old key {state.old} (seen here since {since}) still works: {why}"
                hint = f"disable it at {CONSOLE}, then farmhand rotate --resume proves that it is dead"
                raise Unfinished("retire_by_hand", message, hint)
            time.sleep(_POLL_S)

    def _fail(self, state: State, why: str) -> NoReturn:
        self._roll_back(state, why)
        message = f"rolled back to the old key {state.old}: {state.why}"
        hint = "the new key is in use nowhere; correct that and rotate again"
        raise WireError("rotation_failed", message, hint) from None

    def _roll_back(self, state: State, why: str) -> None:
        """Restore the old key, in the source and on every reachable host."""
        slots = self.source.read()
        old, current = slots.find(state.old), slots.current
        if fingerprint(current) == state.new:
            if old is None:
                # Before anything is noted: the way on stays open.
                message = f"{why}; and the old key {state.old} is not in its source any more: there is no way back"
                raise WireError("key_missing", message, "put it there again, or --abort keeps the new key")
            current = old
        state.why = why
        self._save(state, ROLLING_BACK, f"going back to {state.old}: {why}")
        # Otherwise the current key is the old one, or a third key stored by somebody else, which is kept.
        if slots != Slots(current):
            self.source.write(Slots(current))
        if old is not None:
            for host in self.hosts:
                self.tell(f"{host.name}: handing over the old key")
                self._at(state, host, partial(host.take_back, old, state.new), "back", back=True)
        self._save(state, ROLLED_BACK)

    def _ensure_all(self, state: State, new: str) -> dict[str, int]:
        """Hand the new key to every reachable host. Return running attempts on the old one. Raise `key_refused`."""
        busy: dict[str, int] = {}
        for host in self.hosts:
            before = state.hosts.get(host.name, {}).get("state", "unreached")
            after = "switched" if before == "unreached" else before
            if running := self._at(state, host, partial(host.ensure, new, state.new, state.old), after=after):
                busy[host.name] = running
        return busy

    def _at(
        self, state: State, host: RotationHost, do: Callable[[], T], after: str = "switched", back: bool = False
    ) -> T | None:
        """Call `do` and record whether the host was reached. Return the result; None if it was not reached."""
        try:
            answer = do()
        except WireError as error:
            # An error answer of a host itself is that host's problem. During a rollback no host may block the others.
            if error.code not in UNREACHED and not error.status and not back:
                raise
            self.tell(f"{host.name} cannot be reached: {error.message}")
            state.hosts[host.name] = {"state": "unreached", "why": error.message}
            return None
        why = state.hosts.get(host.name, {}).get("why", "") if after != "switched" else ""
        state.hosts[host.name] = {"state": after, "why": why}
        return answer

    def _reached(self, state: State) -> list[RotationHost]:
        """Return the hosts reached so far. A host added to hosts.json during the rotation may not have been."""
        reached = {name for name, about in state.hosts.items() if about["state"] != "unreached"}
        return [host for host in self.hosts if host.name in reached]

    def _first_seen(self, current: str) -> float:
        """Return the earliest known time of the key in use, and remember it if it is new."""
        now = time.time()
        return self.memory.first_seen(current, min(now, self.source.since() or now))

    def _save(self, state: State, step: str, line: str = "") -> None:
        self.tell(line or step.replace("_", " "))
        state.step = step
        self.memory.save(state)


def _key(slots: Slots, wanted: str) -> str:
    key = slots.find(wanted)
    if key is None:
        raise WireError("key_source_changed", f"the key source has no key {wanted} any more")
    return key
