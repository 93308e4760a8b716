"""The help of the verbs: options in groups, examples, exit codes. man_pages.py makes man pages of the same."""

from __future__ import annotations

from typing import NamedTuple

import click

#: Title → the options that it has, by their parameters' names, in any verb. All others are the verb's own.
_GROUPS = {
    "The task": (
        *("file", "no_stdin", "model", "system", "schema", "engine", "tools", "network", "timeout_s", "max_tokens"),
        "task_id",
    ),
    "Where it runs": (*("place", "host", "connect_timeout_s", "spot", "aws_environment", "aws_region", "aws_profile"),),
    "Key and payer": ("key_source", "fallback", "allow_subscription", "subscription", "max_usd"),
    "Figures": ("since", "no_merge", "baseline_model", "box_usd_month", "prices_file", "cost_store", "by", "full"),
    "Settings and output": ("as_json", "as_csv", "html", "config", "project_dir", "gateway_config", "help"),
}
_OWN = "Options"
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


class VerbHelp(NamedTuple):
    """Examples of a verb, each a whole command line and what it does, and where more is written."""

    docs: str
    examples: tuple[tuple[str, str], ...]


HELP = {
    "farmhand": VerbHelp("README.md", (
        ("farmhand help batch", "the help of a verb"),
        ("farmhand status", "what the hosts do"),
    )),
    "run": VerbHelp("README.md", (
        ('claude-cheap "Name a tool"', "one task"),
        ("farmhand run -f report.txt --model sonnet 'Sum it up'", "with a file, on another model"),
    )),
    "code": VerbHelp("docs/aws.md", (
        ('farmhand code . "Fix the failing test" --trust --patch', "print the patch"),
        ('farmhand code https://github.com/me/shop "Add a test" --place docker --push add-test', "push a branch"),
    )),
    "doctor": VerbHelp("docs/operations.md", (
        ("farmhand doctor", "check everything"),
        ("farmhand doctor --json", "the same for a program"),
    )),
    "flush": VerbHelp("docs/operations.md", (
        ("farmhand flush", "send what was queued, show what is there"),
        ("farmhand flush --wait", "and wait until all have ended"),
    )),
    "batch": VerbHelp("docs/operations.md", (
        ("farmhand batch tasks.jsonl --out answers.jsonl", "run it, or go on with it"),
        ("farmhand batch people.csv --template 'Greet {name}.' --out letters.jsonl --economy", "half the price"),
    )),
    "status": VerbHelp("docs/operations.md", (
        ("farmhand status", "what the hosts do"),
        ("farmhand status --watch --interval 0.5", "live; q ends it"),
    )),
    "top": VerbHelp("docs/operations.md", (
        ("farmhand top", "live"),
        ("farmhand top --host farm1", "of one host"),
    )),
    "list": VerbHelp("docs/operations.md", (
        ("farmhand list --failed --since 2d", "what failed since yesterday"),
        ("farmhand list --batch letters --grep 'barn cat'", "of one batch, by words in the prompt"),
    )),
    "show": VerbHelp("docs/operations.md", (
        ("farmhand show", "the newest task"),
        ("farmhand show 7f3a", "the one whose id begins so"),
    )),
    "logs": VerbHelp("docs/operations.md", (
        ("farmhand logs 7f3a", "what it has answered so far"),
        ("farmhand logs -f", "the newest, and what comes"),
    )),
    "wait": VerbHelp("docs/operations.md", (
        ("farmhand wait 7f3a 81bc", "until both have ended"),
        ("farmhand wait 7f3a --json", "and print the result"),
    )),
    "cancel": VerbHelp("docs/operations.md", (
        ("farmhand cancel 7f3a", "whether it waits or runs"),
        ("farmhand cancel 7f3a 81bc", "both"),
    )),
    "again": VerbHelp("docs/operations.md", (
        ("farmhand again 7f3a", "the same task under a new id"),
        ("farmhand again 7f3a --model sonnet", "on another model"),
    )),
    "init": VerbHelp("docs/first-hour.md", (
        ("farmhand init", "it asks for what it needs"),
        ("farmhand init --address 203.0.113.10 --user admin --host-key SHA256:… --up", "with all that it needs"),
    )),
    "playbook": VerbHelp("docs/operations.md", (
        ("farmhand playbook verify", "check the hosts"),
        ("farmhand playbook remove --check", "what taking Farmhand off a host would do"),
    )),
    "statusline": VerbHelp("docs/operations.md", (
        ("farmhand statusline", "for a prompt"),
        ("farmhand statusline --json", "what it is made of"),
    )),
    "mcp": VerbHelp("docs/mcp.md", (
        ("farmhand mcp", "a client starts it: claude mcp add farmhand -- farmhand mcp"),
        ("farmhand mcp --config farm.toml", "the same with other settings"),
    )),
    "cost": VerbHelp("docs/cost.md", (
        ("farmhand cost --since 30d", "what it cost and saved"),
        ("farmhand cost --by batch", "only the table"),
    )),
    "rotate": VerbHelp("docs/operations.md", (
        ("farmhand rotate --new-key -", "the new key comes on stdin"),
        ("farmhand rotate --status", "where the rotation stands"),
    )),
    "report": VerbHelp("docs/cost.md", (
        ("farmhand report --html report.html", "one page to keep or to send on"),
        ("farmhand report --since 4w", "on the terminal"),
    )),
    "up": VerbHelp("docs/operations.md", (
        ("farmhand up -i inventory/mine --limit farm1 --check --diff", "show what would change"),
        ("farmhand up --create farm1 -e box_ssh_from=203.0.113.7/32", "make the host on AWS first"),
    )),
    "down": VerbHelp("docs/operations.md", (
        ("farmhand down", "remove the containers here"),
        ("farmhand down --delete-data", "and their ledger"),
    )),
    "gateway": VerbHelp("docs/gateway.md", (
        ("farmhand gateway serve", "run it"),
        ("farmhand gateway connect claude", "how a harness is pointed at it"),
    )),
    "cloud": VerbHelp("docs/aws.md", (
        ("farmhand cloud status", "what runs on AWS"),
        ("farmhand cloud up", "make the stacks; it says first what they cost"),
    )),
}  # fmt: skip


class VerbCommand(click.Command):
    """A verb whose help has its options in groups, and examples, exit codes and the docs' page at the end."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, by group."""
        for title, records in grouped(self, ctx):
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog, then what every verb has."""
        super().format_epilog(ctx, formatter)
        write_end(ctx, formatter, exits="Exit status" not in (self.epilog or ""))


def grouped(command: click.Command, ctx: click.Context) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the command's options as (names, help), by the titles of their groups; the verb's own come first."""
    titles = {name: title for title, names in _GROUPS.items() for name in names}
    found: dict[str, list[tuple[str, str]]] = {title: [] for title in (_OWN, *_GROUPS)}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            found[titles.get(param.name or "", _OWN)].append(record)
    return [(title, records) for title, records in found.items() if records]


def write_end(ctx: click.Context, formatter: click.HelpFormatter, *, exits: bool = True) -> None:
    """Write examples, exit codes and the docs' page of the verb that `ctx` is for."""
    about = HELP.get(ctx.info_name or "") or HELP.get(ctx.command.name or "")
    if about is not None:
        with formatter.section("Examples"):
            for line, said in about.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n{'':>{formatter.current_indent + 4}}{said}\n")
    if exits:
        with formatter.section("Exit status"):
            formatter.write_text(", ".join(f"{code} {said}" for code, said in EXIT_CODES.items()) + ".")
    if about is not None:
        formatter.write_paragraph()
        formatter.write_text(f"More: {about.docs} in the checkout; farmhand help VERB; man farmhand.")
