"""Tasks with pictures, PDFs and earlier turns: what the API gets, what it may cost, what stays in the ledger."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from typing import Any

from tests.support.agent import KEY, Agent, bodies
from tests.support.messages_api import MessagesApi
from tests.support.pictures import pdf, png

PDF = "application/pdf"


def attached(data: bytes, kind: str = "image/png") -> dict[str, str]:
    return {"media_type": kind, "data": base64.b64encode(data).decode(), "name": "a file"}


async def test_a_conversation_with_its_pictures_is_sent_as_messages(agent: Agent, api: MessagesApi) -> None:
    picture, paper = attached(png(28, 28)), attached(pdf(2), PDF)
    history = [{"prompt": "look", "answer": "a cow", "files": [picture]}, {"prompt": "sure?", "answer": "yes"}]
    result = await agent.run(id="one", prompt="and this?", files=[paper], history=history)
    assert result["state"] == "succeeded", result
    [body] = bodies(api)
    source = {"type": "base64", "media_type": "image/png", "data": picture["data"]}
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "look"}]},
        {"role": "assistant", "content": "a cow"},
        {"role": "user", "content": "sure?"},
        {"role": "assistant", "content": "yes"},
        {
            "role": "user",
            "content": [
                {"type": "document", "source": {"type": "base64", "media_type": PDF, "data": paper["data"]}},
                {"type": "text", "text": "and this?"},
            ],
        },
    ]


async def test_what_a_picture_may_cost_is_reserved_before_it_is_sent(agent: Agent, api: MessagesApi) -> None:
    task: dict[str, Any] = {"prompt": "look", "files": [attached(png(8000, 8000))], "max_tokens": 10}
    # 4784 tokens at US$ 0.10 a million are more than that.
    result = await agent.run(id="dear", max_usd=0.0004, **task)
    assert (result["state"], result["error"]["code"]) == ("failed", "budget")
    assert api.posts == []
    result = await agent.run(id="fine", max_usd=0.002, **task)
    assert result["state"] == "succeeded", result
    assert 0.0004 < result["cost_usd"] <= 0.002


async def test_the_pages_of_a_pdf_are_counted_by_the_api_before_it_is_sent(agent: Agent, api: MessagesApi) -> None:
    task: dict[str, Any] = {"prompt": "read", "files": [attached(pdf(20), PDF)], "max_tokens": 10}
    result = await agent.run(id="dear", max_usd=0.005, **task)
    assert (result["state"], result["error"]["code"]) == ("failed", "budget")
    assert api.posts == []
    assert {entry.path for entry in api.log} == {"/v1/messages/count_tokens"}
    result = await agent.run(id="fine", max_usd=0.01, **task)
    assert result["state"] == "succeeded", result
    assert 0.005 < result["cost_usd"] <= 0.01
    result = await agent.run(id="cheap", max_usd=0.01, economy=True, **task)
    assert result["error"]["message"].startswith("only the API knows a PDF's tokens")


async def test_files_leave_the_ledger_with_the_end_of_their_task(agent: Agent) -> None:
    task: dict[str, Any] = {"id": "one", "prompt": "look", "files": [attached(png(9, 9) + bytes(5_000_000 // 2))]}
    result = await agent.run(**task, max_usd=0.05)
    assert result["state"] == "succeeded", result
    with closing(sqlite3.connect(agent.directory / "state" / "ledger.db")) as ledger:
        [(spec,)] = ledger.execute("SELECT spec FROM task")
    assert b'"prompt":"look"' in spec
    assert b'"max_usd":' in spec
    assert b"files" not in spec
    # The same task is still the same, and another one is not.
    assert (await agent.run(**task, max_usd=0.05))["text"] == result["text"]
    status, answer = await agent.call(
        "POST", "/v1/tasks", headers=KEY, body={"tasks": [task | {"files": [], "max_usd": 0.05}]}
    )
    assert (status, answer["error"]["code"]) == (409, "id_conflict")


async def test_a_bad_file_is_refused_at_once_in_one_line(agent: Agent) -> None:
    bad = attached(png(9, 9)) | {"media_type": "image/jpeg"}
    status, answer = await agent.call(
        "POST", "/v1/tasks", headers=KEY, body={"tasks": [{"id": "x", "prompt": "x", "files": [bad]}]}
    )
    assert (status, answer["error"]["code"]) == (400, "invalid_file")
    assert "a file is not 'image/jpeg' by its content" in answer["error"]["message"]
