"""Errors derived from ssh's stderr: one per cause, each with its fix. Texts of OpenSSH 8.4 to 9.9."""

from __future__ import annotations

import re

from farmhand.core.errors import WireError
from farmhand.core.keys import redact

#: The exit status if ssh itself failed; every other status is the remote command's.
_SSH_FAILED = 255
#: A shell's exit statuses if it cannot find or may not run the program.
NOT_FOUND = (126, 127)
_UNKNOWN_KEY = re.compile(
    r"No .* host key is known for|host key is not known|authenticity of host|Host key verification failed"
)
_CHANGED_KEY = re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed|REVOKED HOST KEY")
_DENIED = re.compile(r"Permission denied|Too many authentication failures|no mutual signature algorithm", re.IGNORECASE)
_UNSAFE_KEY_FILE = re.compile(r"UNPROTECTED PRIVATE KEY FILE|bad permissions")
_UNREADABLE_KEY = re.compile(r'Load key "[^"]*": (?!bad permissions)')
_NAME = re.compile(r"Could not resolve hostname")
#: Matches ssh's message after a jump host or proxy command has reported why it ended. A refused direct connection does
#: not get that far, and its login comes later.
_PROXY = re.compile(r"^(kex|ssh)_exchange_identification: |UNKNOWN port 65535|^stdio forwarding failed", re.MULTILINE)
_SHARED = re.compile(r"mux_client|ControlSocket")
_ENDED = re.compile(r"Connection (closed|reset) by|Connection to|kex_exchange|stdio forwarding|ssh_exchange|banner ")
_WHOSE_KEY = re.compile(r"host key is known for (\S+)|host key for (\S+) has changed|authenticity of host '(\S+)")
#: The codes for a host that was not reached, or that is not the expected one.
NOT_THERE = frozenset({"unreachable", "host_key_unknown", "host_key_changed"})


def classify(status: int, said: str, name: str) -> WireError | None:
    """Return the error for an ssh that ended with `status` and wrote `said` to stderr, or None if it succeeded."""
    if status == 0:
        return None
    if status in NOT_FOUND:
        return WireError("agent_missing", f"{name}: jada-agent is not installed there", "run site.yml: farmhand up")
    last = _last_line(said)
    if status != _SSH_FAILED:
        if _DENIED.search(said):
            return WireError("login_refused", f"{name}: {last}", "run site.yml again: farmhand up")
        hint = f"on {name}: systemctl status jada-agent.socket jada-agent"
        return WireError("agent_down", f"{name}: the agent does not answer: {last}", hint)
    code, message, hint = _cause(said, last)
    return WireError(code, f"{name}: {message}", hint)


def _cause(said: str, last: str) -> tuple[str, str, str]:
    """Return code, message and hint for what ssh said."""
    denied = _DENIED.search(said)
    # The order matters: after a changed key come also "Host key verification failed" and "Permission denied".
    if _CHANGED_KEY.search(said):
        hint = "find out why before you trust it; if the host was rebuilt, remove its old key with ssh-keygen -R"
        return "host_key_changed", f"the host key is not the one on record{_whose(said)}", hint
    if _UNKNOWN_KEY.search(said):
        hint = "check its fingerprint on the host's console and add it to known_hosts; it is never accepted silently"
        return "host_key_unknown", f"the host key is unknown{_whose(said)}", hint
    if _PROXY.search(said) and not _ENDED.match(last):
        hint = "check ProxyJump and ProxyCommand: ansible_ssh_common_args in the inventory, ~/.ssh/config"
        return "unreachable", f"the way there through another host failed: {last}", hint
    if _UNSAFE_KEY_FILE.search(said):
        hint = "chmod 600 the identity_file named in hosts.json"
        return "login_refused", "others could read the dispatch key, so ssh does not use it", hint
    if denied and _UNREADABLE_KEY.search(said):
        hint = "check identity_file in hosts.json, or run site.yml again: farmhand up"
        return "login_refused", "ssh cannot load the dispatch key", hint
    if denied:
        return "login_refused", "the dispatch key is not accepted", "run site.yml again: farmhand up"
    if _NAME.search(said):
        return "unreachable", last, "correct its address in the inventory"
    return "unreachable", last, "check that the host is up and its address right"


def _whose(said: str) -> str:
    """Return a phrase that names the host as ssh does: it may be a jump host."""
    found = _WHOSE_KEY.search(said)
    return f", that of {redact(next(filter(None, found.groups())))[:100]}".rstrip("',") if found else ""


def _last_line(said: str) -> str:
    """Return ssh's last informative line, without keys and line ends."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # Messages about a shared connection, or about the end of a connection, do not explain the failure.
    for says_nothing in (_SHARED, _ENDED):
        lines = [line for line in lines if not says_nothing.match(line)] or lines[-1:]
    return redact(lines[-1])[:300] if lines else "ssh gave no reason"
