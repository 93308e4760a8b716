"""The module's function run as the operator whose home it is, and what is to be compared before and after it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farmhand.billing.kinds import SHELLS, own_files
from tests.support.dotfiles import FLAGS, Dotfiles

SRC = Path(__file__).resolve().parents[2] / "src"
#: Reads lines with what is wanted; each is answered by a fork, as the user whose home it is.
_MODULE = """
import json, os, pathlib, sys
from farmhand.billing.keyfile import ChangeRefused
from farmhand.billing.outcome import absent, present
from farmhand.billing.store import Store
from farmhand.billing.wanted import Wanted

def answer(spec):
    if spec["uid"] is not None:
        os.setgroups([])
        os.setgid(spec["uid"])
        os.setuid(spec["uid"])
    os.environ.clear()
    os.environ.update(spec["environ"])
    os.chdir(spec["paths"]["home"])
    wanted = {**spec["wanted"], **{name: pathlib.Path(path) for name, path in spec["paths"].items()}}
    store = Store(pathlib.Path(spec["state_dir"]))
    try:
        return absent(store, write=True) if spec["absent"] else present(Wanted(**wanted), store, write=spec["write"])
    except ChangeRefused as error:
        return {"refused": str(error)}

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            print(json.dumps(answer(json.loads(line))), flush=True)
            code = 0
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        print("it failed", flush=True)
"""


def python() -> str:
    """A Python that an unprivileged user can start; the package's billing part needs no other."""
    own = Path(sys.executable).resolve()
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in own.parents):
        return sys.executable
    found = shutil.which("python3", path="/usr/bin:/bin")
    assert found, "no Python that an unprivileged user can start is installed"
    return found


class Module:
    """The process that answers; `lib` is the package."""

    def __init__(self, lib: Path) -> None:
        self._errors = (lib / "errors").open("w+")
        self._process = subprocess.Popen(
            [python(), "-c", _MODULE],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(lib), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, spec: dict[str, Any]) -> dict[str, Any]:
        """What the module returns."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(spec), file=self._process.stdin, flush=True)
        said = self._process.stdout.readline()
        assert said.startswith("{"), Path(self._errors.name).read_text()[-3000:]
        found: dict[str, Any] = json.loads(said)
        return found

    def end(self) -> None:
        """End it."""
        self._process.communicate()
        self._errors.close()


@dataclass
class Operator:
    """A home and the module. `root` has no system files, so that only what the home has is asked."""

    home: Dotfiles
    process: Module
    root: Path

    @property
    def state(self) -> Path:
        return self.home.path / ".local/state/farmhand"

    def module(self, *, write: bool = True, absent: bool = False, **wanted: Any) -> dict[str, Any]:
        """What the module returns."""
        paths = {
            "home": self.home.path,
            "key_file": self.home.path / "repos.env",
            "root": self.root,
            "cwd": self.home.cwd,
        }
        spec = {
            "wanted": {"environ": self.home.environ, "ask": False, "date": "2026-11-28", **wanted},
            "paths": {name: str(path) for name, path in paths.items()},
            "state_dir": str(self.state),
            "write": write,
            "absent": absent,
            "environ": self.home.environ,
            "uid": self.home._user().get("user"),
        }
        return self.process.ask(spec)

    def kinds(self) -> list[tuple[str, str]]:
        """The kinds of shell for which the home has start-up files."""
        shells = [shell for shell in SHELLS if own_files(shell, self.home.path, self.home.environ)]
        return [(shell, mode) for shell in shells for mode in FLAGS]

    def settle(self) -> None:
        """Let fish come to its first prompt: it writes files of its own then."""
        if ("fish", "interactive") in self.kinds():
            self.home.run(["fish", "-ic", "emit fish_prompt"])

    def snapshot(self) -> dict[str, tuple[bytes, int, int]]:
        """Each file with its content, mode and time of change; not what programs keep for themselves."""
        found = {}
        for path in sorted(self.home.path.rglob("*")):
            name = str(path.relative_to(self.home.path))
            if path.is_file() and not path.is_symlink() and not name.startswith((".local/", ".calls", ".cache/farm")):
                status = path.stat()
                found[name] = (path.read_bytes(), status.st_mode & 0o777, status.st_mtime_ns)
        return found


def copy_library(directory: Path) -> Path:
    """The package where an unprivileged user may read it; compiled once, as that user cannot."""
    shutil.copytree(SRC / "farmhand", directory / "lib/farmhand", ignore=shutil.ignore_patterns("__pycache__"))
    used = (str(directory / "lib/farmhand" / name) for name in ("billing", "core"))
    subprocess.run([python(), "-m", "compileall", "-q", *used], check=True)
    return directory / "lib"


def contents(snapshot: dict[str, tuple[bytes, int, int]]) -> dict[str, bytes]:
    """Only what is in the files."""
    return {name: content for name, (content, _, _) in snapshot.items()}


def parses(path: Path) -> bool:
    """Whether a shell that reads files of this name accepts it, by its own `-n`."""
    shells = {".fish": ["fish"], ".zsh": ["zsh"]}.get(path.suffix, ["zsh"] if path.name.startswith(".z") else ["bash"])
    argv = {"fish": ["fish", "--no-config", "-n"], "zsh": ["zsh", "-f", "-n"], "bash": ["bash", "-O", "extglob", "-n"]}
    return all(subprocess.run([*argv[s], str(path)], capture_output=True, check=False).returncode == 0 for s in shells)
