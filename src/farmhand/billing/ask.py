"""Queries of a shell for the environment of a `claude` typed in it. Start-up files run as in every terminal."""

from __future__ import annotations

import base64
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

from . import leftovers, shims, supervise, verdicts
from .kinds import DEFINED, FIELD, RECORD, TRACE_FD, Kind
from .names import WATCHED
from .supervise import OUT_OF_TIME

#: Start-up files can use this variable to detect a query.
MARKER = "FARMHAND_ASKING"
#: Time limit for one shell, in seconds.
LIMIT_S = 10.0
#: Time limit for the CLI's status, in seconds.
CLI_LIMIT_S = 30.0
_SECTION = re.compile(rb"\0\0(before|typed|other|whole|unanswered|end)\n")
_KEEP = (
    rf"({'|'.join(WATCHED)})|claude|farmhand|/dev/tty"
    rf"|{FIELD}\\?(builtin |command |\\)?(source|\.) |{FIELD}(eval|emulate) "
    rf"|{FIELD}(exit|exec|logout|read|vared|select|builtin read)\b"
)
_KEEP_FISH = r"^\d+\x1f(-*> |\x1d)"
#: A loop of at most this many lines counts as endless.
_CIRCLE = 8


class CannotAsk(Exception):
    """An error with the reason why no shell can be asked here."""


@dataclass
class ShellAnswer:
    """The answer of one shell.

    `before` is its environment when `claude` is typed, `got` the CLI's; None if it did not get that far. `said` is the
    output after the mark (the real CLI's, if it was called by its path), `trace` the trace records.
    """

    kind: Kind
    before: dict[str, str] | None
    got: dict[str, str] | None
    definitions: dict[str, str]
    said: str
    unanswered: str
    ended: str
    trace: list[str] = field(repr=False, default_factory=list)
    last: list[str] = field(repr=False, default_factory=list)

    @property
    def status(self) -> dict[str, Any] | None:
        """Return the status printed by the real CLI, if an alias or a function calls it by its path."""
        return verdicts.status(self.said)


class Asking:
    """One round of queries. A context manager: its private directories are removed afterwards.

    Raises CannotAsk if the files belong to a user that this process cannot become.
    """

    def __init__(
        self,
        home: Path,
        environ: Mapping[str, str],
        session: Mapping[str, str],
        cwd: Path,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.home, self.cwd, self.limit_s = home, cwd, limit_s
        self.user = _owner(home)
        self.environ = {**self._environment(environ), **session}
        self.mark = f"\x1efarmhand-{secrets.token_hex(8)}\x1e"
        self._stack = contextlib.ExitStack()
        self._running: set[socket.socket] = set()

    def __enter__(self) -> Asking:
        """Create the directories: scripts where files can be executed, answers in memory if possible."""
        uid = self.user["uid"] if self.user else None
        scripts = Path(tempfile.gettempdir())
        memory = Path("/dev/shm")  # noqa: S108 - a directory of our own, 0700, is made in it
        memory = memory if os.access(memory, os.W_OK) else scripts
        for where in {scripts, memory}:
            leftovers.remove(where, {os.geteuid(), os.geteuid() if uid is None else uid})
        self._stack.enter_context(leftovers.signals_end_in_order())
        try:
            self._supervisor = self._stack.enter_context(_supervisor())
            self.scripts = self._directory(scripts, uid)
            self.cache = self._directory(memory, uid)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the directories."""
        self._stack.close()

    def stop(self) -> None:
        """End the shells being asked, since their answers are no longer needed."""
        for connection in list(self._running):
            with contextlib.suppress(OSError):  # already answered
                connection.shutdown(socket.SHUT_WR)

    def _directory(self, where: Path, uid: int | None) -> Path:
        made = Path(tempfile.mkdtemp(prefix=f"{leftovers.PREFIX}{os.getpid()}-", dir=where)).resolve()
        self._stack.callback(shutil.rmtree, made, ignore_errors=True)
        if uid is not None:
            os.chown(made, uid, -1)
        return made

    def _environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment with which this user's terminal would start a shell."""
        kept = dict(environ)
        kept.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
        kept.setdefault("TERM", "xterm-256color")
        with contextlib.suppress(KeyError):  # a container's uid may have no account
            account = pwd.getpwuid(self.user["uid"] if self.user else os.getuid())
            kept.setdefault("SHELL", account.pw_shell)
            kept.setdefault("USER", account.pw_name)
            kept.setdefault("LOGNAME", account.pw_name)
        for name in ("OLDPWD", "SHLVL", "_"):  # a terminal starts a first-level shell
            kept.pop(name, None)
        return kept | {"HOME": str(self.home), "PWD": str(self.cwd)}

    def given(self) -> dict[str, str]:
        """Return the extra variables of asked shells, which stop start-up files from attaching, updating or asking."""
        return {
            MARKER: "1",
            "TMUX": f"{self.cache}/tmux,0,0",
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

    def ask(self, kind: Kind) -> ShellAnswer:
        """Start the shell and type `claude` in it. If it is too slow when traced, ask again without the trace."""
        answer = self._ask(kind, traced=True)
        if answer.ended == OUT_OF_TIME and answer.before is None and _on_its_way(answer.last):
            return self._ask(kind, traced=False)
        return answer

    def _ask(self, kind: Kind, *, traced: bool) -> ShellAnswer:
        name = f"{kind.name.replace(' ', '-')}{'' if traced else '-again'}"
        bin_dir = self.scripts / name
        bin_dir.mkdir()
        bin_dir.chmod(0o755)
        answers = self._fifo(name)
        shims.install(bin_dir, self.scripts, self.cache, answers, self.mark, self.environ["PATH"])
        added = {**self.given(), **(kind.tracing() if traced else {}), **shims.functions(bin_dir, kind.shell)}
        if kind.shell == "fish":
            added |= self._fish(bin_dir)
        said = self._run(
            kind.program,
            kind.argv(bin_dir, traced=traced),
            {**self.environ, **added, "PATH": f"{bin_dir}:{self.environ['PATH']}"},
            answers,
            trace_fd=TRACE_FD if kind.shell == "bash" and traced else 0,
            record="\n" if kind.shell == "fish" else RECORD,
            keep=_KEEP_FISH if kind.shell == "fish" else _KEEP,
        )
        sections = sections_of(base64.b64decode(said["answer"]))
        # A wrapper stopped between two calls of the CLI may not have reached the call that counts.
        done = said["ended"].startswith(("answered", "exit"))
        calls = (shims.TYPED, shims.OTHER) if done else (shims.TYPED,)
        defined = re.findall(rb"FARMHAND_DEFINITION=([^\0]*)", sections.get(shims.BEFORE, b""))

        def environ(*labels: str) -> dict[str, str] | None:
            raw = next((sections[label] for label in labels if label in sections), None)
            return None if raw is None else shims.clean(_environ(raw), added, self.environ, self.scripts)

        return ShellAnswer(
            kind,
            environ(shims.BEFORE),
            environ(*calls),
            dict(zip((*DEFINED, "deferred", "waiting"), (_text(each) for each in defined), strict=False)),
            _decoded(said["said"]),
            _text(sections.get(shims.UNANSWERED, b"")).strip(),
            said["ended"],
            [_decoded(each) for each in said["kept"]],
            [_decoded(each) for each in said["last"]],
        )

    def cli(self, environ: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the real CLI's status in this environment: which account it would use.

        Return None if there is no CLI or it prints no status, {} if it was stopped before its answer.
        """
        program = shutil.which("claude", path=environ.get("PATH"))
        if program is None:
            return None
        answers = self._fifo(f"cli-{secrets.token_hex(4)}")
        quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        given = {**environ, **quiet, MARKER: "1"}
        argv = [program, "auth", "status", "--json"]
        said = self._run(program, argv, given, answers, limit_s=CLI_LIMIT_S, mark="")
        status = verdicts.status(_decoded(said["said"]))
        return {} if status is None and not said["ended"].startswith("exit") else status

    def asked(self) -> list[str]:
        """Return the commands run by the start-up files that give out secrets."""
        return shims.asked(self.cache)

    def _fifo(self, name: str) -> Path:
        path = self.cache / f"{name}.fifo"
        os.mkfifo(path, 0o600)
        if self.user:
            os.chown(path, self.user["uid"], -1)
        return path

    def _fish(self, bin_dir: Path) -> dict[str, str]:
        """Install fish event handlers, loaded like a vendor's, that report where a variable is set."""
        data = bin_dir / "data"
        snippets = data / "fish" / "vendor_conf.d"
        was = self.environ.get("XDG_DATA_DIRS")
        if not snippets.exists():
            snippets.mkdir(parents=True, exist_ok=True)
            lines = [f"set -gx XDG_DATA_DIRS {shlex.quote(was)}" if was is not None else "set -e XDG_DATA_DIRS"]
            lines += ["set -g --unexport fish_trace 1"]
            for name in WATCHED:
                lines += [
                    f"function __farmhand_{name} --on-variable {name}",
                    f"    printf '\\n\\x1d{name}\\x1f%s\\n' (status stack-trace | string join \\x1e) >&2",
                    "end",
                ]
            (snippets / "00-farmhand.fish").write_text("\n".join(lines) + "\n")
        own: dict[str, str] = {}
        if not any((self.home / each).exists() for each in (".config/fish", ".local/share/fish")):
            # Keep fish from creating its directories in a home that has none.
            own = {
                name: str(bin_dir / "fish") for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME") if name not in self.environ
            }
        return own | {"XDG_DATA_DIRS": f"{data}:{was or '/usr/local/share:/usr/share'}"}

    def _run(
        self,
        program: str,
        argv: list[str],
        environ: Mapping[str, str],
        answers: Path,
        *,
        trace_fd: int = 0,
        record: str = RECORD,
        keep: str = "(?!)",
        limit_s: float | None = None,
        mark: str | None = None,
    ) -> dict[str, Any]:
        """Run a program under a supervisor of its own. Raises CannotAsk if that fails."""
        spec = {
            "program": program,
            "argv": argv,
            "env": {name: value for name, value in environ.items() if "=" not in name and "\0" not in name + value},
            "cwd": [str(self.cwd), str(self.home), "/"],
            "answers": str(answers),
            "user": self.user,
            "umask": 0o022,
            "trace_fd": trace_fd,
            "record": record,
            "keep": keep,
            "limit_s": self.limit_s if limit_s is None else limit_s,
            "mark": self.mark if mark is None else mark,
        }
        ours, theirs = socket.socketpair()
        out = b""
        with ours, contextlib.suppress(ConnectionError):  # killed: then there is no answer
            with theirs:
                socket.send_fds(self._supervisor, [b"\0"], [theirs.fileno()])
            self._running.add(ours)
            ours.sendall(json.dumps(spec).encode() + b"\n")
            while piece := ours.recv(1 << 16):
                out += piece
        self._running.discard(ours)
        try:
            said: dict[str, Any] = json.loads(out)
        except ValueError:
            lines = _text(out).strip().split("\n")
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


def _owner(home: Path) -> dict[str, Any] | None:
    """Return the user to become; None for the current one. Raises CannotAsk: files are run only as their owner."""
    try:
        owner = home.stat().st_uid
    except OSError as error:
        raise CannotAsk(f"{home} cannot be looked into: {error.strerror}") from None
    if owner == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise CannotAsk(f"{home} belongs to uid {owner}, and this runs as uid {os.geteuid()}")
    try:
        account = pwd.getpwuid(owner)
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        return {"uid": owner, "gid": account.pw_gid, "groups": groups}
    except KeyError:  # a container's uid may have no account
        return {"uid": owner, "gid": home.stat().st_gid, "groups": []}


def sections_of(answer: bytes) -> dict[str, bytes]:
    """Return the sections of an answer by their marks, except the last one, which may be truncated."""
    pieces = _SECTION.split(answer)
    return {label.decode(): content for label, content in zip(pieces[1:-2:2], pieces[2:-2:2], strict=True)}


def _environ(raw: bytes) -> dict[str, str]:
    pairs = (_text(each).split("=", 1) for each in raw.split(b"\0") if b"=" in each)
    return {pair[0]: pair[1] for pair in pairs}


def _on_its_way(last: list[str]) -> bool:
    """Return whether a trace shows a shell that makes progress, not one that waits or loops."""
    return len({record.rpartition(FIELD)[0] or record for record in last}) > _CIRCLE


def _decoded(text: str) -> str:
    return _text(base64.b64decode(text))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
