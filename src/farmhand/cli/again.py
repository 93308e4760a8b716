"""`farmhand again`: run a task of the history once more, as a new one."""

from __future__ import annotations

from typing import Any

import click

from farmhand.cli.past import gone, history
from farmhand.cli.say import note
from farmhand.cli.signals import Stoppable
from farmhand.cli.verb import verb
from farmhand.core.errors import FarmUnreachable, UsageError
from farmhand.core.ids import new_task_id
from farmhand.core.settings import Settings
from farmhand.places.hosts import make_ready

#: Options of claude-cheap that change the task, and those that say how it is sent.
_CHANGES = (
    *("model", "system", "schema", "engine", "tools", "network", "timeout_s", "max_tokens", "max_usd", "economy"),
    *("labels", "work_class", "priority", "task_id"),
)
_WAYS = ("place", "host", "key_source", "pot", "connect_timeout_s", "fallback", "allow_subscription")
#: Fields that are not taken over: a task of a batch is run as one of its own, and at once.
_NOT_TAKEN = frozenset({"id", "batch", "economy", "pot", "traceparent", "tracestate"})


@verb("again", *_CHANGES, *_WAYS, json_help="Print the whole result as one JSON object.")
@click.argument("source", metavar="ID")
def command(conf: Settings, *, as_json: bool, source: str, **given: Any) -> int:
    """Run the task ID once more, under a new id, with the options that are changed here, and print the answer.

    ID is an id, or the beginning of one. The task goes to the first host that answers, like one of claude-cheap, and
    the exit status is that of claude-cheap. A task of a batch is run as one of its own.
    """
    with Stoppable():
        conf, task = _task(conf, source, given)
    # Not at the top: help and mistakes do without them.
    from farmhand.cli.carry import carry
    from farmhand.cli.run_task import early_connection

    make_ready(conf, note)
    with early_connection(conf) as way:
        return carry(task, conf, way, as_json=as_json)


def _task(conf: Settings, source: str, given: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    from farmhand.cli.task_options import on_pot, own_id, task_fields

    with history(conf) as past:
        old = past.whole(past.find(source, as_asked=True))
        if old.result["content"] == "gone" or old.spec is None:
            raise UsageError(gone(old), code="pruned", hint="give the prompt again")
        if not old.whole:
            why = past.errors.get(old.host)
            raise FarmUnreachable(f"only {old.host} has the whole task {old.id}, and it cannot be asked: {why}")
    if own_id(given) == old.id:  # it would be answered by what it answered then
        raise UsageError(f"--id {old.id} is the id of that task itself", hint="leave it out for a new id")
    if "repo" in old.spec:
        raise UsageError(f"task {old.id} worked on a repository", hint="farmhand code runs it again")
    if "dropped" in old.spec:
        hint = "give them again: claude-cheap -f …, or --conversation NAME"
        raise UsageError(f"the files and earlier turns of task {old.id} are not kept", code="pruned", hint=hint)
    # The settings `model`, `pot` and `timeout_s` are for new tasks: only what was given here changes this one.
    flags = click.get_current_context().params
    conf = on_pot(conf, old.spec.get("pot", ""), flags["pot"])
    changes = task_fields(given, conf._replace(model=flags["model"] or ""))
    if flags["timeout_s"] is not None:
        changes["timeout_s"] = conf.timeout_s
    if given["max_usd"] is not None:
        changes["max_usd"] = given["max_usd"]
    kept = {name: value for name, value in old.spec.items() if name not in _NOT_TAKEN}
    return conf, {"id": own_id(given) or new_task_id(), **kept, **changes}
