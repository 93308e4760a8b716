"""Collectors of spans: a strict one in this process, and Rotel, which other people wrote, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.support.gateway import free_port
from tests.support.python_tools import environment

_LOCK = Path(__file__).resolve().parents[1] / "data/telemetry/rotel"


@dataclass
class SeenSpan:
    """A span as the collector has it."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    failed: bool
    seconds: float
    attributes: dict[str, Any]
    resource: dict[str, Any]
    state: str

    @property
    def traceparent(self) -> str:
        """What its children are given."""
        return f"00-{self.trace}-{self.id}-01"


class Collector:
    """Takes OTLP over HTTP, and refuses what a collector refuses. `answer` is what it says to all."""

    def __init__(self, answer: int | str = 200) -> None:
        self.answer = answer
        self.spans: list[SeenSpan] = []
        self.refused: list[str] = []
        self.requests: list[web.BaseRequest] = []
        self.bytes = b""
        self.url = ""
        self._released = asyncio.Event()

    async def __aenter__(self) -> Collector:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._released.set()
        await self._runner.cleanup()

    async def until(self, number: int) -> list[SeenSpan]:
        """The spans, once there are so many."""
        for _ in range(2400):
            if len(self.spans) >= number:
                return self.spans
            await asyncio.sleep(0.05)
        raise AssertionError(f"{len(self.spans)} spans, not {number}; refused: {self.refused}")

    async def asked(self) -> None:
        """Return once there was a request."""
        for _ in range(2400):
            if self.requests:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("nobody asked the collector")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(request)
        self.bytes += body + str(request.headers).encode() + request.path_qs.encode()
        if self.answer == "silent":
            await self._released.wait()
        if self.answer == "endless":
            stream = web.StreamResponse()
            await stream.prepare(request)
            with suppress(ConnectionError):
                while not self._released.is_set():
                    await stream.write(b"x" * 65536)
            return stream
        if self.answer == "moved":
            return web.Response(status=302, headers={"location": "/elsewhere"})
        if isinstance(self.answer, int) and self.answer != 200:
            return web.Response(status=self.answer, text="canary-of-a-peer")
        try:
            self.spans += _read(request, body)
        except Exception as error:
            self.refused.append(str(error))
            return web.Response(status=400, text=str(error))
        return web.Response(body=b"", content_type="application/x-protobuf")


def _read(request: web.BaseRequest, body: bytes) -> list[SeenSpan]:
    assert (request.method, request.path) == ("POST", "/v1/traces"), request.path
    assert request.headers["content-type"] == "application/x-protobuf", request.headers["content-type"]
    message = ExportTraceServiceRequest.FromString(body)
    found = []
    for of_resource in message.resource_spans:
        resource = {one.key: _value(one.value) for one in of_resource.resource.attributes}
        assert resource["service.name"]
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                assert len(span.trace_id) == 16, "a trace's id has 16 bytes"
                assert len(span.span_id) == 8, "a span's id has 8 bytes"
                assert len(span.parent_span_id) in (0, 8), "a parent's id has 8 bytes"
                assert any(span.trace_id), "a trace's id of zeros"
                assert any(span.span_id), "a span's id of zeros"
                assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, "it ends before it begins"
                keys = [one.key for one in span.attributes]
                assert len(keys) == len(set(keys)), "an attribute is there twice"
                found.append(
                    SeenSpan(
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.kind,
                        span.status.code == 2,
                        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        {one.key: _value(one.value) for one in span.attributes},
                        resource,
                        span.trace_state,
                    )
                )
    return found


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind, "an attribute without a value"
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


class Rotel:
    """Rotel's own agent, which prints what it was sent."""

    def __init__(self, log: Path, port: int) -> None:
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    def spans(self) -> list[dict[str, str]]:
        """Each span's attributes and its `Name`, `ID`, `Parent ID` and `Trace ID`, as text."""
        found = []
        for part in re.split(r"^Span #\d+$", self.log.read_text("utf-8", "replace"), flags=re.MULTILINE)[1:]:
            span = dict(re.findall(r"^ {4}([A-Z][A-Za-z ]*?) *: ?(.*)$", part, re.MULTILINE))
            found.append(span | dict(re.findall(r"^ +-> ([^:]+): \w+\((.*)\)$", part, re.MULTILINE)))
        return found

    async def until(self, number: int) -> list[dict[str, str]]:
        """The spans, once there are so many."""
        for _ in range(2400):
            if len(found := self.spans()) >= number:
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(self.log.read_text())


def check_trace(found: list[dict[str, str]], trace: str, caller: str, patch: str) -> None:
    """Check what a caller's trace has of a batch of two tasks, of a single task, and of one in a sandbox with a tool.

    `patch` is what the sandbox has written: the trace that it was given is in it.
    """
    tasks = [one for one in found if one["Name"] == "farmhand.task"]
    [batch] = [one for one in found if one["Name"] == "farmhand.batch"]
    [in_sandbox] = [one for one in tasks if one["farmhand.engine"] == "cli"]
    assert (len(found), len(tasks), {one["Trace ID"] for one in found}) == (10, 4, {trace})
    assert sorted(one["Parent ID"] for one in (*tasks, batch)) == sorted([caller] * 3 + [batch["ID"]] * 2)
    assert f"+00-{trace}-{in_sandbox['ID']}-01" in patch
    requests = [one for one in found if one["Name"].startswith("chat ") and one["Parent ID"] == in_sandbox["ID"]]
    assert sum(float(one["farmhand.cost_usd"]) for one in requests) == float(in_sandbox["farmhand.cost_usd"])


@contextmanager
def rotel(directory: Path) -> Iterator[Rotel]:
    """Run it."""
    [program] = environment(_LOCK).glob("lib/python*/site-packages/rotel/rotel-agent")
    port, log = free_port(), directory / "rotel.log"
    argv = [str(program), "start", "--otlp-http-endpoint", f"127.0.0.1:{port}", "--exporter", "blackhole"]
    argv += ["--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}", "--debug-log", "traces"]
    argv += ["--debug-log-verbosity", "detailed"]
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env={"PATH": os.environ["PATH"]}, cwd=directory)
    try:
        yield Rotel(log, port)
    finally:
        process.terminate()
        process.wait(120)
