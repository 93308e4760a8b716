"""Errors from ssh's last words: one per cause, each with its fix. Texts: OpenSSH 8.4 to 9.9."""

from __future__ import annotations

import re

from farmhand.core.errors import WireError
from farmhand.core.keys import redact

#: ssh itself failed; every other status is the remote command's.
_SSH_FAILED = 255
_NOT_FOUND = (126, 127)
_UNKNOWN_KEY = re.compile(r"No .* host key is known for|host key is not known|authenticity of host")
_CHANGED_KEY = re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed|REVOKED HOST KEY")
_DENIED = re.compile(r"Permission denied|Too many authentication failures|no mutual signature algorithm", re.IGNORECASE)
_UNSAFE_KEY_FILE = re.compile(r"UNPROTECTED PRIVATE KEY FILE|bad permissions")
_UNREADABLE_KEY = re.compile(r'Load key "[^"]*": (?!bad permissions)')
_NAME = re.compile(r"Could not resolve hostname")
#: What ssh says after a jump host or proxy command has said why it ended. A direct connection gets no further than a
#: refusal, and its login comes after this.
_PROXY = re.compile(r"^(kex|ssh)_exchange_identification: |UNKNOWN port 65535|^stdio forwarding failed", re.MULTILINE)
_SHARED = re.compile(r"mux_client|ControlSocket")
_ENDED = re.compile(r"Connection (closed|reset) by|Connection to|kex_exchange|stdio forwarding|ssh_exchange|banner ")
_WHOSE_KEY = re.compile(r"host key is known for (\S+)|host key for (\S+) has changed|authenticity of host '(\S+)")
#: The codes that say that the host itself was not reached, or is not the one that it should be.
NOT_THERE = frozenset({"unreachable", "host_key_unknown", "host_key_changed"})


def classify(status: int, said: str, name: str) -> WireError | None:
    """The error for an ssh that ended with `status` and wrote `said` to stderr; None if it ended well."""
    if status == 0:
        return None
    if status in _NOT_FOUND:
        return WireError("agent_missing", f"{name}: jada-agent is not installed there", "run site.yml: farmhand up")
    last = _last_line(said)
    if status != _SSH_FAILED:
        if _DENIED.search(said):
            return WireError("login_refused", f"{name}: {last}", "run site.yml again: farmhand up")
        hint = f"on {name}: systemctl status jada-agent.socket jada-agent"
        return WireError("agent_down", f"{name}: the agent does not answer: {last}", hint)
    return _ssh_failure(said, last, name)


def _ssh_failure(said: str, last: str, name: str) -> WireError:
    # The order matters: a changed key is followed by "Host key verification failed" and "Permission denied" as well.
    if _CHANGED_KEY.search(said):
        hint = "find out why before you trust it; if the host was rebuilt, remove its old key with ssh-keygen -R"
        return WireError("host_key_changed", f"{name}: the host key is not the one on record{_whose(said)}", hint)
    if _UNKNOWN_KEY.search(said) or "Host key verification failed" in said:
        hint = "check its fingerprint on the host's console and add it to known_hosts; it is never accepted silently"
        return WireError("host_key_unknown", f"{name}: the host key is unknown{_whose(said)}", hint)
    if _PROXY.search(said) and not _ENDED.match(last):
        hint = "check ProxyJump and ProxyCommand: ansible_ssh_common_args in the inventory, ~/.ssh/config"
        return WireError("unreachable", f"{name}: the way there through another host failed: {last}", hint)
    if _UNSAFE_KEY_FILE.search(said):
        hint = "chmod 600 the identity_file named in hosts.json"
        return WireError("login_refused", f"{name}: others could read the dispatch key, so ssh does not use it", hint)
    if _UNREADABLE_KEY.search(said) and _DENIED.search(said):
        hint = "check identity_file in hosts.json, or run site.yml again: farmhand up"
        return WireError("login_refused", f"{name}: ssh cannot load the dispatch key", hint)
    if _DENIED.search(said):
        return WireError(
            "login_refused", f"{name}: the dispatch key is not accepted", "run site.yml again: farmhand up"
        )
    known = _NAME.search(said) is None
    hint = "check that the host is up and its address right" if known else "correct its address in the inventory"
    return WireError("unreachable", f"{name}: {last}", hint)


def _whose(said: str) -> str:
    """Of which host, as ssh calls it: it may be a jump host's."""
    found = _WHOSE_KEY.search(said)
    return f", that of {redact(next(filter(None, found.groups())))[:100]}".rstrip("',") if found else ""


def _last_line(said: str) -> str:
    """ssh's last line that says something, without a key and without line ends."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # What a shared connection says about itself is not why the call failed, nor is that it ended.
    for says_nothing in (_SHARED, _ENDED):
        lines = [line for line in lines if not says_nothing.match(line)] or lines[-1:]
    return redact(lines[-1])[:300] if lines else "ssh gave no reason"
