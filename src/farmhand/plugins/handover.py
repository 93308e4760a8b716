"""The action plugins' access to the agent of a host: `jada-agent` there, through Ansible's connection and its stdin.

So the API key is in no argument vector, no environment, no file, no log and no artifact.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable
from typing import Any

from farmhand.core import settings
from farmhand.core.child import scrubbed
from farmhand.core.errors import WireError
from farmhand.core.keys import harmless, holds_key, redact
from farmhand.core.keysource import read_key
from farmhand.wire import message, schema, task_call
from farmhand.wire.transport import AGENT_SOCKET

#: ActionBase._low_level_execute_command: runs a command line on the host with the given stdin and returns `rc`,
#: `stdout` and `stderr`.
Execute = Callable[..., dict[str, Any]]
#: A shell's exit statuses if it cannot find or may not run the program.
NOT_FOUND = (126, 127)
#: Keys removed from this process's environment, by source: a loop requests the same key again.
_FROM_ENVIRONMENT: dict[str, str] = {}


def operators_key(source: str) -> str:
    """Return the key from `source`, or from the operator's setting if it is empty. Raise WireError, FarmhandError."""
    source = source or settings.load().key_source
    key = _FROM_ENVIRONMENT.get(source) or read_key(source)
    artifacts = os.environ.get("AWX_ISOLATED_DATA_DIR")
    if artifacts and holds_key(dict(os.environ), key):
        # Too late to prevent it, but it must be reported.
        message = f"ansible-runner has written its environment, and the API key with it, to {artifacts}/command"
        raise WireError("key_in_artifacts", message, "delete that, unset the variable, use file: or another source")
    if source.startswith("env:"):
        # This process starts ssh, which inherits its environment and may stay as a shared connection.
        _FROM_ENVIRONMENT[source] = key
        for name in os.environ.keys() - scrubbed(settings=True):
            del os.environ[name]
    return key


def check_host_keys(connection: Any) -> None:
    """Make Ansible's `connection` check the host's key, because the API key is sent there.

    ansible-runner disables the check by default, and an operator may have disabled it for other work.
    """
    with contextlib.suppress(KeyError):  # the connection has no such option: it does not use ssh
        if connection.get_option("host_key_checking") is False:
            connection.set_option("host_key_checking", True)


class HostAgent:
    """The agent of one host, called through Ansible's connection: each call starts `jada-agent` there once."""

    def __init__(self, execute: Execute, host: str, socket: str = "") -> None:
        self._execute = execute
        self.host = host
        #: The default socket is not passed on: only a plain `jada-agent bridge` starts without the venv.
        self._socket = "" if socket == AGENT_SOCKET else socket

    def status(self) -> dict[str, Any]:
        """Return `GET /v1/status`, without secrets. Raise WireError."""
        found: dict[str, Any] = harmless(self._ask("GET", "/v1/status", schema.StatusAnswer))
        return found

    def drain(self, mode: str) -> dict[str, Any]:
        """Send `PUT /v1/drain`. Raise WireError."""
        return self._ask("PUT", "/v1/drain", schema.StatusAnswer, body=json.dumps({"mode": mode}).encode())

    def put_key(self, key: str) -> dict[str, Any]:
        """Send `PUT /v1/key`. Raise WireError."""
        return self._ask("PUT", "/v1/key", schema.KeyAnswer, key=key)

    def run_task(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of `jada-agent task` to `call`. Raise WireError."""
        done = self._run("task", json.dumps(call).encode())
        answer = task_call.parse(done["stdout"], self.host)
        if answer is None:
            raise self._failure(done)
        return answer

    def _ask(self, method: str, path: str, kind: Any, **more: Any) -> dict[str, Any]:
        done = self._run("bridge", message.whole_request(method, path, **more))
        # The login shell may print something first.
        _, start, rest = done["stdout"].partition("HTTP/1.1 ")
        if not start:
            raise self._failure(done)
        return message.parse_response(f"{start}{rest}".encode("utf-8", "surrogateescape"), self.host, kind)

    def _run(self, verb: str, data: bytes) -> dict[str, Any]:
        command = ["jada-agent", verb, *(["--socket", self._socket] if self._socket else [])]
        return self._execute(shlex.join(command), in_data=data)

    def _failure(self, done: dict[str, Any]) -> WireError:
        """Return the error for output without an answer."""
        if done["rc"] in NOT_FOUND:
            return WireError("agent_missing", f"{self.host}: jada-agent is not installed there", "run site.yml")
        said = redact(" ".join((done["stderr"] or done["stdout"] or "no reason given").split()[-40:]))
        if "invalid choice" in said:
            return WireError("agent_too_old", f"{self.host}: its agent is too old for this", "run site.yml")
        return WireError("agent_down", f"{self.host}: the agent does not answer: {said}")
