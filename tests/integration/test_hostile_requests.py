"""A task in a sandbox that sends all it can: the daemon's memory stays bounded, and other tasks go on.

`Sandboxes` stands for systemd, and a script of the test's for the claude CLI.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi
from tests.support.sandboxes import Sandboxes

#: What all requests together may add to the daemon's memory; its unit has 512 MB (role jada_agent).
MOST_MB = 256  # measured: 60 to 190

#: Sends what the prompt names, four at once; says which answers it got.
SCRIPT = """#!/usr/bin/python3 -I
import collections, http.client, json, os, sys, threading
from urllib.parse import urlsplit

MB = 1024 * 1024
prompt = json.loads(sys.stdin.readline())["message"]["content"][0]["text"]
size = 31 * MB if prompt.startswith("large ") else 15 * MB
prompt = prompt.removeprefix("large ")
model = sys.argv[sys.argv.index("--model") + 1]
head = json.dumps({"model": model, "max_tokens": 5, "messages": []}).encode()[:-2]
inner = {
    "objects": b"[" + b"{}," * (size // 3) + b"{}]",
    "strings": b"[" + b'"",' * (size // 3) + b'""]',
    "emoji": b'"' + "\\U0001f600".encode() + b"x" * size + b'"',
    "quotes": b'"' + b'\\\\"' * (size // 2) + b'"',
    "depth": b"[" * size,
}[prompt]
body = head + b'{"role":"user","content":' + inner + b"}]}"
url = urlsplit(os.environ["ANTHROPIC_BASE_URL"])
headers = {"x-api-key": os.environ["ANTHROPIC_API_KEY"], "content-type": "application/json",
           "anthropic-version": "2023-06-01"}
statuses = collections.Counter()

def send():
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    try:
        connection.request("POST", "/v1/messages", body, headers)
        statuses[str(connection.getresponse().status)] += 1
    except OSError:
        statuses["413"] += 1  # it was refused before all of it was sent
    connection.close()

# One that is in order: of a task that has asked the API nothing, no answer is believed.
connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
plain = {"model": model, "max_tokens": 1000, "messages": [{"role": "user", "content": "hello"}]}
connection.request("POST", "/v1/messages", json.dumps(plain), headers)
connection.getresponse().read()
connection.close()
threads = [threading.Thread(target=send) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
result = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "result": json.dumps(statuses)}
print(json.dumps(result))
"""


def memory_mb(agent: Agent, name: str) -> float:
    """A figure of the daemon's memory: VmRSS is what it has, VmHWM the most it had."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{agent.pid}/status").read_text(), re.M)
    assert found
    return int(found[1]) / 1024


@pytest.fixture
async def agent(tmp_path: Path, api: MessagesApi) -> AsyncIterator[Agent]:
    for part in (tmp_path, *tmp_path.parents[:3]):
        if part != Path("/tmp") and part.is_relative_to("/tmp"):
            part.chmod(0o755)
    (tmp_path / "run").mkdir()
    script = tmp_path / "claude"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    with Sandboxes(tmp_path / "run" / "task.sock"):
        daemon = ForkedAgent(tmp_path, api.url, claude_path=str(script), sandbox_spares=0)
        await daemon.start()
        yield daemon
        await daemon.stop()


@pytest.mark.parametrize(
    "kinds",
    [("large objects", "large emoji"), ("objects", "strings", "depth"), ("emoji", "quotes")],
    ids=", ".join,
)
async def test_large_requests_take_neither_the_memory_nor_the_time_of_others(
    agent: Agent, api: MessagesApi, kinds: tuple[str, ...]
) -> None:
    assert (await agent.run(id="warm", prompt="hello"))["state"] == "succeeded"
    before = memory_mb(agent, "VmRSS")
    ids = [f"h{n}" for n in range(len(kinds))]
    await agent.submit(*({"id": id_, "prompt": kind, "engine": "cli"} for id_, kind in zip(ids, kinds, strict=True)))
    ends = asyncio.gather(*map(agent.result, ids))
    others = 0
    while not ends.done():
        assert (await agent.run(id=f"o{others}", prompt="hello"))["state"] == "succeeded"
        others += 1
        await asyncio.sleep(0.1)
    assert others > 1
    for kind, result in zip(kinds, await ends, strict=True):
        assert result["attempts"] == 1, kind
        if result["state"] == "succeeded":
            assert set(json.loads(result["text"])) == {"413" if kind.startswith("large ") else "400"}
        else:
            # It is a request, and larger than the model takes: the API itself says so.
            assert "prompt is too long" in result["error"]["message"], result
    assert (await agent.run(id="last", prompt="hello"))["state"] == "succeeded"
    assert memory_mb(agent, "VmHWM") - before < MOST_MB
