"""What a session asks for, made into tasks: the wire's fields checked, files read, prompts filled."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
import msgspec

from farmhand.batch.sources import source
from farmhand.core.errors import UsageError
from farmhand.core.ids import new_task_id
from farmhand.core.money import pico
from farmhand.core.prices import price_table
from farmhand.core.settings import Settings
from farmhand.core.task import Task, Usage, resolve_model
from farmhand.mcp_server import tools
from farmhand.mcp_server.paths import Paths, left_out_note

#: What the API adds itself to a prompt, in tokens, and how often a schema's answer may be asked for again.
_ADDED_TOKENS = 1000
_TRIES = 2
_NAMES = re.compile(r"\{(text|path|name)\}")
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_Made = TypeVar("_Made")

#: Returns the prompt with these files, as text and as the wire's attachments: `farmhand.cli.prompt.assemble`.
Assemble = Callable[[str, Sequence[str]], tuple[str, list[dict[str, str]]]]


class Session(Protocol):
    """The other end: what is asked of the client."""

    async def roots(self) -> list[Path]:
        """Return the directories that the client names, or the working directory."""

    async def progress(self, message: str) -> None:
        """Tell what a call waits for."""

    async def ask_for_more(self, message: str) -> Decimal | None:
        """Ask the operator for more money. None: they cannot be asked, or said no."""


class TaskIntake:
    """Makes tasks of what a session asks for."""

    def __init__(self, assemble: Assemble) -> None:
        self._assemble = assemble

    async def task(
        self, session: Session, conf: Settings, own: tools.TaskArguments, fields: dict[str, Any]
    ) -> tuple[Task, list[str]]:
        """Return a task with a new id, and what there is to say about it. Raise UsageError and Refused."""
        paths = await self._paths(session, conf) if own.files else Paths([])
        return await _beside(paths, lambda: self._task("farm_task", paths, conf, own, fields))

    async def tasks(
        self, session: Session, conf: Settings, own: tools.BatchArguments, fields: dict[str, Any]
    ) -> tuple[list[Task], list[str]]:
        """Return the tasks of a batch, and what there is to say about them. Raise UsageError and Refused."""
        listed = own.tasks or []
        named = own.file or own.files or any(isinstance(one, dict) and one.get("files") for one in listed)
        paths = await self._paths(session, conf) if named else Paths([])
        return await _beside(paths, lambda: self._tasks(paths, conf, own, fields))

    def _task(
        self, where: str, paths: Paths, conf: Settings, own: tools.TaskArguments, fields: dict[str, Any]
    ) -> tuple[Task, list[str]]:
        made = {"id": new_task_id(), "timeout_s": conf.timeout_s, "pot": conf.pot} | _model(conf) | fields
        if own.label:
            made["labels"] = {"label": own.label}
        checked = tools.task_of(made, where)
        if not own.files:
            return checked, []
        found, left_out = paths.files(own.files)
        text, files = self._assemble(checked.prompt, [str(path) for path in found])
        return tools.task_of(made | {"prompt": text, "files": files}, where), left_out_note(left_out)

    def _tasks(
        self, paths: Paths, conf: Settings, own: tools.BatchArguments, fields: dict[str, Any]
    ) -> tuple[list[Task], list[str]]:
        given = [name for name in ("tasks", "file", "files") if getattr(own, name)]
        if len(given) != 1:
            raise UsageError("farm_batch takes one of tasks, file, or files with prompt", code="invalid_arguments")
        shared = {"timeout_s": conf.timeout_s} | _model(conf) | fields
        if own.label:
            shared["labels"] = {"label": own.label}
        if own.tasks:
            listed = [self._listed(paths, conf, n, one, shared) for n, one in enumerate(own.tasks, 1)]
            return [task for task, _ in listed], [note for _, notes in listed for note in notes]
        prompt = shared.pop("prompt", None)
        left_out: list[str] = []
        if own.file:
            name = paths.file(str(own.file))
            records, _ = source([str(name)], "auto", prompt, shared, model=str(fields.get("model") or ""))
        else:
            if not isinstance(prompt, str) or not prompt.strip():
                raise UsageError("farm_batch with files needs prompt", code="invalid_arguments")
            found, left_out = paths.files(own.files or [])
            records, _ = source([str(one) for one in found], "files", _template(prompt), shared)
        made = []
        for record in records.records():
            if record.fields is None:
                raise UsageError(f"record {record.n} {record.problem}; nothing was sent", code="invalid_input")
            labels = record.fields.get("labels") or {}
            if own.files and "path" in labels:
                labels = labels | {"path": paths.shown(Path(labels["path"]))}
            if isinstance(custom_id := (record.columns or {}).get("custom_id"), str):
                labels = labels | {"custom_id": custom_id}
            made.append(_checked(record.n, {**record.fields, "labels": labels}))
        if not made:
            raise UsageError(f"{own.file!r:.200} has no task in it; nothing was sent", code="invalid_input")
        return made, left_out_note(left_out)

    def _listed(self, paths: Paths, conf: Settings, n: int, one: Any, shared: dict[str, Any]) -> tuple[Task, list[str]]:
        where = f"task {n}"
        if isinstance(one, str):
            one = {"prompt": one}
        if not isinstance(one, dict):
            raise UsageError(f"{where} is neither an object nor a prompt; nothing was sent", code="invalid_task")
        given = {name: value for name, value in one.items() if name != "wait_s"}
        own, fields = tools.read("farm_task", given, where)
        mine = {**{name: value for name, value in shared.items() if name != "prompt"}, **fields}
        task, notes = self._task(where, paths, conf, own, mine)
        task.id = ""
        return task, [f"{where}: {note}" for note in notes]

    async def _paths(self, session: Session, conf: Settings) -> Paths:
        return Paths(await session.roots(), _never(conf))


async def _beside(paths: Paths, work: Callable[[], _Made]) -> _Made:
    """Return what `work` makes, in a thread: other calls are answered while files are looked for and read."""
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class():
        paths.called_off = True
        raise


def most_of(task: Task, conf: Settings) -> int:
    """Return the most that a task should cost, in pico-dollars. Raise UsageError if its model has no price.

    It is two and a half times a token a byte and the longest answer: the terms of a workspace may be dearer, and a
    request that was cut off, whose cost is not known, is sent once more.
    """
    table = price_table(conf.prices_path)
    size = len(_ENCODER.encode([task.prompt, task.system, task.schema])) + _ADDED_TOKENS
    size += sum(len(file.data) // 100 for file in task.files)
    rates = table.rates(resolve_model(task.model), size)
    cost = None if rates is None else rates.cost(Usage(input_tokens=size, output_tokens=task.max_tokens))
    if cost is None:
        hint = f"use one of {', '.join(table.current)}"
        raise UsageError(f"no price is known for the model {task.model!r:.80}", hint=hint, code="unknown_model")
    most = cost * (_TRIES if task.schema else 1) * 5 // 2
    return most if task.max_usd is None else min(most, pico(task.max_usd))


def _model(conf: Settings) -> dict[str, str]:
    return {"model": conf.model} if conf.model else {}


def _template(prompt: str) -> str:
    """Return the template of a prompt: only {text}, {path} and {name} are columns, other braces stay as they are."""
    if "{text}" not in prompt:
        prompt += "\n\n{text}"
    parts = _NAMES.split(prompt)
    return "".join(
        f"{{{part}}}" if number % 2 else part.replace("{", "{{").replace("}", "}}") for number, part in enumerate(parts)
    )


def _checked(n: int, fields: dict[str, Any]) -> Task:
    allowed = {*tools.TOOLS["farm_task"].wire, "labels", "timeout_s"}
    if unknown := sorted(set(fields) - allowed):
        hint = f"a task of a session has: {', '.join(sorted(allowed))}"
        raise UsageError(f"record {n} has {', '.join(unknown)[:200]}; nothing was sent", hint=hint, code="invalid_task")
    task = tools.task_of({"id": "x", **fields}, f"record {n}")
    task.id = ""
    return task


def line_of(task: Task) -> bytes:
    """Return the task as a line of a batch's input, which gives it an id."""
    fields = json.loads(_ENCODER.encode(task))
    del fields["id"]
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def _never(conf: Settings) -> list[Path]:
    """Return the files of the operator's own setup that no session has sent."""
    sources = [conf.key_source, *(pot.key_source for pot in conf.pots)]
    named = [one.removeprefix("file:").partition("#")[0] for one in sources if one.startswith("file:")]
    return [Path(os.path.expanduser(name)) for name in (*named, conf.config_file) if name]
