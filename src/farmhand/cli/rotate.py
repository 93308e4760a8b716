"""`farmhand rotate`: another metered key in the place of the one in use, while work goes on."""

from __future__ import annotations

import contextlib
import getpass
import sys
import time
from typing import Any

import click

from farmhand.cli import render
from farmhand.cli.app import note
from farmhand.core import settings
from farmhand.core.errors import FarmhandError, UsageError, WireError
from farmhand.core.keysource import read_key
from farmhand.rotation import operator
from farmhand.rotation.build import build, check_new_key_source, memory_of
from farmhand.rotation.machine import Machine
from farmhand.wire import problems

#: Nothing longer is read from stdin.
_MAX_STDIN = 4096


@click.command(
    "rotate",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 rolled back or not done in time, 2 usage, 3 not configured or left to be done by "
    "hand, 4 a farm host that may hold the old key is unreachable, 5 another rotation runs.",
)
@click.option(
    "--new-key",
    metavar="SOURCE",
    help="file:PATH[#NAME], command:ARGV, keyring:SERVICE/USER, or - for stdin. Default: a prompt on a terminal.",
)
@click.option("--status", "show", is_flag=True, help="Show where the rotation stands, and change nothing.")
@click.option("--resume", is_flag=True, help="Go on with a rotation that was cut off or has stopped.")
@click.option("--abort", is_flag=True, help="Go back to the old key.")
@click.option("--force", is_flag=True, help="Retire the old key although an unreachable host may hold it.")
@click.option(
    "--drain-timeout", type=float, metavar="SECONDS", help="How long attempts on the old key may take to end."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--key-source", metavar="SOURCE", help="The key to replace: file:PATH[#NAME] or keyring:SERVICE/USER.")
@click.option("--connect-timeout", type=float, metavar="SECONDS", help="How long reaching a farm host may take.")
@click.option("--config", metavar="FILE", help="The settings file.")
def command(**given: Any) -> int:
    """Put another metered key in the place of the one in use. No task fails for it.

    The new key is proven with a free call, replaces the old one in its source and in the memory of every farm host, and
    runs one canary task on each. When nothing runs on the old key any more, that is disabled, and proven dead. Whatever
    goes wrong before that brings the old key back.
    """
    try:
        if sum(map(bool, (given["show"], given["resume"], given["abort"]))) > 1:
            raise UsageError("--status, --resume and --abort exclude each other")
        conf = settings.load(
            given["config"], key_source=given["key_source"], connect_timeout_s=given["connect_timeout"]
        )
        try:
            return _run(conf, given)
        except WireError as error:
            raise problems.from_wire(error) from None
    except FarmhandError as error:
        if given["as_json"]:
            render.write_json(render.error_object(error))
        raise


def _run(conf: settings.Settings, given: dict[str, Any]) -> int:
    parameters = operator.parameters(conf) | {"force": given["force"], "drain_s": given["drain_timeout"]}
    machine = build(parameters, tell=note)
    if given["show"]:
        return _show(machine, conf, as_json=given["as_json"])
    with memory_of(parameters).lock(), contextlib.closing(machine):
        if given["abort"]:
            changed = machine.abort()
        elif given["resume"]:
            changed = machine.advance()
        else:
            changed = _begin(machine, given["new_key"])
        about = machine.status()
    if given["as_json"]:
        render.write_json({"changed": changed, **about})
    else:
        render.write_bytes(_sentence(about, changed=changed, aborted=given["abort"]))
    return 0


def _begin(machine: Machine, source: str | None) -> bool:
    """A new rotation, from its new key to its end. False: the new key is the one in use."""
    machine.check_idle()
    return machine.stage(_new_key(source)) and machine.advance()


def _new_key(source: str | None) -> str:
    """The new key; never from an argument. Raises WireError, UsageError."""
    if source not in (None, "-"):
        return read_key(check_new_key_source(str(source)))
    if source is None and sys.stdin is not None and sys.stdin.isatty():
        return getpass.getpass("New API key (not shown): ").strip()
    text = sys.stdin.read(_MAX_STDIN) if sys.stdin is not None else ""
    lines = text.splitlines()
    if len(lines) != 1:
        raise UsageError("stdin has to be the new key in one line, and nothing else", hint="or use --new-key SOURCE")
    return lines[0]


def _show(machine: Machine, conf: settings.Settings, *, as_json: bool) -> int:
    about = machine.status()
    about["old"] = about.get("old", "")
    about["too_old"] = operator.is_old(about["age_days"], conf)
    if as_json:
        render.write_json(about)
        return 0
    lines = [f"key in use: {about['current']}, here for {about['age_days']:g} days at least"]
    if about["step"] == "none":
        lines.append("no rotation has been made from here")
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about["updated_at"]))
        lines.append(f"rotation {about['old']} → {about['new']}: {about['step'].replace('_', ' ')} since {when}")
        if about["why"]:
            lines.append(f"rolled back because: {about['why']}")
        for name, host in about["hosts"].items():
            lines.append(f"{name}: {host['state']}" + (f" ({host['why']})" if host["why"] else ""))
        if about["unfinished"]:
            lines.append("go on with farmhand rotate --resume, or back with --abort")
    render.write_bytes(render.printable("\n".join(lines)))
    if about["too_old"]:
        note(f"the key is older than {conf.key_max_age_days:g} days (farmhand rotate puts another in its place)")
    return 0


def _sentence(about: dict[str, Any], *, changed: bool, aborted: bool) -> str:
    if aborted:
        return f"back to the old key {about['current']}" if changed else "no rotation goes on: nothing to take back"
    if not changed:
        return f"{about['current']} is in use already: nothing to do"
    return f"rotated: {about['new']} is in use, {about['old']} is dead"
