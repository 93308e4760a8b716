"""What `farmhand init` asks of a box before it is a farm host: its way, its host key, its login."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from farmhand.aws.boxes.keys import HostKey, is_key
from farmhand.core.child import scrubbed
from farmhand.core.errors import FarmUnreachable, NotConfigured, UsageError, WireError
from farmhand.core.scratch import private_directory
from farmhand.wire import sshfail

#: Which key to show, the first that the box has. One is enough: only what was compared is written down.
_KINDS = ("ed25519", "ecdsa", "rsa")
#: Run as the login. Its first word is the user id, the second whether sudo asks for no password.
_LOOK = 'sudo -n true 2>/dev/null; s=$?; . /etc/os-release; echo "$(id -u) $s $PRETTY_NAME"'


class Way(NamedTuple):
    """How ssh goes to `address`: as the operator's own configuration says, an alias included.

    `known_as` is the box's name in `known_hosts`, the file that ssh writes new keys to.
    """

    address: str
    hostname: str
    port: int
    known_as: str
    known_hosts: str
    proxied: bool


class BoxLogin(NamedTuple):
    """What a login found: whether it may become root without a password, and the name of the system."""

    root: bool
    system: str


def way(address: str, port: int | None) -> Way:
    """Ask ssh for its way to `address`. Raise UsageError or NotConfigured."""
    if not address or address.startswith("-") or any(c.isspace() for c in address):
        raise UsageError(f"{address!r} is no address", hint="give a name, an IP address, or an alias of ~/.ssh/config")
    if address.count(":") == 1 or any(c in address for c in "@/]"):  # LOGIN@NAME, NAME:PORT, [IPv6]:PORT, a URL
        raise UsageError(f"{address!r} is more than an address", hint=_apart(address))
    done = _ran(["ssh", "-G", *(["-p", str(port)] if port else []), "--", address])
    if done.returncode:
        raise UsageError(f"ssh does not take the address {address!r}: {_last(done.stderr)}")
    said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    hostname, number = said["hostname"], int(said["port"])
    alias = said.get("hostkeyalias", "none")
    name = hostname if alias == "none" else alias
    files = said["userknownhostsfile"].split()
    return Way(
        address=address,
        hostname=hostname,
        port=number,
        known_as=name if number == 22 or alias != "none" else f"[{name}]:{number}",
        known_hosts=os.path.expanduser(files[0]),
        proxied=any(said.get(option, "none") != "none" for option in ("proxyjump", "proxycommand")),
    )


def _apart(address: str) -> str:
    """Return the options that say what `address` says with more than the name."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        said = {"--address": parts.hostname, "--user": parts.username, "--port": parts.port}
    except ValueError:
        said = {}
    given = " ".join(f"{option} {value}" for option, value in said.items() if value)
    return f"give {given}" if given else "give the name alone, and --user and --port"


def host_key(to: Way, patience_s: int) -> HostKey:
    """Return the host key that the box shows to anybody within `patience_s`. Raise FarmUnreachable."""
    if to.proxied:
        hint = f"log in once with ssh {to.address}, compare the fingerprint that it shows, and run this again"
        raise FarmUnreachable(f"{to.address} is behind another host, past which no key can be asked", hint=hint)
    said = ""
    for kind in _KINDS:
        done = _ran(["ssh-keyscan", "-T", str(patience_s), "-t", kind, "-p", str(to.port), "--", to.hostname])
        said = done.stderr
        for line in done.stdout.splitlines():
            words = line.split()
            if len(words) >= 3 and is_key(words[1], words[2]):
                return HostKey(words[1], words[2])
        if "Connection" in said or "No route" in said or "getaddrinfo" in said or not said.strip():
            break
    lines = [line for line in said.splitlines() if not line.startswith("#")]
    reason = _last("\n".join(lines)) if lines else f"no ssh answers within {patience_s} s"
    hint = "check that the box is up, its address and its port"
    raise FarmUnreachable(f"{to.address}, port {to.port}: {reason}", hint=hint)


def known_keys(to: Way) -> list[HostKey]:
    """Return the keys that are on record for the box."""
    done = _ran(["ssh-keygen", "-F", to.known_as, "-f", to.known_hosts])
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith(("#", "@"))]
    return [HostKey(words[1], words[2]) for words in lines if len(words) >= 3]


def log_in(to: Way, user: str, key: HostKey | None, patience_s: int) -> BoxLogin:
    """Log in as `user` and look. `key` is trusted for this once, if it is not on record yet.

    Raise FarmUnreachable with ssh's reason.
    """
    with private_directory() as private:
        known = private / "known_hosts"
        if key is not None:
            known.write_text(f"{to.known_as} {key.kind} {key.blob}\n", "ascii")
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"ConnectTimeout={patience_s}", "LogLevel=ERROR"]
        options += ["ControlPath=none", "ForwardAgent=no"]
        options += [f'UserKnownHostsFile="{known}"', f"HostKeyAlgorithms={_algorithms(key)}"] if key else []
        words = [word for option in options for word in ("-o", option)]
        words += ["-p", str(to.port), "-l", user]
        done = _ran(["ssh", "-T", *words, "--", to.address, _LOOK], timeout_s=3 * patience_s)
    found = done.stdout.split(maxsplit=2)
    if done.returncode or len(found) < 2 or not found[0].isdigit():
        failure = sshfail.classify(done.returncode or 255, done.stderr, to.address)
        if failure is not None and failure.code == "login_refused":
            hint = f"copy your ssh key there: ssh-copy-id {user}@{to.address}; or give another login"
            raise WireError("login_refused", f"{to.address} does not let {user} in", hint).at()
        raise failure.at() if failure else FarmUnreachable(f"{to.address}: the login did not answer")
    return BoxLogin(root=found[0] == "0" or found[1] == "0", system=found[2].strip() if len(found) > 2 else "")


def _algorithms(key: HostKey) -> str:
    return "rsa-sha2-512,rsa-sha2-256" if key.kind == "ssh-rsa" else key.kind


def _ran(words: Sequence[str], timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a program of OpenSSH. Raise NotConfigured if it is not there, FarmUnreachable if it does not end."""
    try:
        return subprocess.run(
            words, env=scrubbed(), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except OSError as error:
        raise NotConfigured(f"{words[0]} cannot be started: {error.strerror}", hint="install openssh-client") from None
    except subprocess.TimeoutExpired:
        raise FarmUnreachable(f"{words[0]} got no answer within {timeout_s:g} s") from None


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it gave no reason"
