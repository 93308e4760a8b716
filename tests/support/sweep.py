"""The sweep for the canary key: what the containers of a place show of it while they run.

The processes of all containers are in this machine's /proc. The key is looked for there and in what the engine tells of
a container; it is never an argument of a program that looks.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

_CONTAINER = re.compile(r"\b[0-9a-f]{64}\b")
_EVERY_S = 0.1


class Shown(NamedTuple):
    """Where the key was seen: the container (agent, worker, pause; "" for none), the kind of place, the program."""

    container: str
    where: str
    program: str


class CanarySweep:
    """`with CanarySweep(key, label) as sweep:` looks until the end of the block, at containers with that label.

    `shown` is where the key was, `looked` the (container, program, uid) of every process that it has read.
    """

    def __init__(self, key: str, label: str) -> None:
        import docker

        self.shown: set[Shown] = set()
        self.looked: set[tuple[str, str, int]] = set()
        self._key, self._label = key.encode(), label
        self._engine = docker.from_env()
        self._names: dict[str, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(30)
        self._engine.close()

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            for container in self._engine.containers.list(filters={"label": self._label}, ignore_removed=True):
                if container.id not in self._names:
                    self._names[container.id] = container.labels.get("farmhand.container", "pause")
                    self._see(self._names[container.id], "inspect", "", repr(container.attrs).encode())
            for directory in Path("/proc").glob("[0-9]*"):
                self._process(directory)

    def _process(self, directory: Path) -> None:
        try:
            found = _CONTAINER.findall((directory / "cgroup").read_text())
            if found and found[0] not in self._names:
                return  # a new one, which is listed the next time
            name = self._names[found[0]] if found else ""
            argv = (directory / "cmdline").read_bytes()
            words = argv.decode("utf-8", "replace").split("\0")
            program = Path(words[0]).name
            if program.startswith("python"):
                program = next((word for word in words if word.startswith("farmhand.")), program)
            for where, text in (("argv", argv), ("environ", (directory / "environ").read_bytes())):
                self._see(name, where, program, text)
            if name:
                self.looked.add((name, program, directory.stat().st_uid))
        except OSError:
            return  # it has just ended

    def _see(self, container: str, where: str, program: str, text: bytes) -> None:
        if self._key in text:
            self.shown.add(Shown(container, where, program))


def holding(key: str, things: dict[str, Any]) -> list[str]:
    """The names of the things that have the key in them, as bytes or as what they print."""
    texts = {name: thing if isinstance(thing, bytes) else repr(thing).encode() for name, thing in things.items()}
    return sorted(name for name, text in texts.items() if key.encode() in text)
