"""The frame of the verbs of `farmhand cloud`: that of all verbs, the AWS settings, and a warning in time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from farmhand.aws.credentials.expiry import Record
from farmhand.cli.say import note
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.settings import Settings

_ABOUT = {
    "environment": "The set of stacks (default: prod).",
    "region": "The region (default: boto3's).",
    "profile": "The login (default: boto3's).",
}


def cloud_verb(
    name: str, *shared: str, quiet: bool = False, **attributes: Any
) -> Callable[[Callable[..., VerbResult | int]], click.Command]:
    """Make a function a verb of `farmhand cloud`, with --aws-environment, --aws-region and --aws-profile.

    If a credential that was put from here is near its end, one line on stderr says so first, unless `quiet`: that is
    for verbs that say it themselves.
    """

    def decorate(function: Callable[..., VerbResult | int]) -> click.Command:
        @functools.wraps(function)
        def call(conf: Settings, **given: Any) -> VerbResult | int:
            if not quiet and (line := Record(conf.aws_environment).warning()):
                note(line)
            return function(conf, **given)

        made = verb(name, *shared, **attributes)(call)
        made.params += [
            click.Option([f"--aws-{name}", f"aws_{name}"], metavar="NAME", help=about) for name, about in _ABOUT.items()
        ]
        return made

    return decorate
