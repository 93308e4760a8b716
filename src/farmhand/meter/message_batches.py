"""The provider's Message Batches: many requests at once, each at half price, answered within 24 hours.

Source: the provider's API reference and its guide to batch processing, read 2026-11: up to 100,000 requests or 256 MB
per batch; results in any order once all have ended, kept for 29 days. A batch belongs to the workspace: any of its keys
can read it. `results_url` is not followed, so that the key is sent to no address but the upstream's own.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from farmhand.meter import loose_json
from farmhand.meter.errors import ApiError, connection_problem, problem_from_answer
from farmhand.meter.grants import Key
from farmhand.meter.upstream import Upstream, UpstreamConnection, UpstreamError

log = logging.getLogger("jada-agent")
T = TypeVar("T")
PATH = "/v1/messages/batches"
_HEADERS = {"anthropic-version": "2023-06-01", "content-type": "application/json", "accept-encoding": "identity"}
_MAX_ERROR_BODY = 64 * 1024
_MAX_VIEW = 4 * 1024 * 1024
#: Longest line of the results: the longest answer has 128,000 tokens.
_MAX_LINE = 32 * 1024 * 1024
_LIST = 100


class MessageBatchView(msgspec.Struct, kw_only=True):
    """The fields of a batch, as the API shows it, that are used. Times are RFC 3339."""

    id: str
    processing_status: str
    created_at: str
    request_counts: dict[str, int]

    @property
    def ended(self) -> bool:
        """Return whether all requests have ended, so that results are available."""
        return self.processing_status == "ended"

    @property
    def requests(self) -> int:
        """Return the number of its requests."""
        return sum(self.request_counts.values())

    @property
    def created(self) -> float:
        """Return its creation time in Unix seconds."""
        return datetime.fromisoformat(self.created_at).timestamp()


class _List(msgspec.Struct, kw_only=True):
    data: list[MessageBatchView]
    has_more: bool = False
    last_id: str | None = None


class RequestOutcome(msgspec.Struct, kw_only=True):
    """The outcome of one request: `type` is succeeded, errored, canceled or expired."""

    type: str
    message: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class ResultLine(msgspec.Struct, kw_only=True):
    """One line of the results."""

    custom_id: str
    result: RequestOutcome


class MessageBatches:
    """A client of the endpoint. Its methods raise ApiError; `errors` counts the API's errors by their codes."""

    def __init__(self, upstream: Upstream, errors: Counter[str]) -> None:
        self._upstream = upstream
        self._errors = errors

    async def create(self, key: Key, requests: list[tuple[str, bytes]]) -> MessageBatchView:
        """Create a batch of (custom_id, params as JSON). After an ApiError with status 0 or 5xx it may exist."""
        parts = (b'{"custom_id":"%s","params":%s}' % (name.encode(), params) for name, params in requests)
        return await self._ask("POST", "", key, MessageBatchView, b'{"requests":[' + b",".join(parts) + b"]}")

    async def retrieve(self, key: Key, batch_id: str) -> MessageBatchView:
        """Return the batch's current state."""
        return await self._ask("GET", f"/{batch_id}", key, MessageBatchView)

    async def cancel(self, key: Key, batch_id: str) -> MessageBatchView:
        """Cancel the batch. Requests that are already being processed may still complete."""
        return await self._ask("POST", f"/{batch_id}/cancel", key, MessageBatchView)

    async def newest(self, key: Key, since: float) -> list[MessageBatchView]:
        """Return the workspace's batches created at `since` (Unix seconds) or later, the newest first."""
        found: list[MessageBatchView] = []
        query = f"?limit={_LIST}"
        while True:
            page = await self._ask("GET", query, key, _List)
            found += [view for view in page.data if view.created >= since]
            if not page.has_more or not page.last_id or page.data[-1].created < since:
                return found
            query = f"?limit={_LIST}&after_id={page.last_id}"

    async def results(self, key: Key, batch_id: str) -> AsyncIterator[ResultLine]:
        """Yield the results of an ended batch, in any order.

        A damaged line among others is skipped, so that it does not block all the other answers.
        """
        rest, sound, ended = b"", False, False
        async with self._answer("GET", f"/{batch_id}/results", key) as answer:
            while not ended:
                piece = await answer.piece()
                ended = not piece
                *lines, rest = (rest + (piece or b"\n")).split(b"\n")
                if len(rest) > _MAX_LINE:
                    raise ApiError("api_error", f"a result of batch {batch_id} is longer than {_MAX_LINE} bytes")
                for line in filter(bytes.strip, lines):
                    try:
                        result = _decode(line, ResultLine)
                    except ApiError:
                        if not sound:
                            raise
                        log.warning("a damaged result of a Message Batch is left out: %d bytes", len(line))
                        continue
                    sound = True
                    yield result

    async def _ask(self, method: str, path: str, key: Key, kind: type[T], body: bytes = b"") -> T:
        async with self._answer(method, path, key, body) as answer:
            text = await answer.read(_MAX_VIEW)
        return _decode(text, kind)

    @asynccontextmanager
    async def _answer(self, method: str, path: str, key: Key, body: bytes = b"") -> AsyncIterator[UpstreamConnection]:
        """Send a request and yield its answer, whose status is 200."""
        headers, when = key.signed(_HEADERS), "before an answer came"
        try:
            answer = await self._upstream.connection()
            with closing(answer):
                await answer.send(method, self._upstream.base + PATH + path, headers, body)
                if answer.status != 200:
                    detail = b""
                    with suppress(UpstreamError, TimeoutError):
                        detail = await answer.read(_MAX_ERROR_BODY)
                    raise self._counted(problem_from_answer(answer.status, detail, headers=answer.headers))
                when = "while the answer was under way"
                yield answer
        except (UpstreamError, TimeoutError) as error:
            raise self._counted(connection_problem(error, when)) from None

    def _counted(self, problem: ApiError) -> ApiError:
        self._errors[problem.code] += 1
        return problem


def _decode(text: bytes, kind: type[T]) -> T:
    try:
        return loose_json.decode_as(text, kind)
    except loose_json.REFUSED:
        raise ApiError("api_error", "the API sent something that is no Message Batch", retryable=True) from None
