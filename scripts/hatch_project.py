"""Build hook: a wheel that is installed by itself carries what `up`, `rotate`, `code` and `cloud` run, and Ansible.

The agent's own wheel is built without it (HATCH_BUILD_NO_HOOKS, roles/jada_agent/tasks/wheel.yml): a host needs none of
this, and a changed playbook must not look like a changed agent.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What is in the package as farmhand/project: a checkout without tests, from which playbooks run.
CARRIED = (
    *("ansible.cfg", "site.yml", "rotate-key.yml", "playbooks", "roles", "library", "action_plugins", "filter_plugins"),
    *(".claude-plugin", "plugin", "aws", "container", "inventory/example"),
    *("requirements/agent.txt", "requirements/cloud.txt", "requirements/otel.txt", "requirements/workstation.txt"),
    *("scripts/hatch_project.py", "pyproject.toml", "README.md", "LICENSE", "docs"),
)
#: Modules on a host are made of it, as are the agent's wheel and the containers' image. What is named twice is packed
#: once, so it goes in as a copy.
SOURCES = "src/farmhand"


class ProjectHook(BuildHookInterface):  # type: ignore[type-arg]  # its configuration class is of no interest here
    """Adds the man pages, the files and the requirements of the extras `workstation` and `mcp`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Say what the wheel has in it. An editable one is a checkout already."""
        if version == "editable":
            return
        root = Path(self.root)
        # scripts/dist.py makes the man pages; they are in the sdist, and so in a wheel that is made of it.
        pages = Path(os.environ.get("FARMHAND_MAN_PAGES") or root / "man")
        if self.target_name == "sdist":
            build_data["force_include"] |= {str(page): f"man/{page.name}" for page in _files(pages)}
            return
        build_data["shared_data"] |= {str(page): f"share/man/man1/{page.name}" for page in _files(pages)}
        extras = self.metadata.core.optional_dependencies
        build_data["dependencies"] += extras["workstation"] + extras["mcp"]
        copied = Path(tempfile.mkdtemp(prefix="farmhand-project-"))
        atexit.register(shutil.rmtree, copied, ignore_errors=True)
        shutil.copytree(root / SOURCES, copied / SOURCES)
        build_data["force_include"] |= {
            str(file): f"farmhand/project/{file.relative_to(top)}"
            for top, names in ((root, CARRIED), (copied, (SOURCES,)))
            for name in names
            for file in _files(top / name)
        }


def _files(path: Path) -> list[Path]:
    """Return the file, or the sources below the directory: a build must not depend on what has run there."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
