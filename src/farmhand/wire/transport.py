"""Transports to the agent: its Unix socket, or ssh to the account whose forced command is `jada-agent bridge`.

A transport opens a stream socket for HTTP/1.1, and can give the reason why a stream ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import socket
import subprocess
from collections.abc import Callable
from typing import IO, NamedTuple, Protocol

from farmhand.core.child import scrubbed
from farmhand.core.errors import WireError, not_configured
from farmhand.core.files import xdg

AGENT_SOCKET = "/run/jada-agent/agent.sock"
#: sun_path is 108 bytes on Linux, and ssh appends a dot and 16 characters while it creates the socket.
_CONTROL_PATH_MAX = 108 - 1 - 17
#: The most bytes of ssh's stderr that are kept.
_MAX_SAID = 64 * 1024
_ADDRESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*")


#: Explains the end of a process by its exit status and its stderr.
Why = Callable[[int, str], WireError | None]


class Stream:
    """An open connection that is only a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def failure(self) -> WireError | None:
        """Return why the other side is gone, or None if unknown: a socket gives no reasons."""
        return None

    def close(self) -> None:
        """Close the connection; never raise."""
        self.sock.close()


class Transport(Protocol):
    """A way to reach one agent. `name` is its name in error messages; `connect_timeout_s` limits the connect time."""

    name: str
    connect_timeout_s: float

    def open(self) -> Stream:
        """Open a new stream to the agent. Raise WireError."""

    def renew(self) -> bool:
        """Drop what is shared with earlier calls, which may be stale. Return True if there was something to drop."""


class UnixTransport:
    """The agent's own socket, on the farm host."""

    def __init__(self, path: str = AGENT_SOCKET, *, name: str = "", connect_timeout_s: float = 10.0) -> None:
        self.path = path
        self.name = name or path
        self.connect_timeout_s = connect_timeout_s

    def open(self) -> Stream:
        """Connect. Raise WireError `agent_missing`, `login_refused` or `agent_down`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.connect_timeout_s)
        try:
            sock.connect(self.path)
        except FileNotFoundError:
            hint = "run site.yml on this host, or start jada-agent.socket"
            problem = WireError("agent_missing", f"no agent socket at {self.path}", hint)
        except PermissionError:
            hint = "use become (ansible_become: true in the inventory), or log in as a member of the group farmhand"
            problem = WireError("login_refused", f"this user may not use the agent's socket {self.path}", hint)
        except OSError as error:
            message = f"the agent does not answer on {self.path}: {error.strerror or error}"
            problem = WireError("agent_down", message, "see: systemctl status jada-agent.socket jada-agent")
        else:
            return Stream(sock)
        sock.close()
        raise problem

    def renew(self) -> bool:
        """Return False: nothing is shared."""
        return False


class ProcessStream(Stream):
    """A process whose stdin and stdout are one end of a socket pair."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes], errors: IO[bytes], why: Why) -> None:
        super().__init__(sock)
        self._process = process
        self._errors = errors
        self._why = why

    def failure(self) -> WireError | None:
        """Return why the process ended, as our own error; None while it runs or after success."""
        try:
            status = self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            return None
        return self._why(status, self._said())

    def _said(self) -> str:
        if self._errors.closed:
            return ""
        return os.pread(self._errors.fileno(), _MAX_SAID, 0).rstrip(b"\0").decode("utf-8", "replace")

    def close(self) -> None:
        """End the process. A shared master connection of ssh continues by itself."""
        self.sock.close()
        self._process.terminate()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


class ProcessTransport:
    """A program that joins its stdin and stdout to an agent: ssh, or `docker exec`. A subclass has its command.

    The program belongs to `package`.
    """

    package = ""

    def __init__(self, name: str, connect_timeout_s: float) -> None:
        self.name = name
        self.connect_timeout_s = connect_timeout_s
        self._early: ProcessStream | None = None

    def argv(self) -> list[str]:
        """Return the command."""
        raise NotImplementedError

    def why(self, status: int, said: str) -> WireError | None:
        """Return the error for an exit status and stderr, or None for success."""
        raise NotImplementedError

    def open_early(self) -> None:
        """Start the program early, so that the next `open` has less to wait for. An error here occurs there too."""
        if self._early is None:
            self._early = self._start()

    def open(self) -> Stream:
        """Start the program. Its errors are reported when the stream ends: see `Stream.failure`."""
        stream, self._early = self._early or self._start(), None
        return stream

    def close_early(self) -> None:
        """End the program started by `open_early`, unless `open` has taken it."""
        stream, self._early = self._early, None
        if stream is not None:
            stream.close()

    def renew(self) -> bool:
        """Return False: nothing is shared."""
        return False

    def _start(self) -> ProcessStream:
        argv = self.argv()
        ours, theirs = socket.socketpair()
        # A file and not a pipe: a remaining master connection would hold a pipe open.
        errors = _scratch_file()
        try:
            # A new session, so that Ctrl-C reaches only this process, which then cancels the task over a second one.
            process = subprocess.Popen(
                argv,
                env=scrubbed(),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            errors.close()
            raise not_configured(f"{argv[0]} cannot be started: {error.strerror}", f"install {self.package}") from None
        finally:
            theirs.close()
        ours.settimeout(self.connect_timeout_s)
        return ProcessStream(ours, process, errors, self.why)


class Host(NamedTuple):
    """One farm host and the login to its dispatch account.

    `address` is passed to ssh and may be an alias of its configuration; `port` 0 leaves the port to ssh. `options` are
    additional ssh options, those of `route.CARRIED`; `ssh_config` is an alternative configuration file.
    `known_hosts_file` None means ssh's own files.
    """

    name: str
    address: str
    port: int = 0
    user: str = "farmhand"
    options: tuple[str, ...] = ()
    ssh_config: str | None = None
    identity_file: str | None = None
    known_hosts_file: str | None = None

    def transport(self, connect_timeout_s: float) -> ProcessTransport:
        """Return the transport to its agent. Raise WireError `not_configured` if a file is missing."""
        return SshTransport(self, connect_timeout_s)


class SshTransport(ProcessTransport):
    """ssh to a farm host. An unknown or changed host key ends the connection and is never accepted here.

    The operator's own ssh configuration applies to the address (an alias, a jump host), or the host's `ssh_config`.
    Options that matter for security come first on the command line, where they override all others.
    """

    package = "openssh-client"

    def __init__(self, host: Host, connect_timeout_s: float = 10.0, *, control_dir: str | None = None) -> None:
        super().__init__(host.name, connect_timeout_s)
        self.host = host._replace(address=unbracketed(host.address))
        self.control_dir = default_control_dir() if control_dir is None else control_dir
        for what, text in (("address", self.host.address), ("user", host.user)):
            if _ADDRESS.fullmatch(text) is None:
                raise not_configured(f"farm host {self.name}: the {what} {text!r} is not one")
        config = None if host.ssh_config == "none" else host.ssh_config
        for path in (host.identity_file, host.known_hosts_file, config):
            if path is not None and not os.path.exists(os.path.expanduser(path)):
                raise not_configured(f"farm host {self.name}: {path} does not exist", "run site.yml again: farmhand up")

    def argv(self) -> list[str]:
        """Return the ssh command.

        It names the bridge although that is the forced command: if the account's command were not forced, a shell would
        otherwise read the requests.
        """
        options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "NoHostAuthenticationForLocalhost=no",
            "VerifyHostKeyDNS=no",
            "UpdateHostKeys=no",
            f"ConnectTimeout={max(1, round(self.connect_timeout_s))}",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
            "ForwardAgent=no",
            "ForwardX11=no",
            "ClearAllForwardings=yes",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "LogLevel=ERROR",
            *self._control_options(),
        ]
        host = self.host
        if host.known_hosts_file is not None:
            options.append(f"UserKnownHostsFile={_quoted(host.known_hosts_file)}")
        if host.identity_file is not None:
            options += ["IdentitiesOnly=yes", f"IdentityFile={_quoted(host.identity_file)}"]
        options += [f"User={host.user}", *([f"Port={host.port}"] if host.port else []), *host.options]
        flags = [word for option in options for word in ("-o", option)]
        config = ["-F", os.path.expanduser(host.ssh_config)] if host.ssh_config else []
        return ["ssh", "-T", *config, *flags, "--", host.address, "jada-agent", "bridge"]

    def _control_path(self) -> str:
        identity = "\0".join(map(str, self.host))
        return os.path.join(self.control_dir, "cm-" + hashlib.sha256(identity.encode()).hexdigest()[:16])

    def _control_options(self) -> list[str]:
        """Return the options to share one connection, if a private directory with a short enough path exists."""
        path = self._control_path()
        if not self.control_dir or len(os.fsencode(path)) > _CONTROL_PATH_MAX or not _make_private(self.control_dir):
            return ["ControlMaster=no", "ControlPath=none"]
        return ["ControlMaster=auto", "ControlPersist=60", f"ControlPath={_quoted(path)}"]

    def why(self, status: int, said: str) -> WireError | None:
        """Return the error for an exit status and stderr of ssh, or None for success."""
        from farmhand.wire import sshfail  # not at the top: most calls succeed

        return sshfail.classify(status, said, self.name)

    def renew(self) -> bool:
        """End the shared connection: it may look open although the other side has gone, for example after a suspend."""
        if not self.control_dir or not os.path.exists(self._control_path()):
            return False
        leave = ["ssh", "-O", "exit", "-o", f"ControlPath={_quoted(self._control_path())}", "--", self.host.address]
        quiet = subprocess.DEVNULL
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(leave, env=scrubbed(), stdin=quiet, stdout=quiet, stderr=quiet, timeout=2.0, check=False)
        with contextlib.suppress(OSError):
            os.unlink(self._control_path())
        return True


def unbracketed(address: str) -> str:
    """Return an IPv6 literal without the brackets of URLs and known_hosts, and any other address unchanged."""
    return address[1:-1] if address[:1] == "[" and address[-1:] == "]" and ":" in address else address


def _scratch_file() -> IO[bytes]:
    """Return an unnamed file, on Linux of exactly `_MAX_SAID` bytes, because a host's messages are written to it."""
    try:
        descriptor = os.memfd_create("stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError):  # not Linux
        import tempfile

        return tempfile.TemporaryFile()
    os.ftruncate(descriptor, _MAX_SAID)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return open(descriptor, "r+b", buffering=0)


def _quoted(path: str) -> str:
    """Return the path for ssh's option parser, which splits at spaces and expands % in these options."""
    return '"' + os.path.expanduser(path).replace("%", "%%") + '"'


def _make_private(path: str) -> bool:
    """Create the directory, private to this user. Return False if that fails."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        status = os.lstat(path)
    except OSError:
        return False
    return os.path.isdir(path) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def default_control_dir() -> str:
    """Return the directory for the sockets of shared ssh connections: XDG_RUNTIME_DIR, else the cache directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        return os.path.join(runtime, "farmhand")
    # A subdirectory, because the directory itself, shared with packages of the role claude_cli, is world-readable.
    return os.path.join(xdg("XDG_CACHE_HOME"), "farmhand", "ssh")
