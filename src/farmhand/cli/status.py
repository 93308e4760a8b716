"""`farmhand status`: what each farm host's agent is doing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import click

from farmhand.cli import render
from farmhand.cli.say import one_line
from farmhand.core import settings
from farmhand.core.errors import FarmhandError, WireError
from farmhand.offline.spool import open_spool
from farmhand.places import hosts
from farmhand.wire import problems
from farmhand.wire.client import Client

_COLUMNS = ("host", "agent", "state", "running", "queued", "awaiting\nkey", "api\nfree", "cli\nfree", "key")
#: Reasons why tasks wait that are shown of one host; an agent knows about ten.
MOST_WAITS = 20
#: The provider's own address: only another one is worth a line.
_USUAL_UPSTREAM = "https://api.anthropic.com"


@click.command("status", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: hosts by name, and the queue here.")
@click.option("--host", metavar="NAME", help="Only this farm host.")
@click.option("--connect-timeout", type=float, metavar="SECONDS", help="How long reaching a farm host may take.")
@click.option("--config", metavar="FILE", help="The settings file.")
def command(as_json: bool, host: str | None, connect_timeout: float | None, config: str | None) -> int:
    """Show what the farm hosts are doing. The exit status is 0 if all could be asked."""
    try:
        conf = settings.load(config, host=host, connect_timeout_s=connect_timeout)
        known = hosts.load_hosts(conf.hosts_path)
        # A host that is only the settings' favourite hides no other; one that was asked for does.
        chosen = known if host is None else {host: hosts.choose_host(known, host, conf.hosts_path)}
    except FarmhandError as error:
        if as_json:
            render.write_json(render.error_object(error))
        raise
    # All at once: one that takes its time keeps no other waiting.
    with ThreadPoolExecutor(max_workers=16) as pool:
        asked = pool.map(lambda entry: ask(entry, conf.connect_timeout_s), chosen.values())
        answers = dict(zip(chosen, asked, strict=True))
    if as_json:
        shown = {name: render.error_object(a) if isinstance(a, FarmhandError) else a for name, a in answers.items()}
        render.write_json({"hosts": shown, "spool": kept(conf)})
    else:
        write_table(answers)
        for line in spool_notes(conf):
            render.write_bytes(line)
    failures = [answer for answer in answers.values() if isinstance(answer, FarmhandError)]
    return failures[-1].exit_code if failures else 0


def ask(host: hosts.Host, connect_timeout_s: float) -> dict[str, Any] | FarmhandError:
    """One host's status, or why it cannot be had."""
    try:
        with Client(host.transport(connect_timeout_s)) as client:
            return client.status()
    except WireError as error:
        return problems.from_wire(error, host.name)


def kept(conf: settings.Settings) -> list[dict[str, Any]]:
    """What the spool holds, by the hosts file that it is for: how many tasks are queued, and how many are at a host."""
    spool = open_spool(conf)
    entries = [*spool.waiting(), *spool.elsewhere()]
    farms = sorted({entry.farm for entry in entries})
    return [
        {
            "hosts_file": farm or None,
            "queued": sum(entry.farm == farm and not entry.sent for entry in entries),
            "sent": sum(entry.farm == farm and bool(entry.sent) for entry in entries),
        }
        for farm in farms
    ]


def spool_notes(conf: settings.Settings) -> list[str]:
    """A line for each hosts file that tasks wait for on this machine."""
    return [
        f"kept here for {settings.hosts_of(one['hosts_file'] or '')}: {one['queued']} queued,"
        f" {one['sent']} sent (farmhand flush shows them)"
        for one in kept(conf)
    ]


def row(name: str, status: dict[str, Any]) -> list[str]:
    """One host's cells, in the order of the columns."""
    about = [str(status.get(what, "?"))[:24] for what in ("version", "state")]
    counts = [str(status.get(count, "?")) for count in ("running", "queued", "awaiting_key")]
    slots = status.get("slots") or {}
    free = [
        f"{slots[engine]['free']}/{slots[engine]['total']}" if engine in slots else "?" for engine in ("api", "cli")
    ]
    return [name, *about, *counts, *free, str(status.get("key") or "none")[:24]]


def notes(name: str, status: dict[str, Any]) -> list[str]:
    """What is worth a line each: how fast tasks end, why others wait, what the day has cost, an unusual upstream."""
    lines = []
    per_s = (status.get("throughput") or {}).get("per_s")
    if per_s:
        lines.append(f"{name}: {per_s:g} tasks end per second")
    for wait in (status.get("waiting") or [])[:MOST_WAITS]:
        until = wait.get("until")
        until_text = f", until {_moment(until)}" if isinstance(until, int | float) else ""
        tasks = "1 task waits" if wait.get("tasks") == 1 else f"{wait.get('tasks')} tasks wait"
        lines.append(f"{name}: {tasks}: {wait.get('detail') or wait['reason']:.200}{until_text}")
    day = status.get("budget_day")
    if day:
        lines.append(f"{name}: US$ {day['spent_usd']:.4f} of {day['limit_usd']:g} of the day's budget is spent")
    upstream = str(status.get("upstream", _USUAL_UPSTREAM)).rstrip("/")
    if upstream != _USUAL_UPSTREAM:
        lines.append(f"{name} sends its requests to {upstream:.200}")
    return lines


def _moment(at: float) -> str:
    """The time of day here, with the date where that is not today's."""
    moment = datetime.fromtimestamp(at)
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def write_table(answers: dict[str, dict[str, Any] | FarmhandError]) -> None:
    """A table of the hosts that answer, and a line for each that does not."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    answered = {name: answer for name, answer in answers.items() if not isinstance(answer, FarmhandError)}
    if answered:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in _COLUMNS:
            table.add_column(column, no_wrap=True)
        for name, status in answered.items():
            table.add_row(*(Text(one_line(cell)) for cell in row(name, status)))
        Console().print(table)
        for name, status in answered.items():
            for line in notes(name, status):
                Console(soft_wrap=True).print(Text(one_line(line)))
    for answer in answers.values():
        if isinstance(answer, FarmhandError):
            Console(stderr=True, soft_wrap=True).print(Text(one_line(str(answer))))
