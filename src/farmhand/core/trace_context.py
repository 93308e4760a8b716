"""W3C trace context, as a caller hands it over, and the address of a collector. Standard library only.

What is not valid is dropped and is never an error: a task does not fail for its trace. Source: the W3C recommendation
Trace Context, level 1, sections 3.2 and 3.3.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from farmhand.core.keys import redact

#: The path of OTLP over HTTP. Source: the OTLP specification 1.9.
TRACES_PATH = "/v1/traces"
#: What `otel_endpoint` may say in place of an address, to overrule a settings file.
OFF = "none"
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
_MOST_STATE, _MOST_MEMBERS = 512, 32


class TraceContext(NamedTuple):
    """A valid trace context: `traceparent` of version 00, and `tracestate` or ""."""

    traceparent: str
    tracestate: str = ""

    @property
    def sampled(self) -> bool:
        """Return whether its spans are wanted."""
        return self.traceparent.endswith("1")

    def fields(self) -> dict[str, str]:
        """Return it as the fields of a task."""
        return {"traceparent": self.traceparent} | ({"tracestate": self.tracestate} if self.tracestate else {})

    def environment(self) -> dict[str, str]:
        """Return it as variables, as the claude CLI reads them."""
        return {name.upper(): value for name, value in self.fields().items()}


def context_of(parent: object, state: object = "") -> TraceContext | None:
    """Return the context in the values of `traceparent` and `tracestate`, or None if there is no valid one."""
    if not isinstance(parent, str) or len(parent) > _MOST_STATE:
        return None
    match = _PARENT.fullmatch(parent.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not (trace_id.strip("0") and span_id.strip("0")):
        return None
    # Of a later version only this part is known, and of the flags only `sampled`.
    return TraceContext(f"00-{trace_id}-{span_id}-{int(flags, 16) & 1:02x}", _state(state))


def from_environment(environ: Mapping[str, str]) -> TraceContext | None:
    """Return the caller's context in TRACEPARENT and TRACESTATE."""
    return context_of(environ.get("TRACEPARENT"), environ.get("TRACESTATE"))


def of_caller(endpoint: str) -> dict[str, str]:
    """Return the caller's trace as fields of a task, {} if there is none, or if there are no spans at `endpoint`."""
    found = from_environment(os.environ) if traces_url(endpoint) else None
    return found.fields() if found is not None else {}


def below(parent: TraceContext | None) -> TraceContext:
    """Return the context of a span to come: in the parent's trace, or as the first of a new one."""
    trace, flags = os.urandom(16).hex(), "01"
    if parent is not None:
        _, trace, _, flags = parent.traceparent.split("-")
    return TraceContext(f"00-{trace}-{os.urandom(8).hex()}-{flags}", parent.tracestate if parent else "")


def with_trace(task: bytes, trace: TraceContext | None) -> bytes:
    """Return a task, a JSON object that is not empty, with the trace as its last fields."""
    return task if trace is None else task[:-1] + b"," + json.dumps(trace.fields()).encode()[1:]


def untraced(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task is without its trace, which is not of its content."""
    return {name: value for name, value in task.items() if name not in ("traceparent", "tracestate")}


def _state(state: object) -> str:
    if not isinstance(state, str) or len(state) > _MOST_STATE or redact(state) != state:
        return ""
    members = [member for part in state.split(",") if (member := part.strip(" \t"))]
    names = {member.partition("=")[0] for member in members}
    sound = len(members) <= _MOST_MEMBERS and len(names) == len(members)
    return ",".join(members) if sound and all(map(_MEMBER.fullmatch, members)) else ""


def traces_url(endpoint: str) -> str:
    """Return where spans are sent for the base address `endpoint`; "" for "" and `none`. Raise ValueError."""
    if endpoint in ("", OFF):
        return ""
    from farmhand.core.addresses import http_parts  # it needs urllib, and most calls do not

    url = http_parts(endpoint)
    if url is None or url.query or url.fragment:
        raise ValueError(f"an address such as http://127.0.0.1:4318, without a name, a password or a query, or {OFF}")
    return endpoint.rstrip("/").removesuffix(TRACES_PATH) + TRACES_PATH
