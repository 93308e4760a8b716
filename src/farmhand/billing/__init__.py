"""Billing of an interactive `claude`: find metered credentials that reach it, and remove them.

Standard library only. The operator's start-up files are run by their own shells, as in every terminal (ask.py);
`repos.env` and a project's files are only read. Ansible's modules import this package as
`ansible.module_utils.farmhand.billing`; `farmhand doctor` calls `find`.
"""

from __future__ import annotations

from .search import find
from .verdict import Report, Source, Verdict

__all__ = ["Report", "Source", "Verdict", "find"]
