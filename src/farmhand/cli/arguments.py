"""The arguments of `farmhand run`: a table of options, from which click's are made, and a fast parser without click."""

from __future__ import annotations

from typing import Any, NamedTuple

from farmhand.core.settings import FALLBACKS


class Option(NamedTuple):
    """One option.

    `kind` is `flag`, `switch` (the second name turns it off), or the type of the value: `text`, `number`, `count`
    (1, 2, …) or a tuple of choices. `to` is the parameter's name; an option that sets a setting has the setting's name.
    """

    names: tuple[str, ...]
    to: str
    about: str
    kind: str | tuple[str, ...] = "text"
    what: str | None = None
    many: bool = False


OPTIONS = (
    Option(
        ("-f", "--file"), "file", "Add a text file below the prompt (-: stdin); repeatable.", what="FILE", many=True
    ),
    Option(("--no-stdin",), "no_stdin", "Do not read stdin, even if something is piped in.", "flag"),
    Option(("--json",), "as_json", "Print the whole result as one JSON object.", "flag"),
    Option(("-m", "--model"), "model", "haiku (default), sonnet, opus or a full model id.", what="NAME"),
    Option(("--system",), "system", "System prompt.", what="TEXT"),
    Option(("--schema",), "schema", "JSON Schema that an answer must satisfy.", what="FILE|JSON"),
    Option(("--engine",), "engine", "auto (default): cli when tools are asked for.", ("auto", "api", "cli")),
    Option(("--tools",), "tools", "Tools a task may use, such as Bash,Read.", what="NAME[,NAME…]", many=True),
    Option(("--network",), "network", "What a task's tools reach; full if the host allows.", ("none", "full")),
    Option(("--timeout",), "timeout_s", "A task's time; 0 for the farm host's limit.", "number", "SECONDS"),
    Option(("--max-tokens",), "max_tokens", "Longest answer, in tokens.", "count", "N"),
    Option(("--id",), "task_id", "The task's id: the same id with the same task runs once.", what="ID"),
    Option(("--host",), "host", "This farm host and no other (default: the first that answers).", what="NAME"),
    Option(
        ("--key-source",),
        "key_source",
        "file:PATH[#NAME], env:NAME, keyring:SERVICE/USER or command:ARGV.",
        what="SOURCE",
    ),
    Option(("--connect-timeout",), "connect_timeout_s", "How long reaching a farm host may take.", "number", "SECONDS"),
    Option(
        ("--fallback",), "fallback", "When no farm host answers (default: ask on a terminal, else queue).", FALLBACKS
    ),
    Option(
        ("--allow-subscription", "--no-allow-subscription"),
        "allow_subscription",
        "Whether your own claude login may be used.",
        "switch",
    ),
    Option(("--config",), "config", "The settings file.", what="FILE"),
)


class RunOptions(NamedTuple):
    """The values of the command line, named as in `arguments.OPTIONS`. None means not given."""

    prompt: str | None
    file: tuple[str, ...]
    no_stdin: bool
    as_json: bool
    model: str | None
    system: str | None
    schema: str | None
    engine: str | None
    tools: tuple[str, ...]
    network: str | None
    timeout_s: float | None
    max_tokens: int | None
    task_id: str | None
    host: str | None
    key_source: str | None
    connect_timeout_s: float | None
    fallback: str | None
    allow_subscription: bool | None
    config: str | None


def plain(arguments: list[str]) -> dict[str, Any] | None:
    """Parse `arguments` into values by name. Return None if click has to do it: help, mistakes, unusual spellings."""
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
    """Store the option's value in `given`. Return False if click has to parse it."""
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
        try:
            value = int(text) if option.kind == "count" else float(text)
        except ValueError:
            return False
        if option.kind == "count" and value < 1:
            return False
    given[option.to] = (*given[option.to], value) if option.many else value
    return True
