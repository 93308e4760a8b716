"""The turns of a conversation: one with `--continue` or `--conversation`, many on a terminal with `--chat`."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from farmhand.cli.carry import carry
from farmhand.cli.say import note
from farmhand.cli.task_options import build_task, check, on_pot
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.ids import new_task_id
from farmhand.core.readable import dollars
from farmhand.core.settings import AWS_PLACES, Settings
from farmhand.offline import conversations
from farmhand.offline.conversations import KeptConversation
from farmhand.places import hosts
from farmhand.places.reach import Way

#: Options that a turn cannot have, by their parameters.
_NEVER = {
    "task_id": "--id",
    "task_file": "--task",
    "events": "--events",
    "schema": "--schema",
    "tools": "--tools",
    "economy": "--economy",
    "fallback": "--fallback",
    "when_spent": "--when-spent",
    "subscription": "--subscription",
}
_ASK, _MORE = "> ", "… "
_COMMAND = re.compile(r"/[a-z]+")
_INTERRUPTED = 128 + signal.SIGINT
_HELP = "an empty line does nothing, a line that ends in \\ goes on in the next; /exit or Ctrl-D leaves"


Connect = Callable[[Settings], AbstractContextManager[Way]]


def main(given: dict[str, Any], conf: Settings, extract: str, connect: Connect) -> int:
    """Run the turns that the options ask for and return the exit status of the last one.

    `connect` is `run_task.early_connection`.
    """
    for name, option in _NEVER.items():
        if given[name]:
            raise UsageError(f"{option} and a conversation exclude each other", hint="leave one of them out")
    if given["engine"] == "cli" or conf.place in AWS_PLACES:
        raise UsageError("a conversation needs the engine api, on the farm or in containers here")
    name = given["conversation"]
    if given["go_on"] and name is not None:
        raise UsageError("--continue and --conversation: choose one")
    if name is None:
        name = conversations.last() if given["go_on"] else f"chat-{new_task_id()[1:]}"
    chat = given["chat"]
    if chat and (given["as_json"] or not all(one is not None and one.isatty() for one in (sys.stdin, sys.stdout))):
        raise UsageError("--chat needs a terminal, and has no --json", hint="--conversation NAME is for scripts")
    # Without a farm host there is no answer that the conversation could go on with. It keeps to its model.
    conf = conf._replace(fallback="none", when_spent="stop")
    hosts.make_ready(conf, note)
    with conversations.opened(name) as conversation:
        talk = Talk(given, on_pot(conf, conversation.pot, given["pot"]), extract, conversation, connect)
        return talk.loop() if chat else talk.turn(given)


class Talk:
    """One run of the command in a conversation."""

    def __init__(
        self, given: dict[str, Any], conf: Settings, extract: str, conversation: KeptConversation, connect: Connect
    ) -> None:
        self._connect = connect
        self._given = given
        self._conf = conf
        self._extract = extract
        self._conversation = conversation

    def turn(self, given: dict[str, Any]) -> int:
        """Run one turn, print its answer and its cost, and return the exit status."""
        kept = self._conversation
        task = build_task(given, self._conf)
        for field, flag in (("model", given["model"]), ("system", given["system"])):
            if not flag and getattr(kept, field):
                task[field] = getattr(kept, field)
        if kept.turns:
            task["history"] = kept.history()
            check(task)

        def keep(result: dict[str, Any]) -> None:
            kept.add(task, result)
            conversations.save(kept)
            cost = "at a price that is not known" if result.get("cost_usd") is None else dollars(result["cost_usd"])
            note(f"{kept.name}: turn {len(kept.turns)}, {cost}, {dollars(kept.cost_usd)} in all")

        with self._connect(self._conf) as way:
            return carry(task, self._conf, way, as_json=given["as_json"], extract=self._extract, keep=keep)

    def loop(self) -> int:
        """Ask for prompts until /exit or the end of stdin. A failed turn is told; the next one may follow."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() edits lines with it)
        kept = self._conversation
        going_on = f", {len(kept.turns)} turns so far" if kept.turns else ""
        note(f"conversation {kept.name}{going_on}; /exit or Ctrl-D leaves, /help")
        given = self._given | {"no_stdin": True}
        status = 0
        while (text := given["prompt"] or _ask()) is not None:
            if text.strip() in ("/exit", "/quit"):
                break
            if text.strip() == "/help":
                note(_HELP)
            elif _COMMAND.fullmatch(text.rstrip()):  # a slip of the hand would be paid for, and stay in the history
                note(f"{text.strip()} is no command of the chat (a space before it sends it)")
            elif text.strip():
                status = self._safely(given | {"prompt": text})
                if status > 128 and status != _INTERRUPTED:  # SIGTERM or SIGHUP: this process is to end
                    return status
                given["file"] = ()  # it is in the history now, or was refused
            given["prompt"] = None
        return 0 if status == _INTERRUPTED else status

    def _safely(self, given: dict[str, Any]) -> int:
        try:
            return self.turn(given)
        except FarmhandError as error:
            note(str(error))
            return error.exit_code
        except KeyboardInterrupt:  # before the turn has begun
            note("stopped")
            return _INTERRUPTED


def _ask() -> str | None:
    """Return the next prompt, None at the end of stdin. Ctrl-C gives up the line."""
    lines: list[str] = []
    while True:
        try:
            line = input(_MORE if lines else _ASK)
        except EOFError:
            sys.stdout.write("\n")
            return None
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            lines = []
            continue
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])
