"""The common frame of the verbs: shared options, settings, error handling, and printing of the result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from farmhand.cli import render
from farmhand.cli.amount import DURATION, MAX_USD, USD
from farmhand.cli.arguments import RANGES, SHARED, Option
from farmhand.cli.manual import VerbCommand
from farmhand.cli.say import note
from farmhand.cli.signals import Stopped
from farmhand.core import settings

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
#: The version of the verbs' JSON documents, unless a document has its own.
JSON_VERSION = 1
_TYPES: dict[str, Any] = {
    "text": None,
    **{kind: click.IntRange(*most) for kind, most in RANGES.items()},
    "duration": DURATION,
    "money": MAX_USD,
    "amount": USD,
}


@dataclass(frozen=True)
class VerbResult:
    """A verb's result: its JSON document, its text or a function that prints it, the exit status, lines for stderr."""

    document: dict[str, Any]
    text: str | Callable[[], None]
    status: int = 0
    notes: Sequence[str] = ()


def click_option(option: Option, about: str | None = None) -> click.Option:
    """Return a click option made from an option of the table. `about` replaces its help."""
    if option.kind in ("flag", "switch"):
        names, default = (option.names, False) if option.kind == "flag" else (("/".join(option.names),), None)
        return click.Option([*names, option.to], is_flag=True, default=default, help=about or option.about)
    return click.Option(
        [*option.names, option.to],
        type=click.Choice(option.kind) if isinstance(option.kind, tuple) else _TYPES[option.kind],
        multiple=option.many,
        metavar=option.what,
        help=about or option.about,
    )


def verb(
    name: str, *shared: str, json_help: str = "Print one JSON object.", **attributes: Any
) -> Callable[[Callable[..., VerbResult | int]], click.Command]:
    """Make a function the verb `name`, with the options `shared` of the table, --json and --config.

    The function gets the settings in force, `as_json`, and its own options; an option named like a setting is in the
    settings. It returns a VerbResult, or the exit status if it has printed its result itself. With --json every error
    is also a JSON object on stdout. `attributes` are click's.
    """
    attributes["context_settings"] = HELP_NAMES | attributes.get("context_settings", {})

    def decorate(function: Callable[..., VerbResult | int]) -> click.Command:
        @functools.wraps(function)
        def call(config: str | None, as_json: bool, **given: Any) -> int:
            flags = {name: given.pop(name) for name in [*given] if name in settings.Settings._fields}
            with render.errors_as_json(as_json):
                try:
                    answer = function(settings.load(config, **flags), as_json=as_json, **given)
                except Stopped as stopped:
                    return stopped.exit_code
                return answer if isinstance(answer, int) else print_result(answer, as_json=as_json)

        made = click.command(name, VerbCommand, **attributes)(call)
        made.params.append(click_option(SHARED["as_json"], json_help))
        made.params += [click_option(SHARED[option]) for option in (*shared, "config")]
        return made

    return decorate


def print_result(answer: VerbResult, *, as_json: bool) -> int:
    """Print a result as JSON or as text, and return its exit status."""
    try:
        if as_json:
            render.write_json({"version": JSON_VERSION} | answer.document)
        elif callable(answer.text):
            answer.text()
        elif answer.text:
            render.write_bytes(answer.text)
    finally:  # they say what is kept where, which counts most where stdout is full or closed
        for line in answer.notes:
            note(line)
    return answer.status
