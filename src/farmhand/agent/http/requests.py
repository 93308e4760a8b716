"""What the wire accepts as tasks: every rule that a task must meet, each refused with one line."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from farmhand.agent.config import Config
from farmhand.core import rules, schemas
from farmhand.core.errors import FarmhandError, Refused, UsageError
from farmhand.core.task import TASK_ID, DrainMode, Task
from farmhand.meter.bounds import check_values
from farmhand.wire.requests import BatchLimits, Cancellation, DrainOrder, Submission

MAX_TASKS = 1000
#: Values of one request: 1000 tasks with a schema of some size each.
MAX_VALUES = 500_000
T = TypeVar("T")


def read_tasks(body: bytes, config: Config) -> list[Task]:
    """The tasks in the body of `POST /v1/tasks`. Raises UsageError or Refused for the first that breaks a rule."""
    try:
        check_values(body, MAX_VALUES)
        raws = msgspec.json.decode(body, type=Submission[msgspec.Raw]).tasks
    except (ValueError, RecursionError) as error:
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
    broken = rules.check(task, deep=False)
    if broken is not None:
        raise UsageError(f"{where}: {broken.message}", code=broken.code, hint=broken.hint)
    if task.timeout_s > config.task_timeout_max_s:
        limit = f"timeout_s must be 0 to {config.task_timeout_max_s:g}, this host's limit"
        raise UsageError(f"{where}: {limit}", code="invalid_task")
    if task.network == "full" and not config.network_full:
        raise Refused(
            f"{where}: this host does not allow network: full",
            code="network_refused",
            hint="set jada_agent_network_full: true for the host and run site.yml",
        )


async def check_schemas(tasks: list[Task]) -> None:
    """Check the schemas of `tasks`, in another process. Raises UsageError for the first that cannot be used."""
    sound: set[bytes] = set()
    for task in tasks:
        name = msgspec.json.encode(task.schema)
        if task.schema is None or name in sound:
            continue
        try:
            found = (await schemas.POOL.checked(task.schema)).message
        except schemas.Unchecked as unchecked:
            if not unchecked.too_hard:
                raise FarmhandError(
                    f"task {task.id!r}: {unchecked.message}", hint="try again", code="agent_error"
                ) from None
            found = f"the schema cannot be checked: {unchecked.message}"
        if found:
            raise UsageError(f"task {task.id!r}: {found}", code="invalid_schema")
        sound.add(name)


def _body(data: bytes, kind: type[T], code: str) -> T:
    try:
        check_values(data, MAX_VALUES)
        return msgspec.json.decode(data or b"{}", type=kind)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request's body: {error}", code=code) from None


def read_cancel(body: bytes) -> list[str]:
    """The ids in the body of `POST /v1/tasks/cancel`. Raises UsageError."""
    ids = _body(body, Cancellation, "invalid_request").ids
    if len(ids) > MAX_TASKS:
        raise UsageError(f"a request takes up to {MAX_TASKS} ids, not {len(ids)}", code="invalid_request")
    return ids


def read_drain(body: bytes) -> DrainMode:
    """The mode in the body of `PUT /v1/drain`. Raises UsageError."""
    return _body(body, DrainOrder, "invalid_request").mode


def read_batch(body: bytes) -> BatchLimits:
    """The limits in the body of `PUT /v1/batches/{batch}`. Raises UsageError."""
    return _body(body, BatchLimits, "invalid_batch")
