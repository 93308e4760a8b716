"""The farm: the hosts of an inventory, driven by ansible-runner in one play, in which each host loops over its turns.

`strategy: free` lets each host go at its own pace. The action plugin of farmhand_task fetches an order from a local
socket, runs it with `jada-agent turn` on the host, and returns the answer. What ansible-runner writes to disk, in a
private temporary directory, has no key: the environment is stripped of credentials, and orders go through the socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from farmhand.core import files
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.keys import redact
from farmhand.core.scratch import private_directory
from farmhand.places import exchange
from farmhand.places.ansible_environment import ansible_environment
from farmhand.places.base import Dispatcher, PlaceSettings
from farmhand.wire.turn import MAX_ANSWER_BYTES

#: How many runs in a row may end early without an answer from any host.
_MOST_ENDS = 3
#: Seconds until a connection is accepted again after one could not be.
_AGAIN_S = 0.1
#: The variables by which ansible-runner gets the events of the run.
_RUNNERS = (
    "ANSIBLE_CALLBACK_PLUGINS",
    "ANSIBLE_STDOUT_CALLBACK",
    "ANSIBLE_RETRY_FILES_ENABLED",
    "AWX_ISOLATED_DATA_DIR",
    "RUNNER_OMIT_EVENTS",
    "RUNNER_ONLY_FAILED_EVENTS",
)
_SETTINGS = {
    # ansible-playbook's own time limit for a host in seconds, so that an unreachable one does not delay the others.
    "ANSIBLE_TIMEOUT": "10",
    "ANSIBLE_FORKS": "500",
    "ANSIBLE_STRATEGY": "free",
    "ANSIBLE_GATHERING": "explicit",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_LOCALHOST_WARNING": "False",
    "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
    "ANSIBLE_NOCOLOR": "True",
    "ANSIBLE_LOG_PATH": os.devnull,
}


class FarmPlace:
    """The hosts that `settings` select, under their names in the inventory."""

    name = "farm"

    def __init__(self, settings: PlaceSettings) -> None:
        self._settings = settings
        self._pids: set[int] = set()
        self._seen = False
        self._answers = 0

    def run(self, batch: Dispatcher) -> None:
        """Run the batch; see Place. Raise NotConfigured if no host had a turn."""
        with private_directory() as private, serving(private / "orders.sock", partial(self._serve, batch)):
            play = private / "play.yml"
            play.write_text(playbook(self._settings.pattern, private / "orders.sock"), "utf-8")
            ends = 0
            while not batch.over:
                before = self._answers
                runner = prepare(play, private, self._settings)
                runner.run()
                if batch.over:
                    return
                ends = 0 if self._answers > before else ends + 1
                if not self._seen or ends >= _MOST_ENDS:
                    raise nothing_ran(runner, self._settings.pattern)
                time.sleep(min(0.5 * 2**ends, 5))

    def kill(self) -> None:
        """Kill Ansible's processes: those of the hosts, and their parent."""
        # A copy, because connections end meanwhile.
        pids = tuple(self._pids)
        for pid in {*pids, *map(_parent, pids)}:
            if pid > 1 and pid != os.getpid():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _serve(self, batch: Dispatcher, peer: socket.socket, pid: int) -> None:
        """Serve all turns of one host, whose action plugin is process `pid`."""
        self._pids.add(pid)
        worker = ""
        try:
            with Connection(peer.detach()) as plugin:
                while True:
                    greeting = json.loads(plugin.recv_bytes(64 * 1024))
                    worker = str(greeting["host"])
                    self._seen = True
                    order = batch.take(worker, int(greeting["hosts"]))
                    plugin.send_bytes(b"" if order is None else exchange.encode(order))
                    if order is None:
                        # Until its process has ended, `kill` knows it.
                        continue
                    reply = exchange.decode(plugin.recv_bytes(MAX_ANSWER_BYTES + 1), worker)
                    self._answers += reply.error is None
                    batch.give(worker, reply)
        except (OSError, EOFError, ValueError):
            pass  # the plugin has ended
        finally:
            self._pids.discard(pid)
            if worker:
                batch.left(worker, "its Ansible process has ended")


@contextlib.contextmanager
def serving(path: Path, handle: Callable[[socket.socket, int], None]) -> Iterator[None]:
    """Serve processes of this user: `handle` gets each connection, which it closes, and its pid, in its own thread."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotConfigured(f"no socket can be made at {path}: {reason}", hint="set TMPDIR to a short path") from None
    finally:
        os.umask(before)
    listener.listen(64)
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                # Shut down; or out of file descriptors or memory, which passes.
                ended.wait(_AGAIN_S)
                continue
            who = files.peer(peer)
            if who.uid == os.geteuid():
                threading.Thread(target=handle, args=(peer, who.pid), name=f"orders {who.pid}", daemon=True).start()
            else:
                peer.close()

    thread = threading.Thread(target=accept, name=path.name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        listener.close()
        thread.join(timeout=5)
        path.unlink(missing_ok=True)


def playbook(pattern: str, orders: Path) -> str:
    """Return the play as JSON, which is also YAML."""
    socket_on_host = "{{ farmhand_socket | default('/run/jada-agent/agent.sock') }}"
    step = {
        "name": "Play the turns of the batch",
        "farmhand_task": {"orders": str(orders), "socket": socket_on_host},
        "register": "turn",
        "until": "not (turn.more | default(false))",
        "retries": 1_000_000_000,
        "delay": 0,
    }
    play = {"name": "Farm a batch out", "hosts": pattern, "strategy": "free", "gather_facts": False, "tasks": [step]}
    return json.dumps([play])


def prepare(play: Path, private: Path, settings: PlaceSettings) -> Any:
    """Return an ansible-runner that is ready to run in the checkout, with an environment without credentials."""
    try:
        import ansible_runner  # not at the top: other commands do not need it
    except ModuleNotFoundError:
        hint = "pip install ansible-runner"
        raise NotConfigured("the Python package ansible-runner is not installed", hint=hint) from None

    arguments: dict[str, Any] = {"inventory": settings.inventory} if settings.inventory is not None else {}
    # ansible-runner starts from our whole environment and adds to the values of these.
    empty = dict.fromkeys(("ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_STDOUT_CALLBACK", "AWX_LIB_DIRECTORY"), "")
    runner = ansible_runner.interface.init_runner(
        private_data_dir=str(private),
        project_dir=str(settings.project_dir),
        playbook=str(play),
        envvars=empty,
        quiet=True,
        event_handler=lambda _event: False,  # keep no event
        **arguments,
    )
    made: dict[str, str] = runner.config.env
    # Files that a killed Ansible leaves are removed with the directory.
    own = _SETTINGS | {"ANSIBLE_LOCAL_TEMP": str(private / "tmp")}
    runner.config.env = ansible_environment(settings.project_dir) | {name: made[name] for name in _RUNNERS} | own
    return runner


def nothing_ran(runner: Any, hosts: str) -> FarmhandError:
    """Return why no host had a task: usually the inventory has no host, or the playbook could not start."""
    said = redact(runner.stdout.read()[-20_000:])
    if "no hosts matched" in said or "did not match any hosts" in said:
        return NotConfigured(f"no host of the inventory matches {hosts!r}", hint="see: ansible-inventory --graph")
    return NotConfigured(f"ansible-playbook ended with {runner.rc} before any task: {' '.join(said.split())[-300:]}")


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
