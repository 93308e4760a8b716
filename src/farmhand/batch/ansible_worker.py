"""The run of a batch through ansible-runner: one play over the hosts, each host looping over its turns by itself.

`strategy: free` lets each host go at its own pace; `until` gives an event of the runner for every turn, which is what
the progress display is fed by.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farmhand.batch.coordinator import Coordinator
from farmhand.batch.worker_socket import WorkerServer
from farmhand.core.errors import FarmhandError
from farmhand.core.scratch import private_directory

#: How often a run may end before its time without any host having answered in it.
_MOST_ENDS = 3
#: How often somebody looks at the clock. Seconds.
_TICK_S = 0.2
_SETTINGS = {
    "ANSIBLE_FORKS": "500",
    "ANSIBLE_STRATEGY": "free",
    "ANSIBLE_GATHERING": "explicit",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_LOCALHOST_WARNING": "False",
    "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
    "ANSIBLE_NOCOLOR": "True",
    "ANSIBLE_LOG_PATH": os.devnull,
}
Standing = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Where the hosts are: the checkout, an inventory if not the checkout's, a pattern of hosts."""

    project_dir: Path
    inventory: str | None = None
    pattern: str = "farm"


def playbook(pattern: str, desk: Path, batch: str) -> str:
    """The play, in JSON, which YAML reads."""
    step = {
        "name": f"Play the turns of the batch {batch}",
        "farmhand_task": {
            "desk": str(desk),
            "socket": "{{ farmhand_socket | default('/run/jada-agent/agent.sock') }}",
        },
        "register": "turn",
        "until": "not (turn.more | default(false))",
        "retries": 1_000_000_000,
        "delay": 0,
    }
    return json.dumps(
        [{"name": "Farm a batch out", "hosts": pattern, "strategy": "free", "gather_facts": False, "tasks": [step]}]
    )


class AnsibleWorker:
    """Runs until the coordinator says that it is over. `kill` ends what runs, at once."""

    def __init__(self, coordinator: Coordinator, farm: Farm, on_standing: Callable[[Standing], None]) -> None:
        self._coordinator = coordinator
        self._farm = farm
        self._on_standing = on_standing
        self._desk: WorkerServer | None = None
        self._ended = threading.Event()

    def __call__(self, on_tick: Callable[[], None]) -> None:
        """Run to the end; `on_tick` is called a few times a second."""
        with private_directory() as private, WorkerServer(self._coordinator, private) as self._desk:
            (private / "play.yml").write_text(
                playbook(self._farm.pattern, self._desk.path, self._coordinator.book.batch), "utf-8"
            )
            thread = threading.Thread(target=self._play, args=(private,), name="ansible-runner", daemon=True)
            thread.start()
            while not self._coordinator.over and thread.is_alive():
                self._coordinator.wait(_TICK_S)
                self._coordinator.tick()
                on_tick()
            # The plays have nothing more to say; what they still tidy up is not worth waiting for.
            thread.join(timeout=0.05)
            if thread.is_alive():
                self.kill()
                thread.join(timeout=5)

    def kill(self) -> None:
        """End Ansible's processes: the hosts' own ones, and the one that started them."""
        if self._desk is None:
            return
        # A copy: connections end meanwhile.
        pids = tuple(self._desk.pids)
        for pid in {*pids, *map(_parent, pids)}:
            if pid > 1 and pid != os.getpid():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _play(self, private: Path) -> None:
        try:
            ends = 0
            while not self._coordinator.over:
                heard = self._heard()
                runner = self._once(private)
                if self._coordinator.over:
                    return
                ends = 0 if self._heard() > heard else ends + 1
                if not self._coordinator.hosts or ends >= _MOST_ENDS:
                    from farmhand.places.runner import nothing_ran

                    self._coordinator.end(nothing_ran(runner, self._farm.pattern))
                    return
                time.sleep(min(0.5 * 2**ends, 5))
        except Exception as error:
            self._coordinator.failed(error)

    def _heard(self) -> float:
        return max((host.heard_at for host in self._coordinator.hosts.values() if host.ever), default=0.0)

    def _once(self, private: Path) -> Any:
        from farmhand.places.runner import prepare

        runner = prepare(
            private / "play.yml",
            private,
            self._farm.project_dir,
            self._farm.inventory,
            # What it leaves behind when it is ended goes with the directory.
            settings={**_SETTINGS, "ANSIBLE_LOCAL_TEMP": str(private / "tmp")},
            on_event=self._event,
        )
        runner.run()
        return runner

    def _event(self, event: dict[str, Any]) -> bool:
        """Feed the progress display; nothing is kept."""
        result = (event.get("event_data") or {}).get("res") or {}
        standing = result.get("batch") if isinstance(result, dict) else None
        if isinstance(standing, dict):
            self._on_standing(standing)
        return False


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


__all__ = ["AnsibleWorker", "Farm", "FarmhandError", "playbook"]
