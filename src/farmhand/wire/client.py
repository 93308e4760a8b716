"""The client of the wire: HTTP/1.1 with keep-alive over any stream, one method per call of the agent's API.

Tasks, results and events are plain dicts, as in the JSON. Not thread-safe.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from types import TracebackType
from typing import Any, Self

from farmhand.core import keys
from farmhand.core.errors import WireError
from farmhand.wire import connection, message, schema
from farmhand.wire.transport import Stream, Transport

#: The agent sends a ping after 10 s of silence, so a connection without a byte for this long is dead.
SILENCE_S = 45.0
#: Limits on all events of one task (its text, its result, and pings), and on a page of ledger lines.
MAX_STREAM_BYTES = 4 * schema.MAX_BYTES
MAX_EVENTS = 500_000
#: Seconds from the end of the wait in `results`, at most 30 s, to the end of its answer.
_ANSWER_S = 60.0
#: Seconds to wait for the end of an answer whose contents have arrived.
_REST_S = 2.0
#: Characters that need no quoting in a path or a query.
_PLAIN = re.compile(r"[A-Za-z0-9._~-]*")


class Client:
    """Calls to one agent. The first call checks the agent's version before it sends a key or a prompt."""

    def __init__(self, transport: Transport, *, silence_s: float = SILENCE_S) -> None:
        self.transport = transport
        self.silence_s = silence_s
        self._stream: Stream | None = None
        self._http: connection.AgentConnection | None = None
        self._open_events = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        stream, self._stream, self._http, self._open_events = self._stream, None, None, False
        if stream is not None:
            stream.close()

    def status(self) -> dict[str, Any]:
        """Return `GET /v1/status`, without secrets, because it is displayed."""
        found: dict[str, Any] = keys.harmless(self._object("GET", "/v1/status", schema.StatusAnswer))
        return found

    def submit(self, tasks: list[dict[str, Any]], key: str | None = None) -> list[dict[str, Any]]:
        """Submit tasks, all or none, with the key if given, and return their ids and states. An id runs only once."""
        body = json.dumps({"tasks": tasks}, ensure_ascii=False, separators=(",", ":")).encode()
        answer = self._object("POST", "/v1/tasks", schema.StatesAnswer, body=body, key=key)
        states: list[dict[str, Any]] = answer["tasks"]
        return states

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the result of one task so far. Raise WireError `no_such_task`."""
        return self._task("GET", task_id)

    def tasks(self, *, batch: str = "", state: str = "", after: str = "", limit: int = 0) -> dict[str, Any]:
        """Return one page of results: `{"tasks": […], "next": id or null}`."""
        wanted = {"batch": batch, "state": state, "after": after, "limit": limit or ""}
        query = _query({name: value for name, value in wanted.items() if value != ""})
        path = "/v1/tasks" + (f"?{query}" if query else "")
        return self._object("GET", path, schema.TasksAnswer, most=schema.MAX_BYTES)

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Cancel a task and return its result, with the state `cancelled` or an earlier final state."""
        return self._task("DELETE", task_id)

    def cancel_many(self, ids: list[str]) -> dict[str, str]:
        """Cancel up to 1000 tasks (`POST /v1/tasks/cancel`). Return the state of each, `unknown` for unknown ids."""
        body = json.dumps({"ids": ids}, separators=(",", ":")).encode()
        states = self._object("POST", "/v1/tasks/cancel", schema.StatesAnswer, body=body)["tasks"]
        return {state["id"]: state["state"] for state in states}

    def put_batch(self, batch: str, *, max_usd: float | None, concurrency: int | None) -> dict[str, Any]:
        """Create a batch or change its limits. Return its limits and its progress."""
        body = json.dumps({"max_usd": max_usd, "concurrency": concurrency}).encode()
        found: dict[str, Any] = self._object("PUT", _batch_path(batch), schema.BatchAnswer, body=body)["batch"]
        return found

    def results(self, batch: str, after: int, *, limit: int = 1000, wait_s: float = 0) -> dict[str, Any]:
        """Return `GET /v1/results`: `{"results", "next", "unfinished", "waiting"}`. Wait `wait_s` (30) at most."""
        query = _query({"batch": batch, "after": after, "limit": limit, "wait_s": round(wait_s, 3)})
        return self._object("GET", f"/v1/results?{query}", schema.ResultsAnswer, most=schema.MAX_BYTES)

    def put_key(self, key: str, supersedes: str = "") -> dict[str, Any]:
        """Send or replace the key. Return `{"fingerprint", "tasks_resumed"}`.

        `supersedes` is the fingerprint of the key that this one replaces: tasks submitted with that key run with this
        one.
        """
        query = f"?{_query({'supersedes': supersedes})}" if supersedes else ""
        return self._object("PUT", f"/v1/key{query}", schema.KeyAnswer, body=b"", key=key)

    def forget_key(self, fingerprint: str) -> bool:
        """Make the agent forget a key; its running attempts continue. Return False if the agent did not have it."""
        return bool(self._object("DELETE", f"/v1/key/{_quoted(fingerprint)}", schema.KeyAnswer).get("forgotten"))

    def drain(self, mode: str) -> dict[str, Any]:
        """Take the agent out of service (`queue`, `running`) or put it back (`off`); see farmhand.plugins.drain."""
        return self._object("PUT", "/v1/drain", schema.StatusAnswer, body=json.dumps({"mode": mode}).encode())

    def usage(self, since: float = 0) -> dict[str, Any]:
        """Return `GET /v1/usage`: totals since a Unix time, by default of everything."""
        return self._object("GET", "/v1/usage" + (f"?{_query({'since': since})}" if since else ""), dict)

    def charges(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """Yield up to `limit` lines of `GET /v1/charges`: one unparsed JSON object per charge after number `after`."""
        return self._ndjson(f"/v1/charges?{_query({'after': after, 'limit': limit})}", limit)

    def finished(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """Yield the lines of `GET /v1/finished`: like `charges`, for finished tasks."""
        return self._ndjson(f"/v1/finished?{_query({'after': after, 'limit': limit})}", limit)

    def _ndjson(self, path: str, limit: int) -> Iterator[bytes]:
        """Yield the lines of an answer. Raise WireError `lost` if it breaks off, `bad_answer` for too many lines."""
        response = self._request("GET", path)
        if response.status != 200:
            self._finish(response)
            raise WireError("agent_error", f"{self.transport.name}: no lines", status=response.status)
        message.check_wire(response.headers, self.transport.name)
        self._open_events = True
        try:
            lines = self._lines(response, schema.MAX_LINE_BYTES, MAX_STREAM_BYTES)
            for number, line in enumerate(lines, start=1):
                if number > limit:
                    raise message.bad_answer(self.transport.name, f"more than the {limit} lines that were asked for")
                yield line
        finally:
            self._open_events = False
            if response.will_close or not response.isclosed():
                self.close()

    def events(self, task_id: str, *, pings: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the events of a task; the last one is the result. Pings are left out unless requested.

        Raise WireError `lost` if the connection breaks before the result.
        """
        response = self._request("GET", _task_path(task_id) + "/events")
        if response.status != 200:
            self._finish(response)
            raise WireError("agent_error", f"{self.transport.name}: no events", status=response.status)
        message.check_wire(response.headers, self.transport.name)
        self._open_events = True
        result: dict[str, Any] | None = None
        try:
            for number, line in enumerate(self._lines(response, schema.MAX_BYTES, MAX_STREAM_BYTES)):
                if number >= MAX_EVENTS:
                    raise message.bad_answer(self.transport.name, f"more than {MAX_EVENTS} events of one task")
                event = message.decoded(line, self.transport.name, schema.TaskEvent, schema.MAX_BYTES)
                if event.get("type") == "result":
                    # The result is the last event of interest; a broken end of the stream loses nothing.
                    self._check_id(event.get("result"), task_id)
                    result = event
                    break
                if pings or event.get("type") != "ping":
                    yield event
        finally:
            self._open_events = False
            if result is not None:
                self._read_out(response)
            if not response.isclosed():
                self.close()
        if result is None:
            raise self._lost()
        yield result

    def _read_out(self, response: connection.AgentResponse) -> None:
        """Read the rest of an answer if it ends soon, so that the connection can be reused."""
        with contextlib.suppress(HTTPException, OSError):
            response.allow(0)
            if self._http is not None:
                self._http.patience(_REST_S, _REST_S)
            for _ in range(16):
                if response.isclosed() or not response.read1():
                    return

    def _lines(self, response: connection.AgentResponse, longest: int, most: int) -> Iterator[bytes]:
        """Yield the lines of a body: at most `longest` bytes each, `most` bytes in all, no unfinished last line."""
        response.allow(most)
        pending, searched, came = bytearray(), 0, 0
        while True:
            try:
                piece = response.read1(65536)
            except (HTTPException, OSError) as error:
                raise self._broken(error, answered=True) from None
            if not piece:
                break
            pending += piece
            came += len(piece)
            if (end := pending.rfind(b"\n", searched) + 1) > 0:
                lines = bytes(pending[:end]).split(b"\n")
                del pending[:end]
                self._patience(self.silence_s)
                yield from filter(None, lines)
            searched = len(pending)
            if searched > longest or came > most:
                raise message.bad_answer(self.transport.name, f"a line or an answer of more than {longest} bytes")

    def _task(self, method: str, task_id: str) -> dict[str, Any]:
        path = _task_path(task_id)
        found: dict[str, Any] = self._object(method, path, schema.TaskAnswer, most=schema.MAX_BYTES)["task"]
        self._check_id(found, task_id)
        return found

    def _check_id(self, result: dict[str, Any] | None, task_id: str) -> None:
        """Raise WireError `bad_answer` if the result belongs to another task."""
        if result is not None and result.get("id") != task_id:
            what = f"a result of the task {str(result.get('id'))!r:.70}, not of {task_id!r}"
            raise message.bad_answer(self.transport.name, what)

    def _object(
        self,
        method: str,
        path: str,
        kind: Any,
        *,
        body: bytes | None = None,
        key: str | None = None,
        most: int = schema.MAX_SMALL_BYTES,
    ) -> dict[str, Any]:
        """Send a request and return the object that answers it, checked to have the fields of `kind`."""
        return self._finish(self._request(method, path, body=body, key=key), kind, most)

    def _finish(
        self, response: connection.AgentResponse, kind: Any = Any, most: int = schema.MAX_SMALL_BYTES
    ) -> dict[str, Any]:
        try:
            body = response.read_all(most)
        except (HTTPException, OSError) as error:
            raise self._broken(error, answered=True) from None
        if response.will_close:
            self.close()
        answer: dict[str, Any] = message.answer(
            response.status, response.headers, body, self.transport.name, kind, most
        )
        return answer

    def connect(self) -> None:
        """Open a connection unless one is open, and request the status before any key or prompt is sent."""
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
        self._http = connection.AgentConnection(self._stream.sock)
        limit = self.transport.connect_timeout_s
        self._http.patience(limit, limit)
        self._finish(
            self._exchange("GET", "/v1/status", None, message.request_headers(), answered=False), schema.StatusAnswer
        )
        if self._stream is None:
            raise WireError("not_an_agent", f"{self.transport.name}: the agent does not keep the connection open")

    def _request(
        self, method: str, path: str, *, body: bytes | None = None, key: str | None = None
    ) -> connection.AgentResponse:
        """Send a request and read the head of its answer, on the open connection or a new one."""
        headers = message.request_headers(key)
        self.connect()
        # The limit on sending covers the whole body, so a long body on a slow connection gets more time.
        self._patience(self.silence_s + len(body or b"") / connection.SLOWEST_BYTES_PER_S)
        response = self._exchange(method, path, body, headers, answered=True)
        self._patience(self.silence_s)
        return response

    def _patience(self, silence_s: float) -> None:
        if self._http is not None:
            self._http.patience(silence_s, max(silence_s, _ANSWER_S))

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], *, answered: bool
    ) -> connection.AgentResponse:
        if self._http is None:
            raise self._lost()
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        try:
            # An agent that refuses a body may close before all of it is sent; its answer can still be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._http.request(method, path, body, headers)
            return self._http.getresponse()
        except (HTTPException, OSError) as error:
            raise self._broken(error, answered=answered) from None

    def _broken(self, error: Exception, *, answered: bool) -> WireError:
        """Close the connection and return the error: the transport's reason if there is one, else a general one."""
        name = self.transport.name
        timed_out = isinstance(error, TimeoutError | connection.Endless)
        reason = None if self._stream is None or timed_out else self._stream.failure()
        self.close()
        if reason is not None:
            return reason
        if answered and isinstance(error, HTTPException) and not isinstance(error, IncompleteRead | RemoteDisconnected):
            return message.bad_answer(name, str(error))
        if answered:
            return self._lost()
        if timed_out:
            limit = f"{self.transport.connect_timeout_s:g} s"
            return WireError(
                "unreachable", f"{name}: no answer within {limit}", "check that the host and its agent are up"
            )
        if isinstance(error, HTTPException) and not isinstance(error, RemoteDisconnected):
            return WireError("not_an_agent", f"{name}: what answers there is not a jada-agent", "check hosts.json")
        return WireError(
            "unreachable", f"{name}: the connection closed without an answer", "see jada-agent's journal there"
        )

    def _lost(self) -> WireError:
        return WireError("lost", f"{self.transport.name}: the connection was lost", "the task goes on there")


def _task_path(task_id: str) -> str:
    return "/v1/tasks/" + _quoted(task_id)


def _quoted(text: str) -> str:
    """Return `text` quoted for a path or a query. Most text needs no quoting, and then urllib is not imported."""
    if _PLAIN.fullmatch(text):
        return text
    from urllib.parse import quote

    return quote(text, safe="")


def _query(fields: dict[str, Any]) -> str:
    return "&".join(f"{name}={_quoted(str(value))}" for name, value in fields.items())


def _batch_path(batch: str) -> str:
    return "/v1/batches/" + _quoted(batch)
