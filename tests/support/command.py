"""The package's commands as processes of their own, forked where their modules are loaded: a start takes 10 ms.

They have an environment, a directory and streams of their own, and end as they always do. What a test says about the
start of a program itself (its imports, its interpreter) needs the program: subprocess.
"""

from __future__ import annotations

import atexit
import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from farmhand import cli
from tests.support import garbage
from tests.support.schemas import check_said

ROOT = Path(__file__).parents[2]
PROGRAMS = {"farmhand": cli.main, "claude-cheap": cli.claude_cheap, "claude-agent-aws": cli.claude_agent_aws}
_MOST_BYTES = 1 << 20


def run(
    program: str,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    cwd: Path,
    *,
    preload: tuple[str, ...] = (),
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without input. `preload` are modules that it should not have to load.

    Raise TimeoutError when it takes too long.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        idle = _idle[preload]
        server = idle.pop() if idle else _Server(preload)
        what = {"program": program, "arguments": list(arguments), "environ": dict(environ), "cwd": str(cwd)}
        status = server.run(json.dumps(what).encode(), (out.fileno(), err.fileno()), timeout_s)
        idle.append(server)
        out.seek(0)
        err.seek(0)
        said = [file.read().decode("utf-8", "replace") for file in (out, err)]
        check_said([program, *arguments], said[0])
        return subprocess.CompletedProcess([program, *arguments], status, *said)


class _Server:
    """The process that forks."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.command", str(theirs.fileno()), *preload],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.end)

    def run(self, what: bytes, streams: tuple[int, int], timeout_s: float) -> int:
        self._line.settimeout(timeout_s)
        try:
            socket.send_fds(self._line, [what], streams)
            said = self._line.recv(_MOST_BYTES)
        except TimeoutError:
            self.end()
            raise
        assert said, "the server of commands has ended"
        return int(said)

    def end(self) -> None:
        """End it, and a command that still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._line.close()


#: Those that run no command, by their modules: commands that threads run at the same time have one each.
_idle: defaultdict[tuple[str, ...], list[_Server]] = defaultdict(list)


def _serve(line: socket.socket) -> None:
    while True:
        what, streams, _, _ = socket.recv_fds(line, _MOST_BYTES, 2)
        if not what:
            return
        pid = os.fork()
        if pid == 0:
            line.close()
            _be(json.loads(what), streams)
        for number in streams:
            os.close(number)
        _, status = os.waitpid(pid, 0)
        line.send(str(os.waitstatus_to_exitcode(status)).encode())


def _be(what: dict[str, object], streams: Sequence[int]) -> None:
    """Be the command."""
    code = 1
    try:
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(str(what["cwd"]))
        environ = what["environ"]
        assert isinstance(environ, dict)
        os.environ.clear()
        os.environ.update(environ)
        arguments = what["arguments"]
        assert isinstance(arguments, list)
        sys.argv = [str(what["program"]), *arguments]
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), errors="backslashreplace", write_through=True)
        PROGRAMS[sys.argv[0]]()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    garbage.seldom()
    garbage.leave_alone()
    _serve(socket.socket(fileno=int(sys.argv[1])))
