"""The shared types: task, result, states, models. On the wire they are JSON objects with the same names."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from farmhand.core.ids import MAX_PROMPT_BYTES as MAX_PROMPT_BYTES
from farmhand.core.keys import redact

Engine = Literal["auto", "api", "cli"]
Network = Literal["none", "full"]
State = Literal["queued", "awaiting_key", "running", "succeeded", "failed", "cancelled"]
#: `queue`: refuse new tasks, finish the existing ones. `running`: refuse new tasks, start none, finish the running
#: ones.
DrainMode = Literal["off", "queue", "running"]
FINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

#: The short names that an operator types, and the pinned id of each. Any full id is passed on unchanged.
#: Source: the provider's model list, read 2026-11-20.
MODELS: dict[str, str] = {
    "haiku": "claude-haiku-5-5",
    "sonnet": "claude-sonnet-5-5",
    "opus": "claude-opus-5-5",
}
DEFAULT_MODEL = "haiku"
#: Models that always think: they refuse `thinking: disabled`, and with it a forced tool. The others also think by
#: default, and are set not to: an easy task need not pay for it. Source: the provider's model pages, read 2026-11-20.
ALWAYS_THINKING: frozenset[str] = frozenset({"claude-opus-5-5"})

DEFAULT_TIMEOUT_S = 600.0
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: The CLI's built-in tools that a task may request. Source: `claude --help` and the tool list of its init event, 2.1.
TOOLS: frozenset[str] = frozenset({"Bash", "Edit", "Glob", "Grep", "NotebookEdit", "Read", "WebFetch", "Write"})


def resolve_model(name: str) -> str:
    """Return the full model id for `name`; a full id is returned as it is."""
    return MODELS.get(name, name)


#: The ref in the bundle of a repository task, and the most bytes of the bundle.
BUNDLE_REF = "refs/farmhand/base"
MAX_BUNDLE_BYTES = 2 * 1024**3
#: The files that such a task leaves, and the most bytes of each. A patch of one byte more is known to be too big.
PATCH, TRANSCRIPT, ARTIFACTS = "changes.patch", "transcript.jsonl", "artifacts.tar"
MAX_PATCH_BYTES = 20 * 1024**2
TASK_OUTPUTS = {PATCH: MAX_PATCH_BYTES + 1, TRANSCRIPT: 100 * 1024**2, ARTIFACTS: 100 * 1024**2}


class Repository(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """The repository that a task works on; its bundle is uploaded before the task.

    `commit` is the full id of the commit that is checked out. `shallow` are the commits at which the bundle's history
    is cut. `subdir` is the directory in which the task starts.
    """

    commit: str
    shallow: tuple[str, ...] = ()
    subdir: str = ""


class Attachment(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """A picture or a PDF that goes with a prompt: see farmhand.core.attachments. `data` is base64."""

    media_type: str
    data: str
    name: str = ""


class EarlierTurn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """An earlier turn of the conversation that a task goes on with."""

    prompt: str
    answer: str
    files: tuple[Attachment, ...] = ()


class Task(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One prompt with its options.

    `timeout_s` counts from the start of the first attempt; 0 means 600, or the farm host's limit if that is less.
    `max_tokens` limits one answer. `schema` is the JSON Schema that the answer must satisfy. `max_usd` is the most that
    the task may cost. Waiting tasks with a higher `priority` run first. `economy` uses the provider's Message Batches
    at half the price; the answer may take 24 hours. With `repo` the task works on a repository, and leaves a patch.
    `files` are pictures and PDFs that go before the prompt, `history` the earlier turns of its conversation, oldest
    first. `traceparent` and `tracestate` are the caller's trace (W3C); they do not belong to the task's content, and
    what is not valid in them is ignored. `pot` names the key that pays, "" where there are none. An agent that does not
    know one of these refuses the task.
    """

    id: str
    prompt: str
    system: str = ""
    model: str = DEFAULT_MODEL
    engine: Engine = "auto"
    tools: tuple[str, ...] = ()
    network: Network = "none"
    schema: dict[str, Any] | None = None
    max_tokens: int = 4096
    timeout_s: float = 0.0
    max_usd: Decimal | None = None
    work_class: str = ""
    batch: str = ""
    labels: dict[str, str] = {}
    priority: int = 0
    economy: bool = False
    repo: Repository | None = None
    files: tuple[Attachment, ...] = ()
    history: tuple[EarlierTurn, ...] = ()
    traceparent: str = ""
    tracestate: str = ""
    pot: str = ""

    @property
    def resolved_engine(self) -> Literal["api", "cli", "economy"]:
        """Return the engine: `auto` means `economy` if that is set, `cli` for tools or a repository, else `api`."""
        if self.economy:
            return "economy"
        if self.engine != "auto":
            return self.engine
        return "cli" if self.tools or self.repo else "api"

    @property
    def is_named_by_key(self) -> bool:
        """Return whether its id, batch, model, tools, work class or labels contain something like an API key."""
        names = (
            self.id,
            self.batch,
            self.model,
            self.work_class,
            self.pot,
            *self.tools,
            *self.labels,
            *self.labels.values(),
        )
        return any(redact(name) != name for name in names)


class Usage(msgspec.Struct, kw_only=True):
    """Tokens as counted by the API, summed over a task's requests. `requests` counts the answered calls.

    The output of an answer that was cut off is estimated from the part that arrived. The API's figures are accepted up
    to the limits of an answer.

    `cache_creation_1h_input_tokens` is the part of `cache_creation_input_tokens` that is kept for an hour and not 5
    minutes.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    requests: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Return the number of all tokens that were sent, cached or not."""
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens

    def add(self, other: Usage) -> None:
        """Add `other` to this one."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class FullBudget(msgspec.Struct, kw_only=True, frozen=True):
    """A budget that had no room for a request: `of` the task, batch, day or pot.

    `needs_usd` is the most that the request may cost.
    """

    of: str
    limit_usd: Decimal
    spent_usd: Decimal
    needs_usd: Decimal


class TaskError(msgspec.Struct, kw_only=True):
    """The error of a failed task: a stable code, a one-line message, a hint, and the budget that had no room for it."""

    code: str
    message: str
    hint: str = ""
    budget: FullBudget | UnsetType = UNSET


class Result(msgspec.Struct, kw_only=True):
    """The result of a task. Times are in seconds; `cost_usd` is null while a price is unknown.

    `attempts` counts starts of the engine, `retries` the requests that the meter sent again within them. `uncertain`
    counts the requests that the API may have charged for an unknown amount. For one that was cut off, `cost_usd`
    includes the part that arrived, with its output estimated. A request in flight during a crash is not included. A
    request with implausible figures makes `cost_usd` null. `stop_reason` is the API's own (`end_turn`, `max_tokens`:
    the text is cut off, …).
    """

    id: str
    state: State
    text: str = ""
    structured: Any = None
    model: str = ""
    engine: str = ""
    usage: Usage = msgspec.field(default_factory=Usage)
    cost_usd: Decimal | None = None
    attempts: int = 0
    retries: int = 0
    uncertain: int = 0
    queued_s: float = 0.0
    run_s: float = 0.0
    stop_reason: str = ""
    error: TaskError | None = None
    batch: str = ""
    labels: dict[str, str] = {}
