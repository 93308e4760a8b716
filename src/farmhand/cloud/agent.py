"""The daemon of a farm host in the agent container, with its files from the environment.

FARMHAND_CONFIG is the text of its config.toml, FARMHAND_PRICES that of the operator's price file, or "". Neither has a
secret: the key comes through the agent's socket, in the place `docker` with the tasks, on AWS from `entry`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
from pathlib import Path

from farmhand.agent.main import main as jada_agent

#: The process without which the daemon shall not run, if it is not the container's first one.
PARENT = "FARMHAND_PARENT"
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve until SIGTERM. Return the exit status."""
    os.umask(0o077)
    if parent := os.environ.pop(PARENT, ""):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent):  # it has ended already
            return 1
    config = Path(tempfile.gettempdir(), "config.toml")
    config.write_text(os.environ.pop("FARMHAND_CONFIG", ""), "utf-8")
    if prices := os.environ.pop("FARMHAND_PRICES", ""):
        Path(tempfile.gettempdir(), "prices.toml").write_text(prices, "utf-8")
    return jada_agent(["serve", "--config", str(config)])


if __name__ == "__main__":
    sys.exit(main())
