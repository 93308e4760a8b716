"""The upstream side: one request with the key injected, retried before its first byte, counted while it passes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from farmhand.meter import policy
from farmhand.meter.grants import Grant, Grants
from farmhand.meter.problems import ApiError, problem_from_answer
from farmhand.meter.usage import AnswerWatch

#: Request headers that pass; the rest of what a client sends ends here, its credentials first of all.
FORWARDED = frozenset({"accept", "anthropic-version", "anthropic-beta", "content-type", "user-agent"})
COUNT_TOKENS = "/v1/messages/count_tokens"
_MAX_ERROR_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to wait: exponential with full jitter, at least what the API's retry-after says."""

    attempts: int = 6
    base_s: float = 0.5
    cap_s: float = 30.0

    def delay_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait after the failed `attempt` (1 is the first)."""
        jitter = random.uniform(0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))  # noqa: S311  (spreads load, guards nothing)
        return jitter if retry_after_s is None else retry_after_s + jitter


class Exchange:
    """One answer of the API, open: its status, its headers, and its body in pieces as they come."""

    def __init__(self, response: aiohttp.ClientResponse, watch: AnswerWatch) -> None:
        self._response = response
        self._watch = watch
        self.status = response.status
        self.headers = response.headers
        self.streamed = response.content_type == "text/event-stream"

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, piece by piece, unbuffered. ApiError where the connection is cut or falls silent."""
        try:
            async for piece in self._response.content.iter_any():
                self._watch.feed(piece)
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _connection_problem(error, "while the answer was under way") from None


class Meter:
    """Sends requests to the Messages API at `upstream_url` on behalf of grants.

    `idle_s` is how long the API may stay silent within one request before it counts as cut.
    `sleep` is what waits between retries.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstream_url: str,
        *,
        retry: RetryPolicy | None = None,
        idle_s: float = 120.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.grants = Grants()
        self._session = session
        self._base = upstream_url.rstrip("/")
        self._retry = retry or RetryPolicy()
        self._timeout = aiohttp.ClientTimeout(total=None, connect=30, sock_connect=30, sock_read=idle_s)
        self._sleep = sleep

    @asynccontextmanager
    async def send(self, grant: Grant, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Exchange]:
        """POST `body` to `path` with the grant's key; the answer stays open inside the context.

        Raises ApiError when the API refuses, or still fails after the last retry; it is the grant's `problem` too.
        What the answer used is counted to the grant whenever the context ends, so also for one that was cut.
        """
        self._check(grant, body)
        outgoing = {name: value for name, value in headers.items() if name.lower() in FORWARDED}
        outgoing |= {"x-api-key": grant.key.reveal(), "accept-encoding": "identity"}
        try:
            grant.started += 1
            response = await self._open(grant, self._base + path, body, outgoing)
        except ApiError as problem:
            grant.problem = problem
            raise
        grant.problem = None
        if path.startswith(COUNT_TOKENS):
            # Free of charge: nothing to count.
            async with response:
                yield Exchange(response, AnswerWatch(streamed=False))
            return
        watch = AnswerWatch(streamed=response.content_type == "text/event-stream")
        try:
            yield Exchange(response, watch)
        except ApiError as problem:
            grant.problem = problem
            raise
        finally:
            response.close()
            grant.exchanges.append(watch.finish())
            grant.problem = grant.problem or watch.problem
            grant.cut_short = grant.problem is not None or watch.stop_reason == "max_tokens"

    @staticmethod
    def _check(grant: Grant, body: bytes) -> None:
        if grant.cut_short:
            # The claude CLI asks up to three times more to go on with an answer that was cut short, each for its price.
            raise ApiError("permission_error", "the answer was cut short; this task token takes no more", status=403)
        policy.check(body, model=grant.model, max_tokens=grant.max_tokens, requests=grant.started)

    async def _open(self, grant: Grant, url: str, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._once(grant, url, body, headers)
            except ApiError as problem:
                if not problem.retryable or attempt >= self._retry.attempts:
                    problem.retryable = False
                    raise
                delay = self._retry.delay_s(attempt, problem.retry_after_s)
            grant.retries += 1
            await self._sleep(delay)

    async def _once(self, grant: Grant, url: str, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        try:
            response = await self._session.post(
                url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _connection_problem(error, "before an answer came") from None
        if response.status == 200:
            return response
        try:
            detail = await response.content.read(_MAX_ERROR_BODY)
        except (aiohttp.ClientError, TimeoutError):
            detail = b""
        finally:
            response.close()
        raise problem_from_answer(
            response.status, detail, model=grant.model, retry_after=response.headers.get("retry-after")
        )


def _connection_problem(error: Exception, when: str) -> ApiError:
    what = {
        TimeoutError: "the API fell silent",
        aiohttp.ClientConnectorError: "the API could not be reached",
    }.get(type(error), "the API timed out" if isinstance(error, TimeoutError) else "the connection to the API was cut")
    reason = getattr(error, "strerror", None) or type(error).__name__
    return ApiError("connection", f"{what} {when}: {reason}", retryable=True)
