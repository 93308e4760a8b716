"""Validation of a request's body, query and headers. Each error is one line."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from farmhand.agent.config import Config
from farmhand.core import rules, schemas
from farmhand.core.errors import FarmhandError, Refused, UsageError
from farmhand.core.keys import TOKEN_PREFIX, check_format
from farmhand.core.task import TASK_ID, Task
from farmhand.core.typed import ready
from farmhand.meter.bounds import check_values
from farmhand.meter.grants import Key
from farmhand.wire.requests import Submission
from farmhand.wire.schema import KEY_HEADER

MAX_TASKS = 1000
#: Maximum number of JSON values in one request: 1000 tasks, each with a schema of moderate size.
MAX_VALUES = 500_000
T = TypeVar("T")


def read_body(data: bytes, kind: type[T], code: str = "invalid_request", what: str = "the request's body") -> T:
    """Decode the body of a request. Raise UsageError with `code` if it is not of type `kind`."""
    try:
        check_values(data, MAX_VALUES)
        return msgspec.json.decode(data or b"{}", type=ready(kind))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what}: {error}", code=code) from None


def read_key(request: web.Request, config: Config) -> Key | None:
    """Return the key that a request carries, if any. Raise UsageError if it cannot be a key of the agent's kind."""
    value = request.headers.get(KEY_HEADER)
    if value is None:
        return None
    bearer = config.credential != "key"
    try:
        check_format(value)
    except ValueError as error:
        raise UsageError(str(error), code="bad_key") from None
    if bearer and not value.startswith(TOKEN_PREFIX):
        raise UsageError("this agent takes access tokens only, and that is an API key", code="bad_key")
    return Key(value, bearer=bearer)


def read_number(request: web.Request, name: str, default: float, low: float, high: float) -> float:
    """Return a number from the request's query. Raise UsageError if it is invalid."""
    text = request.query.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}, not {text!r:.40}")
    return value


def read_tasks(body: bytes, config: Config) -> list[Task]:
    """Return the tasks in the body of `POST /v1/tasks`. Raise UsageError or Refused for the first invalid one."""
    raws = read_body(body, Submission[msgspec.Raw], "invalid_task", 'the request is not {"tasks": […]}').tasks
    if not 1 <= len(raws) <= MAX_TASKS:
        raise UsageError(f"a request takes 1 to {MAX_TASKS} tasks, not {len(raws)}", code="invalid_task")
    tasks = []
    for number, raw in enumerate(raws, start=1):
        try:
            tasks.append(msgspec.json.decode(raw, type=ready(Task)))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"task {number}: {error}", code="invalid_task") from None
    for task in tasks:
        _check(task, config)
    return tasks


def _check(task: Task, config: Config) -> None:
    where = f"task {task.id!r}" if TASK_ID.fullmatch(task.id) else "a task"
    broken = rules.check(task, deep=False)
    if broken is not None:
        raise UsageError(f"{where}: {broken.message}", code=broken.code, hint=broken.hint)
    if task.timeout_s > config.task_timeout_max_s:
        limit = f"{where}: its time of {task.timeout_s:g} s is over this host's limit, {config.task_timeout_max_s:g} s"
        raise UsageError(limit, code="invalid_task", hint="a shorter --timeout, or 0 for the limit")
    if config.credential == "plan" and task.resolved_engine != "cli":
        message = f"{where}: on a token of your plan only the claude CLI may run, and this task is for the API"
        raise Refused(message, code="subscription_cli_only", hint="--engine cli")
    if task.repo is not None and not config.repositories:
        raise no_repositories(where)
    if task.network == "full" and not config.network_full:
        raise Refused(
            f"{where}: this host does not allow network: full",
            code="network_refused",
            hint="set jada_agent_network_full: true for the host and run site.yml",
        )


def no_repositories(where: str) -> Refused:
    """Return the error of a host that runs no tasks on repositories."""
    message = f"{where}: this host runs no tasks on repositories"
    return Refused(message, code="repository_refused", hint="farmhand code runs them in containers")


async def check_schemas(tasks: list[Task]) -> None:
    """Check the schemas of `tasks` in another process. Raise UsageError for the first one that cannot be used."""
    sound: set[bytes] = set()
    for task in tasks:
        name = msgspec.json.encode(task.schema)
        if task.schema is None or name in sound:
            continue
        try:
            found = (await schemas.POOL.checked(task.schema)).message
        except schemas.Unchecked as unchecked:
            if not unchecked.too_hard:
                what = f"task {task.id!r}: {unchecked.message}"
                raise FarmhandError(what, hint="try again", code="agent_error") from None
            found = f"the schema cannot be checked: {unchecked.message}"
        if found:
            raise UsageError(f"task {task.id!r}: {found}", code="invalid_schema")
        sound.add(name)
