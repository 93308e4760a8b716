"""The wire's version and headers, and the types of an agent's answers, which wire.decode decodes.

The requests are in wire.requests; wire.contract prints everything as JSON Schema.

msgspec is needed wherever this is imported, also in the Python of Ansible, for farmhand_task, farmhand_drain and
farmhand_key. The rest of site.yml does without it.
"""

from __future__ import annotations

from typing import Annotated, Any

try:
    import msgspec
    from msgspec import UNSET, Meta, UnsetType
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "the Python that runs this has no msgspec: install farmhand there, or only that (pip install msgspec)"
    ) from None

from farmhand.wire.decode import MAX_BYTES

WIRE = 1
WIRE_HEADER = "X-Farmhand-Wire"
AGENT_HEADER = "X-Farmhand-Agent"
KEY_HEADER = "X-Farmhand-Key"
#: The end of the year 2099, in Unix seconds: a later time is invalid, and some formatters fail on it.
LATEST = 4_102_444_800
#: US$; a larger amount is not a plausible cost of one task.
MAX_COST_USD = 10_000

Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e10)]
Moment = Annotated[float, Meta(ge=0, le=LATEST)]
Name = Annotated[str, Meta(max_length=256)]
Line = Annotated[str, Meta(max_length=64 * 1024)]
Text = Annotated[str, Meta(max_length=MAX_BYTES)]
Usd = Annotated[float, Meta(ge=0, le=1e9)]
Few = Meta(max_length=1000)
Many = Meta(max_length=20_000)


class WireBudget(msgspec.Struct, kw_only=True):
    """core.task.FullBudget as sent by a host."""

    of: Name
    limit_usd: Usd
    spent_usd: Usd
    needs_usd: Annotated[float, Meta(ge=0, le=MAX_COST_USD)]


class WireProblem(msgspec.Struct, kw_only=True):
    """The reason for a failure: a stable code, a one-line message, a hint; where a budget had no room, which."""

    code: Name
    message: Line
    hint: Line | UnsetType = UNSET
    budget: WireBudget | UnsetType | None = UNSET


class ErrorAnswer(msgspec.Struct):
    """The body of every HTTP status of 400 or above."""

    error: WireProblem


class Waiting(msgspec.Struct, kw_only=True):
    """Why tasks wait, how many, and until when if that is known."""

    reason: Name
    tasks: Count | UnsetType = UNSET
    until: Moment | UnsetType | None = UNSET
    detail: Line | UnsetType = UNSET


class SlotCount(msgspec.Struct, kw_only=True):
    """The slots of one engine. `free` is negative while more tasks run than there are slots now."""

    total: Count
    free: Annotated[int, Meta(ge=-(2**53), le=2**53)]


class TaskResult(msgspec.Struct, kw_only=True):
    """core.task.Result as sent by a host; `structured` is any JSON."""

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
    finish_seq: Count | UnsetType = UNSET


class ListedResult(TaskResult, kw_only=True):
    """A result in a list."""

    id: Name
    state: Name


class PastTask(ListedResult, kw_only=True):
    """A task of the history: its result so far, its times (Unix seconds), and the task as it was submitted.

    `content` is `kept`; `long` where prompt and answer are cut, and the task is to be asked for by its id; or `gone`
    where retention has deleted them.
    """

    created_at: Moment
    started_at: Moment | UnsetType | None = UNSET
    finished_at: Moment | UnsetType | None = UNSET
    spec: dict[str, Any] | UnsetType | None = UNSET
    content: Name


class HistoryAnswer(msgspec.Struct, kw_only=True):
    """`GET /v1/history`: a page of finished tasks, on its last page the unfinished ones too, and what is kept.

    `next` is where the next page begins, and `more` whether there is one. Content of tasks that ended before
    `kept_since` is gone, at the latest `retention_days` after their end; the tasks are forgotten after `history_days`.
    """

    tasks: Annotated[list[PastTask], Many]
    unfinished: Annotated[list[PastTask], Many] | UnsetType = UNSET
    next: Count | UnsetType = UNSET
    more: bool | UnsetType = UNSET
    ledger: Name
    kept_since: Moment
    retention_days: Annotated[float, Meta(gt=0, le=100_000)]
    history_days: Annotated[float, Meta(gt=0, le=100_000)]


class TaskState(msgspec.Struct):
    """The state of a task."""

    id: Name
    state: Name


class Throughput(msgspec.Struct):
    """How many tasks end per second."""

    per_s: Annotated[float, Meta(ge=0, le=1000000000.0)] | UnsetType | None = UNSET


class HeldKey(msgspec.Struct, kw_only=True):
    """A key in the agent's memory."""

    fingerprint: Name
    state: Name
    reason: Line | UnsetType = UNSET
    running: Count | UnsetType = UNSET
    queued: Count | UnsetType = UNSET


class BudgetOfDay(msgspec.Struct, kw_only=True):
    """The host's budget for the day (UTC)."""

    limit_usd: Usd
    spent_usd: Usd
    reserved_usd: Usd | UnsetType = UNSET
    day: Name | UnsetType = UNSET


class PotStatus(msgspec.Struct, kw_only=True):
    """A pot: its key, and with a funding what is in it, what was spent since it was filled, and until when it lasts.

    `api_closed_at` is when the API refused to be paid by it, if it is `spent` since then.
    """

    name: Name
    key: Name | UnsetType | None = UNSET
    state: Name | UnsetType = UNSET
    limit_usd: Usd | UnsetType = UNSET
    spent_usd: Usd | UnsetType = UNSET
    reserved_usd: Usd | UnsetType = UNSET
    until: Moment | UnsetType | None = UNSET
    next: Name | UnsetType = UNSET
    api_closed_at: Moment | UnsetType | None = UNSET


class BatchProgress(msgspec.Struct, kw_only=True):
    """A batch with unfinished tasks: how many of its tasks the host was given, how many have ended, and their cost."""

    name: Name
    tasks: Count
    done: Count
    failed: Count | UnsetType = UNSET
    cost_usd: Usd | UnsetType = UNSET


class LedgerStatus(msgspec.Struct):
    """The ledger's name and size."""

    id: Name | UnsetType = UNSET
    tasks: Count | UnsetType = UNSET
    bytes: Count | UnsetType = UNSET


class CloudWatchStatus(msgspec.Struct):
    """How the push of the host's metrics goes: core.pushed.PushNote."""

    at: Moment | UnsetType | None = UNSET
    problem: Line | UnsetType = UNSET


class StatusAnswer(msgspec.Struct):
    """`GET /v1/status`."""

    wire: Count | UnsetType = UNSET
    version: Name | UnsetType = UNSET
    state: Name | UnsetType = UNSET
    drain: Name | UnsetType = UNSET
    draining: bool | UnsetType = UNSET
    network_full: bool | UnsetType = UNSET
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
    pots: Annotated[list[PotStatus], Few] | UnsetType = UNSET
    spent_today_usd: Usd | UnsetType = UNSET
    batches: Annotated[list[BatchProgress], Few] | UnsetType = UNSET
    ledger: LedgerStatus | UnsetType | None = UNSET
    cloudwatch: CloudWatchStatus | UnsetType | None = UNSET


class StatesAnswer(msgspec.Struct):
    """`POST /v1/tasks`, `POST /v1/tasks/cancel`, and `POST /v1/tasks/check`, which has the known ones only."""

    tasks: Annotated[list[TaskState], Many]


class TaskCount(msgspec.Struct):
    """The tokens of a task, as the API counts them for `model`."""

    id: Name
    model: Name
    input_tokens: Count


class CountAnswer(msgspec.Struct):
    """`POST /v1/tasks/count`, in the order of the tasks."""

    tasks: Annotated[list[TaskCount], Many]


class TaskAnswer(msgspec.Struct):
    """`GET` and `DELETE /v1/tasks/{id}`."""

    task: TaskResult


class TasksAnswer(msgspec.Struct):
    """`GET /v1/tasks`; `next` is where the next page begins."""

    tasks: Annotated[list[ListedResult], Many]
    next: Name | UnsetType | None = UNSET


class ResultsAnswer(msgspec.Struct, kw_only=True):
    """`GET /v1/results`; `next` is the cursor for the results after these."""

    results: Annotated[list[ListedResult], Many]
    next: Count | UnsetType = UNSET
    unfinished: Count | UnsetType = UNSET
    waiting: Annotated[list[Waiting], Few] | UnsetType | None = UNSET


class BatchAnswer(msgspec.Struct):
    """`PUT` and `GET /v1/batches/{batch}`: the batch's limits and progress."""

    batch: dict[str, Any]


class KeyAnswer(msgspec.Struct):
    """`PUT /v1/key` and `DELETE /v1/key/{fingerprint}`."""

    fingerprint: Name | UnsetType = UNSET
    tasks_resumed: Count | UnsetType = UNSET
    forgotten: bool | UnsetType = UNSET


class FileAnswer(msgspec.Struct):
    """The answer of `PUT /v1/files/{id}`: the size of the bundle that was kept."""

    bytes: Count


class TaskEvent(msgspec.Struct):
    """A line of `GET /v1/tasks/{id}/events`; the last one has the result.

    An event `waiting` says what the task waits for now: a `reason` as in the status, `sandbox`, or "" for nothing but
    the model; `ahead` tasks of the queue, `status` of the API's last answer (0: none came), for `in_s` seconds if that
    is known.
    """

    type: Name | UnsetType = UNSET
    state: Name | UnsetType = UNSET
    text: Text | UnsetType = UNSET
    result: TaskResult | UnsetType = UNSET
    reason: Line | UnsetType = UNSET
    ahead: Count | UnsetType = UNSET
    status: Count | UnsetType = UNSET
    in_s: Seconds | UnsetType = UNSET


class TaskCallAnswer(TaskResult, kw_only=True):
    """The output of `jada-agent task`: see wire.task_call."""

    changed: bool | UnsetType = UNSET


class RefusedTask(msgspec.Struct, kw_only=True):
    """A task that a host refuses."""

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
    results: Annotated[list[ListedResult], Many] | UnsetType | None = UNSET
    next: Count | UnsetType = UNSET
    unfinished: Count | UnsetType = UNSET
    waiting: Annotated[list[Waiting], Few] | UnsetType | None = UNSET
    slots: Annotated[dict[str, SlotCount], Few] | UnsetType | None = UNSET
    rest: bool | UnsetType = UNSET
    halted: WireProblem | UnsetType | None = UNSET
    error: WireProblem | UnsetType | None = UNSET
