"""The arguments of `farmhand run`: one table, which click gets its options from, and a reader of the plain cases."""

from __future__ import annotations

from farmhand.core.settings import FALLBACKS

TYPE_CHECKING = False  # as in farmhand.wire.http1
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Option:
    """One option. `kind` is `flag`, `switch` (its second name turns it off), or what its value is: `text`, `number`,
    `count` (1, 2, …) or a tuple of choices.
    """

    def __init__(
        self, *names: str, to: str, kind: str | tuple[str, ...] = "text", many: bool = False, what: str = "", about: str
    ) -> None:
        self.names = names
        self.to = to
        self.kind = kind
        self.many = many
        self.what = what
        self.about = about


OPTIONS = (
    Option(
        "-f",
        "--file",
        to="file",
        many=True,
        what="FILE",
        about="Add a text file below the prompt (-: stdin); repeatable.",
    ),
    Option("--no-stdin", to="no_stdin", kind="flag", about="Do not read stdin, even if something is piped in."),
    Option("--json", to="as_json", kind="flag", about="Print the whole result as one JSON object."),
    Option("-m", "--model", to="model", what="NAME", about="haiku (default), sonnet, opus or a full model id."),
    Option("--system", to="system", what="TEXT", about="System prompt."),
    Option("--schema", to="schema", what="FILE|JSON", about="JSON Schema that the answer must satisfy."),
    Option("--engine", to="engine", kind=("auto", "api", "cli"), about="auto (default): cli when tools are asked for."),
    Option(
        "--tools",
        to="tools",
        many=True,
        what="NAME[,NAME…]",
        about="Tools the task may use, such as Bash,Read.",
    ),
    Option(
        "--network",
        to="network",
        kind=("none", "full"),
        about="What the task's tools reach; full if the host allows.",
    ),
    Option(
        "--timeout", to="timeout", kind="number", what="SECONDS", about="The task's time; 0 for the farm host's limit."
    ),
    Option("--max-tokens", to="max_tokens", kind="count", what="N", about="Longest answer, in tokens."),
    Option("--id", to="task_id", what="ID", about="The task's id: the same id with the same task runs once."),
    Option("--host", to="host", what="NAME", about="This farm host and no other (default: the first that answers)."),
    Option(
        "--key-source",
        to="key_source",
        what="SOURCE",
        about="file:PATH[#NAME], env:NAME, keyring:SERVICE/USER or command:ARGV.",
    ),
    Option(
        "--connect-timeout",
        to="connect_timeout",
        kind="number",
        what="SECONDS",
        about="How long reaching the farm host may take.",
    ),
    Option(
        "--fallback",
        to="fallback",
        kind=FALLBACKS,
        about="When no farm host answers (default: ask on a terminal, else queue).",
    ),
    Option(
        "--allow-subscription",
        "--no-allow-subscription",
        to="allow_subscription",
        kind="switch",
        about="Whether your own claude login may be used.",
    ),
    Option("--config", to="config", what="FILE", about="The settings file."),
)


def plain(arguments: list[str]) -> dict[str, Any] | None:
    """What `arguments` say, by name; None where click has to look at them: help, mistakes, rarer ways to write."""
    known = {name: option for option in OPTIONS for name in option.names}
    given: dict[str, Any] = {"prompt": None}
    for option in OPTIONS:
        given[option.to] = () if option.many else False if option.kind == "flag" else None
    prompts: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            prompts += rest
        elif word == "-" or not word.startswith("-"):
            prompts.append(word)
        else:
            wanted = known.get(word)
            if wanted is None or not _take(wanted, word, rest, given):
                return None
    if len(prompts) > 1:
        return None
    given["prompt"] = prompts[0] if prompts else None
    return given


def _take(option: Option, word: str, rest: Any, given: dict[str, Any]) -> bool:
    """Note the option with its value. False if that is for click to judge."""
    if option.kind in ("flag", "switch"):
        given[option.to] = word == option.names[0] or option.kind == "flag"
        return True
    text = next(rest, None)
    if text is None or text.startswith("-"):
        return False
    value: Any = text
    if isinstance(option.kind, tuple):
        if text not in option.kind:
            return False
    elif option.kind != "text":
        reader: Callable[[str], float] = int if option.kind == "count" else float
        try:
            value = reader(text)
        except ValueError:
            return False
        if option.kind == "count" and value < 1:
            return False
    given[option.to] = (*given[option.to], value) if option.many else value
    return True
