"""The action plugins' access to the agent of a host: `jada-agent` there, through Ansible's connection and its stdin.

So the API key is in no argument vector, no environment, no file, no log and no artifact.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeVar

from farmhand.core import settings
from farmhand.core.child import scrubbed
from farmhand.core.errors import WireError
from farmhand.core.keys import Credential, holds_key, redact
from farmhand.core.keysource import credential, read_key
from farmhand.wire import message, sshfail, task_call, turn
from farmhand.wire.client import Client
from farmhand.wire.connection import AgentResponse
from farmhand.wire.transport import AGENT_SOCKET, UnixTransport

#: ActionBase._low_level_execute_command: runs a command line on the host with the given stdin and returns `rc`,
#: `stdout` and `stderr`.
Execute = Callable[..., dict[str, Any]]
#: Keys removed from this process's environment, by source: a loop requests the same key again.
_FROM_ENVIRONMENT: dict[str, str] = {}
T = TypeVar("T")


def operators_settings(source: str | None, task: dict[str, Any] | None = None) -> settings.Settings:
    """Return the operator's settings, with the key source if given. A task's pot goes before theirs, and it gets theirs
    if it has none. Raise FarmhandError.
    """
    task = {} if task is None else task
    conf = settings.load(key_source=source or None, pot=task.get("pot") or None)
    task.update({"pot": conf.pot} if conf.pot else {})
    return conf


def key_for_task(task: Mapping[str, Any], conf: settings.Settings, task_vars: Mapping[str, Any] | None) -> Credential:
    """Return what `operators_key` returns, for a task that must not contain it. Raise WireError, FarmhandError."""
    key = operators_key(conf, task_vars)
    if holds_key(task, key):
        raise WireError("key_in_task", "the API key itself stands in the task", "take it out", 400)
    return key


def operators_key(conf: settings.Settings, task_vars: Mapping[str, Any] | None, *, every: bool = False) -> Credential:
    """Return the key, or those of the pots, for a host of the group farm. Raise WireError, FarmhandError."""
    hosts = len((task_vars or {}).get("groups", {}).get("farm") or [""])
    variables = [source for source in (conf.key_source, *(pot.key_source for pot in conf.pots)) if source[:4] == "env:"]
    for source in variables:  # also of pots that only a later task names: all variables with keys go at once
        with contextlib.suppress(WireError):
            _FROM_ENVIRONMENT[source] = _read(source)
    key = credential(conf, hosts, every=every, read=_read)
    artifacts = os.environ.get("AWX_ISOLATED_DATA_DIR")
    if artifacts and holds_key(dict(os.environ), key):
        # Too late to prevent it, but it must be reported.
        message = f"ansible-runner has written its environment, and the API key with it, to {artifacts}/command"
        raise WireError("key_in_artifacts", message, "delete that, unset the variable, use file: or another source")
    if variables:
        # This process starts ssh, which inherits its environment and may stay as a shared connection.
        for name in os.environ.keys() - scrubbed(settings=True):
            del os.environ[name]
    return key


def _read(source: str) -> str:
    return _FROM_ENVIRONMENT.get(source) or read_key(source)


def check_connection(connection: Any) -> None:
    """Make Ansible's `connection` check the host's key, because the API key is sent there.

    ansible-runner disables the check by default, and an operator may have disabled it for other work. Raise WireError
    for a connection that cannot send a command's stdin, such as paramiko's. Source: ConnectionBase.has_pipelining.
    """
    if not connection.has_pipelining:
        message = f"the connection {connection.transport} cannot send a command's input, where task and key are"
        raise WireError("not_configured", message, "ansible_connection: ssh")
    with contextlib.suppress(KeyError):  # the connection has no such option: it does not use ssh
        if connection.get_option("host_key_checking") is False:
            connection.set_option("host_key_checking", True)


def agent_of(action: Any, socket: str, task_vars: Mapping[str, Any] | None) -> HostAgent:
    """Return the agent of the host of an action plugin's task, over a checked connection. Raise WireError."""
    check_connection(action._connection)
    host = str((task_vars or {}).get("inventory_hostname", "this host"))
    return HostAgent(action._low_level_execute_command, host, socket)


class HostAgent(Client):
    """The agent of one host, called through Ansible's connection: each call starts `jada-agent` there once."""

    def __init__(self, execute: Execute, host: str, socket: str = "") -> None:
        super().__init__(UnixTransport(name=host))
        self._execute = execute
        self.host = host
        #: The default socket is not passed on: only a plain `jada-agent bridge` starts without the venv.
        self._socket = "" if socket == AGENT_SOCKET else socket

    def request(self, method: str, path: str, body: bytes | IO[bytes] = b"", key: str | None = None) -> AgentResponse:
        """Return the answer to one request. Raise WireError."""
        data = body if isinstance(body, bytes) else body.read()

        def found(output: str) -> bytes | None:
            # The login shell may print something first.
            _, start, rest = output.partition("HTTP/1.1 ")
            return f"{start}{rest}".encode("utf-8", "surrogateescape") if start else None

        raw = self._run("bridge", message.whole_request(method, path, body=data, key=key), found)
        return message.whole_response(raw, self.host)

    def run_task(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of `jada-agent task` to `call`. Raise WireError."""
        return self._run("task", json.dumps(call).encode(), lambda output: task_call.parse(output, self.host))

    def turn(self, order: bytes) -> bytes:
        """Return the answer of `jada-agent turn` to `order`, unchecked. Raise WireError."""
        return self._run("turn", order, turn.answer_in)

    def _run(self, verb: str, data: bytes, found: Callable[[str], T | None]) -> T:
        """Return what `found` finds in the output of a verb of jada-agent. Raise WireError if that is nothing."""
        command = ["jada-agent", verb, *(["--socket", self._socket] if self._socket else [])]
        done = self._execute(shlex.join(command), in_data=data)
        answer = found(done["stdout"])
        if answer is None:
            raise self._failure(done)
        return answer

    def _failure(self, done: dict[str, Any]) -> WireError:
        """Return the error for output without an answer."""
        if done["rc"] in sshfail.NOT_FOUND:
            return WireError("agent_missing", f"{self.host}: jada-agent is not installed there", "run site.yml")
        said = redact(" ".join((done["stderr"] or done["stdout"] or "no reason given").split()[-40:]))
        if "invalid choice" in said:
            return WireError("agent_too_old", f"{self.host}: its agent is too old for this", "run site.yml")
        return WireError("agent_down", f"{self.host}: the agent does not answer: {said}", "see its journal there")
