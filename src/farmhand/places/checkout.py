"""The checkout from which playbooks are run."""

from __future__ import annotations

import os
from pathlib import Path

from farmhand.core.errors import NotConfigured


def find_project(setting: str, start: Path) -> Path:
    """Return the configured checkout, else `start` or the nearest checkout above it. Raise NotConfigured."""
    if setting:
        directory = Path(os.path.expanduser(setting)).resolve()
        if not is_project(directory):
            raise NotConfigured(f"project_dir {directory} has no site.yml beside an ansible.cfg", hint="correct it")
        return directory
    for directory in (start, *start.parents):
        if is_project(directory):
            return directory
    hint = "cd into the checkout, or set project_dir in config.toml"
    raise NotConfigured(f"{start} is not in a checkout with site.yml and ansible.cfg", hint=hint)


def is_project(directory: Path) -> bool:
    """Return whether `directory` is a checkout. Both files are required, so that an unrelated site.yml is not run."""
    return (directory / "site.yml").is_file() and (directory / "ansible.cfg").is_file()
