"""Farm hosts in memory behind the transport: an honest agent, and some that answer as no agent does, byte for byte."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from farmhand.wire.transport import Stream
from tests.unit.wire.scripted import read_request

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "wire": 1,
    "state": "running",
    "running": 1,
    "queued": 0,
    "awaiting_key": 0,
    "slots": {"api": {"free": 31, "total": 32}, "cli": {"free": 2, "total": 2}},
    "key": "a1b2c3d4e5f6",
    "upstream": "https://api.anthropic.com",
    "throughput": {"per_s": 1.5},
    "waiting": [],
    "keys": [],
    "budget_day": None,
    "cli": "2.1.330",
}
HEAD = b"HTTP/1.1 200 OK\r\nX-Farmhand-Wire: 1\r\nX-Farmhand-Agent: 0.1.0\r\n"
#: What an agent answers a request with: bytes, one piece after the other.
Pieces = Iterable[bytes]


def whole(body: Any, head: bytes = HEAD) -> bytes:
    """An answer with a body, which is made JSON if it is not bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head + b"Content-Length: %d\r\n\r\n" % len(data) + data


def refusal(status: int, body: Any) -> bytes:
    """An answer that is an error."""
    return whole(body, b"HTTP/1.1 %d X\r\nX-Farmhand-Wire: 1\r\n" % status)


class Agent:
    """An honest agent: it has whatever task it is given, and its answer is `hello`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: list[str] = []

    def result(self, task_id: str) -> dict[str, Any]:
        return {"id": task_id, "state": "succeeded", "text": "hello", "cost_usd": 0.001, "error": None, "queued_s": 0}

    def status(self) -> dict[str, Any]:
        return {**STATUS, "time": time.time(), "ledger": {"id": f"ledger-{self.name}", "tasks": 1}}

    def charge(self, no: int = 1) -> dict[str, Any]:
        return {
            "charge_id": no,
            "model": "claude-haiku-5-5",
            "engine": "api",
            "created_at": time.time() - 60,
            "input_tokens": 10,
            "output_tokens": 5,
            "cost_usd": 0.001,
        }

    def past(self, **fields: Any) -> dict[str, Any]:
        at = time.time() - 60
        times = {"created_at": at, "started_at": at, "finished_at": at + 1}
        task = {**self.result(f"of-{self.name}"), **times, "content": "kept", "spec": {"prompt": "hi"}, **fields}
        kept = {"ledger": f"ledger-{self.name}", "kept_since": 0, "retention_days": 30, "history_days": 400}
        return {"tasks": [task], "unfinished": [], "next": 1, "more": False, **kept}

    def answer(self, method: str, path: str, body: bytes) -> Pieces:
        """What goes back."""
        path, _, query = path.partition("?")
        if path == "/v1/history":
            return [whole(self.past())]
        if (method, path) == ("POST", "/v1/tasks"):
            ids = [task["id"] for task in json.loads(body)["tasks"]]
            self.tasks += ids
            return [whole({"tasks": [{"id": task_id, "state": "queued"} for task_id in ids]})]
        if path.startswith("/v1/tasks/"):
            task_id = path.split("/")[3]
            if task_id not in self.tasks:
                return [refusal(404, {"error": {"code": "no_such_task", "message": "no task", "hint": ""}})]
            if path.endswith("/events"):
                lines = [{"type": "state", "state": "running"}, {"type": "result", "result": self.result(task_id)}]
                return [whole(b"".join(json.dumps(line).encode() + b"\n" for line in lines))]
            return [whole({"task": self.result(task_id)})]
        if path in ("/v1/charges", "/v1/finished"):
            fresh = path == "/v1/charges" and "after=0" in query
            return [whole(json.dumps(self.charge()).encode() + b"\n" if fresh else b"")]
        known = {
            ("GET", "/v1/status"): self.status(),
            ("PUT", "/v1/key"): {"fingerprint": "a1b2c3d4e5f6", "tasks_resumed": 0},
            ("GET", "/v1/tasks"): {"tasks": [], "next": None},
        }
        return [whole(known.get((method, path), {"forgotten": True}))]


@dataclass
class Hostile(Agent):
    """Answers requests whose path matches `where` with `pieces`, all others as an honest agent."""

    name: str
    pieces: Callable[[], Pieces]
    where: str = ""
    tasks: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> Pieces:
        if re.search(self.where, path):
            return self.pieces()
        return super().answer(method, path, body)


class _Stream(Stream):
    """One connection to an agent in memory."""

    def __init__(self, agent: Agent) -> None:
        ours, self._far = socket.socketpair()
        super().__init__(ours)
        self._agent = agent
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._far, self._far.makefile("rb") as incoming:
            while request := read_request(incoming):
                head, _, body = request.partition(b"\r\n\r\n")
                method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
                for piece in self._agent.answer(method, path, body):
                    self._far.sendall(piece)


class Line:
    """A transport to an agent in memory."""

    def __init__(self, agent: Agent, connect_timeout_s: float) -> None:
        self.name = agent.name
        self.agent = agent
        self.connect_timeout_s = connect_timeout_s

    def open(self) -> Stream:
        return _Stream(self.agent)

    def open_early(self) -> None:
        """Nothing to begin."""

    def close_early(self) -> None:
        """Nothing to end."""

    def renew(self) -> bool:
        return False


def _for_ever(*pieces: bytes, first: bytes = b"", pause_s: float = 0.0) -> Callable[[], Iterator[bytes]]:
    """`first`, then `pieces` again and again, until nobody listens."""

    def produce() -> Iterator[bytes]:
        yield first
        while True:
            for piece in pieces:
                yield piece
                time.sleep(pause_s)

    return produce


def _once(*pieces: bytes) -> Callable[[], Pieces]:
    return lambda: pieces


def _status(**fields: Any) -> Callable[[], Pieces]:
    return _once(whole({**STATUS, **fields}))


_CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_DIGITS = b"9" * 50_000
_DEEP = b"[" * 100_000 + b"]" * 100_000
#: Answers to every request, the first greeting among them, none of which is an agent's.
EVERYWHERE: dict[str, Callable[[], Pieces]] = {
    "deep": _once(whole(b'{"version": ' + _DEEP + b"}")),
    "deep objects": _once(whole(b'{"a":' * 5000 + b"1" + b"}" * 5000)),
    "not quite too deep for Python": _once(whole(b'{"x": ' + b"[" * 400 + b"]" * 400 + b"}")),
    "digits": _once(whole(b'{"running": ' + _DIGITS + b"}")),
    "digits that Python reads": _once(whole(b'{"running": ' + b"9" * 4000 + b"}")),
    "digits where nobody looks": _once(whole(b'{"later": ' + b"9" * 4000 + b"}")),
    "exponent": _once(whole(b'{"throughput": {"per_s": 1e999}}')),
    "NaN": _once(whole(b'{"throughput": {"per_s": NaN}}')),
    "Infinity": _once(whole(b'{"time": -Infinity}')),
    "list": _once(whole(b"[]")),
    "text": _once(whole(b'"running"')),
    "null": _once(whole(b"null")),
    "nothing": _once(whole(b"")),
    "utf-16": _once(whole(json.dumps(STATUS).encode("utf-16"))),
    "half": _once(whole(b'{"version": "0.1.0"')),
    "many values": _once(whole(b'{"later": [' + b"{}," * 1_000_000 + b"{}]}")),
    "long": _once(whole(b'{"version": "' + b"a" * 5_000_000 + b'"}')),
    "length of 50,000 digits": _once(HEAD + b"Content-Length: " + _DIGITS + b"\r\n\r\n{}"),
    "length below 0": _once(HEAD + b"Content-Length: -1\r\n\r\n{}"),
    "endless body": _for_ever(b" " * 65536, first=HEAD + b"\r\n{"),
    "endless body in chunks": _for_ever(b"1000\r\n" + b" " * 4096 + b"\r\n", first=_CHUNKED),
    "chunk size": _once(_CHUNKED + b"f" * 60_000 + b"\r\n{}"),
    "chunk size below 0": _once(_CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n"),
    "endless chunk size": _for_ever(b"0" * 4096, first=_CHUNKED),
    "endless trailers": _for_ever(b"X-More: 1\r\n", first=_CHUNKED + b"2\r\n{}\r\n0\r\n"),
    "endless interim answers": _for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless early hints": _for_ever(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "slow interim answers": _for_ever(b"HTTP/1.1 102 Processing\r\n\r\n", pause_s=0.05),
    "slow body": _for_ever(b" ", first=HEAD + b"Content-Length: 1000000\r\n\r\n", pause_s=0.05),
    "slow head": _for_ever(b"a", first=b"HTTP/1.1 200 OK\r\nX-Slow: ", pause_s=0.05),
    "endless head": _for_ever(b"X-A: b\r\n", first=HEAD),
    "giant head line": _for_ever(b"a" * 65536, first=b"HTTP/1.1 200 OK\r\nX-Giant: "),
    "wire of 50,000 digits": _once(whole({}, b"HTTP/1.1 200 OK\r\nX-Farmhand-Wire: " + _DIGITS + b"\r\n")),
    "giant agent version": _once(
        whole({}, b"HTTP/1.1 200 OK\r\nX-Farmhand-Wire: 2\r\nX-Farmhand-Agent: " + b"\x9b31m" * 9000 + b"\r\n")
    ),
    "error with a number": _once(refusal(500, {"error": {"code": 7, "message": [], "hint": None}})),
    "error that is deep": _once(refusal(500, b'{"error": ' + _DEEP + b"}")),
    "error with commands": _once(refusal(500, {"error": {"code": "x", "message": "\x1b]0;\x9b2J\u202ea" * 9999}})),
    "error of the settings": _once(refusal(400, {"error": {"code": "not_configured", "message": "no"}})),
    "error of the usage": _once(refusal(400, {"error": {"code": "usage", "message": "wrong"}})),
    "error with status 999": _once(refusal(999, b"")),
    "redirect": _once(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"),
    "garbage": _once(bytes(range(256)) * 64),
    "closed": _once(b""),
    "version is a number": _status(version=3),
    "state is a list": _status(state=["running"]),
    "count is a text": _status(queued="2"),
    "count is true": _status(running=True),
    "count is negative": _status(running=-5),
    "count is a fraction": _status(queued=0.5),
    "count is 2^70": _status(awaiting_key=2**70),
    "slots is a list": _status(slots=[1, 2]),
    "slot without total": _status(slots={"api": {"free": 1}}),
    "slot is a text": _status(slots={"api": {"free": "1", "total": "2"}}),
    "throughput is a list": _status(throughput=[1]),
    "rate is a text": _status(throughput={"per_s": "fast"}),
    "wait is a text": _status(waiting=["slots"]),
    "wait until the year 10^14": _status(waiting=[{"reason": "rate_limit", "tasks": 1, "until": 1e14, "detail": ""}]),
    "budget without its parts": _status(budget_day={"day": "today"}),
    "budget is a text": _status(budget_day={"limit_usd": "1", "spent_usd": None}),
    "time is far": _status(time=1e300),
    "keys without a fingerprint": _status(keys=[{"state": "refused", "queued": 1}]),
    "ledger is a number": _status(ledger={"id": 7}),
}
_RESULT = {"id": "t", "state": "succeeded", "text": "evil"}


def _event(**fields: Any) -> Callable[[], Pieces]:
    return _once(whole(json.dumps({"type": "result", "result": {**_RESULT, **fields}}).encode() + b"\n"))


def _lines(*values: Any, path: str = "charges") -> tuple[str, Callable[[], Pieces]]:
    data = b"".join((v if isinstance(v, bytes) else json.dumps(v).encode()) + b"\n" for v in values)
    return f"^/v1/{path}", _once(whole(data))


_CHARGE = Agent("x").charge()
#: Answers to some requests of an agent that greets as an honest one: where, and what.
SOMEWHERE: dict[str, tuple[str, Callable[[], Pieces]]] = {
    "taken: a number": ("^/v1/tasks$", _once(whole({"tasks": 7}))),
    "taken: no id": ("^/v1/tasks$", _once(whole({"tasks": [{"state": "queued"}]}))),
    "events: deep": ("/events$", _once(whole(b'{"type": ' + _DEEP + b"}\n"))),
    "events: digits": ("/events$", _once(whole(b'{"type": ' + _DIGITS + b"}\n"))),
    "events: a list": ("/events$", _once(whole(b"[]\n"))),
    "events: text is a number": ("/events$", _once(whole(b'{"type": "text", "text": 7}\n'))),
    "events: a line that does not end": ("/events$", _for_ever(b"a" * 65536, first=HEAD + b"\r\n")),
    "events: a line that comes slowly": ("/events$", _for_ever(b"a", first=HEAD + b"\r\n", pause_s=0.05)),
    "events: endless": ("/events$", _for_ever(b'{"type": "text", "text": ""}\n' * 2000, first=HEAD + b"\r\n")),
    "result: cost below 0": ("/events$", _event(cost_usd=-1000)),
    "result: cost is a text": ("/events$", _event(cost_usd="0.1")),
    "result: usage is a list": ("/events$", _event(usage=[1])),
    "result: usage of 2^63": ("/events$", _event(usage={"input_tokens": 2**63})),
    "result: error is a text": ("/events$", _event(state="failed", error="bad")),
    "result: state is a number": ("/events$", _event(state=1)),
    "result: deep answer": ("/events$", _once(whole(b'{"type":"result","result":{"structured":' + _DEEP + b"}}\n"))),
    "charges: deep": _lines(b'{"later": ' + _DEEP + b"}"),
    "charges: digits": _lines(b'{"charge_id": ' + _DIGITS + b"}"),
    "charges: no UTF-8": _lines(b'{"charge_id": 1, "model": "\xff\xfe"}'),
    "charges: cost below 0": _lines({**_CHARGE, "cost_usd": -1000}),
    "charges: a huge exponent": _lines(json.dumps(_CHARGE).replace("0.001", "1e999999999").encode()),
    "charges: cost beyond all": _lines(*({**_CHARGE, "charge_id": no, "cost_usd": 999_999} for no in range(1, 20))),
    "charges: in the year 9999": _lines({**_CHARGE, "created_at": 253_402_300_000}),
    "charges: tokens of 10^12": _lines({**_CHARGE, "output_tokens": 10**12}),
    "charges: labels is a list": _lines({**_CHARGE, "labels": [1]}),
    "charges: the same again and again": ("^/v1/charges", _once(whole(json.dumps(_CHARGE).encode() * 2 + b"\n"))),
    "charges: too many": ("^/v1/charges", _for_ever(json.dumps(_CHARGE).encode() + b"\n", first=HEAD + b"\r\n")),
    "charges: a giant line": ("^/v1/charges", _for_ever(b"a" * 65536, first=HEAD + b"\r\n")),
    "finished: a list": _lines([], path="finished"),
    "finished: times are texts": _lines(
        {
            "finish_seq": 1,
            "id": "t",
            "state": "x",
            "model": "m",
            "engine": "e",
            "created_at": "now",
            "finished_at": "now",
        },
        path="finished",
    ),
}


def _past(**fields: Any) -> tuple[str, Callable[[], Pieces]]:
    return "^/v1/history", _once(whole(Agent("bad").past(**fields)))


def _page(**fields: Any) -> tuple[str, Callable[[], Pieces]]:
    return "^/v1/history", _once(whole(Agent("bad").past() | fields))


#: What an agent may say of its history; the second: whether something of it is taken.
HISTORIES: dict[str, tuple[tuple[str, Callable[[], Pieces]], bool]] = {
    "deep": (("^/v1/history", _once(whole(b'{"tasks": ' + _DEEP + b"}"))), False),
    "a list": (("^/v1/history", _once(whole(b"[]"))), False),
    "tasks is a number": (_page(tasks=7), False),
    "no ledger": (_page(ledger=None), False),
    "kept since a text": (_page(kept_since="now"), False),
    "kept for no days": (_page(retention_days=-1), False),
    "unfinished is a text": (_page(unfinished="x"), False),
    "next is negative": (_page(next=-1), False),
    "more without end": (_page(more=True), False),
    "no id": (_past(id=None), False),
    "a long id": (_past(id="x" * 300), False),
    "an id with commands": (_past(id="a\x1b[2J\x9b31m\u202e"), True),
    "in the year 9999": (_past(created_at=253_402_300_000), False),
    "state is a list": (_past(state=["x"]), False),
    "labels is a list": (_past(labels=[1]), False),
    "spec is a text": (_past(spec="x"), False),
    "spec without a prompt": (_past(spec={"later": [1]}), True),
    "a prompt that is a list": (_past(spec={"prompt": ["\x1b[2J"]}), True),
    "a prompt with commands": (_past(spec={"prompt": "a\x1b[2J\x9b\u202e\ud83d\nb"}), True),
    "gone, and yet there": (_past(content="gone"), True),
    "error is a text": (_past(error="bad"), False),
    "usage is a list": (_past(usage=[1]), False),
    "structured is null": (_past(structured=None, batch=None, cost_usd=None, model=None), True),
}


#: What `jada-agent turn` may print on a host where something is wrong. %ID is the id of a task that was handed over.
TURNS: dict[str, bytes] = {
    "deep": b'{"results": ' + _DEEP + b"}",
    "digits": b'{"next": ' + _DIGITS + b"}",
    "digits that Python reads": b'{"next": ' + b"9" * 4000 + b"}",
    "not JSON": b"Segmentation fault",
    "a list": b"[]",
    "nothing": b"{}",
    "nothing, again and again": b'{"taken": ["%ID"], "unfinished": 0, "results": [], "next": 0}',
    "taken is a number": b'{"taken": 7}',
    "taken is a number in a list": b'{"taken": [7]}',
    "results is an object": b'{"results": {"id": "%ID"}}',
    "a result is a text": b'{"results": ["%ID"]}',
    "a result without an id": b'{"results": [{"state": "succeeded"}]}',
    "a state is a list": b'{"results": [{"id": "%ID", "state": ["succeeded"]}]}',
    "cost below 0": b'{"results": [{"id": "%ID", "state": "succeeded", "cost_usd": -1000}]}',
    "cost is a text": b'{"results": [{"id": "%ID", "state": "succeeded", "cost_usd": "much"}]}',
    "cost is NaN": b'{"results": [{"id": "%ID", "state": "succeeded", "cost_usd": NaN}]}',
    "cost is infinite": b'{"results": [{"id": "%ID", "state": "succeeded", "cost_usd": 1e999}]}',
    "cost is a list": b'{"results": [{"id": "%ID", "state": "succeeded", "cost_usd": [1]}]}',
    "uncertain is a text": b'{"results": [{"id": "%ID", "state": "succeeded", "uncertain": "x"}]}',
    "uncertain below 0": b'{"results": [{"id": "%ID", "state": "succeeded", "uncertain": -7}]}',
    "uncertain beyond all": b'{"results": [{"id": "%ID", "state": "succeeded", "uncertain": 9e99}]}',
    "usage is a list": b'{"results": [{"id": "%ID", "state": "succeeded", "usage": [1]}]}',
    "error is a text": b'{"results": [{"id": "%ID", "state": "failed", "error": "bad"}]}',
    "budget without sums": b'{"results": [{"id": "%ID", "error": {"code": "x", "message": "x", "budget": {}}}]}',
    "budget beyond all": b'{"results": [{"id": "%ID", "state": "failed", "error": {"code": "budget", "message": "no", '
    b'"budget": {"of": "day", "limit_usd": 1, "spent_usd": 0, "needs_usd": 1e12}}}]}',
    "structured of 100 digits": b'{"results": [{"id": "%ID", "state": "succeeded", "structured": '
    + b"9" * 100
    + b"}]}",
    "next is a text": b'{"next": "last"}',
    "next is negative": b'{"next": -1}',
    "next of 2^70": b'{"next": 1180591620717411303424}',
    "unfinished is a list": b'{"unfinished": [1]}',
    "waiting is a text": b'{"waiting": "slots"}',
    "waiting has a number": b'{"waiting": [1]}',
    "waiting has no reason": b'{"waiting": [{"detail": "x"}]}',
    "slots is a list": b'{"slots": [4]}',
    "slots has a text": b'{"slots": {"api": {"total": "4", "free": 4}}}',
    "halted is a text": b'{"halted": "yes"}',
    "halted for the settings": b'{"halted": {"code": "not_configured", "message": "no"}}',
    "halted for a budget": b'{"halted": {"code": "budget", "message": "the budget of the day is spent"}}',
    "error is a number": b'{"error": 7}',
    "error of the settings": b'{"error": {"code": "no_key", "message": "no key"}}',
    "error of a budget": b'{"error": {"code": "budget", "message": "spent"}}',
    "error with commands": b'{"error": {"code": "x", "message": "\\u001b[2J\\u009b\\u202e"}}',
    "the key is refused": b'{"taken": ["%ID"], "unfinished": 1, "waiting": [{"reason": "key_refused"}]}',
    "refused without an id": b'{"refused": [{"code": "x"}]}',
    "cancelled is a text": b'{"cancelled": "all"}',
    "stopped has a list": b'{"stopped": [["%ID"]]}',
}
