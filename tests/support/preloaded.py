"""Imported by the server that daemons are forked from, and there alone: the shifted clock comes before all others."""

from tests.support import clock

clock.install()

import farmhand.agent.daemon  # noqa: E402
import farmhand.agent.main  # noqa: E402, F401

# What the forked process unpickles.
import tests.support.forked  # noqa: E402
import tests.support.forked_entry  # noqa: E402, F401
from tests.support import garbage  # noqa: E402

garbage.leave_alone()
