"""ansible-runner, ready to run a play of ours on every host of a pattern.

What ansible-runner writes to disk (the command with its environment, events, facts) goes into a private temporary
directory that is removed afterwards, and holds no key: the environment is stripped of credentials, and the action
plugin gets the key from a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible_runner

from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.keys import redact
from farmhand.places.ansible_environment import ansible_environment

#: The variables by which ansible-runner gets the events of the run.
_RUNNERS = (
    "ANSIBLE_CALLBACK_PLUGINS",
    "ANSIBLE_STDOUT_CALLBACK",
    "ANSIBLE_RETRY_FILES_ENABLED",
    "AWX_ISOLATED_DATA_DIR",
    "RUNNER_OMIT_EVENTS",
    "RUNNER_ONLY_FAILED_EVENTS",
)
#: ansible-playbook's own time for a host, so that an unreachable one does not hold up the others. Seconds.
_CONNECT_TIMEOUT = "10"


def prepare(
    playbook: Path,
    private: Path,
    project_dir: Path,
    inventory: str | None,
    *,
    settings: dict[str, str] | None = None,
    on_event: Callable[[dict[str, Any]], bool] | None = None,
) -> Any:
    """ansible-runner, ready to run in the checkout, with an environment that holds no credential.

    `settings` are further variables of the environment. `on_event` gets each event and says whether it is kept.
    """
    arguments: dict[str, Any] = {"inventory": inventory} if inventory is not None else {}
    if on_event is not None:
        arguments["event_handler"] = on_event
    own = {"ANSIBLE_TIMEOUT": _CONNECT_TIMEOUT, **(settings or {})}
    # ansible-runner starts from our whole environment and adds to what these already say.
    empty = dict.fromkeys(("ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_STDOUT_CALLBACK", "AWX_LIB_DIRECTORY"), "")
    runner = ansible_runner.interface.init_runner(
        private_data_dir=str(private),
        project_dir=str(project_dir),
        playbook=str(playbook),
        envvars=empty,
        quiet=True,
        **arguments,
    )
    made: dict[str, str] = runner.config.env
    runner.config.env = ansible_environment(project_dir) | {name: made[name] for name in _RUNNERS} | own
    return runner


def nothing_ran(runner: Any, hosts: str) -> FarmhandError:
    """Why no host had a task: as a rule the inventory knows none, or the playbook could not start."""
    said = redact(runner.stdout.read()[-20_000:])
    if "no hosts matched" in said or "did not match any hosts" in said:
        return NotConfigured(f"no host of the inventory matches {hosts!r}", hint="see: ansible-inventory --graph")
    return NotConfigured(f"ansible-playbook ended with {runner.rc} before any task: {' '.join(said.split())[-300:]}")
