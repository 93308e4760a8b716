"""`farmhand gateway reload`: the running gateway reads its settings again."""

from __future__ import annotations

from pathlib import Path

from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult
from farmhand.gateway import config, control


@gateway_verb("reload")
def command(path: Path, *, as_json: bool) -> VerbResult:
    """Let the gateway read its settings and its token again. Running turns go on; wrong settings change nothing."""
    document = control.ask(config.load(path), "POST", "/farmhand/v1/reload")
    return VerbResult(document, "the settings are in force")
