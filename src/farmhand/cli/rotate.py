"""`farmhand rotate`: replace the metered key in use by another one, while work goes on."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from farmhand.aws.credentials.expiry import Record
from farmhand.cli.amount import DURATION
from farmhand.cli.say import note
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.keys import fingerprint
from farmhand.core.keysource import read_key
from farmhand.core.readable import local_time, printable
from farmhand.core.settings import Settings
from farmhand.rotation.build import build, check_new_key_source, is_old, known_hosts
from farmhand.rotation.machine import Machine

#: The most that is read from stdin. Characters.
_MAX_STDIN = 4096


_OPTIONS = (
    click.option("--status", "show", is_flag=True, help="Show where the rotation stands, and change nothing."),
    click.option("--resume", is_flag=True, help="Go on with a rotation that was cut off or has stopped."),
    click.option("--abort", is_flag=True, help="Go back to the old key."),
    click.option("--force", is_flag=True, help="Retire the old key although an unreachable host may hold it."),
    click.option(
        "--drain-timeout",
        type=DURATION,
        metavar="TIME",
        help="How long attempts on the old key may take to end.",
    ),
)


def rotation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that a rotation has wherever its key is."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@verb(
    "rotate",
    "key_source",
    "pot",
    "connect_timeout_s",
    epilog="Exit status: 0 done, 1 rolled back or not done in time, 2 usage, 3 not configured or left to be done by "
    "hand, 4 a farm host that may hold the old key is unreachable, 5 another rotation runs.",
)
@click.option(
    "--new-key",
    metavar="SOURCE",
    help="file:PATH[#NAME], command:ARGV, keyring:SERVICE/USER, or - for stdin. Default: a prompt on a terminal.",
)
@rotation_options
def command(conf: Settings, *, as_json: bool, **given: Any) -> VerbResult:
    """Put another metered key in the place of the one in use. No task fails for it.

    The new key is proven with a free call, replaces the old one in its source and in the memory of every farm host, and
    runs one canary task on each. When nothing runs on the old key any more, that is disabled, and proven dead. Whatever
    goes wrong before that brings the old key back.
    """
    called = f"farmhand rotate --pot {conf.pot}" if conf.pot else "farmhand rotate"
    try:
        return rotate(conf, as_json=as_json, called=called, **given)
    except FarmhandError as error:
        error.hint = error.hint.replace("farmhand rotate", called)
        raise


def rotate(
    conf: Settings,
    *,
    as_json: bool,
    new_key: str | None,
    show: bool = False,
    resume: bool = False,
    abort: bool = False,
    force: bool = False,
    drain_timeout: float | None = None,
    called: str,
    own_source: str | None = None,
) -> VerbResult:
    """Rotate the key of `conf.key_source`, or show or take back a rotation. Raises FarmhandError.

    `called` is the command that goes on with it. `own_source` is the key source of this machine, if that is another.
    """
    if show + resume + abort > 1:
        raise UsageError("--status, --resume and --abort exclude each other")
    limits: dict[str, Any] = {} if drain_timeout is None else {"drain_s": drain_timeout}
    machine = build(conf, known_hosts(conf), tell=note, force=force, **limits)
    if show:
        return _where_it_stands(machine, conf, as_json=as_json, called=called)
    with machine.running():
        if abort:
            changed = machine.abort()
        elif resume:
            changed = machine.advance()
        else:
            machine.check_idle()
            changed = machine.stage(_new_key(new_key)) and machine.advance()
        about = machine.status()
    if abort:
        back = about["why"] if about["current"] == about.get("new") else f"back to the old key {about['current']}"
        text = back if changed else "no rotation goes on: nothing to take back"
    elif changed:
        text = f"rotated: {about['new']} is in use, {about['old']} is dead"
    else:
        text = f"{about['current']} is in use already: nothing to do"
    notes = _left_behind(conf, conf.key_source if own_source is None else own_source, about) if changed else []
    return VerbResult({"changed": changed, **about}, text, notes=notes)


def _left_behind(conf: Settings, own_source: str, about: dict[str, Any]) -> list[str]:
    """Return a line for each other place known here that has the key which is out of use now.

    A rotation changes one source. `own_source` is what tasks of this machine use.
    """
    gone, notes = about["old"] if about["current"] == about["new"] else about["new"], []
    with suppress(FarmhandError):
        if own_source != conf.key_source and fingerprint(read_key(own_source)) == gone:
            how = f'put the new key there, or set key_source = "{conf.key_source}"'
            notes.append(f"{own_source}, the key source of this machine, still has the old key {gone}: {how}")
    for entry in Record(conf.aws_environment).entries():
        if entry.kind == "key" and entry.fingerprint == gone:
            notes.append(f"{entry.place} on AWS still has the old key {gone}: {entry.renewal}")
    return notes


def _new_key(source: str | None) -> str:
    """Read the new key from its source, a prompt or stdin, never from an argument. Raises WireError, UsageError."""
    if source not in (None, "-"):
        return read_key(check_new_key_source(str(source)))
    if source is None and sys.stdin is not None and sys.stdin.isatty():
        return getpass.getpass("New API key (not shown): ").strip()
    lines = (sys.stdin.read(_MAX_STDIN) if sys.stdin is not None else "").splitlines()
    if len(lines) != 1:
        raise UsageError("stdin has to be the new key in one line, and nothing else", hint="or use --new-key SOURCE")
    return lines[0]


def _where_it_stands(machine: Machine, conf: Settings, *, as_json: bool, called: str) -> VerbResult:
    about = machine.status()
    about["old"] = about.get("old", "")
    about["too_old"] = is_old(about["age_days"], conf)
    lines = [f"key in use: {about['current']}, here for {about['age_days']:g} days at least"]
    if about["step"] == "none":
        lines.append("no rotation has been made from here")
    else:
        when = local_time(about["updated_at"], "%Y-%m-%d %H:%M:%S")
        lines.append(f"rotation {about['old']} → {about['new']}: {about['step'].replace('_', ' ')} since {when}")
        if about["why"]:
            lines.append(f"because: {about['why']}")
        for name, host in about["hosts"].items():
            lines.append(f"{name}: {host['state']}" + (f" ({host['why']})" if host["why"] else ""))
        if about["unfinished"]:
            lines.append(f"go on with {called} --resume, or back with --abort")
    old = f"the key is older than {conf.key_max_age_days:g} days ({called} puts another in its place)"
    return VerbResult(about, printable("\n".join(lines)), notes=[old] if about["too_old"] and not as_json else ())
