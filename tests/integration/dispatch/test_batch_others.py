"""Batch files of OpenAI's and Anthropic's APIs, by real daemons and as the packages of both read the results."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from anthropic.types.messages import MessageBatchIndividualResponse
from openai.types.chat import ChatCompletion

from tests.integration.dispatch.batches import Farm
from tests.integration.dispatch.conftest import Workstation
from tests.support.agent import bodies
from tests.support.messages_api import MessagesApi
from tests.support.pictures import png


async def test_both_formats_over_a_host(workstation: Workstation, api: MessagesApi, tmp_path: Path) -> None:
    farm = Farm(tmp_path, api, workstation)
    await farm.start()
    try:
        await openai(farm, api)
        await anthropic(farm, tmp_path)
    finally:
        await farm.stop()


async def openai(farm: Farm, api: MessagesApi) -> None:
    url = f"data:image/png;base64,{b64encode(png(3, 2)).decode()}"
    schema = {"type": "object", "properties": {"cows": {"type": "integer"}}, "required": ["cows"]}
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    turns: list[dict[str, Any]] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    system: dict[str, Any] = {"role": "system", "content": "Be short."}
    for_schema: dict[str, Any] = {
        "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}
    }
    asked: tuple[dict[str, Any], ...] = (
        {"messages": [system, *turns, {"role": "user", "content": content}], "max_tokens": 77},
        {"messages": [{"role": "user", "content": "How many?"}], "user": "u", **for_schema},
        {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.2},
    )
    where = {"method": "POST", "url": "/v1/chat/completions"}
    farm.write([{"custom_id": f"a/{n}", **where, "body": {"model": "gpt-5", **one}} for n, one in enumerate(asked)])
    refused = await farm.batch("--model", "haiku")
    assert refused.status == 2
    assert "line 3 cannot be carried: body.temperature is" in refused.err
    assert not farm.out.exists()
    options = ("--model", "haiku", "--drop", "temperature", "--ordered")
    done = await farm.batch(*options)
    assert done.status == 0, done.err
    assert "left out, as it changes no answer here: user (1 line)" in done.err
    found = [json.loads(line) for line in farm.out.read_text().splitlines()]
    assert [one["custom_id"] for one in found] == ["a/0", "a/1", "a/2"]
    made = [ChatCompletion.model_validate(one["response"]["body"], strict=True) for one in found]
    assert {one.model for one in made} == {"claude-haiku-5-5"}
    assert set(json.loads(made[1].choices[0].message.content or "")) == {"cows"}
    sent = next(body for body in bodies(api) if body["max_tokens"] == 77)
    assert sent["system"] == "Be short."
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in sent["messages"][2]["content"]] == ["image", "text"]
    whole = farm.out.read_bytes()
    again = await farm.batch(*options)
    assert (again.status, farm.out.read_bytes(), len(bodies(api))) == (0, whole, 3)


async def anthropic(farm: Farm, directory: Path) -> None:
    farm.out, farm.input = directory / "theirs.jsonl", directory / "requests.json"
    params = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    requests = [
        {"custom_id": "one", "params": params},
        {"custom_id": "two", "params": {**params, "model": "claude-x-1"}},
    ]
    farm.input.write_text(json.dumps({"requests": requests}, indent=1))
    done = await farm.batch("--ordered")
    assert done.status == 1, done.err
    found = [MessageBatchIndividualResponse.model_validate_json(line) for line in farm.out.read_text().splitlines()]
    assert [(one.custom_id, one.result.type) for one in found] == [("one", "succeeded"), ("two", "errored")]
    assert found[1].result.type == "errored"
    assert found[1].result.error.error.type == "not_found_error"
