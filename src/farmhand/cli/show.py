"""`farmhand show`: one task, what was asked and what was answered."""

from __future__ import annotations

from typing import Any

from farmhand.cli import render
from farmhand.cli.past import gone, history, one_id
from farmhand.cli.say import one_line
from farmhand.cli.signals import Stoppable
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.readable import cut_off, dollars, duration, local_time
from farmhand.core.settings import Settings
from farmhand.history.store import PastTaskCopy


@verb("show", "connect_timeout_s", json_help="Print one JSON object: the task, its result, and how old the copy is.")
@one_id
def command(conf: Settings, *, as_json: bool, task_id: str | None) -> VerbResult:
    """Show a task: its state, cost and times, its prompt and its answer.

    ID is an id, or the beginning of one; without it, the newest task is shown. Of a line of a batch it is the
    attempt that answered, and what was asked if that went on at a lower price. The exit status is 0 whatever became of
    the task; farmhand wait has the task's own.
    """
    with Stoppable(), history(conf) as past:
        task = past.whole(past.find(task_id))
        bent = past.bent(task)
        notes = [note for host, note in zip(past.errors, past.notes(), strict=True) if host == task.host]
    if task.result["content"] == "gone":
        notes.append(gone(task))
    elif not task.whole:
        notes.append(f"prompt and answer are cut here; {task.host} has all of them")
    document = {"task": {"host": task.host, "copied_at": task.copied_at, **task.result, "spec": task.spec}}
    if bent is not None:
        document["task"]["bent"] = bent
    return VerbResult(document, _text(task, bent), 0, notes)


def _text(task: PastTaskCopy, bent: dict[str, Any] | None) -> str:
    result, spec, error = task.result, task.spec or {}, task.result.get("error") or {}
    used, cost = result.get("usage") or {}, result.get("cost_usd")
    began = local_time(result["created_at"])
    lines = {
        "task": task.id,
        "state": result["state"],
        "host": task.host,
        "batch": result.get("batch"),
        "labels": " ".join(f"{name}={value}" for name, value in (result.get("labels") or {}).items()),
        "model": f"{result.get('model')}, engine {result.get('engine')}",
        "bent": bent and f"asked was {bent['asked']['model']}, engine {bent['asked']['engine']}; {bent['why']}",
        "began": f"{began}, waited {duration(result.get('queued_s') or 0)}, ran {duration(result.get('run_s') or 0)}",
        "tokens": f"{used.get('input_tokens') or 0:,} in, {used.get('output_tokens') or 0:,} out",
        "cost": "not known" if cost is None else dollars(cost),
        "cut off": cut_off(result).removeprefix("the answer was cut off "),
        "error": error and f"{error.get('message')}{_hint(error)}",
    }
    head = [f"{name:7} {one_line(str(value))}" for name, value in lines.items() if value]
    parts = {"prompt": str(spec.get("prompt") or ""), "answer": render.answer_text(result)}
    return "\n".join(head + [f"\n{name}:\n{text}" for name, text in parts.items() if text])


def _hint(error: dict[str, Any]) -> str:
    return f" ({error['hint']})" if error.get("hint") else ""
