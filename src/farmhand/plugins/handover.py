"""How an action plugin brings the API key to the agent: into the stdin of `jada-agent bridge` on the host.

So it is in no argument vector, no environment, no file, no log and no artifact. Standard library only, as settings is.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable
from typing import Any

from farmhand.core import settings
from farmhand.core.child import scrubbed
from farmhand.core.errors import WireError
from farmhand.core.keys import holds_key, redact
from farmhand.core.keysource import read_key
from farmhand.wire.message import key_request, parse_response

#: Runs a command line on the host with this stdin: `rc`, `stdout` and `stderr`. ActionBase._low_level_execute_command.
Execute = Callable[..., dict[str, Any]]
#: Statuses of a shell that does not find the program, or may not run it.
NOT_FOUND = (126, 127)
#: Keys that were taken out of this process's environment, by their sources: a loop asks for one again.
_FROM_ENVIRONMENT: dict[str, str] = {}


def operators_key(source: str) -> str:
    """The key from `source`; if that is empty, from the operator's setting. Raises WireError, FarmhandError."""
    source = source or settings.load().key_source
    key = _FROM_ENVIRONMENT.get(source) or read_key(source)
    artifacts = os.environ.get("AWX_ISOLATED_DATA_DIR")
    if artifacts and holds_key(dict(os.environ), key):
        # Too late to prevent it: the least is that it does not go unnoticed.
        message = f"ansible-runner has written its environment, and the API key with it, to {artifacts}/command"
        raise WireError("key_in_artifacts", message, "delete that, unset the variable, use file: or another source")
    if source.startswith("env:"):
        # This process starts ssh, which inherits its environment and may stay as a shared connection.
        _FROM_ENVIRONMENT[source] = key
        for name in os.environ.keys() - scrubbed(settings=True):
            del os.environ[name]
    return key


def check_host_keys(connection: Any) -> None:
    """Have Ansible's `connection` check the host's key, as the API key goes there.

    ansible-runner switches that off where nothing says otherwise, and an operator may have for other work.
    """
    with contextlib.suppress(KeyError):  # it has no such option: it is not by ssh
        if connection.get_option("host_key_checking") is False:
            connection.set_option("host_key_checking", True)


def hand_over(execute: Execute, key: str, host: str, socket: str) -> None:
    """`PUT /v1/key` through the bridge on `host`, to the usual socket if `socket` is empty. Raises WireError."""
    command = ["jada-agent", "bridge"]
    if socket:
        command += ["--socket", socket]
    done = execute(shlex.join(command), in_data=key_request(key))
    # A chatty login may say something first.
    _, start, rest = done["stdout"].partition("HTTP/1.1 ")
    if start:
        parse_response(f"{start}{rest}".encode("utf-8", "surrogateescape"), host)
        return
    if done["rc"] in NOT_FOUND:
        raise WireError("agent_missing", f"{host}: jada-agent is not installed there", "run site.yml")
    said = " ".join((done["stderr"] or done["stdout"] or "no reason given").split()[-40:])
    raise WireError("agent_down", redact(f"{host}: the key could not be handed over: {said}"))
