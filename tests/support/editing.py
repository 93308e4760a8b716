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
#: Reads what is wanted from its input; the shells are started by the user that runs it.
_MODULE = """
import json, pathlib, sys
from farmhand.billing.keyfile import ChangeRefused
from farmhand.billing.outcome import absent, present
from farmhand.billing.store import Store
from farmhand.billing.wanted import Wanted

spec = json.load(sys.stdin)
wanted = {**spec["wanted"], **{name: pathlib.Path(path) for name, path in spec["paths"].items()}}
store = Store(pathlib.Path(spec["state_dir"]))
try:
    done = absent(store, write=True) if spec["absent"] else present(Wanted(**wanted), store, write=spec["write"])
except ChangeRefused as error:
    done = {"refused": str(error)}
json.dump(done, sys.stdout)
"""


def python() -> str:
    """A Python that an unprivileged user can start; the package's billing part needs no other."""
    own = Path(sys.executable).resolve()
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in own.parents):
        return sys.executable
    found = shutil.which("python3", path="/usr/bin:/bin")
    assert found, "no Python that an unprivileged user can start is installed"
    return found


@dataclass
class Operator:
    """A home and the module. `root` has no system files, so that only what the home has is asked."""

    home: Dotfiles
    lib: Path
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
        }
        done = subprocess.run(
            [python(), "-c", _MODULE],
            input=json.dumps(spec).encode(),
            env={**self.home.environ, "PYTHONPATH": str(self.lib), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=self.home.path,
            capture_output=True,
            check=False,
            timeout=300,
            **self.home._user(),
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found

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
    used = (str(directory / "lib/farmhand" / name) for name in ("billing", "wire"))
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
