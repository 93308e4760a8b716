"""Talking to the other processes of a farm: the loopback Messages API's control client, and raw words of the wire."""

from __future__ import annotations

import http.client
import io
import json
import urllib.request
from collections.abc import Mapping
from typing import Any


class ApiControl:
    """Keys, faults, rules, latency and the log of the API at `url`. See tests/support/messages_api for the fields."""

    def __init__(self, url: str) -> None:
        self.url = url
        # The operator's proxy has no business with a loopback address.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/_control/{path}", data, headers, method=method)  # noqa: S310  # our own http:// URL
        with self._opener.open(request, timeout=10) as answer:
            return json.load(answer)

    def keys(self, *keys: str) -> None:
        """Accept these keys and no others."""
        self._call("PUT", "keys", list(keys))

    def accepted(self) -> list[str]:
        """The keys that it accepts."""
        keys: list[str] = self._call("GET", "keys")
        return keys

    def bill(self, **posting: object) -> None:
        """What another of the organization was billed: at=…, model=…, tokens=…, as in `Posting`."""
        self._call("POST", "books", [posting])

    def fault(self, **fault: object) -> None:
        """Queue a fault: kind=…, count=…, status=…, …"""
        self._call("POST", "faults", fault)

    def rule(self, contains: str, *steps: Mapping[str, object], model: str = "") -> None:
        """Answer prompts that contain `contains` with these steps."""
        self._call("POST", "rules", {"contains": contains, "steps": list(steps), "model": model})

    def latency(self, ms: float = 0.0, event_ms: float = 0.0, per_s: float = 0.0) -> None:
        """Wait before an answer begins, and between the events of a stream; begin so many answers a second at most."""
        self._call("PUT", "latency", {"ms": ms, "event_ms": event_ms, "per_s": per_s})

    def federation(self, **rule: object) -> None:
        """Set the federation rule: fields of `Federation`."""
        self._call("PUT", "federation", rule)

    def log(self, after: int = 0) -> list[dict[str, Any]]:
        """What it received, oldest first."""
        entries: list[dict[str, Any]] = self._call("GET", f"log?after={after}")["entries"]
        return entries

    def posts(self) -> list[dict[str, Any]]:
        """The requests to /v1/messages among them."""
        return [x for x in self.log() if x["method"] == "POST" and x["path"] == "/v1/messages"]

    def clear(self) -> None:
        """Forget faults, rules, latency and the log; keep the keys."""
        for path in ("faults", "rules", "log"):
            self._call("DELETE", path)
        self.latency()


def wire_request(method: str, path: str, *, version: str = "1", body: bytes = b"", **headers: str) -> bytes:
    """One raw request of the wire, for the stdin of `jada-agent bridge`; a header's `_` stands for `-`."""
    given = {"Host": "agent", "X-Farmhand-Wire": version, "Connection": "close", "Content-Length": str(len(body))}
    given.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class _Answered:
    """What http.client wants of a socket whose whole answer is there already."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, *_: object, **__: object) -> io.BytesIO:
        return io.BytesIO(self._raw)


def wire_answer(raw: str) -> tuple[int, Any]:
    """Status and JSON body of a raw answer of the wire."""
    answer = http.client.HTTPResponse(_Answered(raw.encode()))  # type: ignore[arg-type]  # it reads and nothing else
    answer.begin()
    return answer.status, json.loads(answer.read())
