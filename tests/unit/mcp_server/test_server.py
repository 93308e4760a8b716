"""The server as a process, while another one holds its book."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

PROGRAM = (sys.executable, "-c", "from farmhand.cli import main; main()", "mcp")
INFO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


def request(number: int, method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


async def test_a_book_that_another_process_holds_keeps_one_call_waiting_which_says_so_and_no_other(
    tmp_path: Path,
) -> None:
    book = tmp_path / ".local/state/farmhand/mcp/book.sqlite"
    book.parent.mkdir(parents=True)
    pipe = asyncio.subprocess.PIPE
    with closing(sqlite3.connect(book, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        server = await asyncio.create_subprocess_exec(*PROGRAM, stdin=pipe, stdout=pipe, env={"HOME": str(tmp_path)})
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            server.stdin.write(request(0, "initialize", **INFO))
            server.stdin.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
            about = {"name": "farm_result", "arguments": {"id": "t1"}, "_meta": {"progressToken": 5}}
            server.stdin.write(request(1, "tools/call", **about))
            said: list[dict[str, Any]] = []
            while not said or said[-1].get("id") != 2:
                said.append(json.loads(await asyncio.wait_for(server.stdout.readline(), 20)))
                if said[-1].get("method") == "notifications/progress":
                    server.stdin.write(request(2, "ping"))
            waits = next(one["params"]["message"] for one in said if "params" in one)
            assert waits == f"waiting: another process holds the book of the session's money, {book}"
            assert 1 not in [one.get("id") for one in said]
            other.execute("ROLLBACK")
            while said[-1].get("id") != 1:
                said.append(json.loads(await asyncio.wait_for(server.stdout.readline(), 20)))
            assert "no job t1 is known" in said[-1]["result"]["content"][0]["text"]
        finally:
            server.kill()
            await server.wait()
