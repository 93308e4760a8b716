"""A task that is not of a batch bends like the lines of one: where its budget has no room, it goes on at a lower price.

Imported only where `when_spent` says so: see `carry`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from farmhand.batch.bend import Bending
from farmhand.cli.task_options import check
from farmhand.core.errors import UsageError
from farmhand.core.ids import again_id
from farmhand.core.settings import Settings


def lower(task: dict[str, Any], result: dict[str, Any], conf: Settings) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the task as it goes on after `result`, and what to say of it; None: the result is the last word.

    It goes on under an id that follows from the first, so that the same task sent again goes the same way and runs
    once. What was begun, and may have cost something, does not go on.
    """
    error, usage = result.get("error") or {}, result.get("usage") or {}
    bending = Bending.of(conf)
    if bending is None or error.get("code") != "budget" or usage.get("requests") or result.get("uncertain"):
        return None
    bending.begin(str(error["message"]))
    shaped = bending.shape(_body(task))
    if shaped is None:
        return None
    fields = msgspec.json.decode(b"{" + shaped[0])
    return {"id": again_id(task["id"], 1), **fields}, msgspec.to_builtins(shaped[1])


def in_words(bent: dict[str, Any]) -> str:
    """Return the line for people."""
    way = "through Message Batches for half, which may take up to a day"
    if bent["way"] != "economy":
        way = f"with {bent['used']['model']}"
    return f"the budget has no room at the price that was asked: it goes on {way}"


def refuse_pointless(task: dict[str, Any], conf: Settings) -> None:
    """Raise UsageError for a --when-spent by which the task could never go on at a lower price, or for no task."""
    check(task)
    bending = Bending.of(conf)
    if bending is not None and (why := bending.refusal([_body(task)])):
        raise UsageError(f"--when-spent cannot make the task cheaper: {why}", hint="leave it out")


def _body(task: dict[str, Any]) -> bytes:
    """Return the task's fields as a batch's journal has them: without the id and the first brace."""
    return msgspec.json.encode({name: value for name, value in task.items() if name != "id"})[1:]
