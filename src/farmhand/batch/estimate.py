"""What a batch may cost, before it is begun: its tokens, and their price on its models and on others.

The provider counts the tokens of a few tasks, which is free; the rest is reckoned from them by its size. How long the
answers will be is not known: only the most that they can be.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from farmhand.core.api_call import call, reason
from farmhand.core.attachments import PDF
from farmhand.core.claude import messages
from farmhand.core.errors import WireError
from farmhand.core.keys import other_kind
from farmhand.core.prices import PriceTable
from farmhand.core.task import DEFAULT_MODEL, MODELS, Attachment, EarlierTurn, Usage, resolve_model

COUNT_TOKENS = "/v1/messages/count_tokens"
#: How many tasks the provider counts, how many at once, and how long it has for one. Seconds.
MOST_COUNTED = 24
#: How many bytes are sent for that in all: on a slow line the batch should not have to wait.
MOST_BYTES = 1 << 20
_AT_ONCE = 8
COUNT_S = 4.0
#: Bytes of a token where nothing was counted: a little less than in English text.
BYTES_PER_TOKEN = 3.5
#: A picture costs 4784 tokens at most. Source: the provider's vision page, read 2026-11-28.
_PICTURE = int(4784 * BYTES_PER_TOKEN)


class PlannedTask(msgspec.Struct):
    """The fields of a task that its price depends on, with the defaults of `Task`."""

    prompt: str
    system: str = ""
    model: str = DEFAULT_MODEL
    engine: str = "auto"
    tools: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    max_tokens: int = 4096
    economy: bool = False
    files: tuple[Attachment, ...] = ()
    history: tuple[EarlierTurn, ...] = ()

    @property
    def is_open(self) -> bool:
        """Return whether it makes as many requests as it likes."""
        return bool(self.tools) or self.engine == "cli"

    @property
    def size(self) -> int:
        """Return the bytes that are sent."""
        schema = 0 if self.schema is None else len(msgspec.json.encode(self.schema))
        turns = sum(_size(turn.prompt, turn.files) + len(turn.answer.encode()) for turn in self.history)
        return turns + _size(self.prompt, self.files) + len(self.system.encode()) + schema

    def request(self) -> dict[str, Any]:
        """Return the body that has the API count its tokens."""
        body: dict[str, Any] = {
            "model": resolve_model(self.model),
            "messages": list(messages(self)),
        }
        if self.system:
            body["system"] = self.system
        if self.schema is not None:
            body["tools"] = [
                {"name": "answer", "input_schema": {"type": "object", "properties": {"answer": self.schema}}}
            ]
        return body


def _size(text: str, files: Iterable[Attachment]) -> int:
    """Return the bytes of a text with files: those of text that would cost as much as the largest picture, at most."""
    return len(text.encode()) + sum(
        len(file.data) if file.media_type == PDF else min(len(file.data), _PICTURE) for file in files
    )


class PlannedPrice(NamedTuple):
    """The price of all tasks on `model` ("": their own): of what is sent, and with the longest answers. US$ / 1e12.

    None: no price is known for a model.
    """

    model: str
    economy: bool
    sent_pico: int | None
    most_pico: int | None


class _Group(NamedTuple):
    """What the price of a token depends on: the model, economy, and how many limits of long prompts are exceeded."""

    model: str
    economy: bool
    tier: int


@dataclass
class BatchEstimate:
    """What is to be sent. `counted` tasks were counted by the API, and `uncounted` says why if none was.

    `most_output` is the sum of the longest answers. `open_tasks` counts tasks that make as many requests as they like;
    only their first one is in the figures.
    """

    tasks: int = 0
    tokens: int = 0
    most_output: int = 0
    open_tasks: int = 0
    counted: int = 0
    uncounted: str = ""
    prices: list[PlannedPrice] = field(default_factory=list)

    @property
    def own(self) -> PlannedPrice:
        """Return the price as the batch is."""
        return self.prices[0]

    @property
    def most_pico(self) -> int | None:
        """Return the most that it can cost, or None if that is not known."""
        return None if self.open_tasks else self.own.most_pico


class TokenCounter:
    """The provider's own count of a few tasks' tokens, at `url` with `key`."""

    def __init__(self, key: str, url: str) -> None:
        self._key = key
        self._url = url

    def count(self, tasks: list[PlannedTask]) -> tuple[list[int | None], str]:
        """Return the tokens of each task, None for those not counted, and why, or ""."""
        if not self._key:
            return [None] * len(tasks), "there is no key here"
        if other := other_kind(self._key):
            return [None] * len(tasks), f"the key is {other}"
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(self._one, tasks))
        problems = [answer for answer in answers if isinstance(answer, str)]
        return [None if isinstance(answer, str) else answer for answer in answers], problems[0] if problems else ""

    def _one(self, task: PlannedTask) -> int | str:
        try:
            status, answer = call(self._key, self._url, COUNT_TOKENS, task.request(), COUNT_S)
        except WireError as error:
            return error.message
        tokens = answer.get("input_tokens") if isinstance(answer, dict) else None
        if status != 200 or not isinstance(tokens, int) or tokens < 0:
            return f"{self._url} answered {status}: {reason(answer)}"
        return tokens


def estimate(
    bodies: Callable[[], Iterable[bytes]], table: PriceTable, counter: TokenCounter | None = None
) -> BatchEstimate:
    """Return the estimate for tasks, whose fields `bodies` gives each time it is called."""
    found = BatchEstimate(tasks=sum(1 for _ in bodies()))
    per_token, exact = _measured(bodies, found, counter)
    sums: dict[_Group, Usage] = {}
    sizes: Counter[_Group] = Counter()
    for number, task in enumerate(map(_read, bodies())):
        tokens = exact.get(number)
        if tokens is None:
            tokens = round(task.size / per_token) + 1
        found.tokens += tokens
        found.most_output += task.max_tokens
        found.open_tasks += task.is_open
        group = _Group(task.model, task.economy, bisect.bisect_left(table.thresholds, tokens))
        usage = sums.setdefault(group, Usage())
        usage.input_tokens += tokens
        usage.output_tokens += task.max_tokens
        sizes[group] = max(sizes[group], tokens)
    ways: list[tuple[str, bool]] = [("", False)]
    if not found.open_tasks and not all(group.economy for group in sums):
        ways.append(("", True))
    models = {resolve_model(group.model) for group in sums}
    ways += [(name, False) for name, full in MODELS.items() if models != {full}]
    found.prices = [_price(table, sums, sizes, model, economy=economy) for model, economy in ways]
    return found


def _read(body: bytes) -> PlannedTask:
    return msgspec.json.decode(b"{" + body, type=PlannedTask)


def _measured(
    bodies: Callable[[], Iterable[bytes]], found: BatchEstimate, counter: TokenCounter | None
) -> tuple[float, dict[int, int]]:
    """Have a few tasks counted. Return the bytes of a token, and the counts by the tasks' positions."""
    step = -(-found.tasks // MOST_COUNTED)
    if counter is None or not found.tasks:
        return BYTES_PER_TOKEN, {}
    chosen: dict[int, PlannedTask] = {}
    room = MOST_BYTES
    for number, body in enumerate(bodies()):
        if number % step == 0 and len(body) <= room:
            chosen[number] = _read(body)
            room -= len(body)
    if not chosen:
        found.uncounted = "the prompts are too large"
        return BYTES_PER_TOKEN, {}
    tokens, found.uncounted = counter.count(list(chosen.values()))
    exact = {number: count for number, count in zip(chosen, tokens, strict=True) if count is not None}
    found.counted = len(exact)
    if not exact:
        return BYTES_PER_TOKEN, {}
    return sum(chosen[number].size for number in exact) / max(1, sum(exact.values())), exact


def _price(
    table: PriceTable, sums: dict[_Group, Usage], sizes: Counter[_Group], model: str, *, economy: bool
) -> PlannedPrice:
    sent: int | None = 0
    most: int | None = 0
    for group, usage in sums.items():
        rates = table.rates(resolve_model(model or group.model), sizes[group], economy=economy or group.economy)
        first = None if rates is None else rates.cost(Usage(input_tokens=usage.input_tokens))
        whole = None if rates is None else rates.cost(usage)
        sent = None if sent is None or first is None else sent + first
        most = None if most is None or whole is None else most + whole
    return PlannedPrice(model, economy, sent, most)
