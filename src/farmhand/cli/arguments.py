"""The arguments of `farmhand run`: a table of options, from which click's are made, and a fast parser without click."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from farmhand.core.amounts import duration, money
from farmhand.core.ids import MAX_PRIORITY, MAX_TOKENS
from farmhand.core.settings import FALLBACKS, PLACE_NAMES


class Option(NamedTuple):
    """One option.

    `kind` is `flag`, `switch` (the second name turns it off), or the type of the value: `text`, `tokens`, `priority`,
    `duration`, `money` or a tuple of choices. `to` is the parameter's name; an option that sets a setting
    has the setting's name.
    """

    names: tuple[str, ...]
    to: str
    about: str
    kind: str | tuple[str, ...] = "text"
    what: str | None = None
    many: bool = False


OPTIONS = (
    Option(
        ("-f", "--file"),
        "file",
        "Add a file (-: stdin): a text below the prompt; a picture or a PDF goes with it; repeatable.",
        what="FILE",
        many=True,
    ),
    Option(("--task",), "task_file", "The task as JSON, as in a batch's file; - is stdin.", what="FILE"),
    Option(("--no-stdin",), "no_stdin", "Do not read stdin, even if something is piped in.", "flag"),
    Option(("--json",), "as_json", "Print the whole result as one JSON object.", "flag"),
    Option(("--events",), "events", "With --json: before that, a line of JSON for each part as it comes.", "flag"),
    Option(("-x", "--extract"), "extract", "Print only the first block of code in the answer.", "flag"),
    Option(("--extract-last",), "extract_last", "Print only the last one.", "flag"),
    Option(("-c", "--continue"), "go_on", "Go on with the conversation that was used last.", "flag"),
    Option(
        ("--conversation",),
        "conversation",
        "Begin the conversation of this name, or go on.",
        what="CONVERSATION",
    ),
    Option(("--chat",), "chat", "Talk in turns on the terminal, each one a task. /exit leaves.", "flag"),
    Option(("-m", "--model"), "model", "haiku (default), sonnet, opus or a full model id.", what="MODEL"),
    Option(("--system",), "system", "System prompt.", what="TEXT"),
    Option(("--schema",), "schema", "JSON Schema that an answer must satisfy.", what="FILE|JSON"),
    Option(("--engine",), "engine", "auto (default): cli when tools are asked for.", ("auto", "api", "cli")),
    Option(("--tools",), "tools", "Tools a task may use, such as Bash,Read.", what="TOOL[,TOOL…]", many=True),
    Option(("--network",), "network", "What a task's tools reach; full if the host allows.", ("none", "full")),
    Option(("--timeout",), "timeout_s", "A task's time: 90, 10m, 1h; 0 for the farm host's limit.", "duration", "TIME"),
    Option(("--max-tokens",), "max_tokens", "Longest answer, in tokens.", "tokens", "N"),
    Option(("--max-usd",), "max_usd", "What the task may cost.", "money", "US$"),
    Option(
        ("--economy",), "economy", "Half the price through Message Batches; an answer may take up to a day.", "flag"
    ),
    Option(
        ("--when-spent",),
        "when_spent",
        "When the budget has no room for a task: stop (default), economy (half price) or haiku; by work class "
        "stop,summaries=economy.",
        what="BEND",
    ),
    Option(("--label",), "labels", "Free text that comes back; repeatable.", what="NAME=VALUE", many=True),
    Option(("--work-class",), "work_class", "What kind of work it is, for the reports.", what="CLASS"),
    Option(("--priority",), "priority", "Higher runs first; 0 by default.", "priority", "N"),
    Option(("--id",), "task_id", "The task's id: the same id with the same task runs once.", what="ID"),
    Option(
        ("--place",),
        "place",
        "farm (default): the farm hosts; docker: containers on this machine; on AWS fargate: one task, aws-batch: a "
        "batch.",
        PLACE_NAMES,
    ),
    Option(("--host",), "host", "This farm host and no other (default: the first that answers).", what="HOST"),
    Option(
        ("--key-source",),
        "key_source",
        "file:PATH[#NAME], env:NAME, keyring:SERVICE/USER, command:ARGV or secretsmanager:NAME.",
        what="SOURCE",
    ),
    Option(
        ("--pot",), "pot", "The pot that pays: a table [pots.NAME] of config.toml (default: the first).", what="POT"
    ),
    Option(("--connect-timeout",), "connect_timeout_s", "How long reaching a farm host may take.", "duration", "TIME"),
    Option(
        ("--fallback",), "fallback", "When no farm host answers (default: ask on a terminal, else queue).", FALLBACKS
    ),
    Option(
        ("--allow-subscription", "--no-allow-subscription"),
        "allow_subscription",
        "Whether your own claude login may be used.",
        "switch",
    ),
    Option(
        ("--subscription",),
        "subscription",
        "On fargate: run it on the token of your own plan that is there. Read docs/subscription.md first.",
        "flag",
    ),
    Option(("--last",), "last", "Print the last answer again; no task is run.", "flag"),
    Option(("--config",), "config", "The settings file.", what="FILE"),
)
#: More options that several verbs have. The table of both is `SHARED`.
_MORE = (
    Option(("--project-dir",), "project_dir", "The checkout with site.yml.", what="DIR"),
    Option(("--since",), "since", "From this day on (UTC): 2026-11-01, 2026-11, 30d, 4w. All by default.", what="WHEN"),
    Option(
        ("--spot", "--no-spot"), "spot", "On aws-batch: capacity that AWS may take back, for less (default).", "switch"
    ),
    Option(
        ("--confirm-usd",), "confirm_usd", "Ask before a batch that may cost more. 0 (default): never.", "amount", "US$"
    ),
    Option(("--no-merge",), "no_merge", "Ask no host: only what was merged before.", "flag"),
    Option(("--baseline-model",), "baseline_model", "What the work is compared with. Default: sonnet.", what="MODEL"),
    Option(("--box-usd-month",), "box_usd_month", "What a host costs a month: 24, or farm1=24,farm2=12.", what="US$"),
    Option(("--prices-file",), "prices_file", "Your own prices, over those that come with farmhand.", what="FILE"),
    Option(("--cost-store",), "cost_store", "The file that keeps the merged ledgers.", what="FILE"),
)
SHARED = {option.to: option for option in (*OPTIONS, *_MORE)}
#: The options that select figures of the merged ledgers, and the settings that they depend on.
OF_LEDGERS = ("since", "no_merge", "baseline_model", "box_usd_month", "prices_file", "cost_store")


def plain(arguments: list[str]) -> dict[str, Any] | None:
    """Parse `arguments` into values by name. Return None if click has to do it: help, mistakes, unusual spellings."""
    known = {name: option for option in OPTIONS for name in option.names}
    given: dict[str, Any] = {"prompt": None}
    for option in OPTIONS:
        given[option.to] = () if option.many else False if option.kind == "flag" else None
    prompts: list[str] = []
    rest = iter(arguments)
    try:
        for word in rest:
            if word == "--":
                prompts += rest
            elif word == "-" or not word.startswith("-"):
                prompts.append(word)
            else:
                option = known[word]
                value = _value(option, word, rest)
                given[option.to] = (*given[option.to], value) if option.many else value
        if prompts:
            [given["prompt"]] = prompts
    except (KeyError, ValueError, StopIteration):
        return None
    return given


_READ: dict[Any, Callable[[str], Any]] = {
    "amount": money,
    "duration": duration,
    "money": money,
    "priority": int,
    "tokens": int,
}
#: The least and the most of a whole number.
RANGES = {"tokens": (1, MAX_TOKENS), "priority": (-MAX_PRIORITY, MAX_PRIORITY)}


def _value(option: Option, word: str, rest: Iterator[str]) -> Any:
    """Return the option's value, taken from `rest`. Raise ValueError or StopIteration if click has to parse it."""
    if option.kind in ("flag", "switch"):
        return word == option.names[0] or option.kind == "flag"
    text = next(rest)
    if text.startswith("-") or (isinstance(option.kind, tuple) and text not in option.kind):
        raise ValueError(text)
    value: Any = _READ[option.kind](text) if option.kind in _READ else text
    if option.kind == "money" and not value:
        raise ValueError(text)
    if option.kind in RANGES:
        least, most = RANGES[option.kind]
        if not least <= value <= most:
            raise ValueError(text)
    return value
