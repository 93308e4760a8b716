"""`farmhand gateway serve`: the gateway itself, in the foreground, as a service manager wants it."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult


@gateway_verb("serve")
def command(path: Path, *, as_json: bool) -> VerbResult:
    """Run the gateway until SIGTERM; SIGHUP reads the settings again. Exit 3: it is set up wrong, or the port taken."""
    from farmhand.core import systemd
    from farmhand.gateway.service import Service

    if sys.platform == "linux":
        systemd.keep_memory_private()
    # A line never holds a header, a body or a token. The HTTP library would log malformed requests as they came.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    asyncio.run(Service(path).run())
    return VerbResult({"stopped": True}, "")
