"""`ansible-playbook playbooks/workstation.yml` as an operator runs it, with a home of its own."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forked_modules import FORKED
from tests.support.shells import Home

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
TIMEOUT_S = 900.0
_OTHERS = (
    *(
        ".ansible/",
        ".cache/",
        "bin/",
        ".claude.json",
        ".claude/.last",
        ".claude/b",
        ".claude/p",
        ".claude/s",
        ".zcompdump",
    ),
    *(".config/fish/fish_variables", ".local/share/fish/"),
)


@dataclass
class Done:
    """How the playbook ended."""

    status: int
    out: str

    @property
    def changed(self) -> int:
        """How many tasks changed something."""
        match = re.search(r"changed=(\d+)", self.out)
        assert match, self.out[-3000:]
        return int(match[1])


async def workstation(home: Home, *flags: str, install: bool = False, **variables: Any) -> Done:
    """Run the playbook in the home's project, with its session's environment."""
    given = {"workstation_install_enabled": install, "workstation_project_dir": str(home.project), **variables}
    environment = {
        **home.environment,
        **FORKED,
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
    }
    process = await asyncio.create_subprocess_exec(
        str(BIN / "ansible-playbook"),
        "playbooks/workstation.yml",
        "--extra-vars",
        json.dumps(given),
        *flags,
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode is not None
    return Done(process.returncode, out.decode())


def snapshot(home: Home) -> dict[str, tuple[bytes, int]]:
    """Content and mode of the operator's own files: not what Ansible, the CLI and fish write for themselves."""
    found = {}
    for path in sorted(home.path.rglob("*")):
        name = str(path.relative_to(home.path))
        own = not name.startswith(_OTHERS) or name == ".claude/settings.json"
        if own and path.is_file() and not path.is_symlink():
            found[name] = (path.read_bytes(), path.stat().st_mode & 0o777)
    return found
