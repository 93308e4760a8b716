"""The frame of the verbs of `farmhand gateway`: that of all verbs, and the gateway's own settings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from farmhand.cli.verb import VerbResult, verb
from farmhand.core.errors import NotConfigured
from farmhand.core.settings import Settings
from farmhand.gateway import config


def gateway_verb(
    name: str,
    *shared: str,
    priced: bool = False,
    more: Callable[[Settings], dict[str, Any]] = lambda _conf: {},
    **attributes: Any,
) -> Callable[[Callable[..., VerbResult | int]], click.Command]:
    """Make a function a verb of `farmhand gateway`, which gets the path of gateway.toml instead of the settings.

    The file need not exist, unless --gateway-config names it. One that is `priced` also gets the file of the operator's
    own prices, which need not exist either, and the option that names it. `more` is what else it gets of the settings.
    """

    def decorate(function: Callable[..., VerbResult | int]) -> click.Command:
        @functools.wraps(function)
        def call(conf: Settings, *, gateway_config: str | None, **given: Any) -> VerbResult | int:
            path = config.default_path()
            if gateway_config is not None:
                path = Path(os.path.expanduser(gateway_config))
                if not path.exists():
                    raise NotConfigured(f"{path} does not exist", hint="create it, or leave --gateway-config out")
            return function(path, **given, **({"prices": conf.prices_path} if priced else {}), **more(conf))

        made = verb(name, *shared, *(["prices_file"] if priced else []), **attributes)(call)
        about = "The gateway's settings. Default: ~/.config/farmhand/gateway.toml."
        made.params.append(click.Option(["--gateway-config", "gateway_config"], metavar="FILE", help=about))
        return made

    return decorate
