"""The provider's Message Batches: many requests at once, each at half price, answered within 24 hours.

Source: the provider's API reference and its guide to batch processing, read 2026-11: up to 100,000 requests or 256 MB
per batch; results in any order once all have ended, kept for 29 days. A batch belongs to the workspace: any of its keys
can read it. `results_url` is not followed, so that the key is sent to no address but the upstream's own.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import aiohttp
import msgspec

from farmhand.meter import loose_json
from farmhand.meter.errors import ApiError, connection_problem, problem_from_answer
from farmhand.meter.grants import Key

log = logging.getLogger("jada-agent")
PATH = "/v1/messages/batches"
_VERSION = {"anthropic-version": "2023-06-01", "content-type": "application/json"}
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
    """A client of the endpoint at `upstream_url`. `idle_s` is how long the API may be silent within one call.

    `errors` counts the API's errors by their codes.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstream_url: str,
        *,
        idle_s: float = 120.0,
        errors: Counter[str] | None = None,
    ) -> None:
        self._session = session
        self._errors: Counter[str] = Counter() if errors is None else errors
        self._base = upstream_url.rstrip("/") + PATH
        self._timeout = aiohttp.ClientTimeout(total=None, connect=30, sock_connect=30, sock_read=idle_s)

    async def create(self, key: Key, requests: list[tuple[str, bytes]]) -> MessageBatchView:
        """Create a batch of (custom_id, params as JSON). After an ApiError with status 0 or 5xx it may exist."""
        parts = (b'{"custom_id":"%s","params":%s}' % (name.encode(), params) for name, params in requests)
        return await self._view("POST", "", key, b'{"requests":[' + b",".join(parts) + b"]}")

    async def retrieve(self, key: Key, batch_id: str) -> MessageBatchView:
        """Return the batch's current state."""
        return await self._view("GET", f"/{batch_id}", key)

    async def cancel(self, key: Key, batch_id: str) -> MessageBatchView:
        """Cancel the batch. Requests that are already being processed may still complete."""
        return await self._view("POST", f"/{batch_id}/cancel", key)

    async def newest(self, key: Key, since: float) -> list[MessageBatchView]:
        """Return the workspace's batches created at `since` (Unix seconds) or later, the newest first."""
        found: list[MessageBatchView] = []
        after = ""
        while True:
            query = f"?limit={_LIST}" + (f"&after_id={after}" if after else "")
            page: _List = await self._decoded("GET", query, key, None, _List)
            found += [view for view in page.data if view.created >= since]
            if not page.has_more or not page.last_id or page.data[-1].created < since:
                return found
            after = page.last_id

    async def results(self, key: Key, batch_id: str) -> AsyncIterator[ResultLine]:
        """Yield the results of an ended batch, in any order. Raise ApiError if they break off or are not results.

        A damaged line among others is skipped, so that it does not block all the other answers.
        """
        rest, sound = bytearray(), 0
        async with await self._open("GET", f"/{batch_id}/results", key, None) as answer:
            try:
                async for piece in answer.content.iter_any():
                    *lines, last = (rest + piece).split(b"\n")
                    rest = bytearray(last)
                    for line in lines:
                        if line.strip() and (decoded := _line(bytes(line), sound)) is not None:
                            sound += 1
                            yield decoded
                    if len(rest) > _MAX_LINE:
                        raise ApiError("api_error", f"a result of batch {batch_id} is longer than {_MAX_LINE} bytes")
            except (aiohttp.ClientError, TimeoutError) as error:
                raise connection_problem(error, "while the results were under way") from None
        if rest.strip() and (decoded := _line(bytes(rest), sound)) is not None:
            yield decoded

    async def _view(self, method: str, path: str, key: Key, body: bytes | None = None) -> MessageBatchView:
        view: MessageBatchView = await self._decoded(method, path, key, body, MessageBatchView)
        return view

    async def _decoded(self, method: str, path: str, key: Key, body: bytes | None, kind: Any) -> Any:
        async with await self._open(method, path, key, body) as answer:
            try:
                text = await answer.content.read(_MAX_VIEW) if answer.content_length is None else await answer.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise connection_problem(error, "while the answer was under way") from None
        return _decode(text, kind)

    async def _open(self, method: str, path: str, key: Key, body: bytes | None) -> aiohttp.ClientResponse:
        try:
            answer = await self._session.request(
                method,
                self._base + path,
                data=body,
                headers=_VERSION | {"x-api-key": key.reveal(), "accept-encoding": "identity"},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._counted(connection_problem(error, "before an answer came")) from None
        if answer.status == 200:
            return answer
        try:
            detail = await answer.content.read(_MAX_ERROR_BODY)
        except (aiohttp.ClientError, TimeoutError):
            detail = b""
        finally:
            answer.close()
        raise self._counted(problem_from_answer(answer.status, detail, headers=answer.headers))

    def _counted(self, problem: ApiError) -> ApiError:
        self._errors[problem.code] += 1
        return problem


def _decode(text: bytes, kind: Any) -> Any:
    try:
        return loose_json.decode_as(text, kind)
    except loose_json.REFUSED:
        raise ApiError("api_error", "the API sent something that is no Message Batch", retryable=True) from None


def _line(text: bytes, sound: int) -> ResultLine | None:
    """Decode one line of the results. Return None if it is damaged but `sound` good ones preceded it."""
    try:
        line: ResultLine = _decode(text, ResultLine)
    except ApiError:
        if not sound:
            raise
        log.warning("a result of a Message Batch is not of its form, and is left out: %d bytes", len(text))
        return None
    return line
