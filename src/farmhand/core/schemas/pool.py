"""The pool of worker processes: started on demand, killed when a check takes too long or a worker is idle.

A worker is a fresh program and not a fork, so it shares nothing of this process's memory. It gets no environment, and
no file but its two pipes.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

#: Limits on a schema and an answer, in bytes of JSON. The claude CLI takes a schema as an argument, which Linux limits
#: to 128 KiB (MAX_ARG_STRLEN); the longest answer of a model has 128,000 tokens.
MAX_SCHEMA = 120 * 1024
MAX_ANSWER = 1024 * 1024
#: Limits in seconds: for one check, for the start of a worker, and for the idle time of a worker.
LIMIT_S = 10.0
_START_S = 60.0
_IDLE_S = 30.0
_WORKERS = 2
_ARGV = (sys.executable, "-I", str(Path(__file__).with_name("worker.py")))
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


class Unchecked(Exception):
    """A check without a verdict: it takes too long or too much memory (`too_hard`), or no worker is available."""

    def __init__(self, message: str, *, too_hard: bool) -> None:
        super().__init__(message)
        self.message = message
        self.too_hard = too_hard


class CheckResult(NamedTuple):
    """A verdict: `code` is "" if valid, else `invalid_schema` or `no_answer`; `message` is one line."""

    code: str
    message: str


class _Worker:
    """One worker process. Raises EOFError if it has ended, TimeoutError if it takes too long."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            _ARGV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_ENVIRONMENT, cwd="/"
        )
        self.pid = self._process.pid
        try:
            self._exchange(b"", _START_S)
        except BaseException:
            self.end()
            raise

    def ask(self, request: bytes, limit_s: float) -> bytes:
        """Send the line `request` and return the line that answers it."""
        return self._exchange(request + b"\n", limit_s)

    def _exchange(self, data: bytes, limit_s: float) -> bytes:
        to, back = self._process.stdin, self._process.stdout
        assert to is not None and back is not None  # noqa: S101, PT018  (both are pipes)
        until = time.monotonic() + limit_s
        killer = threading.Timer(max(limit_s, 0), self._process.kill)
        killer.start()
        answer = b""
        try:
            with contextlib.suppress(OSError):
                to.write(data)
                to.flush()
                answer = back.readline()
        finally:
            killer.cancel()
        if time.monotonic() >= until:
            raise TimeoutError
        if not answer.endswith(b"\n"):
            raise EOFError
        return answer

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        with contextlib.suppress(OSError):
            self._process.communicate()


class Pool:
    """A few workers; requests beyond their number wait. Usable from any thread and any event loop."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._idle: list[tuple[float, _Worker]] = []
        self._lock = threading.Lock()
        # A separate executor: threads that wait here must not be missing elsewhere.
        self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="schemas")

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the idle workers."""
        with self._lock:
            return [worker.pid for _, worker in self._idle]

    def check(self, schema: Any, **answer: Any) -> CheckResult:
        """Return the verdict on `schema`, or on `answer=` against it. Raise Unchecked."""
        try:
            request = json.dumps({"schema": schema, "limit_s": self.limit_s + 5, **answer}).encode()
        except RecursionError:
            return CheckResult("invalid_schema", "it is nested too deeply")
        said = CheckResult(**json.loads(self._ask(request)))
        if said.code == "too_hard":
            raise Unchecked(said.message, too_hard=True)
        return said

    async def checked(self, schema: Any, **answer: Any) -> CheckResult:
        """Run `check` without blocking the event loop."""
        import asyncio  # not at the top: a client does not need it

        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: self.check(schema, **answer))
        finally:
            loop.call_later(_IDLE_S + 1, self.rest)

    def _ask(self, request: bytes) -> bytes:
        for fresh in (False, True):
            worker = self._take(fresh=fresh)
            try:
                said = worker.ask(request, self.limit_s)
            except BaseException as error:
                worker.end()
                if isinstance(error, TimeoutError):
                    raise Unchecked(f"it takes longer than {self.limit_s:g} s", too_hard=True) from None
                if isinstance(error, EOFError):
                    # An idle worker may have ended by itself; a fresh one that ends was ended by this request.
                    continue
                raise
            with self._lock:
                self._idle.append((time.monotonic(), worker))
            return said
        raise Unchecked("the process that checks it breaks down", too_hard=True)

    def _take(self, *, fresh: bool) -> _Worker:
        with self._lock:
            if self._idle and not fresh:
                return self._idle.pop()[1]
        try:
            return _Worker()
        except (OSError, EOFError) as error:
            why = getattr(error, "strerror", None) or "it ended at once"
            raise Unchecked(f"no process to check it in: {why}", too_hard=False) from None

    def rest(self, idle_s: float = _IDLE_S) -> None:
        """Kill the workers that have been idle for `idle_s` seconds."""
        before = time.monotonic() - idle_s
        with self._lock:
            old = [worker for since, worker in self._idle if since <= before]
            self._idle = [(since, worker) for since, worker in self._idle if since > before]
        for worker in old:
            worker.end()


#: The pool of the whole process.
POOL = Pool()


def too_large(schema: Any) -> str:
    """Return why `schema` is too large or too deep to be checked, or "" if it is not."""
    try:
        size = len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "replace"))
    except (RecursionError, ValueError):
        return "not a JSON Schema: nested too deeply"
    return f"the schema has {size} bytes, the limit is {MAX_SCHEMA}" if size > MAX_SCHEMA else ""


def problem(schema: Any) -> str:
    """Return, on one line, why `schema` is not a usable JSON Schema (draft 2020-12), or "" if it is. Blocks."""
    return too_large(schema) or _problem(json.dumps(schema))


@lru_cache(maxsize=64)
def _problem(text: str) -> str:
    try:
        return POOL.check(json.loads(text)).message
    except Unchecked as unchecked:
        return f"the schema cannot be checked: {unchecked.message}"
