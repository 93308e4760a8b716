"""`farmhand doctor`: one screen: green, red, or yellow where nobody can tell, each with its fix. It changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from farmhand.cli import render, timer
from farmhand.cli.app import note
from farmhand.cli.checks import Check, by_error, farm, run, station
from farmhand.cli.checks.at_rest import at_rest
from farmhand.cli.notify import KINDS, check_way, notify
from farmhand.core import settings
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.places import hosts

NAMES = (
    "environment",
    "shells",
    "login",
    "claude",
    "key",
    "key-age",
    "api",
    "spool",
    "prices",
    *farm.NAMES,
    "at-rest",
    "canary",
)

_FLAGS = (("--no-canary", "no_canary"), ("--no-ask-shell", "no_ask_shell"), ("--ask-claude", "ask_claude"))
_MARKS = {"green": ("ok ", "green"), "red": ("RED", "red"), "unknown": ("?  ", "yellow"), "left_out": ("-  ", "white")}


@click.command(
    "doctor",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 if every line is green, 1 if one is red or cannot be told, 2 usage, 3 not configured. "
    f"What is left out by --skip does not count. Checks: {', '.join(NAMES)}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--skip", multiple=True, type=click.Choice(NAMES), metavar="CHECK", help="Leave a check out; repeatable.")
@click.option("--no-canary", is_flag=True, help="Run no task on the farm (it costs a few tokens).")
@click.option(
    "--no-ask-shell", is_flag=True, help="Start none of your shells: read their files only, which proves nothing."
)
@click.option("--ask-claude", is_flag=True, help="Ask your own claude for one word: it draws on your plan.")
@click.option(
    "--notify", "ways", multiple=True, metavar="WAY", help=f"If a line is red or cannot be told, tell it: {KINDS}."
)
@click.option("--install-timer", is_flag=True, help="Write a timer that runs this daily with these options, and stop.")
@click.option("--key-source", metavar="SOURCE", help="As for claude-cheap.")
@click.option("--project-dir", metavar="DIR", help="The checkout, from which hosts are searched for keys.")
@click.option("--connect-timeout", type=float, metavar="SECONDS", help="How long reaching a farm host may take.")
@click.option("--config", metavar="FILE", help="The settings file.")
def command(**given: Any) -> int:
    """Check everything that this setup needs, on this machine and on the farm hosts.

    It changes nothing. One line is a task of a few tokens on each host (--no-canary), and one looks for keys on the
    hosts through Ansible, from the checkout (--skip at-rest).
    """
    try:
        ways = [check_way(way) for way in given["ways"]]
        conf = settings.load(
            given["config"],
            key_source=given["key_source"],
            project_dir=given["project_dir"],
            connect_timeout_s=given["connect_timeout"],
        )
        if given["install_timer"]:
            return _install_timer(given)
        skipped = {*given["skip"], *(["canary"] if given["no_canary"] else [])}
        lines = examine(conf, skipped, ask_claude=given["ask_claude"], ask_shell=not given["no_ask_shell"])
    except FarmhandError as error:
        if given["as_json"]:
            render.write_json(render.error_object(error))
        raise
    bad = [line for line in lines if line.ok is False or line.unknown]
    if given["as_json"]:
        render.write_json({"ok": not bad, "checks": [line.as_dict() for line in lines]})
    else:
        write(lines)
    for way in ways if bad else ():
        _tell(way, bad, len(lines))
    return 1 if bad else 0


def examine(
    conf: settings.Settings, skipped: Iterable[str], *, ask_claude: bool, ask_shell: bool = True
) -> list[Check]:
    """Every line, the workstation's first. Hosts are looked at side by side."""
    left_out = set(skipped)
    known, no_hosts = _known_hosts(conf)
    with ThreadPoolExecutor(max_workers=16) as pool:
        looks = [pool.submit(farm.look, host, conf, left_out) for host in known.values()]
        canaries = [] if "canary" in left_out else [pool.submit(farm.canary, host, conf) for host in known.values()]
        search = None if "at-rest" in left_out else pool.submit(at_rest, conf, list(known))
        lines = run(station.checks(conf, ask_claude=ask_claude, ask_shell=ask_shell), left_out)
        lines += no_hosts
        found = {line.host: line for line in search.result()} if search is not None else {}
        for number, (name, look) in enumerate(zip(known, looks, strict=True)):
            lines += look.result()
            left = [Check(name=check, ok=None, detail="left out", host=name) for check in ("at-rest", "canary")]
            lines.append(found.get(name, left[0]))
            lines.append(canaries[number].result() if canaries else left[1])
    return lines


def _known_hosts(conf: settings.Settings) -> tuple[dict[str, hosts.Host], list[Check]]:
    """The farm hosts, and a red line where there are none."""
    try:
        known = hosts.load_hosts(conf.hosts_path)
        hosts.candidates(known, "", conf.hosts_path)
    except FarmhandError as error:
        return {}, [by_error("hosts", error)]
    return known, []


def write(lines: list[Check]) -> None:
    """The screen: a mark, what, what was seen; under a red or yellow line its fix; the sum last."""
    coloured = sys.stdout.isatty()
    titles = [f"{line.host} {line.name}".strip() for line in lines]
    width = max(map(len, titles))
    for title, line in zip(titles, lines, strict=True):
        mark, colour = _MARKS[line.state]
        shown = click.style(mark, fg=colour) if coloured else mark
        sys.stdout.write(f"{shown}  {title:{width}}  {line.detail}\n")
        if line.fix:
            sys.stdout.write(f"{'':{width + 7}}fix: {line.fix}\n")
    sys.stdout.write(f"{_sum(lines)}\n")
    sys.stdout.flush()


def _sum(lines: list[Check]) -> str:
    states = [line.state for line in lines]
    red, unknown = states.count("red"), states.count("unknown")
    parts = [f"{red} of {len(lines)} red"] * bool(red) + [f"{unknown} of {len(lines)} cannot be told"] * bool(unknown)
    return ", ".join(parts) or "all green"


def _tell(way: str, bad: list[Check], total: int) -> None:
    """Notify; that it failed is a line on stderr, and the exit status stays that of the checks."""
    lines = [f"{line.host} {line.name}: {line.detail} (fix: {line.fix})".strip() for line in bad]
    try:
        notify(way, f"farmhand doctor: {_sum(bad).replace(f'of {len(bad)}', f'of {total}')}", lines)
    except FarmhandError as error:
        note(f"nobody was told: {error}")


def _install_timer(given: dict[str, Any]) -> int:
    if not given["ways"]:
        raise UsageError("a timer that tells nobody is of no use", hint=f"add --notify: {KINDS}")
    program = Path(sys.executable).with_name("farmhand")
    words = [str(program), "doctor"]
    for name in ("key_source", "project_dir", "connect_timeout", "config"):
        if given[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(given[name])]
    words += [flag for flag, name in _FLAGS if given[name]]
    words += [word for name in given["skip"] for word in ("--skip", name)]
    words += [word for way in given["ways"] for word in ("--notify", way)]
    switch_on = timer.install(words)
    if given["as_json"]:
        render.write_json({"command": words, "switch_on": switch_on})
    else:
        sys.stdout.write(f"Written. Switch it on with:\n{switch_on}\n")
    return 0
