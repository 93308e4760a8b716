"""Makes Ansible cheaper where tests run it: its modules are compiled once, and garbage is seldom looked for.

Ansible sends each module as a zip file of sources, and Python compiles all of them each time: that takes half of a
module's CPU time, and a run of the tests has thousands. What is compiled is kept, as Python does for other files in
__pycache__. scripts/venv installs this for ansible-playbook and the modules that run here, and
tests/support/farm/container.py for the modules on the tests' hosts. A site.yml of a user has none of it.

The kept code is found by a hash of its source and Python's version (PEP 552), so what runs is what was sent. Whoever
may not write to the directory compiles. It is imported at the start of every Python there, so it imports little.
"""

import _imp
import gc
import marshal
import os
import sys
import zipimport

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


def _write(name: str, data: bytes) -> None:
    """Write a file at once, if it can be written."""
    new = f"{name}.{os.getpid()}"
    try:
        with open(new, "xb") as file:
            file.write(data)
        os.replace(new, name)
    except OSError:
        pass
