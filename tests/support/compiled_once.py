"""Makes Ansible cheaper where tests run it: its modules are compiled once, and garbage is seldom looked for.

Ansible sends each module as a zip file of sources, and Python compiles all of them each time: that takes half of a
module's CPU time, and a run of the tests has thousands. What is compiled is kept, as Python does for other files in
__pycache__. And for each zip file ansible-playbook parses the same sources again, to see what they import: that is
kept, too. scripts/venv installs this for ansible-playbook and the modules that run here, and
tests/support/farm/container.py for the modules on the tests' hosts. A site.yml of a user has none of it.

The kept code is found by a hash of its source and Python's version (PEP 552), so what runs is what was sent. Whoever
may not write to the directory compiles. It is imported at the start of every Python there, so it imports little.
"""

from __future__ import annotations

import _imp
import gc
import marshal
import os
import sys
import zipimport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

#: A module comes on stdin, or as a file of this name.
_PROGRAMS = ("ansible", "AnsiballZ_")
#: A worker of ansible-playbook lives for one task, and a module for a second.
_OBJECTS = 100_000


def keep(directory: str) -> None:
    """Keep compiled code in this directory, which must be there. Programs that are not Ansible's stay as they are."""
    if len(sys.orig_argv) > 1 and not os.path.basename(sys.orig_argv[1]).startswith(_PROGRAMS):
        return
    gc.set_threshold(_OBJECTS)
    compile_source = zipimport._compile_source  # type: ignore[attr-defined]

    def compile_once(path: str, source: bytes, *more: object) -> object:
        from importlib.util import MAGIC_NUMBER, source_hash

        name = os.path.join(directory, (MAGIC_NUMBER[:2] + source_hash(source)).hex())
        try:
            with open(name, "rb") as file:
                code = marshal.loads(file.read())  # noqa: S302 - written below
        except (OSError, ValueError, EOFError, TypeError):
            code = compile_source(path, source, *more)
            _write(name, marshal.dumps(code))
            return code
        _imp._fix_co_filename(code, path)  # type: ignore[attr-defined]  # as for a .pyc file that was moved
        return code

    zipimport._compile_source = compile_once  # type: ignore[attr-defined]
    if sys.orig_argv[1:]:
        sys.meta_path.insert(0, _Controller(directory))


class _Controller:
    """Waits for the part of ansible-playbook that makes the zip files."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Load it as ever, and change it afterwards."""
        if name != "ansible.executor.module_common":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec: Any = find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            _parse_once(module, self._directory)

        spec.loader.exec_module = exec_module
        return spec  # type: ignore[no-any-return]


def _parse_once(common: Any, directory: str) -> None:
    """Keep what ansible-playbook looks for in the syntax tree of a source: its imports of Ansible's own modules."""
    parse, look = common._compile_module_ast, common.ModuleDepFinder.__init__

    def look_once(self: Any, module: str, given: tuple[str, bytes | str], is_package: bool = False) -> None:
        from importlib.util import source_hash

        name, source = given
        key = f"{sys.version} {common.__version__} {module} {is_package} ".encode()
        data = source.encode() if isinstance(source, str) else bytes(source)
        path = os.path.join(directory, "imports-" + source_hash(key + data).hex())
        try:
            with open(path, "rb") as file:
                self.submodules, self.optional_imports = marshal.loads(file.read())  # noqa: S302 - written below
        except (OSError, ValueError, EOFError, TypeError):
            look(self, module, parse(name, source), is_package)
            _write(path, marshal.dumps((self.submodules, self.optional_imports)))

    common._compile_module_ast, common.ModuleDepFinder.__init__ = lambda *given: given, look_once


def _write(name: str, data: bytes) -> None:
    """Write a file at once, if it can be written."""
    new = f"{name}.{os.getpid()}"
    try:
        with open(new, "xb") as file:
            file.write(data)
        os.replace(new, name)
    except OSError:
        pass
