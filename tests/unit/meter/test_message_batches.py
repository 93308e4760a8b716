"""Answers of the Message Batches endpoint as the network may bring them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Key
from farmhand.meter.message_batches import MessageBatches
from farmhand.meter.upstream import Upstream

KEY = Key("sk-ant-test-batches-00000000")
VIEW = b'{"id":"b","processing_status":"ended","created_at":"2026-11-01T00:00:00Z","request_counts":{"succeeded":2}}'


@pytest.mark.parametrize(("status", "body", "code"), [(200, VIEW, ""), (401, b'{"error":{"message":"no"}}', "no")])
async def test_an_answer_without_a_length_is_read_to_its_end(status: int, body: bytes, code: str) -> None:
    async def api(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d x\r\ntransfer-encoding: chunked\r\n\r\n" % status)
        for part in (body[:7], body[7:]):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    async with await asyncio.start_server(api, "127.0.0.1", 0) as server:
        upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        errors: Counter[str] = Counter()
        batches = MessageBatches(upstream, errors)
        if code:
            with pytest.raises(ApiError, match=f"^{code}$"):
                await batches.retrieve(KEY, "b")
            assert errors == {"authentication_error": 1}
        else:
            view = await batches.retrieve(KEY, "b")
            assert (view.ended, view.requests) == (True, 2)
        upstream.close()
