"""The client of the wire: HTTP/1.1 with keep-alive over any stream, one method per call of the agent's API.

Tasks, results and events are plain dicts as they stand in JSON. Not for use from several threads at once.
"""

from __future__ import annotations

import contextlib
import json
import re

from . import http1, message
from .errors import WireError

TYPE_CHECKING = False  # as in http1
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, Self

    from .transport import Stream, Transport

#: The agent sends a ping every 10 s of silence, so this long without a byte means that the line is dead.
SILENCE_S = 45.0
#: Nothing the agent sends as one event is longer: a result's text is far below.
MAX_EVENT_BYTES = 64 * 1024 * 1024
_SLOWEST_BYTES_PER_S = 16 * 1024
#: What stands in a path or a query as it is.
_PLAIN = re.compile(r"[A-Za-z0-9._~-]*")


class Client:
    """Calls to one agent. The first also checks that an agent of our version is there, before a key or prompt goes."""

    def __init__(self, transport: Transport, *, silence_s: float = SILENCE_S) -> None:
        self.transport = transport
        self.silence_s = silence_s
        self._stream: Stream | None = None
        self._http: http1.Connection | None = None
        self._open_events = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection. The next call opens a new one."""
        stream, self._stream, self._http, self._open_events = self._stream, None, None, False
        if stream is not None:
            stream.close()

    def status(self) -> dict[str, Any]:
        """`GET /v1/status`."""
        return self._call("GET", "/v1/status")

    def submit(self, tasks: list[dict[str, Any]], key: str | None = None) -> list[dict[str, Any]]:
        """Hand over tasks, all or none, with the key if given: their ids and states. The same id again runs once."""
        body = json.dumps({"tasks": tasks}, ensure_ascii=False, separators=(",", ":")).encode()
        return _list(self._call("POST", "/v1/tasks", body=body, key=key), "tasks")

    def task(self, task_id: str) -> dict[str, Any]:
        """The result of one task, as far as it is. Raises WireError `no_such_task`."""
        return _dict(self._call("GET", _task_path(task_id)), "task")

    def tasks(self, *, batch: str = "", state: str = "", after: str = "", limit: int = 0) -> dict[str, Any]:
        """One page of results: `{"tasks": […], "next": id or null}`."""
        wanted = {"batch": batch, "state": state, "after": after, "limit": limit or ""}
        query = _query({name: value for name, value in wanted.items() if value != ""})
        return self._call("GET", "/v1/tasks" + (f"?{query}" if query else ""))

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Stop a task: its result, which says `cancelled` or what it already was."""
        return _dict(self._call("DELETE", _task_path(task_id)), "task")

    def cancel_many(self, ids: list[str]) -> dict[str, str]:
        """`POST /v1/tasks/cancel`: the state of each, `unknown` for one that the agent does not have; 1000 at most."""
        body = json.dumps({"ids": ids}, separators=(",", ":")).encode()
        states = _list(self._call("POST", "/v1/tasks/cancel", body=body), "tasks")
        return {str(state.get("id")): str(state.get("state")) for state in states}

    def put_batch(self, batch: str, *, max_usd: float | None, concurrency: int | None) -> dict[str, Any]:
        """Make a batch known, or change its limits: what it is and has done."""
        body = json.dumps({"max_usd": max_usd, "concurrency": concurrency}).encode()
        return _dict(self._call("PUT", _batch_path(batch), body=body), "batch")

    def results(self, batch: str, after: int, *, limit: int = 1000, wait_s: float = 0) -> dict[str, Any]:
        """`GET /v1/results`: `{"results", "next", "unfinished", "waiting"}`, waiting up to `wait_s` (30 at most)."""
        query = _query({"batch": batch, "after": after, "limit": limit, "wait_s": round(wait_s, 3)})
        answer = self._call("GET", f"/v1/results?{query}")
        _list(answer, "results")
        return answer

    def put_key(self, key: str, supersedes: str = "") -> dict[str, Any]:
        """Hand over or replace the key: `{"fingerprint", "tasks_resumed"}`.

        `supersedes` is the fingerprint of the key whose place it takes: whoever brings that one runs on this one.
        """
        query = f"?{_query({'supersedes': supersedes})}" if supersedes else ""
        return self._call("PUT", f"/v1/key{query}", body=b"", key=key)

    def forget_key(self, fingerprint: str) -> bool:
        """Have the agent drop a key from its memory; attempts on it go on. False: it was not there."""
        return bool(self._call("DELETE", f"/v1/key/{_quoted(fingerprint)}").get("forgotten"))

    def drain(self, mode: str) -> dict[str, Any]:
        """Out of service (`queue`, `running`) and back into it (`off`); see farmhand.wire.drain."""
        return self._call("PUT", "/v1/drain", body=json.dumps({"mode": mode}).encode())

    def usage(self, since: float = 0) -> dict[str, Any]:
        """`GET /v1/usage`: totals since a Unix time, of everything by default."""
        return self._call("GET", "/v1/usage" + (f"?{_query({'since': since})}" if since else ""))

    def charges(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """`GET /v1/charges`: up to `limit` lines, one JSON object as it came for each charge behind number `after`."""
        return self._ndjson(f"/v1/charges?{_query({'after': after, 'limit': limit})}")

    def finished(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """`GET /v1/finished`: the same for finished tasks."""
        return self._ndjson(f"/v1/finished?{_query({'after': after, 'limit': limit})}")

    def _ndjson(self, path: str) -> Iterator[bytes]:
        """The lines of an answer as they come; WireError `lost` where it breaks off."""
        response = self._request("GET", path)
        if response.status != 200:
            self._finish(response)
            raise WireError("agent_error", f"{self.transport.name}: no lines", status=response.status)
        message.check_wire(response.headers, self.transport.name)
        self._open_events = True
        try:
            yield from self._lines(response)
        finally:
            self._open_events = False
            if response.will_close or not response.isclosed():
                self.close()

    def events(self, task_id: str) -> Iterator[dict[str, Any]]:
        """The events of a task as they come, the last one being the result. Pings are left out.

        Raises WireError `lost` if the line breaks before the result.
        """
        response = self._request("GET", _task_path(task_id) + "/events")
        if response.status != 200:
            self._finish(response)
            raise WireError("agent_error", f"{self.transport.name}: no events", status=response.status)
        message.check_wire(response.headers, self.transport.name)
        self._open_events = True
        result: dict[str, Any] | None = None
        try:
            for line in self._lines(response):
                event = _event(line, self.transport.name)
                if event.get("type") == "result":
                    result = event
                elif event.get("type") != "ping":
                    yield event
        except WireError:
            # The result is all that matters; a line that breaks after it loses nothing.
            if result is None:
                raise
        finally:
            self._open_events = False
            if not response.isclosed():
                self.close()
        if result is None:
            raise self._lost()
        yield result

    def _lines(self, response: http1.Response) -> Iterator[bytes]:
        pending = b""
        while True:
            try:
                piece = response.read1(65536)
            except (http1.HttpError, OSError, ValueError) as error:
                raise self._broken(error, answered=True) from None
            if not piece:
                break
            pending += piece
            if len(pending) > MAX_EVENT_BYTES:
                raise WireError(
                    "agent_error", f"{self.transport.name}: an event is longer than {MAX_EVENT_BYTES} bytes"
                )
            *lines, pending = pending.split(b"\n")
            yield from filter(None, lines)

    def _call(self, method: str, path: str, *, body: bytes | None = None, key: str | None = None) -> dict[str, Any]:
        return self._finish(self._request(method, path, body=body, key=key))

    def _finish(self, response: http1.Response) -> dict[str, Any]:
        try:
            body = response.read(message.MAX_ANSWER_BYTES)
        except (http1.HttpError, OSError) as error:
            raise self._broken(error, answered=True) from None
        if response.will_close:
            self.close()
        return message.answer(response.status, response.headers, body, self.transport.name)

    def connect(self) -> None:
        """Open a stream, unless one is open, and ask for the status: no key and no prompt goes before an answer."""
        if self._http is not None and not self._open_events:
            return
        self.close()
        try:
            self._greet()
        except WireError as error:
            if error.code != "unreachable" or not self.transport.renew():
                raise
            self._greet()

    def _greet(self) -> None:
        self._stream = self.transport.open()
        self._http = http1.Connection(self._stream.sock)
        self._stream.sock.settimeout(self.transport.connect_timeout_s)
        self._finish(self._exchange("GET", "/v1/status", None, message.request_headers(), answered=False))
        if self._stream is None:
            raise WireError("not_an_agent", f"{self.transport.name}: the agent does not keep the connection open")

    def _request(self, method: str, path: str, *, body: bytes | None = None, key: str | None = None) -> http1.Response:
        """Send a request and read the head of its answer, on the connection that is open or a new one."""
        headers = message.request_headers(key)
        self.connect()
        # The limit on sending counts for the whole of the body, so a long one on a slow line gets more.
        self._patience(self.silence_s + len(body or b"") / _SLOWEST_BYTES_PER_S)
        response = self._exchange(method, path, body, headers, answered=True)
        self._patience(self.silence_s)
        return response

    def _patience(self, seconds: float) -> None:
        if self._stream is not None:
            self._stream.sock.settimeout(seconds)

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], *, answered: bool
    ) -> http1.Response:
        if self._http is None:
            raise self._lost()
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        try:
            # An agent that refuses a body may close before all of it is sent; its answer is there to be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._http.request(method, path, body, headers)
            return self._http.getresponse()
        except (http1.HttpError, OSError) as error:
            raise self._broken(error, answered=answered) from None

    def _broken(self, error: Exception, *, answered: bool) -> WireError:
        """Close, and say why: in the transport's words if it has some, else in ours."""
        name = self.transport.name
        timed_out = isinstance(error, TimeoutError)
        reason = None if self._stream is None or timed_out else self._stream.failure()
        self.close()
        if reason is not None:
            return reason
        if answered:
            return self._lost()
        if timed_out:
            limit = f"{self.transport.connect_timeout_s:g} s"
            return WireError(
                "unreachable", f"{name}: no answer within {limit}", "check that the host and its agent are up"
            )
        if isinstance(error, http1.HttpError) and not isinstance(error, http1.NoAnswer):
            return WireError("not_an_agent", f"{name}: what answers there is not a jada-agent", "check hosts.json")
        return WireError(
            "unreachable", f"{name}: the connection closed without an answer", "see jada-agent's journal there"
        )

    def _lost(self) -> WireError:
        return WireError("lost", f"{self.transport.name}: the connection was lost", "the task goes on there")


def _task_path(task_id: str) -> str:
    return "/v1/tasks/" + _quoted(task_id)


def _quoted(text: str) -> str:
    """`text` as a piece of a path or a query. What needs no quoting, as most does not, needs no urllib either."""
    if _PLAIN.fullmatch(text):
        return text
    from urllib.parse import quote

    return quote(text, safe="")


def _query(fields: dict[str, Any]) -> str:
    return "&".join(f"{name}={_quoted(str(value))}" for name, value in fields.items())


def _batch_path(batch: str) -> str:
    return "/v1/batches/" + _quoted(batch)


def _event(line: bytes, name: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise WireError("agent_error", f"{name}: an event of the agent is not a JSON object")
    return event


def _dict(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if not isinstance(value, dict):
        raise WireError("agent_error", f"the agent's answer has no object {name!r}")
    return value


def _list(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise WireError("agent_error", f"the agent's answer has no list {name!r}")
    return value
