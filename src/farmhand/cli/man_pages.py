"""The man pages: `python -m farmhand.cli.man_pages DIRECTORY` writes farmhand.1, claude-cheap.1 and one for each
verb.

They are made of the same options, examples and exit codes as the help (`make man`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from farmhand import __version__
from farmhand.cli.app import farmhand
from farmhand.cli.examples import HELP
from farmhand.cli.manual import EXIT_CODES, grouped, verb_of


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each man page."""
    root = click.Context(farmhand, info_name="farmhand")
    yield from _group(farmhand, root, "farmhand")
    run = farmhand.get_command(root, "run")
    if run is not None:
        yield "claude-cheap.1", _page(run, click.Context(run, info_name="claude-cheap"), "claude-cheap", [])


def _group(group: click.Group, ctx: click.Context, title: str) -> Iterator[tuple[str, str]]:
    """Yield the page of a group, and those of its verbs."""
    found = {name: group.get_command(ctx, name) for name in group.list_commands(ctx)}
    verbs = [
        (f"{title}-{name}(1)", command.get_short_help_str(120))
        for name, command in found.items()
        if command is not None
    ]
    yield f"{title}.1", _page(group, ctx, title, [("Verbs", verbs)])
    for name, command in found.items():
        below = click.Context(command, info_name=name, parent=ctx) if command is not None else ctx
        if isinstance(command, click.Group):
            yield from _group(command, below, f"{title}-{name}")
        elif command is not None:
            yield f"{title}-{name}.1", _page(command, below, f"{title}-{name}", [])


def _page(
    command: click.Command, ctx: click.Context, title: str, more: Sequence[tuple[str, list[tuple[str, str]]]]
) -> str:
    about = " ".join((command.help or "").split("\f")[0].split())
    short = re.split(r"(?<=\.)\s", about)[0].rstrip(".")
    usage = " ".join(command.collect_usage_pieces(ctx))
    lines = [
        f'.TH "{title.upper()}" "1" "" "farmhand {__version__}" "Farmhand"',
        ".SH NAME",
        f"{_roff(title)} \\- {_roff(short)}",
        ".SH SYNOPSIS",
        f".B {_roff(ctx.command_path)}",
        _roff(usage),
        ".SH DESCRIPTION",
        _roff(about),
    ]
    for name, records in [*more, *grouped(command, ctx)]:
        lines.append(f".SH {_roff(name.upper())}")
        for what, said in records:
            lines += [".TP", f".B {_roff(what)}", _roff(said)]
    found = HELP.get(verb_of(ctx))
    if found is not None:
        lines.append(".SH EXAMPLES")
        for line, said in found.examples:
            lines += [".TP", f".B {_roff(line)}", _roff(said)]
    lines.append(".SH EXIT STATUS")
    for code, said in EXIT_CODES.items():
        lines += [".TP", f".B {code}", _roff(said)]
    lines += [".SH SEE ALSO", _roff(f"farmhand(1), {found.docs if found else 'README.md'}")]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    """Return text that is no request and has no escape of roff."""
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    escaped = "".join(sign if sign.isascii() else f"\\[u{ord(sign):04X}]" for sign in escaped)
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def main(argv: list[str] | None = None) -> int:
    """Write the pages into the directory that is named, and return the exit status."""
    given = sys.argv[1:] if argv is None else argv
    if len(given) != 1:
        sys.stderr.write("usage: python -m farmhand.cli.man_pages DIRECTORY\n")
        return 2
    directory = Path(given[0])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in pages():
            (directory / name).write_text(text, "utf-8")
            sys.stdout.write(f"{directory / name}\n")
    except OSError as error:
        sys.stderr.write(f"farmhand: {directory} cannot be written: {error.strerror} (name another directory)\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
