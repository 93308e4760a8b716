"""`farmhand gateway serve`: the gateway itself, in the foreground, as a service manager wants it."""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from pathlib import Path

from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult

#: Open files for all connections that the server takes, each with one to a backend, and for the rest.
_FILES = 4096


@gateway_verb("serve")
def command(path: Path, *, as_json: bool) -> VerbResult:
    """Run the gateway until SIGTERM; SIGHUP reads the settings again. Exit 3: it is set up wrong, or the port taken."""
    from farmhand.core import systemd
    from farmhand.gateway.service import Service

    if sys.platform == "linux":
        systemd.keep_memory_private()
    _allow_files()
    # A line never holds a header, a body or a token. The HTTP library would log malformed requests as they came.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    asyncio.run(Service(path).run())
    return VerbResult({"stopped": True}, "")


def _allow_files() -> None:
    """Raise the limit of open files as far as this user may. A stream has two, and a shell often allows 1,024."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
