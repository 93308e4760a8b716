"""`farmhand gateway token`: what clients send as their key. It opens this gateway and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import click

from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured
from farmhand.gateway import config, control
from farmhand.gateway.guard import make_token, read_token, token_of


@gateway_verb("token")
@click.option("--rotate", is_flag=True, help="Make another one; a running gateway takes it at once.")
def command(path: Path, *, as_json: bool, rotate: bool) -> VerbResult:
    """Print the token, and make it if there is none yet. With --rotate clients need the new one."""
    settings = config.load(path)
    file = settings.token_path
    notes = []
    if rotate and os.path.lexists(file):
        old = _old(file)
        token = make_token(file)
        try:
            control.ask(settings, "POST", "/farmhand/v1/reload", old)
        except FarmUnreachable:
            notes.append("no gateway runs; the next one takes the new token")
        except FarmhandError as error:
            notes.append(f"the gateway that runs keeps the old token until it is started again: {error.message}")
    else:
        token = token_of(file)
    return VerbResult({"token": token, "file": str(file)}, token, notes=notes)


def _old(file: Path) -> str:
    """Return the token before; "" if it cannot be read, or others can: then all the more another one is needed."""
    try:
        return read_token(file)
    except NotConfigured:
        return ""
