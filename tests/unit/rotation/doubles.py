"""A farm and an API in memory, and a key source and a memory on the disk, with a crash wherever one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from farmhand.core.errors import WireError
from farmhand.core.keys import fingerprint
from farmhand.rotation.fleet import RotationHost
from farmhand.rotation.machine import Machine
from farmhand.rotation.provider import Provider
from farmhand.rotation.sources import FileSource, Slots
from farmhand.rotation.state import Memory, State
from farmhand.wire.transport import UnixTransport

OLD = "sk-ant-test-old-000000000001"
NEW = "sk-ant-test-new-000000000002"
OLD_PRINT, NEW_PRINT = fingerprint(OLD), fingerprint(NEW)


class Crash(BaseException):
    """The process is killed: nothing catches this."""


class Clock:
    """Counts what is done to the world; crashes before or after the one that is asked for."""

    def __init__(self) -> None:
        self.done = 0
        self.crash_at: float | None = None

    def effect(self, do: Callable[[], None]) -> None:
        self.done += 1
        if self.crash_at == self.done - 0.5:
            raise Crash
        do()
        if self.crash_at == self.done:
            raise Crash


class World:
    """What is outside of the process, and stays when it dies."""

    def __init__(self, directory: Path, *, admin: bool = True, hosts: tuple[str, ...] = ("farm1", "farm2")) -> None:
        self.clock = Clock()
        self.path = directory / "repos.env"
        self.path.write_text(f"A=1\nexport ANTHROPIC_API_KEY='{OLD}' # mine\r\nB=2")
        self.path.chmod(0o600)
        self.before = self.path.read_bytes()
        self.alive = {OLD, NEW}
        self.admin = admin
        self.keys: dict[str, str] = dict.fromkeys(hosts, OLD)
        self.held: dict[str, set[str]] = {name: {OLD} for name in hosts}
        self.down: set[str] = set()
        self.canaries: list[tuple[str, str]] = []
        self.memory = directory / "memory"
        self.log: list[str] = []

    def machine(self, **more: Any) -> Machine:
        hosts = [_Host(self, name) for name in self.keys]
        memory = _Memory(str(self.memory))
        memory.clock = self.clock
        source = _Source(str(self.path), "ANTHROPIC_API_KEY")
        source.clock = self.clock
        return Machine(source, hosts, _Provider(self), memory, tell=self.log.append, retire_s=0.0, **more)


class _Source(FileSource):
    clock: Clock

    def write(self, slots: Slots) -> None:
        self.clock.effect(lambda: FileSource.write(self, slots))


class _Memory(Memory):
    clock: Clock

    def save(self, state: State) -> None:
        self.clock.effect(lambda: Memory.save(self, state))


class _Provider(Provider):
    def __init__(self, world: World) -> None:
        super().__init__("http://127.0.0.1:1", "sk-ant-admin01-x" if world.admin else "")
        self._world = world

    def alive(self, key: str) -> None:
        if key not in self._world.alive:
            raise WireError("dead_key", "the API does not know the new key")

    def dead(self, key: str) -> bool:
        return key not in self._world.alive

    def disable(self, key: str) -> None:
        self._world.clock.effect(lambda: self._world.alive.discard(key))


class _Host(RotationHost):
    def __init__(self, world: World, name: str) -> None:
        super().__init__(name, UnixTransport)
        self._world = world

    def _reach(self) -> None:
        if self.name in self._world.down:
            raise WireError("unreachable", f"{self.name}: no route")

    def _set(self, key: str) -> None:
        self._world.keys[self.name] = key
        self._world.held[self.name].add(key)

    def hand_over(self, key: str, supersedes: str) -> None:
        self._reach()
        self._world.clock.effect(lambda: self._set(key))

    def ensure(self, key: str, fingerprint: str, supersedes: str) -> int:
        self._reach()
        self._set(key)
        return 0

    def canary(self, task_id: str, key: str, fingerprint: str) -> str:
        self._reach()
        self._world.clock.effect(lambda: self._world.canaries.append((self.name, task_id)))
        if key not in self._world.alive:
            raise WireError("canary_failed", f"{self.name}: the canary task failed")
        return ""

    def forget(self, fingerprint_: str) -> None:
        self._reach()
        held = self._world.held[self.name]
        self._world.clock.effect(lambda: held.difference_update({k for k in held if fingerprint(k) == fingerprint_}))
