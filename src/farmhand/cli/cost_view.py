"""Text output of `farmhand cost`: the strings of the JSON document, aligned, in 80 columns."""

from __future__ import annotations

import json
from typing import Any

from farmhand.cli.sheet import Sheet
from farmhand.core.money import plain

#: Groups after the first 20 are summed in one line, so that the table still adds up. --json and --csv have them all.
SHOWN_GROUPS = 20
_SUMMED = ("tasks", "requests", "input_tokens", "output_tokens", "unpriced")


def write(shown: dict[str, Any]) -> None:
    """Print the document."""
    sheet = Sheet()
    for section in (_spent, _groups, _models, _levers, _box, _provider, _interactive, write_unknown):
        section(sheet, shown)


def _spent(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print the sums of the spending, and the budgets."""
    spent, whole = shown["spent"], shown["whole"]
    days = f"{spent['days']} day{'s' if spent['days'] != 1 else ''}"
    sheet.line(f"Spent since {spent['since']} ({days}, UTC), in US$", "bold")
    refused = f"; {whole['refused']} not begun for want of budget" if whole["refused"] else ""
    counts = f"{whole['tasks']} tasks, {whole['failed']} failed; {whole['requests']} requests{refused}"
    rows: list[tuple[str, str | None, str]] = [
        ("total", spent["total_usd"], counts),
        ("per day", spent["per_day_usd"], "the total over the days, rounded down"),
        ("today", spent["today_usd"], ""),
        ("this month", spent["month_usd"], ""),
        ("projection", spent["projection_month_usd"], "the whole month, at the pace of the last 7 whole days"),
    ]
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
    """Print the sums of each group (`--by`)."""
    kept, rest = shown["groups"][:SHOWN_GROUPS], shown["groups"][SHOWN_GROUPS:]
    cells = [_group(row["key"] or "(none)", row) for row in kept]
    if rest:
        summed = {name: sum(row[name] for row in rest) for name in _SUMMED}
        spent = plain(sum(_pico(row["spent_usd"]) for row in rest))
        cells.append(_group(f"({len(rest)} more)", {**summed, "spent_usd": spent}))
    sheet.line()
    sheet.table((shown["by"], "US$", "tasks", "requests", "tokens in", "out"), cells, money={1})


def _group(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    given = row["input_tokens"] + row.get("cache_creation_input_tokens", 0) + row.get("cache_read_input_tokens", 0)
    counts = (row["tasks"], row["requests"], given, row["output_tokens"])
    return (_label(name), row["spent_usd"] + ("+?" if row["unpriced"] else ""), *map(str, counts))


def _models(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print the price of these tokens on other models."""
    sheet.title("The same tokens on each model, all else as it was, in US$")
    sheet.table(("model", "US$"), [(row["model"], row["cost_usd"]) for row in shown["models"]], money={1})


def _levers(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print the savings against the baseline, lever by lever, and whether the target is met."""
    saved, target = shown["savings"], shown["target"]
    sheet.title(f"Saved against plain claude -p on {saved['baseline_model']}, in US$")
    rows: list[tuple[str | None, ...]] = [("baseline", saved["baseline_usd"], "", "")]
    for lever in saved["levers"]:
        share = lever["share_percent"]
        saving = _negated(lever["saving_usd"])
        rows.append((lever["name"], saving, share and f"{share} %", lever["without_only_this_usd"]))
    rows.append(("spent", saved["spent_usd"], "", ""))
    rows.append(("saved", saved["saving_usd"], "100.0 %" if saved["levers"][0]["share_percent"] else "", ""))
    sheet.table(("", "US$", "share", "bill without only this"), rows, money={1, 3})
    sheet.line(f"Target {target['low']}-{target['high']}x: {target['verdict']}, {_times(target['factor'])}")
    if target["factor_with_box"] is not None:
        sheet.line(f"  with the box's price in it: {target['verdict_with_box']}, {_times(target['factor_with_box'])}")
    sheet.line(
        f"Not in it: lean prompts would save US$ {saved['overhead_uncached_usd']} were nothing of the CLI's own"
        " prompt cached."
    )
    if saved["left_out_requests"]:
        sheet.line(f"Left out: {saved['left_out_requests']} requests (US$ {saved['left_out_usd']}) without all prices.")


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
    """Print the provider's own figures beside ours."""
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
    """Print the estimated cost of the subscription's sessions."""
    logs = shown["interactive"]
    if not logs or not (logs["messages"] or logs["unread"]):
        return
    sheet.title("Interactive sessions (estimate)")
    sheet.line(f"US$ {logs['estimate_usd']} for {logs['messages']} answers; {logs['label']}.")
    if logs["unpriced"]:
        sheet.line(f"Without a known price, and in no sum: {', '.join(logs['unpriced'])}")
    for path in logs["unread"]:
        sheet.line(f"Not read: {path}")


def write_unknown(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print what is in no sum, and the hosts that could not be asked."""
    lines = [
        f"{row['requests']} requests to {row['model']}: no price is known; they are in no sum."
        for row in shown["unpriced"]
    ]
    uncertain = shown["uncertain"]
    if uncertain["requests"]:
        bound = uncertain["upper_bound_usd"]
        most = "the most it can be is not known" if bound is None else f"US$ {bound} at the most"
        count = f"{uncertain['requests']} requests may have been charged without our knowing how much"
        lines.append(f"{count} ({most}); they are in no sum.")
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


def _times(factor: str | None) -> str:
    return "nothing to compare" if factor is None else f"{factor}x"


def _pico(amount: str) -> int:
    whole, _, rest = amount.partition(".")
    return int(f"{whole}{rest:0<12}")


def _label(key: str) -> str:
    """Return a set of labels, given as JSON, in the form `name=value, …`; any other key unchanged."""
    if not key.startswith("{"):
        return key
    try:
        labels = json.loads(key)
    except ValueError:
        return key
    return ", ".join(f"{name}={value}" for name, value in labels.items()) if isinstance(labels, dict) else key
