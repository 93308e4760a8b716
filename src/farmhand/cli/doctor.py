"""`farmhand doctor`: run all checks and print each as green, red or yellow (unknown), with its fix. Changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from farmhand.cli.checks import Check, by_error, farm, gateway, run, station
from farmhand.cli.notify import KINDS, check_way, notify
from farmhand.cli.say import note
from farmhand.cli.timer import Daily
from farmhand.cli.verb import VerbResult, print_result, verb
from farmhand.cli.waiting import waits_for
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.settings import Settings
from farmhand.places.hosts import Host, candidates, known_hosts

NAMES = (
    *("environment", "shells", "login", "claude", "key", "key-age", "api", "spool", "prices", "aws-credential"),
    *gateway.NAMES,
    *(*farm.NAMES, "at-rest", "canary"),
)
_MARKS = {"green": ("ok ", "green"), "red": ("RED", "red"), "unknown": ("?  ", "yellow"), "left_out": ("-  ", "white")}


@verb(
    "doctor",
    "key_source",
    "place",
    "project_dir",
    "connect_timeout_s",
    epilog="Exit status: 0 if every line is green, 1 if one is red or cannot be told, 2 usage, 3 not configured. "
    f"What is left out by --skip does not count. Checks: {', '.join(NAMES)}.",
)
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
def command(
    conf: Settings,
    *,
    as_json: bool,
    skip: tuple[str, ...],
    no_canary: bool,
    no_ask_shell: bool,
    ask_claude: bool,
    ways: tuple[str, ...],
    install_timer: bool,
) -> int:
    """Check everything that this setup needs, on this machine and on the farm hosts.

    It changes nothing. One line is a task of a few tokens on each host (--no-canary), and one looks for keys on the
    hosts through Ansible, from the checkout (--skip at-rest).
    """
    for way in ways:
        check_way(way)
    if install_timer:
        return print_result(_install_timer(ways), as_json=as_json)
    skipped = {*skip, *(["canary"] if no_canary else [])}
    with waits_for("checking this machine and the hosts"):
        lines = examine(conf, skipped, ask_claude=ask_claude, ask_shell=not no_ask_shell)
    bad = [line for line in lines if line.state in ("red", "unknown")]
    document = {"ok": not bad, "checks": [line.as_dict() for line in lines]}
    status = print_result(VerbResult(document, lambda: write(lines), 1 if bad else 0), as_json=as_json)
    for way in ways if bad else ():
        try:
            notify(
                way,
                f"farmhand doctor: {_sum(bad, len(lines))}",
                [f"{line.title}: {line.detail} (fix: {line.fix})" for line in bad],
            )
        except FarmhandError as error:  # it does not change the exit status
            note(f"nobody was told: {error}")
    return status


def examine(conf: Settings, skipped: Collection[str], *, ask_claude: bool, ask_shell: bool = True) -> list[Check]:
    """Run all checks and return their lines, the workstation's first. Hosts are checked in parallel."""
    no_hosts: list[Check] = []
    known: dict[str, Host] = {}
    try:
        known = known_hosts(conf)
        candidates(known, "", conf.hosts_path)
    except FarmhandError as error:
        no_hosts = [replace(by_error(error), name="hosts")]
    with ThreadPoolExecutor(max_workers=16) as pool:
        looks = pool.map(lambda host: farm.look(host, conf, skipped), known.values())
        canaries = pool.map(
            lambda host: run([("canary", partial(farm.canary, host, conf))], skipped, host.name), known.values()
        )
        search = pool.submit(farm.at_rest, conf, [] if "at-rest" in skipped else list(known))
        here = [*station.checks(conf, ask_claude=ask_claude, ask_shell=ask_shell), *gateway.checks()]
        lines = run(here, skipped) + no_hosts
        found = search.result()
        for name, look, canary in zip(known, looks, canaries, strict=True):
            lines += [*look, *run([("at-rest", partial(found.__getitem__, name))], skipped, name), *canary]
    return lines


def write(lines: list[Check]) -> None:
    """Print each check as mark, title and detail, with the fix below a red or yellow one. The last line is the sum."""
    width = max(len(line.title) for line in lines)
    for line in lines:
        mark, colour = _MARKS[line.state]
        click.echo(f"{click.style(mark, fg=colour)}  {line.title:{width}}  {line.detail}")
        if line.fix:
            click.echo(f"{'':{width + 7}}fix: {line.fix}")
    click.echo(_sum(lines, len(lines)))


def _sum(lines: list[Check], total: int) -> str:
    states = [line.state for line in lines]
    counts = ((states.count("red"), "red"), (states.count("unknown"), "cannot be told"))
    return ", ".join(f"{count} of {total} {what}" for count, what in counts if count) or "all green"


def _install_timer(ways: tuple[str, ...]) -> VerbResult:
    """Write a timer that runs this command line without --install-timer and --json."""
    if not ways:
        raise UsageError("--install-timer needs somebody to tell", hint=f"add --notify: {KINDS}")
    program = Path(sys.executable).with_name("farmhand")
    words = [str(program), *(word for word in sys.argv[1:] if word not in ("--install-timer", "--json"))]
    switch_on = Daily(name="doctor", about="doctor: is the farm green?", command=words, success=1).install()
    return VerbResult({"command": words, "switch_on": switch_on}, f"Written. Switch it on with:\n{switch_on}\n")
