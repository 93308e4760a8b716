"""Who pays for an interactive `claude`: what could bring a metered credential to it, and taking that away.

Standard library only, and nothing of the operator's is ever run. Ansible's modules import it as
`ansible.module_utils.farmhand.billing`; `farmhand doctor` calls `find`.
"""

from __future__ import annotations

from .search import find
from .verdict import Report, Source, Verdict

__all__ = ["Report", "Source", "Verdict", "find"]
