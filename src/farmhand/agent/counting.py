"""The tokens of tasks, as the API counts them: free, and nothing is run or kept."""

from __future__ import annotations

import asyncio

import msgspec

from farmhand.agent.engines.api import HEADERS
from farmhand.agent.pots import Pots
from farmhand.core.errors import FarmhandError, UsageError, WireError
from farmhand.core.keys import redact
from farmhand.core.request_body import request_body
from farmhand.core.task import Task, resolve_model
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Grant, Key
from farmhand.meter.meter import COUNT_TOKENS, Meter

#: How many tasks one request may have counted, and how long that may take, in seconds.
MOST = 24
COUNT_S = 30.0


class _TaskTokens(msgspec.Struct):
    input_tokens: int


class TaskCounter:
    """Has the API count tasks, on the key that a request brings, else on the one that the agent holds."""

    def __init__(self, meter: Meter, pots: Pots) -> None:
        self._meter = meter
        self._pots = pots

    async def count(self, tasks: list[Task], key: Key | None) -> list[dict[str, object]]:
        """Return id, model and tokens of each task. Raise FarmhandError."""
        if len(tasks) > MOST or any(task.resolved_engine == "cli" for task in tasks):
            raise UsageError(f"tokens are counted of 1 to {MOST} tasks, and of none with tools", code="invalid_task")
        try:
            async with asyncio.timeout(COUNT_S):
                return [await self._one(task, self._key_of(task, key)) for task in tasks]
        except TimeoutError:
            raise WireError("api_unreachable", f"the API has not counted within {COUNT_S:g} s", "try later") from None
        except ApiError as error:
            raise FarmhandError(redact(error.message), hint=error.hint, code=error.code) from None

    def _key_of(self, task: Task, key: Key | None) -> Key:
        key = self._pots[task.pot].keys.stand_in(key) if key is not None else self._pots.default(task.pot)
        if key is None:
            raise WireError("no_key", "there is no key to ask the API with", "bring one")
        return key

    async def _one(self, task: Task, key: Key) -> dict[str, object]:
        model = resolve_model(task.model)
        body = {name: value for name, value in request_body(task, model).items() if name != "max_tokens"}
        grant, answer = Grant(task.id, key, model, task.max_tokens), b""
        async with self._meter.send(grant, COUNT_TOKENS, msgspec.json.encode(body), HEADERS) as exchange:
            while piece := await exchange.piece():
                answer += piece
        try:
            tokens = msgspec.json.decode(answer, type=_TaskTokens).input_tokens
        except (ValueError, RecursionError):
            raise ApiError("api_error", "the API does not tell how many tokens the task has") from None
        return {"id": task.id, "model": model, "input_tokens": tokens}
