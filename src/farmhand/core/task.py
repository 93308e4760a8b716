"""The vocabulary: task, result, states, models. The wire carries these as JSON objects with the same names."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal

import msgspec

from farmhand.core.keys import redact

Engine = Literal["auto", "api", "cli"]
Network = Literal["none", "full"]
State = Literal["queued", "awaiting_key", "running", "succeeded", "failed", "cancelled"]
#: `queue`: refuse new tasks, finish those that are there. `running`: refuse new ones, start none, let run what runs.
DrainMode = Literal["off", "queue", "running"]
FINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

#: Short names an operator types, and the pinned id each stands for. Any full id passes through untouched.
#: Source: the provider's model list, read 2026-11-20.
MODELS: dict[str, str] = {
    "haiku": "claude-haiku-5-5",
    "sonnet": "claude-sonnet-5-5",
    "opus": "claude-opus-5-5",
}
DEFAULT_MODEL = "haiku"
#: Models that think always: they refuse `thinking: disabled`, and with it a forced tool. The others think by default as
#: well and are told not to: an easy task need not pay for it. Source: the provider's model pages, read 2026-11-20.
ALWAYS_THINKING: frozenset[str] = frozenset({"claude-opus-5-5"})

DEFAULT_TIMEOUT_S = 600.0
MAX_PROMPT_BYTES = 4 * 1024 * 1024
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: The CLI's built-in tools a task may ask for. Source: `claude --help` and the tool list of its init event, 2.1.
TOOLS: frozenset[str] = frozenset({"Bash", "Edit", "Glob", "Grep", "NotebookEdit", "Read", "WebFetch", "Write"})


def resolve_model(name: str) -> str:
    """The full model id that `name` stands for; a full id is its own answer."""
    return MODELS.get(name, name)


class Task(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One prompt with its options.

    `timeout_s` counts from the start of the first attempt; 0 means 600, or the farm host's limit where that is less.
    `max_tokens` bounds one answer. `schema` is the JSON Schema that the answer must satisfy. `max_usd` is what the task
    may cost. Of waiting tasks those with the higher `priority` run first. `economy` asks for half the price through the
    provider's Message Batches, whose answer may take 24 hours.
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

    @property
    def resolved_engine(self) -> Literal["api", "cli", "economy"]:
        """`auto` is `cli` when tools are asked for, `economy` when that is, and `api` otherwise."""
        if self.economy:
            return "economy"
        if self.engine != "auto":
            return self.engine
        return "cli" if self.tools else "api"

    @property
    def is_named_by_key(self) -> bool:
        """Whether something like an API key stands in its id, batch, model, tools, work class or labels."""
        names = (self.id, self.batch, self.model, self.work_class, *self.tools, *self.labels, *self.labels.values())
        return any(redact(name) != name for name in names)


class Usage(msgspec.Struct, kw_only=True):
    """Tokens as the API counted them, summed over a task's requests. `requests` counts calls that were answered.

    The output of an answer that was cut off is estimated from what had passed. The API's figures are believed up to
    what an answer can have.

    `cache_creation_1h_input_tokens` is the part of `cache_creation_input_tokens` kept for an hour and not 5 minutes.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    requests: int = 0

    def add(self, other: Usage) -> None:
        """Add `other` to this one."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class TaskError(msgspec.Struct, kw_only=True):
    """Why a task failed: a stable code, one line, what to do."""

    code: str
    message: str
    hint: str = ""


class Result(msgspec.Struct, kw_only=True):
    """The result of a task. Times are in seconds; `cost_usd` is null while a price is unknown.

    `attempts` counts engine starts, `retries` requests that the meter sent again within them, `uncertain` those that
    the API may have charged for without our knowing how much: of one that was cut off `cost_usd` has what had passed,
    its output estimated; one under way in a crash is not in it; one whose figures are not to be believed makes it null.
    `stop_reason` is the API's own (`end_turn`, `max_tokens`: the text is cut off, …).
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
