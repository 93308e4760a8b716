"""The lines of a client."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmhand.mcp_server import lines as module
from farmhand.mcp_server.lines import ClientLines


@pytest.fixture
def stdin(tmp_path: Path) -> Iterator[Path]:
    before = os.dup(0)
    path = tmp_path / "stdin"
    path.touch()
    yield path
    os.dup2(before, 0)
    os.close(before)


async def read(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    given = os.open(path, os.O_RDONLY)
    os.dup2(given, 0)
    os.close(given)
    ended: list[bool] = []
    found = [line async for line in ClientLines(lambda: ended.append(True))]
    assert ended == [True]
    assert os.read(0, 1) == b"", "nothing else of this process reads what the client sends"
    return found


async def test_half_a_character_and_what_is_no_utf_8_leave_a_request_that_can_be_answered(stdin: Path) -> None:
    found = await read(stdin, b'{"id": 1, "a": "x\\ud800y"}\n{"id": 2, "a": "\xff"}\ngarbage \\ud800\n{"a": "\\u00e9"}')
    assert json.loads(found[0]) == {"id": 1, "a": "x\ufffdy"}
    assert json.loads(found[1]) == {"id": 2, "a": "\ufffd"}
    assert found[2:] == ["garbage \\ud800\n", '{"a": "\\u00e9"}']


async def test_a_request_that_is_too_long_is_answered_as_one_that_there_is_not(
    stdin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    found = await read(stdin, b'{"jsonrpc": "2.0", "id": 7, "a": "' + b"x" * 500 + b'"}\n{"id": 8}\n')
    assert json.loads(found[0])["id"] == 7
    assert "more than" in json.loads(found[0])["method"]
    assert found[1:] == ['{"id": 8}\n']


CALL = '"method": "tools/call", "params": {"name": "farm_result", "arguments": {"id": "t1", "schema": %s}}'


@pytest.mark.parametrize(
    "form",
    [
        '{"jsonrpc": "2.0", "id": 7, ' + CALL + "}",  # the SDK of Python, and codex
        "{" + CALL + ', "jsonrpc": "2.0", "id": 7}',  # the SDK of TypeScript: claude
        "{" + CALL + ', "id": 7, "jsonrpc": "2.0"}',
    ],
)
@pytest.mark.parametrize(
    ("value", "why"), [('"' + "x" * 20_000 + '"', "a request of more than"), ("[" * 300 + "]" * 300, "too many levels")]
)
async def test_whatever_the_sdk_would_drop_is_answered_under_its_own_id(
    stdin: Path, monkeypatch: pytest.MonkeyPatch, form: str, value: str, why: str
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 9000)
    deep_enough = form % ("[" * 90 + "]" * 90)
    found = await read(stdin, f"{form % value}\n{deep_enough}\n".encode())
    refused = json.loads(found[0])
    assert refused["id"] == 7
    assert why in refused["method"]
    assert found[1:] == [deep_enough + "\n"]


async def test_what_has_no_id_is_answered_to_nobody(stdin: Path) -> None:
    deep = "[" * 300 + "]" * 300
    found = await read(stdin, f'{deep}\n{{"method": "x", "params": {{"id": 5, "a": {deep}}}}}\n'.encode())
    assert [line.strip() for line in found] == ["", ""]


async def test_each_request_of_a_batch_is_answered_under_its_own_id(stdin: Path) -> None:
    batch = [{"id": 1, "method": "ping"}, {"method": "notifications/x"}, 5, {"id": "b", "method": "tools/list"}]
    found = await read(stdin, f" {json.dumps(batch)}\n[]\n[1\n{{}}\n".encode())
    assert [json.loads(line)["id"] for line in found[:2]] == [1, "b"]
    assert "send each in a line of its own" in json.loads(found[0])["method"]
    assert found[2:] == ["[1\n", "{}\n"]
