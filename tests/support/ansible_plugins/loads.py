"""A callback of the tests' Ansible that imports what its modules need, before the workers are forked.

What is there then is garbage of nobody: a worker does not look through it, so it shares the memory.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: loads
type: aggregate
short_description: import modules early
description: [Imports what FARMHAND_TESTS_LOAD names.]
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Imports at the start; says nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "loads"

    def v2_playbook_on_start(self, _: object) -> None:
        """Import them."""
        root = str(Path(__file__).parents[3])
        sys.path.insert(0, root)
        for name in os.environ.get("FARMHAND_TESTS_LOAD", "").split():
            importlib.import_module(name)
        from tests.support import garbage

        garbage.leave_alone()
        sys.path.remove(root)
