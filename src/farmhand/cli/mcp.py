"""`farmhand mcp`: the farm as tools of an interactive session, over stdin and stdout."""

from __future__ import annotations

import functools
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from farmhand.cli.arguments import SHARED
from farmhand.cli.manual import VerbCommand
from farmhand.cli.render import missing_package
from farmhand.cli.verb import HELP_NAMES, click_option
from farmhand.core import settings
from farmhand.core.child import scrubbed


def main(config: str | None, *, plugin: bool = False) -> int:
    """Serve one session and return the exit status. Raise NotConfigured if the extra is not installed."""
    if find_spec("mcp") is None and (missing := missing_package(ModuleNotFoundError(name="mcp"))):
        raise missing
    conf = settings.load(config)
    if plugin:
        from farmhand.places.checkout import find_project

        click.echo(find_project(conf.project_dir, Path.cwd()))
        return 0
    sources = (conf.key_source, *(pot.key_source for pot in conf.pots))
    clean = scrubbed(settings=True, keep={one.removeprefix("env:") for one in sources if one.startswith("env:")})
    if clean != dict(os.environ):
        # What the session has of credentials is gone from this process's memory as well.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], clean)  # noqa: S606
    os.umask(0o077)
    from farmhand.cli.prompt import assemble
    from farmhand.mcp_server.farm import Farm
    from farmhand.mcp_server.jobs import state_directory
    from farmhand.mcp_server.server import serve

    serve(Farm(config, state_directory(), clean, functools.partial(assemble, use_stdin=False)))
    return 0


command = VerbCommand(
    "mcp",
    callback=main,
    params=[
        click_option(SHARED["config"]),
        click.Option(["--plugin"], is_flag=True, help="Print where the plugin for Claude Code is, for its CLI."),
    ],
    context_settings=HELP_NAMES,
    help="""Serve the farm's tools to a session, by the Model Context Protocol over stdin and stdout.

    A client starts it: claude mcp add farmhand -- farmhand mcp. The tools are farm_task, farm_batch, farm_result,
    farm_status, farm_cancel and farm_cost.
    """,
    epilog="What a session and a day may spend: mcp_session_max_usd and mcp_max_usd. See docs/mcp.md.",
)
