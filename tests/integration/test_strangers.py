"""Who may not speak to the agent, and what no one may say: a clean refusal each, and the daemon lives."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.agent import KEY, Agent
from tests.support.messages_api import MessagesApi

CALL = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(f"{sys.argv[2]} HTTP/1.1\\r\\nHost: a\\r\\nX-Farmhand-Wire: 1\\r\\nConnection: close\\r\\n\\r\\n".encode())
while data := s.recv(65536):
    sys.stdout.buffer.write(data)
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that others may enter; pytest's own are closed, and closed again whenever another pytest starts."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def open_to_all(agent: Agent) -> None:
    """Take the file modes away, so that only the agent's own check is left."""
    (agent.directory / "run").chmod(0o755)
    agent.socket.chmod(0o666)


def call_as(agent: Agent, user: str, group: str, what: str = "GET /v1/status") -> str:
    """What a process of `user` hears from the agent."""
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", CALL, str(agent.socket), what],
        capture_output=True,
        text=True,
        user=user,
        group=group,
        extra_groups=[],
        timeout=10,
        check=False,
    )
    return done.stdout + done.stderr


async def test_another_uid_is_refused_by_the_agent_itself(open_directory: Path, api: MessagesApi) -> None:
    agent = Agent(open_directory, api.url)
    await agent.start()
    open_to_all(agent)
    heard = await asyncio.to_thread(call_as, agent, "nobody", "nogroup")
    assert heard.startswith("HTTP/1.1 403")
    assert json.loads(heard.splitlines()[-1])["error"]["code"] == "stranger"
    assert (await asyncio.to_thread(call_as, agent, "root", "root")).startswith("HTTP/1.1 200")
    await agent.stop()


async def test_a_member_of_an_allowed_group_is_let_in(open_directory: Path, api: MessagesApi) -> None:
    agent = Agent(open_directory, api.url, allowed_groups=["nogroup"])
    await agent.start()
    open_to_all(agent)
    assert (await asyncio.to_thread(call_as, agent, "nobody", "nogroup")).startswith("HTTP/1.1 200")
    await agent.stop()


async def test_a_reader_of_metrics_reads_figures_and_nothing_else(open_directory: Path, api: MessagesApi) -> None:
    agent = Agent(open_directory, api.url, metrics_groups=["nogroup"])
    await agent.start()
    open_to_all(agent)
    for path in ("/metrics", "/v1/status", "/v1/charges?limit=5"):
        assert (await asyncio.to_thread(call_as, agent, "nobody", "nogroup", f"GET {path}")).startswith("HTTP/1.1 200")
    for what in (
        *("POST /v1/tasks", "GET /v1/tasks", "GET /v1/tasks/a", "GET /v1/finished", "GET /v1/results?batch=a"),
        *("PUT /v1/drain", "PUT /v1/key", "PUT /v1/status", "GET /v1/usage", "GET /metrics/", "GET //metrics"),
        *("GET /v1/tasks?/metrics", "GET /v1/charges/../tasks"),
    ):
        heard = await asyncio.to_thread(call_as, agent, "nobody", "nogroup", what)
        assert heard.startswith("HTTP/1.1 403"), what
    await agent.stop()


async def test_a_malformed_request_that_holds_a_key_is_not_logged(agent: Agent) -> None:
    key = KEY["X-Farmhand-Key"].encode()
    answer = await raw(agent.socket, b"PUT /v1/key HTTP/1.1\r\nHost: a\r\nX-Farmhand-Key: " + key + b"\x00\r\n\r\n", 2)
    assert answer.startswith(b"HTTP/1.0 400") or answer.startswith(b"HTTP/1.1 400")
    error = {"code": "invalid_request", "message": "it is no request of HTTP/1.1", "hint": ""}
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": error}
    assert key not in agent.log.read_bytes()


async def test_the_sockets_are_closed_to_others_by_their_modes(agent: Agent) -> None:
    assert agent.socket.stat().st_mode & 0o777 == 0o600


async def test_an_oversized_request_is_refused(agent: Agent) -> None:
    status, answer = await agent.call("POST", "/v1/tasks", headers=KEY, body=b"x" * (65 * 1024 * 1024))
    assert (status, answer["error"]["code"]) == (413, "too_large")


MALFORMED = {
    "nothing": b"",
    "half": b"{",
    "list": b"[]",
    "null": b"null",
    "object for tasks": b'{"tasks":{}}',
    "no task": b'{"tasks":[]}',
    "number for a task": b'{"tasks":[3]}',
    "unknown field": b'{"tasks":[],"x":1}',
    "no UTF-8": b"\xff",
    "deep": b'{"tasks":' + b"[" * 100_000,
    "lone surrogate": b'{"tasks":[{"id":"a","prompt":"\\ud800"}]}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_body_is_refused(agent: Agent, body: bytes) -> None:
    status, answer = await agent.call("POST", "/v1/tasks", headers=KEY, body=body)
    assert status == 400
    assert answer["error"]["code"] == "invalid_task"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/tasks", 404),
        ("PATCH", "/v1/tasks/x", 405),
        ("GET", "/v1/tasks/..%2f..%2fetc", 404),
        ("GET", "/v1/tasks/%00", 404),
        ("GET", "/v1/tasks?limit=0", 400),
        ("GET", "/v1/tasks?limit=many", 400),
        ("GET", "/v1/usage?since=nan", 400),
    ],
)
async def test_an_unknown_request_is_refused_in_the_wire_s_own_form(
    agent: Agent, method: str, path: str, status: int
) -> None:
    found, answer = await agent.call(method, path)
    assert found == status
    assert set(answer["error"]) == {"code", "message", "hint"}


async def raw(path: Path, data: bytes, patience_s: float) -> bytes:
    """Send bytes as they are; what comes back until the agent closes, or within `patience_s`."""
    reader, writer = await asyncio.open_unix_connection(path)
    answer = b""
    try:
        writer.write(data)
        async with asyncio.timeout(patience_s):
            answer = await reader.read()
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return answer


HEAD = b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nX-Farmhand-Wire: 1\r\n"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    [
        "id",
        "prompt",
        "system",
        "model",
        "engine",
        "tools",
        "network",
        "schema",
        "max_tokens",
        "timeout_s",
        "labels",
        "batch",
    ]
)
odd_tasks = st.dictionaries(fields, json_values, max_size=8)


class FuzzedAgent:
    """One daemon for all examples, driven without a running event loop, as hypothesis needs it."""

    def __init__(self, directory: Path) -> None:
        self._agent = Agent(directory, "http://127.0.0.1:9")
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._agent.start())
        self._pid = self._agent.pid

    def send(self, data: bytes, patience_s: float = 10) -> bytes:
        return self._loop.run_until_complete(raw(self._agent.socket, data, patience_s))

    def check(self) -> None:
        """It is still the same process, it answers, and it has logged no traceback."""
        self._loop.run_until_complete(self._agent.get("/v1/status"))
        assert self._agent.pid == self._pid
        assert "Traceback" not in self._agent.log.read_text()

    def stop(self) -> None:
        self._loop.run_until_complete(self._agent.stop())
        self._loop.close()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedAgent]:
    """A daemon that lives through all of the fuzzing; its upstream is nobody."""
    daemon = FuzzedAgent(tmp_path_factory.mktemp("fuzz"))
    yield daemon
    daemon.stop()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=200) | st.just(HEAD) | st.just(b"\r\n\r\n"), max_size=6))
def test_random_bytes_leave_the_daemon_alive(fuzzed: FuzzedAgent, chunks: list[bytes]) -> None:
    fuzzed.send(b"".join(chunks), patience_s=0.05)
    fuzzed.check()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tasks=st.lists(odd_tasks | json_values, max_size=3),
    key=st.none() | st.text(st.characters(codec="latin-1"), max_size=60),
)
def test_random_tasks_get_a_clean_refusal(fuzzed: FuzzedAgent, tasks: list[object], key: str | None) -> None:
    body = json.dumps({"tasks": tasks}).encode()
    header = b"" if key is None else b"X-Farmhand-Key: " + key.encode("latin-1") + b"\r\n"
    answer = fuzzed.send(HEAD + header + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    status = int(answer.split(b" ", 2)[1])
    assert status in {200, 400, 403, 413}, answer
    if status != 200 and b"X-Farmhand-Agent" in answer:
        assert set(json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]) == {"code", "message", "hint"}
    fuzzed.check()


async def test_one_user_cannot_take_all_connections(agent: Agent) -> None:
    meter = agent.directory / "run" / "meter.sock"
    idle = [await asyncio.open_unix_connection(meter) for _ in range(300)]
    kept = [writer for reader, writer in idle if not await ends(reader)]
    assert len(kept) == 64
    for writer in kept[:10]:
        writer.close()
    await asyncio.sleep(0.2)
    assert (await raw(meter, b"HEAD / HTTP/1.1\r\nHost: meter\r\nConnection: close\r\n\r\n", 2)).startswith(
        b"HTTP/1.1 200"
    )
    for _, writer in idle:
        writer.close()


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the other side has closed the connection."""
    try:
        async with asyncio.timeout(0.05):
            return await reader.read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Transfer-Encoding: chunked, identity",
        b"X: " + b"x" * 100_000,
        b"\r\n".join(b"X%d: x" % number for number in range(20_000)),
    ],
    ids=["length and chunked", "two lengths", "odd encoding", "long header", "many headers"],
)
async def test_a_request_of_two_meanings_or_without_end_is_refused(agent: Agent, head: bytes) -> None:
    smuggled = b"0\r\n\r\nGET /v1/status HTTP/1.1\r\nHost: a\r\nX-Farmhand-Wire: 1\r\n\r\n"
    request = b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nX-Farmhand-Wire: 1\r\n" + head + b"\r\n\r\n" + smuggled
    answer = await raw(agent.socket, request, 3)
    assert answer.split()[1] in {b"400", b"413", b"431"}
    assert b"uptime_s" not in answer
    assert (await agent.get("/v1/status"))["state"] == "running"


@pytest.mark.parametrize("field", ["id", "batch", "model", "work_class"])
async def test_a_key_in_a_name_is_not_said_back(agent: Agent, field: str) -> None:
    key = "sk-ant-test-0123456789abcdef"
    status, answer = await agent.call("POST", "/v1/tasks", body={"tasks": [{"id": "x", "prompt": "p", field: key}]})
    assert (status, answer["error"]["code"]) == (400, "key_in_task")
    assert key not in json.dumps(answer)
    assert key.encode() not in agent.log.read_bytes()


@pytest.mark.parametrize(
    "path", ["/v1/tasks/{key}", "/v1/batches/{key}", "/v1/tasks?state={key}", "/v1/tasks?after={key}", "/v1/{key}"]
)
async def test_a_key_in_an_address_is_not_said_back(agent: Agent, path: str) -> None:
    key = "sk-ant-test-0123456789abcdef"
    status, answer = await agent.call("GET", path.format(key=key))
    assert status in (400, 404)
    assert key not in json.dumps(answer)


async def test_a_host_that_runs_no_repositories_takes_no_bundle(agent: Agent) -> None:
    status, answer = await agent.call("PUT", "/v1/files/t1", body=b"x" * 1000)
    assert (status, answer["error"]["code"]) == (403, "repository_refused")
    repo = {"commit": "0" * 40}
    status, answer = await agent.call("POST", "/v1/tasks", body={"tasks": [{"id": "t1", "prompt": "p", "repo": repo}]})
    assert (status, answer["error"]["code"]) == (403, "repository_refused")
    assert not (agent.directory / "state/files").exists()
