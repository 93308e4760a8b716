"""What a program tries against the wall around a task. Run inside: Python and python3-seccomp, one JSON object out.

Each row is "open" with what it got, "refused" with the error, or "broken" if the probe itself failed. Nothing that is
read is told, only how much it was: `farmhand cloud verify --live` runs it where the real credential is.
"""

import base64
import ctypes
import glob
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

#: Where Fargate gives the role's credentials to who knows their path. Source: the ECS developer guide, task IAM roles.
METADATA = ("169.254.170.2", 80)
#: Variables that no task has: the way to the role's credentials, and the credential's own.
_ROLES = ("AWS_", "ECS_", "FARMHAND_")
#: What a task finds of the shared volumes: OWNER has "PATH UID:GID MODE" for each.
_VOLUMES = ("/run/farmhand", "/run/sandbox", "/work", "/tmp")  # noqa: S108  (it is looked at)


def _bytes(path: str) -> int:
    with open(path, "rb") as file:
        return len(file.read(4096))


def _read(path: str) -> str:
    return f"{_bytes(path)} bytes"


def _connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> str:
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        sock.connect(address)
        return "connected"


def _open(family: int, kind: int, protocol: int = 0) -> str:
    socket.socket(family, kind, protocol).close()
    return "made"


def _call(name: str, *arguments: Any) -> str:
    import seccomp  # Debian's, which knows the numbers of this machine's calls

    number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    if number < 0:
        raise OSError(38, f"{name} is no call of this machine")
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return f"returned {result}"


def _write(path: str) -> str:
    with open(path, "w") as file:
        file.write("x")
    return "written"


def _http_over(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(path)
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        return sock.recv(100).decode().split("\r\n")[0]


def _kill(pid: int) -> str:
    os.kill(pid, 0)  # nothing is ended: the container goes on after the probe
    return "killed"


def _become_root() -> str:
    os.setresuid(0, 0, 0)
    return "uid 0"


def _others() -> str:
    """The processes of other users that can be seen with their environment."""
    seen = []
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            if os.stat(os.path.dirname(path)).st_uid != os.getuid() and _bytes(path):
                seen.append(path)
        except OSError:
            pass
    if not seen:
        raise PermissionError("none")
    return " ".join(seen)


def _replace(path: str) -> str:
    os.unlink(path)
    return "removed"


def _variables() -> str:
    """The names of the variables that lead to a credential."""
    found = [name for name in sorted(os.environ) if name.startswith(_ROLES)]
    if not found:
        raise PermissionError("none")
    return " ".join(found)


def _status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def _rights() -> str:
    """The capabilities that this program has, or could gain."""
    found = [f"{name} {value}" for name, value in _status().items() if name.startswith("Cap") and int(value, 16)]
    if not found:
        raise PermissionError("none")
    return " ".join(found)


def _privileges() -> str:
    if _status()["NoNewPrivs"].strip() == "1":
        raise PermissionError("no_new_privs")
    return "NoNewPrivs 0"


def rows(port: int) -> dict[str, Callable[[], str]]:
    """Return every try by its name. `port` of 127.0.0.1 answers where the network is shared."""
    buffer = ctypes.create_string_buffer(256)
    return {
        "environ of the first process": lambda: _read("/proc/1/environ"),
        "memory of the first process": lambda: _read("/proc/1/mem"),
        "environ of other users": _others,
        "a TCP connection to loopback": lambda: _connect(socket.AF_INET, ("127.0.0.1", port)),
        "an IPv6 socket": lambda: _open(socket.AF_INET6, socket.SOCK_STREAM),
        "a UDP socket": lambda: _open(socket.AF_INET, socket.SOCK_DGRAM),
        "a netlink socket": lambda: _open(socket.AF_NETLINK, socket.SOCK_RAW),
        "a packet socket": lambda: _open(socket.AF_PACKET, socket.SOCK_RAW),
        "a vsock socket": lambda: _open(40, socket.SOCK_STREAM),
        "an alg socket": lambda: _open(38, socket.SOCK_SEQPACKET),
        "a TCP socket by syscall": lambda: _call("socket", 2 | 1 << 32, 1, 0),
        "io_uring": lambda: _call("io_uring_setup", 8, buffer),
        # PTRACE_SEIZE, which does not stop it.
        "ptrace of the first process": lambda: _call("ptrace", 0x4206, 1, 0, 0),
        "process_vm_readv": lambda: _call("process_vm_readv", os.getppid(), buffer, 0, buffer, 0, 0),
        "kill of the first process": lambda: _kill(1),
        "a mount": lambda: _call("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
        "a user namespace": lambda: _call("unshare", 0x10000000),
        "a network namespace by clone": lambda: _call("clone", 0x40000000 | signal.SIGCHLD, 0, 0, 0, 0),
        "clone3": lambda: _call(
            "clone3", ctypes.create_string_buffer(struct.pack("=8Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0)), 64
        ),
        "uid 0": _become_root,
        "a capability": _rights,
        "new privileges": _privileges,
        "a write to the root file system": lambda: _write("/usr/local/probe"),
        "a write to /etc": lambda: _write("/etc/probe"),
        "removal of the meter's socket": lambda: _replace("/run/farmhand/meter.sock"),
        "the agent's socket": lambda: _connect(socket.AF_UNIX, "/run/farmhand/agent.sock"),
        "the sandboxes' socket": lambda: _connect(socket.AF_UNIX, "/run/sandbox/task.sock"),
        "the ledger": lambda: _read("/var/lib/farmhand/ledger.db"),
        "shared memory that stays": lambda: _call("shmget", 0x1234, 4096, 0o1666),
        "the kernel's keyring": lambda: _call("keyctl", 0, -3, 1),
        "bpf": lambda: _call("bpf", 0, buffer, 64),
        "userfaultfd": lambda: _call("userfaultfd", 1),
        "the role's credentials": lambda: _connect(socket.AF_INET, METADATA),
        "variables of a credential": _variables,
        "the meter": lambda: _http_over("/run/farmhand/meter.sock"),
    }


def owners(paths: Iterable[str]) -> str:
    """Return "PATH UID:GID MODE" for each that is there."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found.append(f"{path} {status.st_uid}:{status.st_gid} {status.st_mode & 0o7777:04o}")
    return ", ".join(found)


def main(port: int, names: Iterable[str] = ()) -> None:
    """Try everything, or only the rows `names`, and print the outcome."""
    outcome = {}
    tries = rows(port)
    for name in [*names] or tries:
        try:
            outcome[name] = ["open", str(tries[name]())[:60]]
        except OSError as error:
            outcome[name] = ["refused", f"{type(error).__name__} {error.errno}"]
        except Exception as error:  # the rows after it count as well
            outcome[name] = ["broken", f"{type(error).__name__} {error}"[:60]]
    outcome["uid"] = ["open", str(os.getuid())]
    outcome["owners"] = ["open", owners(_VOLUMES)]
    print("PROBE" + base64.b64encode(json.dumps(outcome).encode()).decode() + "EBORP")  # noqa: T201  (that is its answer)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
