"""The figures of `farmhand cost` on a terminal: the strings of the JSON document, aligned, in 80 columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from farmhand.cli.say import printable
from farmhand.core.money import plain

#: More groups than these are one line, so that the sum is still the whole; --json and --csv have them all.
SHOWN_GROUPS = 20
_SUMMED = ("tasks", "requests", "input_tokens", "output_tokens")


def write(shown: dict[str, Any], console: Console | None = None) -> None:
    """Print the document."""
    view = _CostView(console or Console(soft_wrap=False, highlight=False), shown)
    view.spent()
    view.groups()
    view.models()
    view.levers()
    view.box()
    view.provider()
    view.interactive()
    view.unknown()


class _CostView:
    """One print of one document."""

    def __init__(self, console: Console, shown: dict[str, Any]) -> None:
        self.console = console
        self.shown = shown

    def line(self, text: str = "", style: str = "") -> None:
        """One paragraph."""
        self.console.print(Text(printable(text), style=style))

    def facts(self, rows: Iterable[tuple[str, str | None, str]]) -> None:
        """Lines of name, amount in US$ (None: not known) and a remark."""
        kept = list(rows)
        amounts = aligned([amount for _, amount, _ in kept])
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for (name, _, remark), amount in zip(kept, amounts, strict=True):
            table.add_row(*(Text(printable(cell)) for cell in (name, amount, remark)))
        self.console.print(table)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str | None]], money: frozenset[int]) -> None:
        """A table; the columns numbered in `money` hold US$, the first one names, the others counts."""
        columns = list(zip(*rows, strict=True)) or [()] * len(head)
        shown = [aligned(c) if n in money else [x or "" for x in c] for n, c in enumerate(columns)]
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for number, name in enumerate(head):
            if number in money:
                table.add_column(name.rjust(max(map(len, shown[number]), default=0)), no_wrap=True)
            else:
                left = number == 0
                table.add_column(name, justify="left" if left else "right", no_wrap=not left, overflow="fold")
        for row in zip(*shown, strict=True):
            table.add_row(*(Text(printable(cell)) for cell in row))
        self.console.print(table)

    def spent(self) -> None:
        """What was spent, and against which budgets."""
        spent, whole = self.shown["spent"], self.shown["whole"]
        days = f"{spent['days']} day{'s' if spent['days'] != 1 else ''}"
        self.line(f"Spent since {spent['since']} ({days}, UTC), in US$", "bold")
        refused = f"; {whole['refused']} not begun for want of budget" if whole["refused"] else ""
        rows: list[tuple[str, str | None, str]] = [
            (
                "total",
                spent["total_usd"],
                f"{whole['tasks']} tasks, {whole['failed']} failed; {whole['requests']} requests{refused}",
            ),
            ("per day", spent["per_day_usd"], "the total over the days, rounded down"),
            ("today", spent["today_usd"], ""),
            ("this month", spent["month_usd"], ""),
            ("projection", spent["projection_month_usd"], "the whole month, at the pace of the last 7 whole days"),
        ]
        if self.shown.get("repriced_usd") is not None:
            more = self.shown["repriced_unpriced"]
            remark = f"the same requests by prices {self.shown['price_version']}"
            rows.append(("repriced", self.shown["repriced_usd"], remark + (f"; {more} unknown" if more else "")))
        if spent["budget_month_usd"] is not None:
            rows.append(("budgets", spent["budget_month_usd"], "all day budgets over the whole month"))
        for budget in self.shown["budgets"]:
            left = f"left of {budget['limit_usd']} on {budget['day']}; {budget['reserved_usd']} reserved"
            rows.append((budget["host"], budget["left_usd"], left))
        self.facts(rows)

    def groups(self) -> None:
        """The sums by what the operator asked for."""
        rows = self.shown["groups"]
        kept, rest = rows[:SHOWN_GROUPS], rows[SHOWN_GROUPS:]
        cells = [self._group(row["key"] or "(none)", row) for row in kept]
        if rest:
            summed = {name: sum(row[name] for row in rest) for name in (*_SUMMED, "unpriced")}
            pico = sum(_pico(row["spent_usd"]) for row in rest)
            cells.append(self._group(f"({len(rest)} more)", {**summed, "spent_usd": plain(pico)}))
        self.line()
        head = (self.shown["by"], "US$", "tasks", "requests", "tokens in", "out")
        self.table(head, cells, frozenset({1}))

    def _group(self, name: str, row: dict[str, Any]) -> tuple[str, ...]:
        given = row["input_tokens"] + row.get("cache_creation_input_tokens", 0) + row.get("cache_read_input_tokens", 0)
        counts = (row["tasks"], row["requests"], given, row["output_tokens"])
        return (_label(name), row["spent_usd"] + ("+?" if row["unpriced"] else ""), *map(str, counts))

    def models(self) -> None:
        """The same tokens elsewhere."""
        self.line("\nThe same tokens on each model, all else as it was, in US$", "bold")
        self.table(("model", "US$"), [(row["model"], row["cost_usd"]) for row in self.shown["models"]], frozenset({1}))

    def levers(self) -> None:
        """What was saved against the baseline, lever by lever, and the target's verdict."""
        saved, target = self.shown["savings"], self.shown["target"]
        self.line(f"\nSaved against plain claude -p on {saved['baseline_model']}, in US$", "bold")
        rows: list[tuple[str | None, ...]] = [("baseline", saved["baseline_usd"], "", "")]
        for lever in saved["levers"]:
            saving = _negated(lever["saving_usd"])
            share = lever["share_percent"]
            rows.append((lever["name"], saving, share and f"{share} %", lever["without_only_this_usd"]))
        rows.append(("spent", saved["spent_usd"], "", ""))
        rows.append(("saved", saved["saving_usd"], "100.0 %" if saved["levers"][0]["share_percent"] else "", ""))
        self.table(("", "US$", "share", "bill without only this"), rows, frozenset({1, 3}))
        low, high = target["low"], target["high"]
        self.line(f"Target {low}-{high}x: {target['verdict']}, {_times(target['factor'])}")
        if target["factor_with_box"] is not None:
            self.line(
                f"  with the box's price in it: {target['verdict_with_box']}, {_times(target['factor_with_box'])}"
            )
        self.line(
            f"Not in it: lean prompts would save US$ {saved['overhead_uncached_usd']} were nothing of the CLI's own"
            " prompt cached."
        )
        if saved["left_out_requests"]:
            self.line(
                f"Left out: {saved['left_out_requests']} requests (US$ {saved['left_out_usd']}) without all prices."
            )

    def box(self) -> None:
        """The hosts' own price, and the subscription, which is never added in."""
        box = self.shown["box"]
        self.line("\nThe box", "bold")
        if box["usd_month"] is None:
            without = ", ".join(box["hosts_without_price"])
            self.line(f"Its price is not known{f' ({without})' if without else ''}: set box_usd_month.")
        else:
            even = box["break_even_tasks_a_month"]
            need = "no number of tasks pays for it" if even is None else f"{even} tasks a month pay for it"
            self.line(f"US$ {box['usd_month']} a month; {need}; the pace is {box['tasks_a_month']}: {box['verdict']}.")
        self.line(f"On the subscription instead (never added in): {self.shown['subscription']}.")

    def provider(self) -> None:
        """The provider's own figures."""
        provider = self.shown.get("provider")
        if not provider:
            return
        self.line("\nThe provider's own figures, in US$", "bold")
        if "error" in provider:
            self.line(provider["error"])
            return
        rows = [
            (row["model"] or "(other)", row["theirs_usd"], row["ours_usd"], row["difference_usd"])
            for row in [*provider["models"], {**provider, "model": "all"}]
        ]
        self.table(("model", "provider", "ours", "difference"), rows, frozenset({1, 2, 3}))
        self.line(f"Since {provider['since']}; {provider['note']}.")

    def interactive(self) -> None:
        """The subscription's sessions, as an estimate."""
        logs = self.shown.get("interactive")
        if not logs or not (logs["messages"] or logs["unread"]):
            return
        self.line("\nInteractive sessions (estimate)", "bold")
        self.line(f"US$ {logs['estimate_usd']} for {logs['messages']} answers; {logs['label']}.")
        if logs["unpriced"]:
            self.line(f"Without a known price, and in no sum: {', '.join(logs['unpriced'])}")
        for path in logs["unread"]:
            self.line(f"Not read: {path}")

    def unknown(self) -> None:
        """What is in no sum, and hosts whose last figures these are."""
        lines = [
            f"{row['requests']} requests to {row['model']}: no price is known; they are in no sum."
            for row in self.shown["unpriced"]
        ]
        uncertain = self.shown["uncertain"]
        if uncertain["requests"]:
            bound = uncertain["upper_bound_usd"]
            most = "the most it can be is not known" if bound is None else f"US$ {bound} at the most"
            lines.append(
                f"{uncertain['requests']} requests may have been charged without our knowing how much ({most});"
                " they are in no sum."
            )
        for host in self.shown["hosts"]:
            if host["error"] is not None:
                kept = f"its figures are of {host['merged_at']}" if host["merged_at"] else "nothing of it is in here"
                lines.append(f"{host['host']} could not be asked, {kept}: {host['error']}")
            if host["missing"]:
                lines.append(
                    f"{host['host']} forgot {host['missing']} charges before they were merged; they are in no sum."
                )
        if lines:
            self.line()
            self.line("Not known", "bold")
        for line in lines:
            self.line(line)


def aligned(amounts: Iterable[str | None]) -> list[str]:
    """Amounts of one width with their decimal points under one another; None becomes `unknown`."""
    texts = ["unknown" if amount is None else amount for amount in amounts]
    # What is no amount ends where the whole dollars do.
    parts = [(text, "") if "." not in text else (text[: text.index(".")], text[text.index(".") :]) for text in texts]
    left = max((len(whole) for whole, _ in parts), default=0)
    right = max((len(rest) for _, rest in parts), default=0)
    return [whole.rjust(left) + rest.ljust(right) for whole, rest in parts]


def _negated(amount: str) -> str:
    """A saving as what it does to the bill: `-1.20` for a saving, `+0.30` for a loss."""
    if amount.startswith("-"):
        return "+" + amount[1:]
    return f"-{amount}" if amount.strip("0.") else amount


def _times(factor: str | None) -> str:
    return "nothing to compare" if factor is None else f"{factor}x"


def _pico(amount: str) -> int:
    whole, _, rest = amount.partition(".")
    return int(f"{whole}{rest:0<12}")


def _label(key: str) -> str:
    """A set of labels, which is JSON, as people write it."""
    if not key.startswith("{"):
        return key
    try:
        labels = json.loads(key)
    except ValueError:
        return key
    return ", ".join(f"{name}={value}" for name, value in labels.items()) if isinstance(labels, dict) else key
