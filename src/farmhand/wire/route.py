"""The route of Ansible's ssh to a host, as options for claude-cheap's own ssh.

Taken over are the options that lead to the host and those that its key is checked against. Options for the login, for
forwarding and sharing, and for disabling the host key check are not: the transport sets those itself.
"""

from __future__ import annotations

import getopt
import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from typing import Any

from farmhand.core.child import scrubbed
from farmhand.core.errors import WireError, not_configured
from farmhand.wire import sshfail
from farmhand.wire.transport import SshTransport, unbracketed

#: Names from ssh_config(5), in lower case.
CARRIED = frozenset(
    {
        "addressfamily", "bindaddress", "bindinterface", "canonicaldomains", "canonicalizefallbacklocal",
        "canonicalizehostname", "canonicalizemaxdots", "canonicalizepermittedcnames", "casignaturealgorithms",
        "checkhostip", "ciphers", "compression", "connectionattempts", "globalknownhostsfile",
        "hostkeyalgorithms", "hostkeyalias", "hostname", "ipqos", "kexalgorithms", "knownhostscommand",
        "macs", "port", "proxycommand", "proxyjump", "proxyusefdpass", "pubkeyacceptedalgorithms",
        "pubkeyacceptedkeytypes", "rekeylimit", "requiredrsasize", "revokedhostkeys", "tag", "tcpkeepalive",
        "userknownhostsfile", "versionaddendum",
    }
)  # fmt: skip
#: Letters from ssh(1): those without a value and those with one.
_FLAGS = "46AaCfGgKkMNnqsTtVvXxYy12" + "".join(f"{letter}:" for letter in "BbcDEeFIiJLlmOoPpQRSWw")
_LETTERS = {
    "-4": "AddressFamily=inet",
    "-6": "AddressFamily=inet6",
    "-B": "BindInterface={}",
    "-b": "BindAddress={}",
    "-C": "Compression=yes",
    "-c": "Ciphers={}",
    "-J": "ProxyJump={}",
    "-m": "MACs={}",
    "-P": "Tag={}",
    "-p": "Port={}",
}
_OPTION = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(\S.*)", re.DOTALL)
#: Options whose words are paths: Ansible runs in the checkout, claude-cheap in any directory.
_PATHS = frozenset({"userknownhostsfile", "globalknownhostsfile", "revokedhostkeys"})
_URI = re.compile(r"ssh://(?:[^@/]*@)?(\[[^]]*\]|[^:/]*)(?::(\d+))?/?")
#: Room for a sun_path and more; no route needs more.
_MAX_OPTION = 4096


def option(text: str) -> str:
    """Return `text` as `Name=value` if the option is taken over, else "". Raise ValueError if it is not an option."""
    found = _OPTION.fullmatch(text.rstrip())
    if found is None or "\n" in text or "\0" in text or len(text) > _MAX_OPTION:
        raise ValueError(f"{text[:80]!r} is no option of ssh (Name=value)")
    return f"{found[1]}={found[2]}" if found[1].lower() in CARRIED else ""


def options_of(arguments: Iterable[str]) -> tuple[list[str], str]:
    """Return the options taken over from ssh's arguments (`-J bastion -o Port=22`), and the file of the last `-F`.

    Raise ValueError, naming what is not an argument of ssh.
    """
    found: list[str] = []
    config = ""
    for text in arguments:
        try:
            given, rest = getopt.getopt(shlex.split(text), _FLAGS)
        except getopt.GetoptError as error:
            raise ValueError(str(error)) from None
        if rest:
            raise ValueError(f"{rest[0][:80]!r} is no argument of ssh")
        for letter, value in given:
            if letter == "-F":
                config = value if value == "none" else os.path.abspath(os.path.expanduser(value))
            elif letter == "-o" or letter in _LETTERS:
                found.append(_absolute(option(value if letter == "-o" else _LETTERS[letter].format(value))))
    return [each for each in found if each], config


def _absolute(text: str) -> str:
    """Return the option with absolute paths, or "" for known hosts in /dev/null, which disable the host key check."""
    name, _, value = text.partition("=")
    if name.lower() not in _PATHS:
        return text
    words = shlex.split(value)
    if words == ["/dev/null"]:
        return ""
    paths = [
        word if word.startswith(("/", "~", "%", "$")) or word == "none" else os.path.abspath(word) for word in words
    ]
    return f"{name}=" + " ".join(f'"{path}"' if " " in path else path for path in paths)


def destination(text: str) -> tuple[str, int]:
    """Return address and port (0: none) of an ssh destination: `[user@]host` or `ssh://[user@]host[:port]`.

    An IPv6 literal may be in brackets.
    """
    uri = _URI.fullmatch(text)
    host, port = (uri[1], int(uri[2] or 0)) if uri else (text.rpartition("@")[2], 0)
    return unbracketed(host), port


def entry(address: str, port: int, arguments: Iterable[str]) -> dict[str, Any]:
    """Return the entry of hosts.json for a host: `address`, and `port`, `options`, `ssh_config` if any.

    `arguments` are Ansible's ssh arguments. Raise ValueError.
    """
    host, named = destination(address)
    carried, config = options_of(arguments)
    made = {"address": host, "port": port or named, "options": carried, "ssh_config": config}
    return {name: value for name, value in made.items() if value}


def probe(transport: SshTransport) -> WireError | None:
    """Connect to the host up to the login, which it refuses. Return why that failed, or None if it worked.

    ssh runs in the root directory with nothing from this process's environment, because claude-cheap may run anywhere.
    """
    argv = transport.argv()
    argv[1:1] = ["-o", "PreferredAuthentications=none"]
    quiet, limit = subprocess.DEVNULL, 3 * transport.connect_timeout_s
    try:
        done = subprocess.run(
            argv, cwd="/", env=scrubbed(), stdin=quiet, capture_output=True, timeout=limit, check=False
        )
    except OSError as error:
        return not_configured(f"ssh cannot be started: {error.strerror}", "install openssh-client")
    except subprocess.TimeoutExpired:
        return WireError("unreachable", f"{transport.name}: ssh did not get there within {limit:g} s")
    failure = sshfail.classify(done.returncode, done.stderr.decode("utf-8", "replace"), transport.name)
    return failure if failure is not None and failure.code in sshfail.NOT_THERE else None
