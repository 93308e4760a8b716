"""Local files and sockets: atomic replacement of a file, the XDG directories, the peer of a Unix socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from typing import IO, NamedTuple

_USUAL = {"XDG_CONFIG_HOME": ".config", "XDG_STATE_HOME": ".local/state", "XDG_CACHE_HOME": ".cache"}
#: struct ucred: pid, uid, gid. Source: SO_PEERCRED in unix(7).
_UCRED = struct.Struct("3i")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, mode: int | None = None, beside: str = "") -> Iterator[IO[bytes]]:
    """Yield a file that atomically replaces `path` if the block ends without an error. Raise OSError.

    A device, a pipe or a socket is refused, since /dev/null would be an ordinary file from then on.

    A device, a pipe or a socket is refused: /dev/null would be a regular file from then on.

    `path` has either its old content or all of its new content, which survives a power cut. The new file gets owner,
    group and mode of the old one (0600 if there was none), or the mode `mode`; never more users can read it. With the
    temporary name `beside`, a caller that holds a lock removes what a crash has left.
    """
    directory, name = os.path.split(os.path.abspath(path))
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    if beside:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    else:
        import tempfile  # not at the top: settings need only `xdg`, on every start

        descriptor, beside = tempfile.mkstemp(prefix=f".{name[:60]}.", suffix=".farmhand-new", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
            if before is not None:
                try:
                    os.fchown(out.fileno(), before.st_uid, before.st_gid)
                except PermissionError:
                    if os.geteuid() == 0:
                        raise
            os.fchmod(out.fileno(), mode if mode is not None else stat.S_IMODE(before.st_mode) if before else 0o600)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    sync_directory(directory)


def read_most(path: str | os.PathLike[str], most: int) -> bytes:
    """Return a file's content. Raise OSError, also for one of more than `most` bytes: a device has no end."""
    with open(path, "rb") as file:
        return read_open(file, most)


def read_open(file: IO[bytes], most: int) -> bytes:
    """Return what an open file has, as `read_most` does."""
    data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes")
    return data


def replace(path: str | os.PathLike[str], content: bytes, *, mode: int | None = None, beside: str = "") -> None:
    """Write `content` to `path` as `replacing` does. Raise OSError."""
    with replacing(path, mode=mode, beside=beside) as out:
        out.write(content)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory survive a power cut. Raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def xdg(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the directory that XDG_CONFIG_HOME, XDG_STATE_HOME or XDG_CACHE_HOME names, or its default below the home.

    A relative path counts as unset. Source: the XDG Base Directory Specification, 0.8.
    """
    named = environ.get(name, "")
    return (
        named if named.startswith("/") else os.path.join(environ.get("HOME") or os.path.expanduser("~"), _USUAL[name])
    )


class Peer(NamedTuple):
    """The process at the other end of a Unix socket."""

    pid: int
    uid: int
    gid: int


def peer(connection: socket.socket) -> Peer:
    """Return the process at the other end of a connected Unix socket. Raise OSError."""
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def held_by_another(error: Exception) -> bool:
    """Return whether SQLite has raised `error` because another process holds the file."""
    import sqlite3

    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
