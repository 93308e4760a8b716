"""A program started as subprocess does it, without subprocess, which costs every call 8 ms of its start; and the
environment of every program that is started from here.
"""

from __future__ import annotations

import os
import re
import signal
import time

from .keys import KEY

TYPE_CHECKING = False  # as in http1
if TYPE_CHECKING:
    from collections.abc import Container, Mapping

#: How often to look whether a program has ended, at first and at most.
_LOOK_S = (0.0005, 0.05)
#: Python ignores these; a program that it starts wants them as they are by default.
_DEFAULT_SIGNALS = [signal.SIGPIPE, signal.SIGXFSZ]
#: Credentials and switches of other tools by their names, and any key or login token by its look: `env:NAME` as key
#: source means that it may be anywhere.
_CREDENTIAL_NAME = re.compile(r"(ANTHROPIC|CLAUDE)_|CLAUDECODE$|AWS_BEARER_TOKEN_BEDROCK$", re.IGNORECASE)
_SETTING = re.compile(r"FARMHAND_")


class Child:
    """A program that was started here; `wait` or `end` takes it off the process table."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, minus the number of the signal that ended it; None while it runs."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for it
                self.status = 0
            else:
                self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self, seconds: float) -> int | None:
        """`poll` once it has ended, or after so many seconds."""
        until, pause = time.monotonic() + seconds, _LOOK_S[0]
        while self.poll() is None and time.monotonic() < until:
            time.sleep(pause)
            pause = min(2 * pause, _LOOK_S[1])
        return self.status

    def end(self, patience_s: float) -> None:
        """Ask it to end, kill it if it takes longer than `patience_s`."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            if self.wait(patience_s) is None:
                os.kill(self.pid, signal.SIGKILL)
                self.wait(patience_s)


def scrubbed(
    environ: Mapping[str, str] | None = None, *, settings: bool = False, keep: Container[str] = ()
) -> dict[str, str]:
    """The environment for a program that needs no credential: `environ` (None: this process's own) without any.

    The FARMHAND_* settings stay only with `settings`; the names in `keep` stay whatever they hold.
    """
    return {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if name in keep
        or not (_CREDENTIAL_NAME.match(name) or KEY.search(value) or (not settings and _SETTING.match(name)))
    }


def spawn(argv: list[str], environment: dict[str, str], stdin: int, stdout: int, stderr: int) -> Child:
    """Start `argv`, found on PATH, in a session of its own with these three files and no other. Raises OSError."""
    kept = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, stderr))]
    closed = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
    return Child(
        os.posix_spawnp(
            argv[0], argv, environment, file_actions=[*kept, *closed], setsid=True, setsigdef=_DEFAULT_SIGNALS
        )
    )


def _inheritable() -> list[int]:
    """What our caller has left open beyond the usual three; what Python opens itself is never passed on."""
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:  # the directory's own descriptor
            continue
    return found
