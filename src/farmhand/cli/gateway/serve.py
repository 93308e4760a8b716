"""`farmhand gateway serve`: the gateway itself, in the foreground, as a service manager wants it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from farmhand.cli import telemetry
from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult
from farmhand.core import envfile
from farmhand.core.errors import NotConfigured
from farmhand.core.keysource import read_private


@gateway_verb("serve", priced=True, more=lambda conf: {"otel_endpoint": telemetry.endpoint(conf)})
def command(path: Path, *, as_json: bool, prices: Path, otel_endpoint: str) -> VerbResult:
    """Run the gateway until SIGTERM; SIGHUP reads the settings again. Exit 3: it is set up wrong, or the port taken."""
    from farmhand.core import systemd
    from farmhand.gateway.service import Service

    if sys.platform == "linux":
        systemd.keep_memory_private()
    _read_environment(path.with_name("gateway.env"))
    # A line never holds a header, a body or a token. The HTTP library would log malformed requests as they came.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    asyncio.run(Service(path, prices, otel_endpoint).run())
    return VerbResult({"stopped": True}, "")


def _read_environment(path: Path) -> None:
    """Take the variables of gateway.env, if there is one. systemd reads it in another way, launchd not at all.

    Raise NotConfigured if others can read it: it may hold keys.
    """
    if not os.path.lexists(path):
        return
    try:
        found = envfile.parse(read_private(str(path)))
    except envfile.EnvFileError as error:
        raise NotConfigured(f"{path}, {error}", hint="NAME=VALUE lines; the file is parsed, never run") from None
    os.environ.update(found)
