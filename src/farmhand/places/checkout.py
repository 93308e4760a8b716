"""The checkout from which playbooks are run: the operator's, or the one that an installed wheel carries."""

from __future__ import annotations

import os
from pathlib import Path

from farmhand.core import settings
from farmhand.core.errors import NotConfigured

#: In the package, if a wheel brought it: scripts/hatch_project.py. The installer owns it: nothing is written there.
CARRIED = Path(__file__).parents[1] / "project"


def find_project(setting: str, start: Path) -> Path:
    """Return the configured checkout, else `start` or the nearest above it, else the wheel's. Raise NotConfigured."""
    if setting:
        directory = Path(os.path.expanduser(setting)).resolve()
        if not is_project(directory):
            raise NotConfigured(f"project_dir {directory} has no site.yml beside an ansible.cfg", hint="correct it")
        return directory
    for directory in (start, *start.parents):
        if is_project(directory):
            return directory
    if is_project(CARRIED):
        return CARRIED
    hint = "cd into the checkout, or set project_dir in config.toml"
    raise NotConfigured(f"{start} is not in a checkout with site.yml and ansible.cfg", hint=hint)


def is_project(directory: Path) -> bool:
    """Return whether `directory` is a checkout. Both files are required, so that an unrelated site.yml is not run."""
    return (directory / "site.yml").is_file() and (directory / "ansible.cfg").is_file()


def inventory_of(project: Path) -> Path:
    """Return the directory of the inventory: in the checkout, or beside config.toml for the one of a wheel."""
    if project != CARRIED:
        return project / "inventory"
    return Path(settings.config_path(None, os.environ)[0]).absolute().with_name("inventory")
