"""The man pages: `python -m farmhand.cli.man_pages DIRECTORY` writes farmhand.1, claude-cheap.1 and one for each verb.

They are made of the same options, examples and exit codes as the help (`make man`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from farmhand import __version__
from farmhand.cli.app import VERBS, farmhand
from farmhand.cli.manual import EXIT_CODES, HELP, grouped


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each man page."""
    root = click.Context(farmhand, info_name="farmhand")
    verbs = [(f"farmhand-{name}(1)", line) for name, line in VERBS.items()]
    yield "farmhand.1", _page(farmhand, root, "farmhand", [("Verbs", verbs)])
    for name in VERBS:
        command = farmhand.get_command(root, name)
        if command is not None:
            ctx = click.Context(command, info_name=name, parent=root)
            yield f"farmhand-{name}.1", _page(command, ctx, f"farmhand-{name}", [])
    run = farmhand.get_command(root, "run")
    if run is not None:
        yield "claude-cheap.1", _page(run, click.Context(run, info_name="claude-cheap"), "claude-cheap", [])


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
    key = title.removeprefix("farmhand-")
    found = HELP.get("run" if key == "claude-cheap" else key)
    if found is not None:
        lines.append(".SH EXAMPLES")
        for line, said in found.examples:
            lines += [".TP", f".B {_roff(line)}", _roff(said)]
    lines.append(".SH EXIT STATUS")
    for code, said in EXIT_CODES.items():
        lines += [".TP", f".B {code}", _roff(said)]
    lines += [".SH SEE ALSO", _roff(f"farmhand(1), {found.docs if found else 'README.md'} in the checkout")]
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
