"""The first program of a container on AWS as a process of its own, forked where boto3 and its models are loaded.

The daemon that it starts is a program of its own, as it is in the container.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from farmhand.cloud import entry
from tests.support import aws_loaded
from tests.support.forked import write_to

__all__ = ["aws_loaded", "run"]


def run(environ: Mapping[str, str], log: Path) -> None:
    """Be `python -m farmhand.cloud.entry` with this environment."""
    os.setsid()
    write_to(log)
    os.environ.clear()
    os.environ.update(environ)
    tempfile.tempdir = None  # TMPDIR is another one here
    os._exit(entry.main())
