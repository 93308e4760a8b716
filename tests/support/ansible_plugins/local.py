"""The connection `local` of the tests' Ansible: a module runs in a fork, with what is loaded already.

Ansible starts an interpreter for each module, and one that needs boto3 takes 0.6 s of CPU time for imports alone. Here
the source of the module, as Ansible sends it, runs in a fork of the process that would start that interpreter.
Ansible's own code is taken out first, so it comes from the module's zip file as ever. Anything but a module, `become`
and another interpreter go the usual way. tests/support/forked_modules.py says how to use it.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import ansible.plugins.connection

DOCUMENTATION = """
name: local
short_description: run modules in forks
description: [As ansible.builtin.local, but modules are forked.]
author: farmhand
options:
  become_success_timeout: {type: int, default: 10, description: [As there.]}
  become_strip_preamble: {type: bool, default: true, description: [As there.]}
extends_documentation_fragment: [connection_pipelining]
"""
_ANSIBLE = ("ansible", "ansible_collections")
_USUAL = {signal.SIGINT: signal.default_int_handler}


def _builtin() -> Any:
    """Ansible's own plugin, whose name this one has."""
    file = Path(ansible.plugins.connection.__file__).with_name("local.py")
    spec = importlib.util.spec_from_file_location("ansible_own_local", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Connection


class Connection(_builtin()):  # type: ignore[misc]
    """Modules in forks."""

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a command."""
        if in_data and not self.become and (environ := _of_module(cmd)) is not None:
            return _fork(in_data, environ, self.cwd)
        done: tuple[int, bytes, bytes] = super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return done


def _of_module(command: str) -> dict[str, str] | None:
    """The variables of `/bin/sh -c 'NAME=value … PYTHON && sleep 0'`; None for what is something else."""
    words = shlex.split(command)
    if words[:2] != ["/bin/sh", "-c"] or len(words) != 3:
        return None
    *given, program, also, sleep, seconds = ["", "", "", "", *shlex.split(words[2])]
    given = given[4:]
    if [program, also, sleep, seconds] != [sys.executable, "&&", "sleep", "0"] or not all("=" in one for one in given):
        return None
    return dict(one.split("=", 1) for one in given)


def _fork(source: bytes, environ: dict[str, str], cwd: str | None) -> tuple[int, bytes, bytes]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _be(source, environ, cwd, (out.fileno(), err.fileno()))
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read(), err.read()


def _be(source: bytes, environ: dict[str, str], cwd: str | None, streams: tuple[int, int]) -> NoReturn:
    """Be the module."""
    code = 1
    try:
        for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), *streams)):
            os.dup2(stream, number)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), errors="backslashreplace", write_through=True)
        os.environ.update(environ)
        os.chdir(cwd or ".")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _USUAL.get(number, signal.SIG_DFL))
        _forget_ansible()
        main = sys.modules["__main__"] = ModuleType("__main__")
        sys.argv = ["-"]
        exec(compile(source, "<stdin>", "exec"), main.__dict__)  # noqa: S102 - the module, as Ansible has built it
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _forget_ansible() -> None:
    """Take out what the controller has loaded and hooked in: a module brings its own."""
    for name in [name for name in sys.modules if name.partition(".")[0] in _ANSIBLE]:
        del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if _home(one) not in _ANSIBLE]
    sys.path_hooks[:] = [one for one in sys.path_hooks if _home(one) not in _ANSIBLE]
    sys.path_importer_cache.clear()


def _home(hook: object) -> str:
    """The package that a hook comes from."""
    return str(getattr(hook, "__module__", None) or type(hook).__module__).partition(".")[0]
