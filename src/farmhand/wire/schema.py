"""The wire's version, headers and limits, and what an agent's answers may hold: the one place that decodes them.

Nothing that a farm host sends is believed to be well-formed. `decode` bounds size, depth and number of values, turns
lone surrogates into U+FFFD, and checks the fields that are used by type and range; fields and names of states that are
not known here are a newer agent's, and left alone. What a client asks for is in wire.requests; wire.contract prints all
of it as JSON Schema.

msgspec has to be where this is imported: with the agent, with the workstation's commands, and in the Python of Ansible,
whose plugins farmhand_task, farmhand_drain and farmhand_key speak to agents. The rest of site.yml does without it.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NoReturn

try:
    import msgspec
    from msgspec import UNSET, Meta, UnsetType
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "the Python that runs this has no msgspec: install farmhand there, or only that (pip install msgspec)"
    ) from None

WIRE = 1
WIRE_HEADER = "X-Farmhand-Wire"
AGENT_HEADER = "X-Farmhand-Agent"
KEY_HEADER = "X-Farmhand-Key"
#: Bytes: no answer, event or line of a ledger is longer. A result's text and a page of them are far below the first.
MAX_BYTES = 64 * 1024 * 1024
MAX_SMALL_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
#: Deeper than any answer with a model's own JSON in it, and far from what Python's recursion stands.
MAX_DEPTH = 100
#: Values and names in one answer. The fullest turn has a third of it.
MAX_VALUES = 3_000_000
#: An answer that may have few bytes may have few values as well: `{}` takes 30 times its size in memory.
_BYTES_A_VALUE = 16
#: What 64 bits hold, which is what JSON encoders and SQLite take.
_INTEGERS = range(-(2**63), 2**64)
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRUCTURE = (b",", b":", b"[", b"{")
#: The end of the year 2099, in Unix seconds: what is later is no time, and formatting it fails somewhere.
LATEST = 4_102_444_800
#: US$; what is above is no cost of one task.
MAX_COST_USD = 10_000


class Misfit(ValueError):
    """An answer that is not of the wire; the message says what is wrong, and where, without any value of it."""


def decode(data: bytes, kind: Any, most: int = MAX_BYTES) -> Any:
    """The JSON value in `data`, which has `most` bytes at most and the fields of `kind`. Raises Misfit."""
    if len(data) > most:
        raise Misfit(f"is longer than {most} bytes")
    limit = min(MAX_VALUES, most // _BYTES_A_VALUE)
    if _values(data, exact=False) > limit and _values(data, exact=True) > limit:
        raise Misfit(f"has more than {limit} values")
    try:
        value = _clean(json.loads(data.decode("utf-8", "replace"), parse_constant=_constant), MAX_DEPTH)
        msgspec.convert(value, kind)
    except RecursionError:
        raise Misfit(f"is nested deeper than {MAX_DEPTH}") from None
    except Misfit:
        raise
    except msgspec.ValidationError as error:
        raise Misfit(str(error)) from None
    except ValueError as error:
        raise Misfit("has a number that is too long" if "digits" in str(error) else "is not JSON") from None
    return value


def _constant(name: str) -> NoReturn:
    raise Misfit(f"has {name} in it, which is not JSON")


def _values(data: bytes, *, exact: bool) -> int:
    """How many values and names there are in `data`, at most; `exact` does not count what stands in strings."""
    structure = _STRING.sub(b"", data) if exact else data
    return sum(map(structure.count, _STRUCTURE))


def _clean(value: Any, depth: int) -> Any:
    """`value` without lone surrogates. Raises Misfit for numbers that are out of any range, and for depth."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if kind is int:
        if value not in _INTEGERS:
            raise Misfit("has a number that 64 bits do not hold")
    elif kind is float:
        if value - value != 0:
            raise Misfit("has a number that is out of range")
    elif kind is dict or kind is list:
        if not depth:
            raise Misfit(f"is nested deeper than {MAX_DEPTH}")
        if kind is list:
            return [_clean(item, depth - 1) for item in value]
        return {_clean(name, 0): _clean(item, depth - 1) for name, item in value.items()}
    return value


Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e10)]
Moment = Annotated[float, Meta(ge=0, le=LATEST)]
Name = Annotated[str, Meta(max_length=256)]
Line = Annotated[str, Meta(max_length=64 * 1024)]
Text = Annotated[str, Meta(max_length=MAX_BYTES)]
Usd = Annotated[float, Meta(ge=0, le=1e9)]
Few = Meta(max_length=1000)
Many = Meta(max_length=20_000)


class WireProblem(msgspec.Struct, kw_only=True):
    """Why something was not done: a stable code, one line, what to do."""

    code: Name
    message: Line
    hint: Line | UnsetType = UNSET


class ErrorAnswer(msgspec.Struct):
    """The body of every HTTP status from 400 on."""

    error: WireProblem


class Waiting(msgspec.Struct, kw_only=True):
    """Why tasks wait, how many, and until when if that is known."""

    reason: Name
    tasks: Count | UnsetType = UNSET
    until: Moment | UnsetType | None = UNSET
    detail: Line | UnsetType = UNSET


class SlotCount(msgspec.Struct, kw_only=True):
    """The slots of one engine; more may run than there are now."""

    total: Count
    free: Annotated[int, Meta(ge=-(2**53), le=2**53)]


class TaskResult(msgspec.Struct, kw_only=True):
    """core.task.Result as it comes from a host; `structured` is any JSON."""

    id: Name | UnsetType = UNSET
    state: Name | UnsetType = UNSET
    text: Text | UnsetType | None = UNSET
    structured: Any = UNSET
    model: Name | UnsetType | None = UNSET
    engine: Name | UnsetType | None = UNSET
    usage: Annotated[dict[str, Count | None], Few] | UnsetType | None = UNSET
    cost_usd: Annotated[float, Meta(ge=0, le=MAX_COST_USD)] | UnsetType | None = UNSET
    attempts: Count | UnsetType = UNSET
    retries: Count | UnsetType = UNSET
    uncertain: Annotated[int, Meta(ge=0, le=1_000_000)] | UnsetType = UNSET
    queued_s: Seconds | UnsetType = UNSET
    run_s: Seconds | UnsetType = UNSET
    stop_reason: Name | UnsetType | None = UNSET
    error: WireProblem | UnsetType | None = UNSET
    batch: Name | UnsetType | None = UNSET
    labels: Annotated[dict[str, Line], Few] | UnsetType | None = UNSET
    done_no: Count | UnsetType = UNSET


class ListedResult(TaskResult, kw_only=True):
    """A result among others, which its id tells apart."""

    id: Name


class EndedResult(ListedResult, kw_only=True):
    """A result of a turn."""

    state: Name


class TaskState(msgspec.Struct):
    """Where a task stands."""

    id: Name
    state: Name


class Throughput(msgspec.Struct):
    """How many tasks end in a second."""

    per_s: Annotated[float, Meta(ge=0, le=1000000000.0)] | UnsetType | None = UNSET


class HeldKey(msgspec.Struct, kw_only=True):
    """A key in the agent's memory."""

    fingerprint: Name
    state: Name
    reason: Line | UnsetType = UNSET
    running: Count | UnsetType = UNSET
    queued: Count | UnsetType = UNSET


class BudgetOfDay(msgspec.Struct, kw_only=True):
    """The host's budget for the day, UTC."""

    limit_usd: Usd
    spent_usd: Usd
    reserved_usd: Usd | UnsetType = UNSET
    day: Name | UnsetType = UNSET


class LedgerStatus(msgspec.Struct):
    """The ledger's name and size."""

    id: Name | UnsetType = UNSET
    tasks: Count | UnsetType = UNSET
    bytes: Count | UnsetType = UNSET


class StatusAnswer(msgspec.Struct):
    """`GET /v1/status`."""

    version: Name | UnsetType = UNSET
    state: Name | UnsetType = UNSET
    drain: Name | UnsetType = UNSET
    uptime_s: Seconds | UnsetType = UNSET
    time: Moment | UnsetType = UNSET
    upstream: Annotated[str, Meta(max_length=4096)] | UnsetType = UNSET
    cli: Name | UnsetType | None = UNSET
    key: Name | UnsetType | None = UNSET
    running: Count | UnsetType = UNSET
    queued: Count | UnsetType = UNSET
    awaiting_key: Count | UnsetType = UNSET
    finished: Annotated[dict[str, Count], Few] | UnsetType = UNSET
    slots: Annotated[dict[str, SlotCount], Few] | UnsetType | None = UNSET
    throughput: Throughput | UnsetType | None = UNSET
    waiting: Annotated[list[Waiting], Few] | UnsetType | None = UNSET
    keys: Annotated[list[HeldKey], Few] | UnsetType | None = UNSET
    budget_day: BudgetOfDay | UnsetType | None = UNSET
    ledger: LedgerStatus | UnsetType | None = UNSET


class StatesAnswer(msgspec.Struct):
    """`POST /v1/tasks` and `POST /v1/tasks/cancel`."""

    tasks: Annotated[list[TaskState], Many]


class TaskAnswer(msgspec.Struct):
    """`GET` and `DELETE /v1/tasks/{id}`."""

    task: TaskResult


class TasksAnswer(msgspec.Struct):
    """`GET /v1/tasks`; `next` is where the next page begins."""

    tasks: Annotated[list[ListedResult], Many]
    next: Name | UnsetType | None = UNSET


class ResultsAnswer(msgspec.Struct, kw_only=True):
    """`GET /v1/results`; `next` is where the results behind these begin."""

    results: Annotated[list[TaskResult], Many]
    next: Count | UnsetType = UNSET
    unfinished: Count | UnsetType = UNSET
    waiting: Annotated[list[Waiting], Few] | UnsetType | None = UNSET


class BatchAnswer(msgspec.Struct):
    """`PUT` and `GET /v1/batches/{batch}`: what the batch is and has done."""

    batch: dict[str, Any]


class KeyAnswer(msgspec.Struct):
    """`PUT /v1/key` and `DELETE /v1/key/{fingerprint}`."""

    fingerprint: Name | UnsetType = UNSET
    tasks_resumed: Count | UnsetType = UNSET
    forgotten: bool | UnsetType = UNSET


class TaskEvent(msgspec.Struct):
    """A line of `GET /v1/tasks/{id}/events`; the last one has the result."""

    type: Name | UnsetType = UNSET
    state: Name | UnsetType = UNSET
    text: Text | UnsetType = UNSET
    result: TaskResult | UnsetType = UNSET


class TaskCallAnswer(TaskResult, kw_only=True):
    """The output of `jada-agent task`: see wire.task_call."""

    changed: bool | UnsetType = UNSET


class RefusedTask(msgspec.Struct, kw_only=True):
    """A task that a host does not take."""

    id: Name
    code: Name | UnsetType = UNSET
    message: Line | UnsetType = UNSET
    hint: Line | UnsetType = UNSET


class TurnAnswer(msgspec.Struct):
    """The output of `jada-agent turn`: see wire.turn."""

    taken: Annotated[list[Name], Many] | UnsetType | None = UNSET
    cancelled: Annotated[list[Name], Many] | UnsetType | None = UNSET
    stopped: Annotated[list[Name], Many] | UnsetType | None = UNSET
    refused: Annotated[list[RefusedTask], Many] | UnsetType | None = UNSET
    results: Annotated[list[EndedResult], Many] | UnsetType | None = UNSET
    next: Count | UnsetType = UNSET
    unfinished: Count | UnsetType = UNSET
    waiting: Annotated[list[Waiting], Few] | UnsetType | None = UNSET
    slots: Annotated[dict[str, SlotCount], Few] | UnsetType | None = UNSET
    rest: bool | UnsetType = UNSET
    halted: WireProblem | UnsetType | None = UNSET
    error: WireProblem | UnsetType | None = UNSET
