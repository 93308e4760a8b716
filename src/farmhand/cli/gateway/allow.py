"""`farmhand gateway allow metered`: the operator opens the paid backend for a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from farmhand.cli.amount import DURATION
from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import UsageError
from farmhand.core.money import plain
from farmhand.core.readable import local_time
from farmhand.gateway import config, control


@gateway_verb("allow")
@click.argument("residency", type=click.Choice(["metered"]))
@click.option("--for", "span", type=DURATION, metavar="TIME", help="For how long: 30m, 2h. At most 24h.")
@click.option("--max-usd", "amount", metavar="US$", help="What may be spent in that time.")
@click.option("--class", "classes", type=click.Choice(config.CLASSES), multiple=True, help="Only for turns of it.")
@click.option("--stop", is_flag=True, help="Close it again, before its time.")
def command(
    path: Path,
    *,
    as_json: bool,
    residency: str,
    span: float | None,
    amount: str | None,
    classes: tuple[str, ...],
    stop: bool,
) -> VerbResult:
    """Let turns that no rule sends there be paid for, for a time and up to an amount. A restart ends it."""
    if stop and (span or amount or classes):
        raise UsageError("--stop closes what is open, whatever it was", hint="leave the others out")
    asked: dict[str, Any] = {"stop": True}
    if not stop:
        if not span:
            raise UsageError("--for is missing: nothing is open without an end", hint="--for 30m --max-usd 2")
        if not amount:
            raise UsageError("--max-usd is missing: nothing is paid for without a limit", hint="--max-usd 2")
        asked = {"seconds": math.ceil(span), "max_usd": amount, "classes": classes}
    found = control.ask(config.load(path), "POST", "/farmhand/v1/allow", body=asked)
    if stop:
        return VerbResult(found, "metered is closed again" if found["stopped"] else "nothing was open")
    return VerbResult(found, text(found["allowance"]))


def text(given: dict[str, Any]) -> str:
    """Return an allowance as words."""
    until = local_time(given["until"], "%H:%M:%S")
    classes = "all classes" if len(given["classes"]) == len(config.CLASSES) else ", ".join(given["classes"])
    spent = f", {plain(given['spent_pico'])} of it used" if given["spent_pico"] else ""
    return f"metered is allowed for {classes} until {until}, up to US$ {plain(given['limit_pico'])}{spent}"
