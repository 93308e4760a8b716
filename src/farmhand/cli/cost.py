"""`farmhand cost`: the farm's spending and savings, from the ledgers of all hosts."""

from __future__ import annotations

import csv
import io
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
from farmhand.cli.waiting import waits_for
from farmhand.core.decoding import as_text
from farmhand.core.errors import UsageError
from farmhand.core.money import pico, plain
from farmhand.core.readable import counted, duration, printable
from farmhand.core.settings import Settings
from farmhand.cost import queries
from farmhand.cost.breakdown import label_text
from farmhand.cost.merged import merged
from farmhand.cost.summary import document, headline
from farmhand.gateway.cost_pages import ledgers_here

#: What a command on the ledgers waits for: without and with asking the hosts.
READS = ("reading what was merged before", "asking the hosts for what is new")
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
#: First characters that make spreadsheets evaluate a cell (also in their full-width forms).
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
#: First characters that spreadsheets skip before they look for a formula.
_BLANK = ("\t", "\r", "\n")
#: Groups after the first 20 are summed in one line, so that the table still adds up. --json and --csv have them all.
SHOWN_GROUPS = 20
_OUTCOMES = {"failed": "failed", "cancelled": "cancelled", "refused": "not begun for want of budget"}
_SUMMED = (
    "tasks", "requests", "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
    "unpriced",
)  # fmt: skip


@verb(
    "cost",
    *OF_LEDGERS,
    "connect_timeout_s",
    json_help="Print one JSON object; amounts are exact strings in US$.",
)
@click.option(
    "--by",
    metavar="COLUMN",
    help=f"Print only the table by {', '.join(queries.KEYS)} or label:NAME. --full: all else too.",
)
@click.option("--full", is_flag=True, help="With --by: print everything, not only the table.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the groups as CSV, with the same amounts.")
@click.option("--reprice", is_flag=True, help="Show beside it what the same requests cost by today's price table.")
@click.option(
    "--compare", type=click.Choice(["cloud"]), help="Compare Fargate, a box and Message Batches, and answer claims."
)
@click.option(
    "--console-usd",
    multiple=True,
    metavar="MONTH=US$",
    help="What the Console shows for a month, such as 2026-10=12.34, to be compared with ours; repeatable.",
)
@click.option("--no-interactive", is_flag=True, help="Leave the CLI's own session logs alone.")
@click.option("--admin-key-source", metavar="SOURCE", help="Where the Admin key is, for the provider's own figures.")
@click.option("--admin-url", metavar="URL", help="Where the Admin API is.")
def command(
    conf: Settings,
    *,
    since: str | None,
    by: str | None,
    full: bool,
    as_json: bool,
    as_csv: bool,
    reprice: bool,
    compare: str | None,
    console_usd: tuple[str, ...],
    no_merge: bool,
    no_interactive: bool,
) -> VerbResult:
    """Show what the farm spent, and what that saved. The exit status is 4 if a host could not be asked."""
    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one")
    beside = {"comparison": compare, "month by month": console_usd, "repriced sum": reprice}
    if as_csv and (missing := next((name for name, given in beside.items() if given), "")):
        raise UsageError(f"--csv has the groups and no {missing}", hint="--json has both")
    ask = not no_merge
    with waits_for(READS[ask]), merged(conf, since, say.note, ask=ask, here=ledgers_here()) as ledgers:
        found = ledgers.figures(by="model" if by is None else as_text(by, "--by"), reprice=reprice)
        shown = document(found) | {"headline": headline(found)}
        ledgers.add_pots(shown)
        shown |= {"provider": ledgers.provider(), "interactive": None if no_interactive else ledgers.interactive()}
        shown["months"] = ledgers.months(console_usd)
        if compare:
            shown["comparison"] = document(ledgers.comparison())
    if as_csv:
        return VerbResult(shown, as_csv_text(shown), ledgers.status)
    return VerbResult(
        shown, lambda: write(shown, full=full or not (by or compare), groups=by is not None), ledgers.status
    )


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
    text = printable(value)
    return f"'{text}" if value[:1] in _BLANK or value.lstrip()[:1] in _FORMULA else text


def write(shown: dict[str, Any], *, full: bool = True, groups: bool = True) -> None:
    """Print the document: its strings, aligned, in 80 columns. Unless `full`, only what was asked for.

    That is the comparison, `groups`, our months beside the provider's, what is repriced, and what is not known.
    """
    sheet = Sheet()
    sections: list[Callable[[Sheet, dict[str, Any]], None]] = [write_comparison] if shown.get("comparison") else []
    if full:
        sections += [write_head, _spent, _groups, _models, write_levers, _box, _provider, _months, _interactive]
    else:
        sections += [*([_groups] if groups else []), _repriced, _months]
    for section in (*sections, write_unknown):
        section(sheet, shown)


def write_head(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print what it cost as one number, and what it would have cost."""
    head = shown["headline"]
    sheet.line(f"{head['spent']} for {head['tasks']}", "bold")
    sheet.line(head["said"])


def outcomes(whole: dict[str, Any]) -> str:
    """Return how many tasks there were and how many did not succeed: none of those that were not begun is a failure."""
    more = [f"{whole[name]} {said}" for name, said in _OUTCOMES.items() if whole[name] or name == "failed"]
    return ", ".join([counted(whole["tasks"], "task"), *more])


def _spent(sheet: Sheet, shown: dict[str, Any]) -> None:
    spent, whole = shown["spent"], shown["whole"]
    sheet.title(f"Spent since {spent['since']} ({counted(spent['days'], 'day')}, UTC), in US$")
    counts = f"{outcomes(whole)}; {counted(whole['requests'], 'request')}"
    rows: list[tuple[str, str | None, str]] = [
        ("total", spent["total_usd"], counts),
        ("per day", spent["per_day_usd"], "the total over the days, rounded down"),
        ("today", spent["today_usd"], ""),
        ("this month", spent["month_usd"], ""),
        ("projection", spent["projection_month_usd"], "the whole month, at the pace of the last 7 whole days"),
    ]
    if (ran := shown["compute"]) is not None:
        time = f"{duration(ran['seconds'])} of {counted(ran['runs'], 'container')} on AWS"
        hours = f"{time}, by dated prices; not in the total"
        rows.append(("Fargate", ran["total_usd"], hours))
        rows.append(("all", ran["with_model_usd"], "the total and Fargate"))
    if (kept := shown["kept_local"]) is not None:
        rows.append(("kept local", kept["list_usd"], kept_local(kept)))
    rows += _repriced_row(shown)
    if spent["budget_month_usd"] is not None:
        rows.append(("budgets", spent["budget_month_usd"], "all day budgets over the whole month"))
    for budget in shown["budgets"]:
        left = f"left of {budget['limit_usd']} on {budget['day']}; {budget['reserved_usd']} reserved"
        rows.append((budget["host"], budget["left_usd"], left))
    sheet.facts(rows)


def _repriced_row(shown: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    if shown.get("repriced_usd") is None:
        return []
    more = f"; {shown['repriced_unpriced']} unknown" if shown["repriced_unpriced"] else ""
    return [("repriced", shown["repriced_usd"], f"the same requests by prices {shown['price_version']}{more}")]


def _repriced(sheet: Sheet, shown: dict[str, Any]) -> None:
    if row := _repriced_row(shown):
        sheet.line()
        sheet.facts([("total", shown["spent"]["total_usd"], ""), *row])


def kept_local(kept: dict[str, Any]) -> str:
    """Return what stands beside the list price of the gateway's turns that stayed here."""
    unknown = f"; {kept['without_price']} without a price" if kept["without_price"] else ""
    return f"{counted(kept['turns'], 'turn')} kept local, at list price: not counted as saved{unknown}"


def _groups(sheet: Sheet, shown: dict[str, Any]) -> None:
    kept, rest = shown["groups"][:SHOWN_GROUPS], shown["groups"][SHOWN_GROUPS:]
    cells = [_group(row["key"] or "(none)", row) for row in kept]
    if rest:
        cells.append(_group(f"({len(rest)} more)", _summed(rest)))
    if len(cells) > 1:
        cells.append(_group("all", _summed(shown["groups"])))
    sheet.line()
    head, money = [shown["by"], "US$", "tasks", "requests", "tokens in", "out"], {1}
    if shown["compute"] is not None and any(row["compute_usd"] is not None for row in shown["groups"]):
        head.insert(2, "Fargate")
        money.add(2)
    else:
        cells = [cell[:2] + cell[3:] for cell in cells]
    sheet.table(head, cells, money=money)


def _summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of groups, as a group."""
    money = {name: plain(sum(pico(Decimal(row[name] or 0)) for row in rows)) for name in ("spent_usd", "compute_usd")}
    return {name: sum(row[name] for row in rows) for name in _SUMMED} | money


def _group(name: str, row: dict[str, Any]) -> tuple[str | None, ...]:
    given = row["input_tokens"] + row["cache_creation_input_tokens"] + row["cache_read_input_tokens"]
    counts = (row["tasks"], row["requests"], given, row["output_tokens"])
    spent = row["spent_usd"] + ("+?" if row["unpriced"] else "")
    return (label_text(name), spent, row["compute_usd"], *map(str, counts))


def _models(sheet: Sheet, shown: dict[str, Any]) -> None:
    sheet.title("The same tokens on each model, all else as it was, in US$")
    sheet.table(("model", "US$"), [(row["model"], row["cost_usd"]) for row in shown["models"]], money={1})


def write_levers(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print what was saved, lever by lever: a loss is negative."""
    saved, target = shown["savings"], shown["target"]
    sheet.title(f"Saved against plain claude -p on {saved['baseline_model']}, in US$")
    sheet.line(f"It would have cost {saved['baseline_usd']}; what can be compared cost {saved['spent_usd']}.")
    rows: list[tuple[str | None, ...]] = [
        (
            lever["name"],
            lever["saving_usd"],
            f"{lever['share_percent']} %" if lever["share_percent"] else "",
            lever["without_only_this_usd"],
        )
        for lever in saved["levers"]
    ]
    rows.append(("saved", saved["saving_usd"], "100.0 %" if rows and rows[0][2] else "", ""))
    sheet.table(("", "saved", "share", "bill without only this"), rows, money={1, 3})
    sheet.line(f"Target {target['low']}-{target['high']}x: {target['verdict']}, {times(target['factor'])}")
    if target["factor_with_box"] is not None:
        sheet.line(f"  with the box's price in it: {target['verdict_with_box']}, {times(target['factor_with_box'])}")
    lean = f"Not in it: lean prompts would save US$ {saved['overhead_uncached_usd']}"
    sheet.line(f"{lean} were nothing of the CLI's own prompt cached.")
    if saved["left_out_requests"]:
        left_out = counted(saved["left_out_requests"], "request")
        sheet.line(f"Left out: {left_out} (US$ {saved['left_out_usd']}) without all prices.")


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
        need = "it needs no tasks to pay for it" if even == 0 else need
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


def _months(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print our months beside the provider's, and what is to be thought of each difference."""
    if not (months := shown.get("months")):
        return
    sheet.title("Month by month, in US$")
    rows = [
        (
            f"{row['month']} ({row['source']})",
            row["theirs_usd"],
            row["ours_usd"],
            row["difference_usd"],
            "" if row["percent"] is None else f"{row['percent']} %",
        )
        for row in months
    ]
    sheet.table(("month", "provider", "ours", "difference", ""), rows, money={1, 2, 3})
    for row in months:
        sheet.line(f"{row['month']}: {row['verdict']}: {row['said']}.")


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
        f"{counted(row['requests'], 'request')} to {row['model']}: no price is known, so in no sum."
        for row in shown["unpriced"]
    ]
    uncertain = shown["uncertain"]
    if uncertain["requests"]:
        bound = uncertain["upper_bound_usd"]
        most = "the most it can be is not known" if bound is None else f"US$ {bound} at the most"
        some = counted(uncertain["requests"], "request")
        lines.append(f"{some} may have been charged without our knowing how much ({most}), and in no sum.")
    if (ran := shown["compute"]) is not None and ran["unknown_runs"]:
        runs = f"The time of {counted(ran['unknown_runs'], 'container')} on AWS is not known any more"
        lines.append(f"{runs}: nobody noted it in time. What they cost besides the model is in no sum.")
    for host in shown["hosts"]:
        if host["error"] is not None:
            kept = f"its figures are of {host['merged_at']}" if host["merged_at"] else "nothing of it is in here"
            lines.append(f"{host['host']} could not be asked, {kept}: {host['error']}")
        if host["missing"]:
            lines.append(f"{host['host']} forgot {counted(host['missing'], 'charge')} before the merge: in no sum.")
    if lines:
        sheet.title("Not known")
    for line in lines:
        sheet.line(line)


def times(factor: str | None) -> str:
    """Return a factor as text."""
    return "nothing to compare" if factor is None else f"{factor}x"
