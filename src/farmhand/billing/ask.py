"""Queries of a shell for the environment of a `claude` typed in it. Start-up files run as in every terminal."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import pwd
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import leftovers, shims, supervise
from .kinds import DEFINED, FIELD, RECORD, TRACE_FD, Kind
from .names import WATCHED
from .supervise import OUT_OF_TIME
from .verdict import status

#: Time limits for one shell, for the CLI's status, and for one answer of a service manager, in seconds.
LIMIT_S = 10.0
CLI_LIMIT_S = 30.0
MANAGER_LIMIT_S = 5.0
#: Variables of asked shells. By the first one start-up files can detect a query; the others stop them from attaching,
#: updating or asking.
_GIVEN = {
    "FARMHAND_ASKING": "1",
    "ZELLIJ": "0",
    "BYOBU_DISABLE": "1",
    "ZSH_TMUX_AUTOSTART": "false",
    "ZSH_TMUX_AUTOSTARTED": "true",
    "ZELLIJ_AUTO_ATTACH": "false",
    "DISABLE_AUTO_UPDATE": "true",
    "DISABLE_UPDATE_PROMPT": "true",
    "GIT_TERMINAL_PROMPT": "0",
    "SSH_ASKPASS_REQUIRE": "never",
}
_GIVEN_CLI = {"FARMHAND_ASKING": "1", "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
_SECTION = re.compile(r"\0\0(before|typed|other|whole|unanswered|end)\n")
_KEEP = (
    rf"({'|'.join(WATCHED)})|claude|farmhand|/dev/tty"
    rf"|{FIELD}\\?(builtin |command |\\)?(source|\.) |{FIELD}(eval|emulate) "
    rf"|{FIELD}(exit|exec|logout|read|vared|select|builtin read)\b"
)
#: How the supervisor splits a trace into records, and which ones it keeps.
_TRACE = {"record": RECORD, "keep": _KEEP}
_TRACE_FISH = {"record": "\n", "keep": r"^\d+\x1f(-*> |\x1d)"}
#: A loop of at most this many lines counts as endless.
_CIRCLE = 8


class CannotAsk(Exception):
    """An error with the reason why no shell can be asked here."""


@dataclass
class ShellAnswer:
    """The answer of one shell.

    `before` is its environment when `claude` is typed, `got` the CLI's; None if it did not get that far. `status` is
    the status printed by the real CLI, if an alias or a function calls it by its path. `trace` has the trace records.
    """

    kind: Kind
    before: dict[str, str] | None
    got: dict[str, str] | None
    definitions: dict[str, str]
    status: dict[str, Any] | None
    unanswered: str
    ended: str
    trace: list[str] = field(repr=False)
    last: list[str] = field(repr=False)


@contextlib.contextmanager
def asking(
    home: Path, environ: Mapping[str, str], session: Mapping[str, str], cwd: Path, limit_s: float
) -> Iterator[Asking]:
    """Yield what asks one round of queries: scripts where files can be executed, answers in memory if possible.

    Raises CannotAsk if the files belong to a user that this process cannot become.
    """
    uid, user = _owner(home)
    scripts = Path(tempfile.gettempdir())
    memory = Path("/dev/shm")  # noqa: S108 - a directory of our own, 0700, is made in it
    memory = memory if os.access(memory, os.W_OK) else scripts
    with (
        leftovers.signals_end_in_order(),
        _supervisor() as supervisor,
        leftovers.directory(scripts, uid) as own_scripts,
        leftovers.directory(memory, uid) as cache,
    ):
        base = {**_terminal(environ, uid), "HOME": str(home), "PWD": str(cwd), **session}
        yield Asking(home, cwd, base, uid, user, limit_s, supervisor, own_scripts, cache)


@dataclass
class Asking:
    """One round of queries by a supervisor. `user` has Popen's arguments to become the files' owner `uid`."""

    home: Path
    cwd: Path
    environ: dict[str, str]
    uid: int
    user: dict[str, Any]
    limit_s: float
    supervisor: socket.socket
    scripts: Path
    cache: Path
    mark: str = field(default_factory=lambda: f"\x1efarmhand-{secrets.token_hex(8)}\x1e")
    running: set[socket.socket] = field(default_factory=set)

    def stop(self) -> None:
        """End the shells being asked, since their answers are no longer needed."""
        for connection in list(self.running):
            with contextlib.suppress(OSError):  # already answered
                connection.shutdown(socket.SHUT_WR)

    def ask(self, kind: Kind) -> ShellAnswer:
        """Start the shell and type `claude` in it. If it is too slow when traced, ask again without the trace."""
        answer = self._ask(kind, traced=True)
        if answer.ended == OUT_OF_TIME and answer.before is None and _on_its_way(answer.last):
            return self._ask(kind, traced=False)
        return answer

    def _ask(self, kind: Kind, *, traced: bool) -> ShellAnswer:
        name = f"{kind.name.replace(' ', '-')}{'' if traced else '-again'}"
        bin_dir, answers, path = self.scripts / name, self._fifo(name), self.environ["PATH"]
        shims.install(bin_dir, kind.shell, self.scripts, self.cache, answers, self.mark, path)
        added = {
            **_GIVEN,
            "TMUX": f"{self.cache}/tmux,0,0",
            **(kind.tracing() if traced else {}),
            **shims.variables(bin_dir, kind.shell, self.home, self.environ),
        }
        said = self._run(
            kind.argv(bin_dir, traced=traced),
            {**self.environ, **added, "PATH": f"{bin_dir}:{path}"},
            answers,
            program=kind.program,
            **(_TRACE_FISH if kind.shell == "fish" else _TRACE),
        )
        sections = sections_of(said["answer"])
        # A wrapper stopped between two calls of the CLI may not have reached the call that counts.
        done = said["ended"].startswith(("answered", "exit"))
        defined = re.findall(r"FARMHAND_DEFINITION=([^\0]*)", sections.get("before", ""))

        def environ(*labels: str) -> dict[str, str] | None:
            raw = next((sections[label] for label in labels if label in sections), None)
            pairs = (each.partition("=") for each in (raw or "").split("\0") if "=" in each)
            recorded = {name: value for name, _, value in pairs}
            return None if raw is None else shims.clean(recorded, added, self.environ, self.scripts)

        return ShellAnswer(
            kind,
            environ("before"),
            environ("typed", "other") if done else environ("typed"),
            dict(zip((*DEFINED, "deferred", "waiting"), defined, strict=False)),
            status(said["said"].partition(self.mark)[2]),  # the output of start-up files does not count
            sections.get("unanswered", "").strip(),
            said["ended"],
            said["kept"],
            said["last"],
        )

    def cli(self, environ: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the real CLI's status in this environment: which account it would use.

        Return None if there is no CLI or it prints no status, {} if it was stopped before its answer.
        """
        program = shutil.which("claude", path=environ.get("PATH"))
        if program is None:
            return None
        answers = self._fifo(f"cli-{secrets.token_hex(4)}")
        argv = [program, "auth", "status", "--json"]
        said = self._run(argv, {**environ, **_GIVEN_CLI}, answers, program=program, limit_s=CLI_LIMIT_S)
        found = status(said["said"])
        return {} if found is None and not said["ended"].startswith("exit") else found

    def _fifo(self, name: str) -> Path:
        path = self.cache / f"{name}.fifo"
        os.mkfifo(path, 0o600)
        os.chown(path, self.uid, -1)
        return path

    def _run(self, argv: list[str], environ: Mapping[str, str], answers: Path, **more: Any) -> dict[str, Any]:
        """Run a program under a supervisor of its own. Raises CannotAsk if that fails."""
        spec = {
            "argv": argv,
            "env": {name: value for name, value in environ.items() if "=" not in name and "\0" not in name + value},
            "cwd": [str(self.cwd), str(self.home), "/"],
            "answers": str(answers),
            "user": self.user,
            "trace_fd": TRACE_FD,
            "record": RECORD,
            "keep": "(?!)",
            "limit_s": self.limit_s,
            **more,
        }
        ours, theirs = socket.socketpair()
        out = b""
        with ours, contextlib.suppress(ConnectionError):  # killed: then there is no answer
            with theirs:
                socket.send_fds(self.supervisor, [b"\0"], [theirs.fileno()])
            self.running.add(ours)
            ours.sendall(json.dumps(spec).encode() + b"\n")
            while piece := ours.recv(1 << 16):
                out += piece
        self.running.discard(ours)
        try:
            said: dict[str, Any] = json.loads(out)
        except ValueError:
            lines = out.decode("utf-8", "replace").strip().split("\n")
            raise CannotAsk(f"{argv[0]} could not be watched: {lines[-1][:200]}") from None
        return said


@contextlib.contextmanager
def _supervisor() -> Iterator[socket.socket]:
    """Yield the socket of a supervisor that accepts connections; one for all shells, since starting Python is slow."""
    ours, theirs = socket.socketpair()
    with (
        theirs,
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", inspect.getsource(supervise)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        ),
        ours,
    ):
        theirs.close()
        yield ours


def _owner(home: Path) -> tuple[int, dict[str, Any]]:
    """Return the owner, and Popen's arguments to become that user. Raises CannotAsk: only owners run their files."""
    try:
        found = home.stat()
    except OSError as error:
        raise CannotAsk(f"{home} cannot be looked into: {error.strerror}") from None
    uid, gid, groups = found.st_uid, found.st_gid, list[int]()
    if uid == os.geteuid():
        return uid, {}
    if os.geteuid() != 0:
        raise CannotAsk(f"{home} belongs to uid {uid}, and this runs as uid {os.geteuid()}")
    with contextlib.suppress(KeyError):  # a container's uid may have no account
        account = pwd.getpwuid(uid)
        gid, groups = account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid)
    return uid, {"user": uid, "group": gid, "extra_groups": groups}


def _terminal(environ: Mapping[str, str], uid: int) -> dict[str, str]:
    """Return the environment with which this user's terminal would start a shell, of the first level."""
    given = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TERM": "xterm-256color"}
    with contextlib.suppress(KeyError):
        account = pwd.getpwuid(uid)
        given |= {"SHELL": account.pw_shell, "USER": account.pw_name, "LOGNAME": account.pw_name}
    given |= environ
    return {name: value for name, value in given.items() if name not in ("OLDPWD", "SHLVL", "_")}


def sections_of(answer: str) -> dict[str, str]:
    """Return the sections of an answer by their marks, except the last one, which may be truncated."""
    pieces = _SECTION.split(answer)
    return dict(zip(pieces[1:-2:2], pieces[2:-2:2], strict=True))


def _on_its_way(last: list[str]) -> bool:
    """Return whether a trace shows a shell that makes progress, not one that waits or loops."""
    return len({record.rpartition(FIELD)[0] or record for record in last}) > _CIRCLE


def of_manager(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the watched names in the environment that systemd's user manager or launchd passes on.

    Return {} if there is no such manager. Raises CannotAsk if it does not answer.
    """
    if sys.platform == "darwin":
        asked = {name: _output(["launchctl", "getenv", name], environ).strip() for name in WATCHED}
        return {name: text for name, text in asked.items() if text}
    if "XDG_RUNTIME_DIR" not in environ:
        return {}
    lines = _output(["systemctl", "--user", "show-environment"], environ).splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: text.removeprefix("$'").strip("'\"") for name, _, text in pairs if name in WATCHED}


def _output(argv: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            argv, env=dict(environ), capture_output=True, text=True, timeout=MANAGER_LIMIT_S, check=False
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""
    except subprocess.TimeoutExpired:
        raise CannotAsk(f"{shlex.join(argv)} gave no answer within {MANAGER_LIMIT_S:g} s") from None
    except OSError as error:
        raise CannotAsk(f"{shlex.join(argv)} could not be started: {error.strerror}") from None
    return done.stdout if done.returncode == 0 else ""
