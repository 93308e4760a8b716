"""The help of the verbs: options in groups, examples, exit codes. man_pages.py makes man pages of the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import click

from farmhand.cli.examples import HELP

#: Title → the options that it has, by their parameters' names, in any verb. All others are the verb's own.
_GROUPS = {
    "The task": (
        *("file", "no_stdin", "model", "system", "schema", "engine", "tools", "network", "timeout_s", "max_tokens"),
        *("task_id", "task_file"),
    ),
    "Where it runs": (*("place", "host", "connect_timeout_s", "spot", "aws_environment", "aws_region", "aws_profile"),),
    "Key and payer": ("key_source", "pot", "fallback", "allow_subscription", "subscription", "max_usd"),
    "Figures": ("since", "no_merge", "baseline_model", "box_usd_month", "prices_file", "cost_store", "by", "full"),
    "Settings and output": ("as_json", "events", "as_csv", "html", "config", "project_dir", "gateway_config", "help"),
}
_OWN = "Options"
#: click makes no narrower help than this.
_CLICKS = 50
#: Exit status → what it means, for every verb.
EXIT_CODES = {
    0: "done",
    1: "the task or the work failed",
    2: "wrong usage",
    3: "not configured",
    4: "a host could not be reached",
    5: "refused by policy or budget",
    130: "stopped",
}


class HelpText(click.HelpFormatter):
    """Help that also fits a terminal in which click's own 50 columns do not."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        """Take the terminal's width, as click does, but also one below 50."""
        columns = shutil.get_terminal_size().columns - 2
        if width is None and columns < _CLICKS:
            width = max(columns, 20)
        super().__init__(indent_increment, width, max_width)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and their texts, which have at least half of the width."""
        super().write_dl(rows, min(col_max, self.width // 2 - 4) if self.width < _CLICKS else col_max, col_spacing)


class _Context(click.Context):
    formatter_class = HelpText


class VerbCommand(click.Command):
    """A verb whose help has its options in groups, and examples, exit codes and the docs' page at the end."""

    context_class = _Context

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, by group."""
        for title, records in grouped(self, ctx):
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog, then what every verb has."""
        super().format_epilog(ctx, formatter)
        write_end(ctx, formatter, exits="Exit status" not in (self.epilog or ""))


class VerbGroup(click.Group):
    """A group of verbs, whose help ends in the same way."""

    context_class = _Context

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs with their help lines, which are not cut off."""
        with formatter.section("Verbs"):
            found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
            formatter.write_dl([(name, verb.get_short_help_str(500)) for name, verb in found if verb is not None])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, exit codes and the docs' page."""
        super().format_epilog(ctx, formatter)
        write_end(ctx, formatter)


def grouped(command: click.Command, ctx: click.Context) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the command's options as (names, help), by the titles of their groups; the verb's own come first."""
    titles = {name: title for title, names in _GROUPS.items() for name in names}
    found: dict[str, list[tuple[str, str]]] = {title: [] for title in (_OWN, *_GROUPS)}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            found[titles.get(param.name or "", _OWN)].append(record)
    return [(title, records) for title, records in found.items() if records]


def verb_of(ctx: click.Context) -> str:
    """Return the verb that `ctx` is for, with its group's name: `run`, `cloud credential put`; `farmhand` for none."""
    names: list[str] = []
    while ctx.parent is not None:
        names.insert(0, ctx.info_name or "")
        ctx = ctx.parent
    return " ".join(names) or ctx.command.name or ""


def where(page: str) -> str:
    """Return where a page of the docs is: in the package, if it was installed from a wheel, else in the checkout."""
    carried = Path(__file__).parents[1] / "project" / page
    return str(carried) if carried.is_file() else f"{page} in the checkout"


def write_end(ctx: click.Context, formatter: click.HelpFormatter, *, exits: bool = True) -> None:
    """Write examples, exit codes and the docs' page of the verb that `ctx` is for."""
    about = HELP.get(verb_of(ctx))
    if about is not None:
        with formatter.section("Examples"):
            for line, said in about.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
                with formatter.indentation(), formatter.indentation():
                    formatter.write_text(said)
    if exits:
        with formatter.section("Exit status"):
            formatter.write_text(", ".join(f"{code} {said}" for code, said in EXIT_CODES.items()) + ".")
    if about is not None:
        formatter.write_paragraph()
        formatter.write_text(f"More: {where(about.docs)}; farmhand help VERB; man farmhand.")
