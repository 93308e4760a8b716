"""The control client of a loopback Messages API that runs in another process."""

from __future__ import annotations

import json
import urllib.request
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

    def fault(self, **fault: object) -> None:
        """Queue a fault: kind=…, count=…, status=…, …"""
        self._call("POST", "faults", fault)

    def rule(self, contains: str, *steps: dict[str, object], model: str = "") -> None:
        """Answer prompts that contain `contains` with these steps."""
        self._call("POST", "rules", {"contains": contains, "steps": list(steps), "model": model})

    def latency(self, ms: float = 0.0, event_ms: float = 0.0) -> None:
        """Wait before an answer begins, and between the events of a stream."""
        self._call("PUT", "latency", {"ms": ms, "event_ms": event_ms})

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
