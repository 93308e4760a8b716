"""What an option or argument of a verb offers when the shell completes it, by its metavar: what help calls its value.

Nothing here asks a host or writes a file. Whatever cannot be read offers nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from click.shell_completion import CompletionItem

from farmhand.core import settings
from farmhand.core.errors import FarmhandError
from farmhand.core.when_spent import WAYS

#: Metavars of free text, numbers and times, for which there is nothing to offer.
OPEN = frozenset((
    "ADDRESS", "ARN", "BRANCH", "COL[,COL…]", "DAY", "DAYS", "FINGERPRINT", "LOGIN", "MONTH=US$", "N", "NAME",
    "NAME=VALUE", "REF", "SECONDS", "TASK", "TEXT", "TIME", "URL", "US$", "WHEN", "X", "[DECISION]", "[PROMPT]",
))  # fmt: skip
_Offer = Callable[[dict[str, Any], str], Iterable["str | CompletionItem[str]"]]


def offers(metavar: str, given: dict[str, Any], word: str) -> list[CompletionItem[str]] | None:
    """Return what completes `word`, or None if nothing is known of the metavar. `given` are the other parameters.

    An item of type `file` or `dir` leaves it to the shell; its value is the start of `word` that is no path.
    """
    if metavar not in _OFFERS:
        return None
    items: list[CompletionItem[str]] = []
    with contextlib.suppress(FarmhandError, OSError, ValueError, sqlite3.Error):
        for each in _OFFERS[metavar](given, word):
            item = CompletionItem(each) if isinstance(each, str) else each
            if item.type != "plain" or item.value.startswith(word):
                items.append(item)
    return items


def _files(_given: dict[str, Any], word: str) -> list[CompletionItem[str]]:
    return [] if word.startswith("{") else [CompletionItem("", type="file")]  # a schema can be given as JSON


def _directories(_given: dict[str, Any], _word: str) -> list[CompletionItem[str]]:
    return [CompletionItem("", type="dir")]


def _settings(given: dict[str, Any]) -> settings.Settings:
    return settings.load(given.get("config"), prices_file=given.get("prices_file"))


def _models(given: dict[str, Any], _word: str) -> list[str]:
    from farmhand.core.prices import price_table

    table = price_table(_settings(given).prices_path)
    return [*table.aliases, *table.models]


def _hosts(given: dict[str, Any], _word: str) -> list[str]:
    from farmhand.places.hosts import load_hosts

    return list(load_hosts(_settings(given).hosts_name))


def _pots(given: dict[str, Any], _word: str) -> list[str]:
    return [pot.name for pot in _settings(given).pots]


def _pattern(given: dict[str, Any], word: str) -> list[str]:
    return ["farm", *_hosts(given, word)]


def _tools(_given: dict[str, Any], word: str) -> list[str]:
    from farmhand.core.task import TOOLS

    front, comma, _ = word.rpartition(",")
    return [front + comma + tool for tool in sorted(TOOLS - set(front.split(",")))]


def _columns(_given: dict[str, Any], _word: str) -> list[str]:
    from farmhand.cost.queries import KEYS

    return [*KEYS, "label:"]


def _from_kinds(text: str) -> _Offer:
    """Offer the kinds of `text`, such as `file:PATH, env:NAME`, each up to its colon; after `file:` files."""
    names = [part.split("[")[0].strip() for part in text.replace(" or ", ", ").split(", ")]
    kinds = dict.fromkeys(name.partition(":")[0] + name.partition(":")[1] for name in names)

    def offer(_given: dict[str, Any], word: str) -> list[str | CompletionItem[str]]:
        kind, colon, _ = word.partition(":")
        return [CompletionItem(kind + colon, type="file")] if kind + colon == "file:" else [*kinds]

    return offer


def _sources(given: dict[str, Any], word: str) -> Iterable[str | CompletionItem[str]]:
    from farmhand.core.keysource import FORMS

    return _from_kinds(FORMS)(given, word)


def _ways(given: dict[str, Any], word: str) -> Iterable[str | CompletionItem[str]]:
    from farmhand.cli.notify import KINDS

    return _from_kinds(KINDS)(given, word)


def _queued(given: dict[str, Any], _word: str) -> list[str]:
    from farmhand.offline.spool import open_spool

    spool = open_spool(_settings(given))
    return [*(entry.id for entry in spool.waiting()), *(kept.task["id"] for kept in spool.results())]


def _tasks(_given: dict[str, Any], _word: str) -> list[str]:
    from farmhand.history.store import default_path

    return _rows(default_path(), "SELECT id FROM task ORDER BY created_at DESC LIMIT 200")


def _of_ledgers(column: str) -> _Offer:
    """Offer the values of a column of the merged ledgers, the latest first."""

    def offer(given: dict[str, Any], _word: str) -> list[str]:
        from farmhand.cost.store import default_path

        named = given.get("cost_store") or _settings(given).cost_store
        return _rows(
            Path(os.path.expanduser(named)) if named else default_path(),
            f"SELECT {column} FROM done WHERE {column} != ''"  # noqa: S608  (a name from here)
            f" GROUP BY {column} ORDER BY max(created_at) DESC LIMIT 200",
        )

    return offer


def _rows(path: Path, query: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.1)) as store:
        return [value for (value,) in store.execute(query)]


def _conversations(_given: dict[str, Any], _word: str) -> list[str]:
    from farmhand.offline.conversations import names

    return names()


#: Metavar → what is offered for it. tests/unit/cli/test_offers.py checks that every other one is in OPEN.
_OFFERS: dict[str, _Offer] = {
    **dict.fromkeys(("FILE", "[FILE]", "FILE|JSON", "FILE|TEXT", "IN", "PATH", "[ANSIBLE-PLAYBOOK OPTIONS]"), _files),
    **dict.fromkeys(("DIR", "REPO"), _directories),
    "BEND": lambda _given, _word: WAYS,
    "BATCH": _of_ledgers("batch"),
    "CLASS": _of_ledgers("work_class"),
    "COLUMN": _columns,
    "CONVERSATION": _conversations,
    "HOST": _hosts,
    "MODEL": _models,
    "PATTERN": _pattern,
    "POT": _pots,
    "SOURCE": _sources,
    "TASK|BATCH": _of_ledgers("batch"),
    "TOOL[,TOOL…]": _tools,
    "WAY": _ways,
    "[QUEUED]": _queued,
    **dict.fromkeys(("ID", "ID...", "[ID]"), _tasks),
}
