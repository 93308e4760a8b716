"""What the wire accepts as tasks: every rule that a task must meet, each refused with one line."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, TypeVar

import msgspec

from farmhand.agent.config import MAX_USD, Config, is_budget
from farmhand.agent.engines.answers import check_schema
from farmhand.agent.scheduler import DrainMode
from farmhand.cost.money import pico
from farmhand.errors import Refused, UsageError
from farmhand.task import MAX_PROMPT_BYTES, MODELS, TASK_ID, TOOLS, Task

MAX_TASKS = 1000
_MAX_TOKENS = 128_000
_MAX_PRIORITY = 1_000_000
T = TypeVar("T")


class _Submission(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/tasks`."""

    tasks: list[msgspec.Raw]


def read_tasks(body: bytes, config: Config) -> list[Task]:
    """The tasks in the body of `POST /v1/tasks`. Raises UsageError or Refused for the first that breaks a rule."""
    try:
        raws = msgspec.json.decode(body, type=_Submission).tasks
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f'the request is not {{"tasks": […]}}: {error}', code="invalid_task") from None
    if not 1 <= len(raws) <= MAX_TASKS:
        raise UsageError(f"a request takes 1 to {MAX_TASKS} tasks, not {len(raws)}", code="invalid_task")
    tasks = [_read_task(number, raw) for number, raw in enumerate(raws, start=1)]
    for task in tasks:
        _check(task, config)
    return tasks


def _read_task(number: int, raw: msgspec.Raw) -> Task:
    try:
        return msgspec.json.decode(raw, type=Task)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"task {number}: {error}", code="invalid_task") from None


def _check(task: Task, config: Config) -> None:
    where = f"task {task.id!r}" if TASK_ID.fullmatch(task.id) else "a task"
    for broken, code, message, hint in _rules(task, config):
        if broken:
            raise UsageError(f"{where}: {message}", code=code, hint=hint)
    if task.network == "full" and not config.network_full:
        raise Refused(
            f"{where}: this host does not allow network: full",
            code="network_refused",
            hint="set jada_agent_network_full: true for the host and run site.yml",
        )
    if task.economy:
        raise Refused(
            f"{where}: this agent cannot send tasks through Message Batches",
            code="economy_unavailable",
            hint="leave economy out",
        )
    if task.schema is not None:
        try:
            check_schema(task.schema)
        except ValueError as error:
            raise UsageError(f"{where}: {error}", code="invalid_schema") from None


def _rules(task: Task, config: Config) -> list[tuple[bool, str, str, str]]:
    """(broken, code, message, hint) of every rule, in the order they are reported."""
    size = len(task.prompt.encode())
    unknown = sorted(set(task.tools) - TOOLS)
    invalid = "invalid_task"
    return [
        (not TASK_ID.fullmatch(task.id), invalid, f"the id does not match {TASK_ID.pattern}", ""),
        (
            bool(task.batch) and not TASK_ID.fullmatch(task.batch),
            invalid,
            f"the batch's name does not match {TASK_ID.pattern}",
            "",
        ),
        (
            task.max_usd is not None and not is_budget(task.max_usd),
            invalid,
            f"max_usd must be above 0 and at most {MAX_USD}",
            "",
        ),
        (abs(task.priority) > _MAX_PRIORITY, invalid, f"priority must be within ±{_MAX_PRIORITY}", ""),
        (
            task.economy and (bool(task.tools) or task.engine == "cli" or task.network == "full"),
            invalid,
            "economy is for text tasks: no tools, no engine cli, no network",
            "leave economy out",
        ),
        (not task.prompt.strip(), "empty_prompt", "the prompt is empty", ""),
        (
            size > MAX_PROMPT_BYTES,
            "too_large",
            f"the prompt has {size} bytes, the limit is {MAX_PROMPT_BYTES}",
            "split it",
        ),
        ("\0" in task.prompt, invalid, f"the prompt has a NUL character at {task.prompt.find(chr(0))}", "remove it"),
        (
            "\0" in task.system,
            invalid,
            f"the system text has a NUL character at {task.system.find(chr(0))}",
            "remove it",
        ),
        (bool(unknown), invalid, f"unknown tool {', '.join(unknown)}", f"known: {', '.join(sorted(TOOLS))}"),
        (bool(task.tools) and task.engine == "api", invalid, "tools need the engine cli", "leave engine at auto"),
        (not _plausible_model(task.model), "unknown_model", f"unknown model {task.model!r}", _MODEL_HINT),
        (not 1 <= task.max_tokens <= _MAX_TOKENS, invalid, f"max_tokens must be 1 to {_MAX_TOKENS}", ""),
        (
            not 0 <= task.timeout_s <= config.task_timeout_max_s,
            invalid,
            f"timeout_s must be 0 to {config.task_timeout_max_s:g}, this host's limit",
            "",
        ),
    ]


_MODEL_HINT = f"use {', '.join(MODELS)} or a full id such as {MODELS['haiku']}"


def _plausible_model(name: str) -> bool:
    """A short name, or something that has a full id's form; only the API knows which ids there are."""
    return name in MODELS or ("-" in name and len(name) <= 128 and all(c.isalnum() or c in "-._:@/" for c in name))


class _Cancel(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/tasks/cancel`."""

    ids: list[str]


class _Drain(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/drain`."""

    mode: DrainMode


class BatchLimits(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/batches/{batch}`: what the batch may cost, how many of its tasks run at once."""

    max_usd: Decimal | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None

    def __post_init__(self) -> None:
        if self.max_usd is not None and not is_budget(self.max_usd):
            raise ValueError(f"max_usd must be above 0 and at most {MAX_USD}")

    @property
    def max_pico(self) -> int | None:
        """`max_usd` in pico-dollars."""
        return None if self.max_usd is None else pico(self.max_usd)


def _body(data: bytes, kind: type[T], code: str) -> T:
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the request's body: {error}", code=code) from None


def read_cancel(body: bytes) -> list[str]:
    """The ids in the body of `POST /v1/tasks/cancel`. Raises UsageError."""
    ids = _body(body, _Cancel, "invalid_request").ids
    if len(ids) > MAX_TASKS:
        raise UsageError(f"a request takes up to {MAX_TASKS} ids, not {len(ids)}", code="invalid_request")
    return ids


def read_drain(body: bytes) -> DrainMode:
    """The mode in the body of `PUT /v1/drain`. Raises UsageError."""
    return _body(body, _Drain, "invalid_request").mode


def read_batch(body: bytes) -> BatchLimits:
    """The limits in the body of `PUT /v1/batches/{batch}`. Raises UsageError."""
    return _body(body, BatchLimits, "invalid_batch")
