"""Operators' homes from files of data, the programs that they call, and what their shells really give to `claude`.

The truth is obtained without the product: the shell itself, with a `claude` on PATH that prints its environment. Homes
belong to an unprivileged user: bash takes PS4 from nobody's environment when it runs as root.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import termios
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farmhand.billing.names import METERED, counts

DATA = Path(__file__).resolve().parents[1] / "data" / "billing"
ONE = "sk-ant-test-one-000000000001"
TWO = "sk-ant-test-two-000000000002"
#: Nobody's account; whoever runs the tests as root becomes it.
UID = 54321
FLAGS = {"login": "-lc", "interactive": "-ic", "login interactive": "-lic"}
KINDS = [(shell, mode) for shell in ("bash", "zsh", "fish", "sh") for mode in FLAGS]
_MARK = "TRUTH-"
_CLAUDE = f"#!/bin/sh\nprintf '%s' '{_MARK}BEGIN'; /usr/bin/env -0; printf '%s' '{_MARK}END'\n"
#: Each writes into $HOME/.calls that it was run, so that a test can count.
_COUNT = '#!/bin/sh\necho "${0##*/} $*" >>"$HOME/.calls"\n'
_PROGRAMS = {
    "security": f"echo {ONE}",
    "pass": f"echo {ONE}",
    "age": f"echo 'export ANTHROPIC_API_KEY={ONE}'",
    "sops": f"echo ANTHROPIC_API_KEY={ONE}",
    "ccr": f"echo 'export ANTHROPIC_AUTH_TOKEN={TWO}'; echo export ANTHROPIC_BASE_URL=http://127.0.0.1:3456",
    "sheldon": "echo 'source \"$HOME/.config/sheldon/secrets.zsh\"'",
    "op": f"""\
case $1 in
read) echo {ONE} ;;
inject)
    out=/dev/stdout in=/dev/stdin
    while [ $# -gt 0 ]; do
        case $1 in -i|--in-file) in=$2; shift ;; -o|--out-file) out=$2; shift ;; esac
        shift
    done
    sed 's/{{{{ *op:[^}}]*}}}}/{ONE}/' "$in" >"$out" ;;
run)
    while [ "$1" != -- ]; do shift; done
    shift
    ANTHROPIC_API_KEY={ONE} exec "$@" ;;
esac""",
}
#: How the names of start-up files begin, and the shells that read them.
_READ_BY = ((".config/fish", {"fish"}), (".z", {"zsh"}), (".bash", {"bash"}), (".profile", {"bash", "sh"}))


@dataclass
class Case:
    """One home of the data."""

    name: str
    files: dict[str, str]
    pty: bool = False
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    #: By kind of shell, what is to be said of it where that is not none: `billed`, or `unknown FILE:LINE`.
    expect: dict[str, str] = field(default_factory=dict)
    #: The cases that share this home.
    parts: list[Case] = field(default_factory=list)

    @property
    def shells(self) -> set[str]:
        """The shells whose start-up files it has."""
        found = (read_by for name in self.files for start, read_by in _READ_BY if name.startswith(start))
        return set().union(*found)

    def has(self, name: str) -> bool:
        """Whether a file, named by its path in the home, is in a place of this case's."""
        return _place(name) in map(_place, self.files)


def _place(name: str) -> str:
    parts = name.split("/")
    return "/".join(parts[: 2 if parts[0] == ".config" else 1])


def side_by_side(cases: Iterable[Case]) -> list[Case]:
    """Cases whose files are read by different shells share a home: all shells are asked in each."""
    homes: list[Case] = []
    for case in cases:
        own = case.env or case.cwd or "ALLOW" in case.files or not case.shells
        free = (each for each in homes if not own and _room(each, case))
        if home := next(free, None):
            home.name += f" + {case.name}"
            home.files |= case.files
            home.parts.append(case)
        else:
            homes.append(Case(case.name, dict(case.files), case.pty, case.env, case.cwd, case.expect, [case]))
    return homes


def _room(home: Case, case: Case) -> bool:
    """Whether the home has nothing that this case's shells, or its files, would meet."""
    alone = home.env or home.cwd or "ALLOW" in home.files or not home.shells
    met = home.shells & case.shells or any(home.has(name) for name in case.files)
    return not alone and not met and home.pty == case.pty


def cases(name: str) -> list[Case]:
    """The homes of a file of tests/data/billing."""
    return [Case(**each) for each in json.loads((DATA / name).read_text())]


class Dotfiles:
    """A home made from a case, below a directory that its user may enter."""

    def __init__(self, directory: Path, case: Case) -> None:
        self.case = case
        self.path = directory / "home"
        self.bin = directory / "bin"
        self.path.mkdir(parents=True)
        self.bin.mkdir()
        # Where it is missing, fish reads all manual pages of the machine at its first start.
        (self.path / ".local/share/fish/generated_completions").mkdir(parents=True)
        for name, text in {**_PROGRAMS, "claude": ""}.items():
            (self.bin / name).write_text(_CLAUDE if name == "claude" else f"{_COUNT}{text}\n")
            (self.bin / name).chmod(0o755)
        for name, text in case.files.items():
            if name != "ALLOW":
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.path / name).write_text(text)
        self.uid = UID if os.geteuid() == 0 else os.geteuid()
        if os.geteuid() == 0:
            for each in [self.path, *self.path.rglob("*")]:
                os.chown(each, UID, UID, follow_symlinks=False)
        if "ALLOW" in case.files:
            self.run(["direnv", "allow", str(self.path / case.files["ALLOW"])])

    @property
    def cwd(self) -> Path:
        return self.path / self.case.cwd if self.case.cwd else self.path

    @property
    def environ(self) -> dict[str, str]:
        """What the session has."""
        path = f"{self.bin}:/usr/local/bin:/usr/bin:/bin"
        env = {name: value.replace("$HOME", str(self.path)) for name, value in self.case.env.items() if name != "ENV"}
        env |= {name: value for name, value in self.case.env.items() if name == "ENV"}
        return {"HOME": str(self.path), "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8", **env}

    def _user(self) -> dict[str, Any]:
        return {"user": UID, "group": UID, "extra_groups": []} if os.geteuid() == 0 else {}

    def run(self, argv: list[str], **environ: str) -> bytes:
        """The output of a command of this operator's."""
        done = subprocess.run(
            argv,
            cwd=self.cwd,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=60,
            check=False,
            **self._user(),
        )
        out: bytes = done.stdout
        return out

    def truth(self, shell: str, mode: str) -> dict[str, str]:
        """The watched variables that decide something, as `claude` gets them in a real shell of this kind."""
        # /etc/profile sets PATH anew in a login shell; the stand-ins go before it again, seen by no start-up file.
        path = f"set -gx PATH {self.bin} $PATH" if shell == "fish" else f"PATH={self.bin}:$PATH; export PATH"
        if self.case.pty and "interactive" in mode:
            out = self._typed([shell, FLAGS[mode].replace("c", "")], path)
        else:
            out = self.run([shell, FLAGS[mode], f"{path}\nclaude"])
        return watched(out)

    def _typed(self, argv: list[str], path: str) -> bytes:
        """What a shell on a terminal prints when `path` and `claude` are typed, each at a prompt of its own."""
        parent, child = pty.openpty()
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv],
            cwd=self.cwd,
            env=self.environ,
            stdin=child,
            stdout=child,
            stderr=child,
            **self._user(),
        )
        os.close(child)
        out = b""
        until = time.monotonic() + 40

        def read_until(told: Callable[[], bool]) -> None:
            nonlocal out
            while not told() and process.poll() is None and time.monotonic() < until:
                out += _come(parent)

        def prompts() -> bool:
            """Whether a line editor waits for keys: it has set the terminal so. Debian's sh has none, nor hooks."""
            return argv[0] == "sh" or not termios.tcgetattr(parent)[3] & termios.ICANON

        try:
            read_until(prompts)
            os.write(parent, f"{path}; printf '%s%s' {_MARK} SET\r".encode())
            read_until(lambda: f"{_MARK}SET".encode() in out)
            read_until(prompts)
            os.write(parent, b"claude\r")
            read_until(lambda: f"{_MARK}END".encode() in out)
            return out
        finally:
            process.kill()
            process.wait()
            os.close(parent)

    def put(self, name: str, text: str) -> None:
        """Write a file of the operator's."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if os.geteuid() == 0:
            os.chown(path, UID, UID)

    def remove(self) -> None:
        """Take the whole home away."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def watched(out: bytes) -> dict[str, str]:
    """What the stand-in for claude printed of the watched names."""
    found = re.findall(rf"{_MARK}BEGIN(.*?){_MARK}END".encode(), out, re.DOTALL)
    assert found, f"claude was not started: {out[-600:]!r}"
    pairs = (each.decode("utf-8", "replace").split("=", 1) for each in found[-1].split(b"\0") if b"=" in each)
    return {name: value for name, value in pairs if name in METERED and counts(name, value)}


def _come(fd: int) -> bytes:
    """What a terminal has for whoever reads it, if something comes soon."""
    if not select.select([fd], [], [], 0.01)[0]:
        return b""
    with contextlib.suppress(OSError):  # EIO: nobody holds the other side any more
        return os.read(fd, 1 << 16)
    return b""
