"""A Messages API in virtual time: the loopback API's own limits, a clock that jumps, and no sockets.

Hours pass in milliseconds, and the same test gives the same figures every time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from farmhand.meter.grants import Grant, Key
from farmhand.meter.meter import Meter, RetryPolicy
from farmhand.meter.upstream import Upstream
from tests.support.messages_api.limits import Limited, Limits, RateLimits

MODEL = "claude-haiku-5-5"
KEY = "sk-ant-test-simulated-0000"


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: the time that would pass is put on the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits for another one: nothing will ever happen")
        self.now += max(0.0, timeout)
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` to its end; every wait on the loop takes no time."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        runner.run(main())


@dataclass
class Sent:
    """One request as the API saw it: when it came, when it was answered, and how."""

    at: float
    name: str
    answered_at: float = 0.0
    status: int = 0
    retry_after: float | None = None


@dataclass
class Api:
    """Answers after `latency_s`, half of it on the way there, within `limits`. `sent` is what came, in order.

    `script` are the first answers, `refusal` is the body of all that are not 200.
    """

    limits: Limits
    latency_s: float = 1.0
    input_tokens: int = 50
    output_tokens: int = 100
    told: bool = True
    script: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    refusal: bytes = b"{}"

    def __post_init__(self) -> None:
        self.rates = RateLimits(self.limits, clock=asyncio.get_running_loop().time)

    def meter(self, *, attempts: int = 6) -> Meter:
        """A meter whose upstream this is."""
        clock = asyncio.get_running_loop().time
        return Meter(cast(Upstream, self), retry=RetryPolicy(attempts), clock=clock)

    base = ""

    async def connection(self) -> _Connection:
        """What `Upstream` does, as far as the meter asks."""
        return _Connection(self)

    async def post(self, body: bytes) -> tuple[int, dict[str, str]]:
        """The status and the headers of the answer to a request."""
        clock = asyncio.get_running_loop().time
        one = Sent(clock(), json.loads(body)["messages"][0]["content"])
        self.sent.append(one)
        await asyncio.sleep(self.latency_s / 2)
        status, answer = await self._answer(one)
        one.answered_at, one.status = clock(), status
        with contextlib.suppress(KeyError, ValueError):
            one.retry_after = float(answer["retry-after"])
        return status, answer

    async def _answer(self, one: Sent) -> tuple[int, dict[str, str]]:
        if self.script:
            return self.script.pop(0)
        try:
            with self.rates.place():
                self.rates.admit(MODEL, self.input_tokens)
                await asyncio.sleep(self.latency_s / 2)
                self.rates.produced(MODEL, self.output_tokens)
        except Limited as refusal:
            return refusal.status, dict(refusal.headers or {})
        return 200, self.rates.headers(MODEL) if self.told else {}

    @property
    def statuses(self) -> list[int]:
        """The status of each request, in the order they came."""
        return [one.status for one in self.sent]


class _Connection:
    def __init__(self, api: Api) -> None:
        self._api = api
        self.status = 0
        self.headers: dict[str, str] = {}
        self._read = False

    async def send(self, _method: str, _path: str, _headers: dict[str, str], body: bytes) -> None:
        self.status, headers = await self._api.post(body)
        self.headers = {"content-type": "application/json", "request-id": "req_1", **headers}

    async def piece(self) -> bytes:
        if self._read:
            return b""
        self._read = True
        usage = {"input_tokens": self._api.input_tokens, "output_tokens": self._api.output_tokens}
        return json.dumps({"usage": usage, "stop_reason": "end_turn"}).encode() if self.status == 200 else b"{}"

    async def read(self, _most: int) -> bytes:
        return self._api.refusal

    def close(self) -> None:
        """Nothing is held."""


def grant() -> Grant:
    """A task of its own."""
    return Grant(task_id="t", key=Key(KEY), model=MODEL)


async def ask(meter: Meter, name: str, one: Grant | None = None) -> None:
    """One request named `name`, to its end."""
    body = {"model": MODEL, "max_tokens": 256, "messages": [{"role": "user", "content": name}]}
    async with meter.send(one or grant(), "/v1/messages", json.dumps(body).encode(), {}) as exchange:
        while await exchange.piece():
            pass
