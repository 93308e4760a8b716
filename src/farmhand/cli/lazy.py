"""A group of verbs whose modules are imported only when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from farmhand.cli.manual import VerbGroup


class LazyGroup(VerbGroup):
    """`verbs` is verb → help line; each is `command` in the module whose name is `modules` and the verb.

    `aliases` is verb → the arguments that it stands for.
    """

    def __init__(
        self,
        *args: Any,
        verbs: Mapping[str, str],
        modules: str,
        aliases: Mapping[str, tuple[str, ...]] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*args, context_settings={"help_option_names": ["-h", "--help"]}, **settings)
        self._verbs, self._modules, self._aliases = verbs, modules, aliases or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; `help VERB …` is `VERB … --help`."""
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the verbs."""
        return list(self._verbs)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that the arguments name; aliases are resolved."""
        return super().resolve_command(ctx, [*self._aliases.get(args[0], args[:1]), *args[1:]])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the verb's command; None for an unknown verb."""
        if cmd_name not in self._verbs:
            return None
        name = self._aliases.get(cmd_name, (cmd_name,))[0]
        command: click.Command = importlib.import_module(f"{self._modules}{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs with their help lines, without importing any of them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(self._verbs.items()))
