"""`farmhand cost`: the farm's spending and savings, from the ledgers of all hosts."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import click

from farmhand.cli import say
from farmhand.cli.arguments import OF_LEDGERS
from farmhand.cli.comparison import write_comparison
from farmhand.cli.sheet import Sheet
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.decoding import as_text
from farmhand.core.errors import UsageError
from farmhand.core.money import pico, plain
from farmhand.core.plural import counted
from farmhand.core.settings import Settings
from farmhand.cost import queries
from farmhand.cost.merged import merged
from farmhand.cost.summary import document
from farmhand.gateway.cost_pages import ledgers_here

_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
#: First characters that make spreadsheets evaluate a cell (also in their full-width forms).
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
#: First characters that spreadsheets skip before they look for a formula.
_BLANK = ("\t", "\r", "\n")
#: Groups after the first 20 are summed in one line, so that the table still adds up. --json and --csv have them all.
SHOWN_GROUPS = 20
_SUMMED = ("tasks", "requests", "input_tokens", "output_tokens", "unpriced")


@verb(
    "cost",
    *OF_LEDGERS,
    "connect_timeout_s",
    json_help="Print one JSON object; amounts are exact strings in US$.",
)
@click.option("--by", default="model", metavar="COLUMN", help=f"Group by {', '.join(queries.KEYS)} or label:NAME.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the groups as CSV, with the same amounts.")
@click.option("--reprice", is_flag=True, help="Show beside it what the same requests cost by today's price table.")
@click.option(
    "--compare", type=click.Choice(["cloud"]), help="Compare Fargate, a box and Message Batches, and answer claims."
)
@click.option("--no-interactive", is_flag=True, help="Leave the CLI's own session logs alone.")
@click.option("--admin-key-source", metavar="SOURCE", help="Where the Admin key is, for the provider's own figures.")
@click.option("--admin-url", metavar="URL", help="Where the Admin API is.")
def command(
    conf: Settings,
    *,
    since: str | None,
    by: str,
    as_json: bool,
    as_csv: bool,
    reprice: bool,
    compare: str | None,
    no_merge: bool,
    no_interactive: bool,
) -> VerbResult:
    """Show what the farm spent, and what that saved. The exit status is 4 if a host could not be asked."""
    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one")
    if as_csv and compare:
        raise UsageError("--csv has the groups and no comparison", hint="--json has both")
    with merged(conf, since, say.note, ask=not no_merge, here=ledgers_here()) as ledgers:
        shown = document(ledgers.figures(by=as_text(by, "--by"), reprice=reprice))
        shown |= {"provider": ledgers.provider(), "interactive": None if no_interactive else ledgers.interactive()}
        if compare:
            shown["comparison"] = document(ledgers.comparison())
    if as_csv:
        return VerbResult(shown, as_csv_text(shown), ledgers.status)
    return VerbResult(shown, lambda: write(shown), ledgers.status)


def as_csv_text(shown: dict[str, Any]) -> str:
    """Return the groups as CSV (RFC 4180). The first column's name is the grouping key."""
    out = io.StringIO()
    columns = list(shown["whole"])
    writer = csv.writer(out)
    writer.writerow([shown["by"], *columns[1:]])
    writer.writerows([_cell(row[column]) for column in columns] for row in shown["groups"])
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Return the value; a text that a spreadsheet would take for a formula is prefixed with `'`, a number never."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    text = say.printable(value)
    return f"'{text}" if value[:1] in _BLANK or value.lstrip()[:1] in _FORMULA else text


def write(shown: dict[str, Any]) -> None:
    """Print the document: its strings, aligned, in 80 columns."""
    sheet = Sheet()
    if shown.get("comparison"):
        sections: tuple[Callable[[Sheet, dict[str, Any]], None], ...] = (write_comparison, write_unknown)
    else:
        sections = (_spent, _groups, _models, _levers, _box, _provider, _interactive, write_unknown)
    for section in sections:
        section(sheet, shown)


def _spent(sheet: Sheet, shown: dict[str, Any]) -> None:
    spent, whole = shown["spent"], shown["whole"]
    days = counted(spent["days"], "day")
    sheet.line(f"Spent since {spent['since']} ({days}, UTC), in US$", "bold")
    refused = f"; {whole['refused']} not begun for want of budget" if whole["refused"] else ""
    counts = (
        f"{counted(whole['tasks'], 'task')}, {whole['failed']} failed; {counted(whole['requests'], 'request')}{refused}"
    )
    rows: list[tuple[str, str | None, str]] = [
        ("total", spent["total_usd"], counts),
        ("per day", spent["per_day_usd"], "the total over the days, rounded down"),
        ("today", spent["today_usd"], ""),
        ("this month", spent["month_usd"], ""),
        ("projection", spent["projection_month_usd"], "the whole month, at the pace of the last 7 whole days"),
    ]
    if (ran := shown["compute"]) is not None:
        containers = counted(ran["runs"], "container")
        hours = f"{ran['seconds'] / 3600:.2f} h of {containers} on AWS, by dated prices; not in the total"
        rows.append(("Fargate", ran["total_usd"], hours))
        rows.append(("all", ran["with_model_usd"], "the total and Fargate"))
    if (kept := shown["kept_local"]) is not None:
        unknown = f"; {kept['without_price']} without a price" if kept["without_price"] else ""
        remark = f"{counted(kept['turns'], 'turn')} kept local, at list price: not counted as saved{unknown}"
        rows.append(("kept local", kept["list_usd"], remark))
    if shown.get("repriced_usd") is not None:
        more = f"; {shown['repriced_unpriced']} unknown" if shown["repriced_unpriced"] else ""
        remark = f"the same requests by prices {shown['price_version']}{more}"
        rows.append(("repriced", shown["repriced_usd"], remark))
    if spent["budget_month_usd"] is not None:
        rows.append(("budgets", spent["budget_month_usd"], "all day budgets over the whole month"))
    for budget in shown["budgets"]:
        left = f"left of {budget['limit_usd']} on {budget['day']}; {budget['reserved_usd']} reserved"
        rows.append((budget["host"], budget["left_usd"], left))
    sheet.facts(rows)


def _groups(sheet: Sheet, shown: dict[str, Any]) -> None:
    kept, rest = shown["groups"][:SHOWN_GROUPS], shown["groups"][SHOWN_GROUPS:]
    cells = [_group(row["key"] or "(none)", row) for row in kept]
    if rest:
        summed = {name: sum(row[name] for row in rest) for name in _SUMMED}
        spent, ran = (
            plain(sum(pico(Decimal(row[name] or 0)) for row in rest)) for name in ("spent_usd", "compute_usd")
        )
        cells.append(_group(f"({len(rest)} more)", {**summed, "spent_usd": spent, "compute_usd": ran}))
    sheet.line()
    head, money = [shown["by"], "US$", "tasks", "requests", "tokens in", "out"], {1}
    if shown["compute"] is not None and any(row["compute_usd"] is not None for row in shown["groups"]):
        head.insert(2, "Fargate")
        money.add(2)
    else:
        cells = [cell[:2] + cell[3:] for cell in cells]
    sheet.table(head, cells, money=money)


def _group(name: str, row: dict[str, Any]) -> tuple[str | None, ...]:
    given = row["input_tokens"] + row.get("cache_creation_input_tokens", 0) + row.get("cache_read_input_tokens", 0)
    counts = (row["tasks"], row["requests"], given, row["output_tokens"])
    spent = row["spent_usd"] + ("+?" if row["unpriced"] else "")
    return (_label(name), spent, row["compute_usd"], *map(str, counts))


def _models(sheet: Sheet, shown: dict[str, Any]) -> None:
    sheet.title("The same tokens on each model, all else as it was, in US$")
    sheet.table(("model", "US$"), [(row["model"], row["cost_usd"]) for row in shown["models"]], money={1})


def _levers(sheet: Sheet, shown: dict[str, Any]) -> None:
    saved, target = shown["savings"], shown["target"]
    sheet.title(f"Saved against plain claude -p on {saved['baseline_model']}, in US$")
    shares = [f"{lever['share_percent']} %" if lever["share_percent"] else "" for lever in saved["levers"]]
    rows: list[tuple[str | None, ...]] = [("baseline", saved["baseline_usd"], "", "")]
    for lever, share in zip(saved["levers"], shares, strict=True):
        rows.append((lever["name"], _negated(lever["saving_usd"]), share, lever["without_only_this_usd"]))
    rows.append(("spent", saved["spent_usd"], "", ""))
    rows.append(("saved", saved["saving_usd"], "100.0 %" if shares[0] else "", ""))
    sheet.table(("", "US$", "share", "bill without only this"), rows, money={1, 3})
    sheet.line(f"Target {target['low']}-{target['high']}x: {target['verdict']}, {times(target['factor'])}")
    if target["factor_with_box"] is not None:
        sheet.line(f"  with the box's price in it: {target['verdict_with_box']}, {times(target['factor_with_box'])}")
    lean = f"Not in it: lean prompts would save US$ {saved['overhead_uncached_usd']}"
    sheet.line(f"{lean} were nothing of the CLI's own prompt cached.")
    if saved["left_out_requests"]:
        requests = counted(saved["left_out_requests"], "request")
        sheet.line(f"Left out: {requests} (US$ {saved['left_out_usd']}) without all prices.")


def _box(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print the hosts' own price, and the subscription's, which is never added in."""
    box = shown["box"]
    sheet.title("The box")
    if box["usd_month"] is None:
        without = ", ".join(box["hosts_without_price"])
        sheet.line(f"Its price is not known{f' ({without})' if without else ''}: set box_usd_month.")
    else:
        even = box["break_even_tasks_a_month"]
        need = "no number of tasks pays for it" if even is None else f"{even} tasks a month pay for it"
        sheet.line(f"US$ {box['usd_month']} a month; {need}; the pace is {box['tasks_a_month']}: {box['verdict']}.")
    sheet.line(f"On the subscription instead (never added in): {shown['subscription']}.")


def _provider(sheet: Sheet, shown: dict[str, Any]) -> None:
    provider = shown["provider"]
    if not provider:
        return
    sheet.title("The provider's own figures, in US$")
    if "error" in provider:
        sheet.line(provider["error"])
        return
    rows = [
        (row["model"] or "(other)", row["theirs_usd"], row["ours_usd"], row["difference_usd"])
        for row in [*provider["models"], {**provider, "model": "all"}]
    ]
    sheet.table(("model", "provider", "ours", "difference"), rows, money={1, 2, 3})
    sheet.line(f"Since {provider['since']}; {provider['note']}.")


def _interactive(sheet: Sheet, shown: dict[str, Any]) -> None:
    logs = shown["interactive"]
    if not logs or not (logs["messages"] or logs["unread"]):
        return
    sheet.title("Interactive sessions (estimate)")
    sheet.line(f"US$ {logs['estimate_usd']} for {counted(logs['messages'], 'answer')}; {logs['label']}.")
    if logs["unpriced"]:
        sheet.line(f"Without a known price, and in no sum: {', '.join(logs['unpriced'])}")
    for path in logs["unread"]:
        sheet.line(f"Not read: {path}")


def write_unknown(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print what is in no sum, and the hosts that could not be asked."""
    lines = [
        f"{counted(row['requests'], 'request')} to {row['model']}: no price is known; they are in no sum."
        for row in shown["unpriced"]
    ]
    uncertain = shown["uncertain"]
    if uncertain["requests"]:
        bound = uncertain["upper_bound_usd"]
        most = "the most it can be is not known" if bound is None else f"US$ {bound} at the most"
        count = f"{counted(uncertain['requests'], 'request')} may have been charged without our knowing how much"
        lines.append(f"{count} ({most}); they are in no sum.")
    if (ran := shown["compute"]) is not None and ran["unknown_runs"]:
        runs = f"The time of {counted(ran['unknown_runs'], 'container')} on AWS is not known any more"
        lines.append(f"{runs}: nobody noted it in time. What they cost besides the model is in no sum.")
    for host in shown["hosts"]:
        if host["error"] is not None:
            kept = f"its figures are of {host['merged_at']}" if host["merged_at"] else "nothing of it is in here"
            lines.append(f"{host['host']} could not be asked, {kept}: {host['error']}")
        if host["missing"]:
            missing = f"{host['host']} forgot {host['missing']} charges before they were merged"
            lines.append(f"{missing}; they are in no sum.")
    if lines:
        sheet.title("Not known")
    for line in lines:
        sheet.line(line)


def _negated(amount: str) -> str:
    """Return a saving as its effect on the bill: `-1.20` for a saving, `+0.30` for a loss."""
    if amount.startswith("-"):
        return "+" + amount[1:]
    return f"-{amount}" if amount.strip("0.") else amount


def times(factor: str | None) -> str:
    """Return a factor as text."""
    return "nothing to compare" if factor is None else f"{factor}x"


def _label(key: str) -> str:
    """Return a set of labels, given as JSON, in the form `name=value, …`; any other key unchanged."""
    if not key.startswith("{"):
        return key
    try:
        labels = json.loads(key)
    except ValueError:
        return key
    return ", ".join(f"{name}={value}" for name, value in labels.items()) if isinstance(labels, dict) else key
