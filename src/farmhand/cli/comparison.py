"""The comparison of the same work on Fargate, on a box and in Message Batches, on the terminal."""

from __future__ import annotations

from typing import Any

from farmhand.cli.sheet import Sheet
from farmhand.core.readable import counted
from farmhand.cost.compare import from_on

_COLUMNS = ("way", "model_usd", "compute_usd", "standing_usd", "total_usd")


def write_comparison(sheet: Sheet, shown: dict[str, Any]) -> None:
    """Print the comparison in a document of `farmhand cost` or `farmhand report`."""
    found = shown["comparison"]
    sheet.title("The same work in four ways, in US$ for 1,000 tasks")
    if not found["ways"]:
        sheet.line("not enough data: no task has ended in this period")
    else:
        tasks, days = counted(found["tasks"], "task"), counted(found["days"], "day")
        sheet.line(f"By {tasks} of {days}: {found['tasks_a_month']} a month.")
        rows = [tuple(way[name] for name in _COLUMNS) for way in found["ways"]]
        sheet.table(("", "model", "Fargate", "standing", "all"), rows, money={1, 2, 3, 4})
        for way in found["ways"]:
            sheet.line(f"{way['way']}: {way['remark']}.")
        _break_even(sheet, found)
    for network in found["networks"]:
        unused = f"nothing ran in {network['unused_hours']} h since {network['known_since']}"
        up = f"The {network['mode']} network is up since {network['since']}, {network['hours']} h"
        if network["until"]:
            when = f"from {network['since']} to {network['until']}"
            up = f"A {network['mode']} network was up {when}, {network['hours']} h"
        sheet.line(f"{up}, US$ {network['usd_so_far']}; {unused}: US$ {network['unused_usd']}.")
    sheet.title("What was claimed, by these figures")
    for one in found["verdicts"]:
        answer = one["answer"]
        sheet.line(f"{one['claim']}: {one['verdict']}. {answer[:1].upper()}{answer[1:]}.")
    sheet.title("Prices")
    for price in found["prices"]:
        sheet.line(f"{price['what']}: {price['as_of']}, {price['source']}")
    for line in found["notes"]:
        sheet.line(f"Note: {line}.")


def _break_even(sheet: Sheet, found: dict[str, Any]) -> None:
    alone, with_network = found["break_even_tasks_a_month"], found["break_even_with_network"]
    if alone is None:
        return
    sheet.line(
        f"The box (US$ {found['box_usd_month']} a month) costs less than Fargate {from_on(alone)}; with "
        f"the network (US$ {found['network_usd_month']}) counted, {from_on(with_network)}."
    )
