"""The client of the wire: HTTP/1.1 with keep-alive over any stream, one method per call of the agent's API.

Tasks, results and events are plain dicts, as in the JSON. Not thread-safe.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from farmhand.core import keys
from farmhand.core.errors import WireError
from farmhand.wire import connection, message, schema
from farmhand.wire.decode import MAX_BYTES, MAX_LINE_BYTES, MAX_SMALL_BYTES
from farmhand.wire.transport import Stream, Transport

if TYPE_CHECKING:
    from pathlib import Path

#: The agent sends a ping after 10 s of silence, so a connection without a byte for this long is dead.
SILENCE_S = 45.0
#: Limits on all events of one task (its text, its result, and pings), and on a page of ledger lines.
MAX_STREAM_BYTES = 4 * MAX_BYTES
MAX_EVENTS = 500_000
#: Seconds from the end of the wait in `results`, at most 30 s, to the end of its answer.
_ANSWER_S = 60.0
#: Seconds to wait for the end of an answer whose contents have arrived.
_REST_S = 2.0


class Client:
    """Calls to one agent. The first call checks the agent's version before it sends a key or a prompt."""

    def __init__(self, transport: Transport, *, silence_s: float = SILENCE_S) -> None:
        self.transport = transport
        self.silence_s = silence_s
        self._stream: Stream | None = None
        self._http: connection.AgentConnection | None = None
        self._streaming = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        stream, self._stream, self._http, self._streaming = self._stream, None, None, False
        if stream is not None:
            stream.close()

    def status(self) -> dict[str, Any]:
        """Return `GET /v1/status`, without secrets, because it is displayed."""
        return dict(keys.harmless(self._call("GET", "/v1/status", schema.StatusAnswer)))

    def submit(self, tasks: list[dict[str, Any]], key: keys.Credential | None = None) -> list[dict[str, Any]]:
        """Submit tasks, all or none, with the key if given, and return their ids and states. An id runs only once.

        The keys of pots are brought before.
        """
        body = {"tasks": tasks}
        try:
            return list(
                self._call("POST", "/v1/tasks", schema.StatesAnswer, body=body, key=self._without_pots(key))["tasks"]
            )
        except WireError as error:
            # A field that came after that agent, such as `files`. Tasks without one still run there.
            if error.code == "invalid_task" and "unknown field" in error.message:
                said = f"{self.transport.name}: its agent is too old for this task: {error.message}"
                raise WireError("agent_too_old", said, "upgrade the farm host: farmhand up", error.status) from None
            raise

    def check(self, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return ids and states of the tasks that `submit` would find. Raise what it would; nothing is submitted."""
        return list(self._call("POST", "/v1/tasks/check", schema.StatesAnswer, body={"tasks": tasks})["tasks"])

    def count(self, tasks: list[dict[str, Any]], key: str | None = None) -> list[dict[str, Any]]:
        """Return the tokens of tasks as the API counts them, which is free; nothing is submitted. Raise WireError."""
        body = {"tasks": tasks}
        try:
            return list(self._call("POST", "/v1/tasks/count", schema.CountAnswer, body=body, key=key)["tasks"])
        except WireError as error:
            if error.code != "no_such_route":
                raise
            said = f"{self.transport.name}: its agent is too old to count tokens"
            raise WireError("agent_too_old", said, "upgrade the farm host: farmhand up", error.status) from None

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the result of one task so far. Raise WireError `no_such_task`."""
        return self._task("GET", task_id)

    def tasks(self, *, batch: str = "", state: str = "", after: str = "", limit: int = 0) -> dict[str, Any]:
        """Return one page of results: `{"tasks": […], "next": id or null}`."""
        path = message.path_of("tasks", batch=batch, state=state, after=after, limit=limit or "")
        return self._call("GET", path, schema.TasksAnswer, most=MAX_BYTES)

    def history(self, **query: Any) -> dict[str, Any]:
        """Return `GET /v1/history`: tasks by the beginning of their `id`, or a page `after` a number.

        `newest` is how many of the last finished tasks are of interest.
        """
        return self._call("GET", message.path_of("history", **query), schema.HistoryAnswer, most=MAX_BYTES)

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Cancel a task and return its result, with the state `cancelled` or an earlier final state."""
        return self._task("DELETE", task_id)

    def cancel_many(self, ids: list[str]) -> dict[str, str]:
        """Cancel up to 1000 tasks (`POST /v1/tasks/cancel`). Return the state of each, `unknown` for unknown ids."""
        states = self._call("POST", "/v1/tasks/cancel", schema.StatesAnswer, body={"ids": ids})["tasks"]
        return {state["id"]: state["state"] for state in states}

    def put_batch(self, batch: str, *, max_usd: float | None, concurrency: int | None) -> dict[str, Any]:
        """Create a batch or change its limits. Return its limits and its progress."""
        limits = {"max_usd": max_usd, "concurrency": concurrency}
        return dict(self._call("PUT", message.path_of("batches", batch), schema.BatchAnswer, body=limits)["batch"])

    def results(self, batch: str, after: int, *, limit: int = 1000, wait_s: float = 0) -> dict[str, Any]:
        """Return `GET /v1/results`: `{"results", "next", "unfinished", "waiting"}`. Wait `wait_s` (30) at most."""
        path = message.path_of("results", batch=batch, after=after, limit=limit, wait_s=round(wait_s, 3))
        return self._call("GET", path, schema.ResultsAnswer, most=MAX_BYTES)

    def put_bundle(self, task_id: str, bundle: Path) -> int:
        """Upload the bundle of a repository task, before the task. Return its size."""
        with bundle.open("rb") as file:
            answer = self._finish(self.request("PUT", message.path_of("files", task_id), file), schema.FileAnswer)
        return int(answer["bytes"])

    def get_file(self, task_id: str, name: str, target: IO[bytes], most: int) -> bool:
        """Write a file that a task has left to `target`; False: there is none. Raise WireError, and its own errors."""
        response = self.request("GET", message.path_of("files", task_id, name))
        if response.status != 200:
            try:
                self._finish(response)
            except WireError as error:
                if error.code == "no_such_file":
                    return False
                raise
        response.allow(most)
        while True:
            try:
                piece = response.read1()
            except (HTTPException, OSError) as error:
                raise self._broken(error, answered=True) from None
            if not piece:
                break
            most -= len(piece)
            if most < 0:
                raise message.bad_answer(self.transport.name, f"a file {name} that is too long")
            target.write(piece)
        if response.will_close:
            self.close()
        return True

    def put_key(
        self,
        key: keys.Credential,
        supersedes: str = "",
        renews: str = "",
        pot: str = "",
        funding: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send or replace the key, or that of the pot, with its funding if given. Return the answer to the last one.

        Tasks submitted with the key whose fingerprint is `supersedes` run with this one. A bearer token takes the place
        of the one that was first sent with the fingerprint `renews`, in running tasks too.
        """
        if not isinstance(key, str):
            for each in key:
                answer = self.put_key(each["key"], pot=each["name"], funding=each.get("funding"))
            return answer
        path = message.path_of("key", supersedes=supersedes, renews=renews, pot=pot)
        return self._call("PUT", path, schema.KeyAnswer, key=key, body=funding)

    def _without_pots(self, key: keys.Credential | None) -> str | None:
        """Bring the keys of pots, if that is what `key` is. Return the key of a farm without pots."""
        if key is None or isinstance(key, str):
            return key
        self.put_key(key)
        return None

    def forget_key(self, fingerprint: str) -> bool:
        """Make the agent forget a key; its running attempts continue. Return False if the agent did not have it."""
        return bool(self._call("DELETE", message.path_of("key", fingerprint), schema.KeyAnswer).get("forgotten"))

    def drain(self, mode: str) -> dict[str, Any]:
        """Take the agent out of service (`queue`, `running`) or put it back (`off`); see farmhand.plugins.drain."""
        return self._call("PUT", "/v1/drain", schema.StatusAnswer, body={"mode": mode})

    def charges(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """Yield up to `limit` lines of `GET /v1/charges`: one unparsed JSON object per charge after number `after`."""
        return self._ledger_lines("charges", after, limit)

    def charges_of(self, task_id: str) -> Iterator[bytes]:
        """Yield the first 10,000 charges of a task, as `charges` does."""
        return self._ledger_lines("charges", 0, 10_000, task=task_id)

    def finished(self, after: int = 0, limit: int = 10000) -> Iterator[bytes]:
        """Yield the lines of `GET /v1/finished`: like `charges`, for finished tasks."""
        return self._ledger_lines("finished", after, limit)

    def _ledger_lines(self, what: str, after: int, limit: int, **query: str) -> Iterator[bytes]:
        """Yield the lines of an answer. Raise WireError `lost` if it breaks off, `bad_answer` for too many lines."""
        with self._stream_of(message.path_of(what, after=after, limit=limit, **query), "lines") as response:
            for number, line in enumerate(self._lines(response, MAX_LINE_BYTES), start=1):
                if number > limit:
                    raise message.bad_answer(self.transport.name, f"more than the {limit} lines that were asked for")
                yield line

    def events(self, task_id: str, *, pings: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the events of a task; the last one is the result. Pings are left out unless requested.

        Raise WireError `lost` if the connection breaks before the result.
        """
        with self._stream_of(message.path_of("tasks", task_id, "events"), "events") as response:
            for number, line in enumerate(self._lines(response, MAX_BYTES)):
                if number >= MAX_EVENTS:
                    raise message.bad_answer(self.transport.name, f"more than {MAX_EVENTS} events of one task")
                event = message.decoded(line, self.transport.name, schema.TaskEvent, MAX_BYTES)
                if event.get("type") == "result":
                    # The result is the last event of interest; a broken end of the stream loses nothing.
                    self._check_id(event.get("result"), task_id)
                    self._read_out(response)
                    break
                if pings or event.get("type") != "ping":
                    yield event
            else:
                raise self._lost()
        yield event

    @contextlib.contextmanager
    def _stream_of(self, path: str, what: str) -> Iterator[connection.AgentResponse]:
        """Request an answer of lines. The connection is closed afterwards unless the answer was read to its end."""
        response = self.request("GET", path)
        if response.status != 200:
            self._finish(response)
            raise WireError("agent_error", f"{self.transport.name}: no {what}", status=response.status)
        message.check_wire(response.headers, self.transport.name)
        self._streaming = True
        try:
            yield response
        finally:
            self._streaming = False
            if response.will_close or not response.isclosed():
                self.close()

    def _read_out(self, response: connection.AgentResponse) -> None:
        """Read the rest of an answer if it ends soon, so that the connection can be reused."""
        with contextlib.suppress(HTTPException, OSError):
            response.allow(0)
            if self._http is not None:
                self._http.patience(_REST_S, _REST_S)
            for _ in range(16):
                if response.isclosed() or not response.read1():
                    return

    def _lines(self, response: connection.AgentResponse, longest: int) -> Iterator[bytes]:
        """Yield the lines of a body, at most `longest` bytes each. An unfinished last line is left out."""
        response.allow(MAX_STREAM_BYTES)
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
            if searched > longest or came > MAX_STREAM_BYTES:
                raise message.bad_answer(self.transport.name, f"a line or an answer of more than {longest} bytes")

    def _task(self, method: str, task_id: str) -> dict[str, Any]:
        answer = self._call(method, message.path_of("tasks", task_id), schema.TaskAnswer, most=MAX_BYTES)
        self._check_id(answer["task"], task_id)
        return dict(answer["task"])

    def _check_id(self, result: dict[str, Any] | None, task_id: str) -> None:
        """Raise WireError `bad_answer` if the result belongs to another task."""
        if result is not None and result.get("id") != task_id:
            what = f"a result of the task {str(result.get('id'))!r:.70}, not of {task_id!r}"
            raise message.bad_answer(self.transport.name, what)

    def _call(
        self,
        method: str,
        path: str,
        kind: Any,
        *,
        body: dict[str, Any] | None = None,
        key: str | None = None,
        most: int = MAX_SMALL_BYTES,
    ) -> dict[str, Any]:
        """Send a request and return the object that answers it, checked to have the fields of `kind`."""
        data = b"" if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return self._finish(self.request(method, path, data, key), kind, most)

    def _finish(
        self, response: connection.AgentResponse, kind: Any = Any, most: int = MAX_SMALL_BYTES
    ) -> dict[str, Any]:
        """Read an answer to its end and return its object."""
        try:
            body = response.read_all(most)
        except (HTTPException, OSError) as error:
            raise self._broken(error, answered=True) from None
        if response.will_close:
            self.close()
        return message.answer(response.status, response.headers, body, self.transport.name, kind, most)

    def connect(self) -> None:
        """Open a connection unless one is open, and request the status before any key or prompt is sent."""
        if self._http is not None and not self._streaming:
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
        response = self._exchange("GET", "/v1/status", b"", message.request_headers(), answered=False)
        self._finish(response, schema.StatusAnswer)
        if self._stream is None:
            raise WireError("not_an_agent", f"{self.transport.name}: the agent does not keep the connection open")

    def request(
        self, method: str, path: str, body: bytes | IO[bytes] = b"", key: str | None = None
    ) -> connection.AgentResponse:
        """Send a request and read the head of its answer, on the open connection or a new one."""
        headers = message.request_headers(key)
        self.connect()
        # The limit on sending covers the whole body, so a long body on a slow connection gets more time.
        size = len(body) if isinstance(body, bytes) else os.fstat(body.fileno()).st_size
        self._patience(self.silence_s + size / connection.SLOWEST_BYTES_PER_S)
        response = self._exchange(method, path, body, headers, answered=True)
        self._patience(self.silence_s)
        return response

    def _patience(self, silence_s: float) -> None:
        if self._http is not None:
            self._http.patience(silence_s, max(silence_s, _ANSWER_S))

    def _exchange(
        self, method: str, path: str, body: bytes | IO[bytes], headers: dict[str, str], *, answered: bool
    ) -> connection.AgentResponse:
        if self._http is None:
            raise self._lost()
        if isinstance(body, bytes) and body:
            headers = {**headers, "Content-Type": "application/json"}
        elif body:
            headers = {**headers, "Content-Length": str(os.fstat(body.fileno()).st_size)}
        try:
            # An agent that refuses a body may close before all of it is sent; its answer can still be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._http.request(method, path, body or None, headers)
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
            what = f"no answer within {self.transport.connect_timeout_s:g} s"
            return WireError("unreachable", f"{name}: {what}", "check that the host and its agent are up")
        if isinstance(error, HTTPException) and not isinstance(error, RemoteDisconnected):
            return WireError("not_an_agent", f"{name}: what answers there is not a jada-agent", "check hosts.json")
        hint = "see jada-agent's journal there"
        return WireError("unreachable", f"{name}: the connection closed without an answer", hint)

    def _lost(self) -> WireError:
        return WireError("lost", f"{self.transport.name}: the connection was lost", "the task goes on there")
