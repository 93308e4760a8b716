"""Batch files of OpenAI's and of Anthropic's API: what becomes of their requests, and what is refused by its path."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anthropic.types.messages.batch_create_params import Request
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from farmhand.batch.inputs import JsonLines
from farmhand.batch.request_files import RequestLines
from farmhand.batch.sources import source
from farmhand.core.errors import UsageError
from farmhand.core.rules import check
from farmhand.core.task import Task
from tests.support.pictures import png

PICTURE = b64encode(png(3, 2)).decode()
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"cows": {"type": "integer"}}, "required": ["cows"]}
HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


def chat(**body: Any) -> dict[str, Any]:
    made = {"model": "haiku", "messages": HI, **body}
    return {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": made}


def responses(**body: Any) -> dict[str, Any]:
    made = {"model": "haiku", "input": "hi", **body}
    return {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": made}


def messages(**params: Any) -> dict[str, Any]:
    return {"custom_id": "a", "params": {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": HI, **params}}


def read(directory: Path, *lines: Any, form: str = "auto", text: str = "", **options: Any) -> RequestLines:
    path = directory / "in.jsonl"
    path.write_text(text or "".join(json.dumps(line) + "\n" for line in lines))
    found, about = source([str(path)], form, None, options.pop("defaults", {}), **options)
    assert isinstance(found, RequestLines)
    assert about["form"] == found.form
    return found


def fields(directory: Path, line: Any, **options: Any) -> dict[str, Any]:
    """The task of one request, which keeps to the rules of tasks."""
    [record] = read(directory, line, **options).records()
    assert record.problem == ""
    assert record.fields is not None
    task = msgspec.convert({"id": "x", **record.fields}, Task)
    assert check(task) is None
    return record.fields


def problem(directory: Path, line: Any, **options: Any) -> str:
    [record] = read(directory, line, **options).records()
    assert record.fields is None
    return record.problem


def test_what_the_openai_package_types_is_carried(tmp_path: Path) -> None:
    body: CompletionCreateParamsNonStreaming = {
        "model": "gpt-5-mini",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PICTURE}"}},
                ],
            },
        ],
        "max_completion_tokens": 300,
        "temperature": 1,
        "n": 1,
        "seed": 7,
        "response_format": {"type": "json_schema", "json_schema": {"name": "c", "strict": True, "schema": SCHEMA}},
    }
    line = {"custom_id": "Barn #1/ü", "method": "POST", "url": "/v1/chat/completions", "body": body}
    found = read(tmp_path, line, model="haiku", defaults={"model": "haiku"})
    [record] = found.records()
    assert record.fields == {
        "model": "haiku",
        "system": "Be short.",
        "history": [{"prompt": "one", "answer": "two"}],
        "prompt": "What is this?",
        "files": [{"media_type": "image/png", "data": PICTURE}],
        "max_tokens": 300,
        "schema": SCHEMA,
    }
    assert record.columns == {"custom_id": "Barn #1/ü", "url": "/v1/chat/completions"}
    assert dict(found.left_out) == {"seed": 1}


def test_responses_are_carried(tmp_path: Path) -> None:
    body: ResponseCreateParamsNonStreaming = {
        "model": "sonnet",
        "instructions": "Be short.",
        "input": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [{"type": "input_text", "text": "three"}]},
        ],
        "max_output_tokens": 40,
        "text": {"format": {"type": "json_schema", "name": "c", "schema": SCHEMA}},
        "store": False,
    }
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    assert fields(tmp_path, line) == {
        "model": "sonnet",
        "system": "Be short.",
        "history": [{"prompt": "one", "answer": "two"}],
        "prompt": "three",
        "max_tokens": 40,
        "schema": SCHEMA,
    }


def test_what_the_anthropic_package_types_is_carried(tmp_path: Path) -> None:
    pdf = b64encode(b"%PDF-1.4 barn").decode()
    request: Request = {
        "custom_id": "my-first-request",
        "params": {
            "model": "claude-haiku-5-5",
            "max_tokens": 1024,
            "system": [{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": pdf},
                        },
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
                        {"type": "text", "text": "Compare."},
                        {"type": "text", "text": "Briefly."},
                    ],
                },
            ],
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
            "metadata": {"user_id": "u"},
        },
    }
    found = read(tmp_path, request)
    [record] = found.records()
    assert record.fields == {
        "model": "claude-haiku-5-5",
        "system": "Be short.",
        "history": [{"prompt": "one", "answer": "two"}],
        "prompt": "Compare.\n\nBriefly.",
        "files": [{"media_type": "application/pdf", "data": pdf}, {"media_type": "image/png", "data": PICTURE}],
        "max_tokens": 1024,
        "schema": SCHEMA,
    }
    assert dict(found.left_out) == {"metadata": 1, "cache_control": 1}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"requests": [messages(), messages() | {"custom_id": "b"}]}),
        json.dumps({"requests": [messages(), messages() | {"custom_id": "b"}]}, indent=2),
        json.dumps([messages(), messages() | {"custom_id": "b"}], indent=1),
        "\ufeff" + json.dumps(messages()) + "\n\n" + json.dumps(messages() | {"custom_id": "b"}),
    ],
)
def test_a_body_that_was_sent_is_a_file_too(tmp_path: Path, text: str) -> None:
    found = [record.columns for record in read(tmp_path, text=text).records()]
    assert found == [{"custom_id": "a"}, {"custom_id": "b"}]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]}
URL = {"type": "image_url", "image_url": {"url": "https://barn.example/cow.png"}}
SENT = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
TEXT = {"type": "text", "text": "and"}


def said(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*content]}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            chat(model="gpt-4o-mini"),
            "body.model is 'gpt-4o-mini', which is none of Claude's (--model haiku answers all",
        ),
        (chat(stream=True), "body.stream is a request for a stream"),
        (chat(tools=[TOOL]), "body.tools is a tool of the client's"),
        (chat(messages=[*HI, CALL, {"role": "tool", "tool_call_id": "c", "content": "1"}]), "is a call of a tool"),
        (chat(n=2), "body.n is a request for several answers (ask several times)"),
        (chat(logprobs=True), "body.logprobs is something that the Messages API has not"),
        (chat(top_logprobs=3), "body.top_logprobs is"),
        (chat(temperature=0.2), "body.temperature is a setting that the current models do not take (--drop temp"),
        (chat(temperature=1.5), "body.temperature is above 1"),
        (chat(top_p=0.9), "body.top_p is a setting"),
        (chat(stop=["\n"]), "body.stop is something that a task has not (--drop stop leaves it out)"),
        (chat(reasoning_effort="low"), "body.reasoning_effort is something that a task has not (--drop reasoning_eff"),
        (responses(reasoning={"effort": "high"}), "body.reasoning.effort is something that a task has not (--drop rea"),
        (chat(messages=[{"role": "system", "content": "x"}]), "body: nobody says anything in it"),
        (chat(presence_penalty=0.5), "body.presence_penalty is something"),
        (chat(response_format={"type": "json_object"}), "body.response_format is a JSON object of any shape"),
        (chat(messages=said(TEXT, URL)), "body.messages[0].content[1] is an image by URL"),
        (chat(messages=said(SENT, TEXT, SENT)), "body.messages is text between pictures"),
        (chat(messages=[*HI, {"role": "assistant", "content": "So"}]), "body.messages is ended by the beginning of"),
        (chat(messages=said({"type": "input_audio", "input_audio": {}})), "content[0] is a sound"),
        (chat(functions=[{"name": "f"}]), "body.functions is an old form of tools"),
        (chat(colour="red"), "body.colour is a field that farmhand does not know"),
        (chat(messages=[]), "body.messages: there is none"),
        (chat(messages="hi"), "body.messages: it is no list"),
        (chat(max_tokens="many"), "body.max_tokens: it is no whole number"),
        (chat() | {"url": "/v1/embeddings"}, "has the url '/v1/embeddings', and no task is made of that"),
        (chat() | {"method": "GET"}, "has another method than POST"),
        (chat() | {"custom_id": 7}, "has no custom_id"),
        (chat() | {"body": None}, "has no body, which must be an object"),
        (chat() | {"hue": 1}, "has the field 'hue', which a request does not have"),
        (responses(previous_response_id="r"), "body.previous_response_id is state kept at the provider"),
        (
            responses(background=True),
            "body.background is an answer in the background (--drop background leaves it out)",
        ),
        (responses(text={"format": {"type": "json_object"}}), "body.text.format is a JSON object of any shape"),
        (responses(reasoning="high"), "body.reasoning: it is no object"),
        (responses(tools=[{"type": "web_search"}]), "body.tools is a tool"),
        (messages(stream=True), "params.stream is a request for a stream"),
        (messages(temperature=0), "params.temperature is a setting that the current models do not take"),
        (messages(top_k=5), "params.top_k is"),
        (messages(stop_sequences=["x"]), "params.stop_sequences is something that a task has not"),
        (messages(tools=[{"name": "f", "input_schema": {}}]), "params.tools is a tool of the client's"),
        (messages(thinking={"type": "enabled", "budget_tokens": 1024}), "params.thinking is a setting for thinking"),
        (
            messages(output_config={"effort": "low"}),
            "params.output_config.effort is something that a task has not (--drop output_config.effort",
        ),
        (messages(mcp_servers=[{"type": "url"}]), "params.mcp_servers is a tool that runs at the provider"),
        (messages(model="gemini-3"), "params.model is 'gemini-3', which is none of Claude's"),
        (messages(max_tokens=None), "params.max_tokens: it is missing"),
        (
            messages(messages=said({"type": "image", "source": {"type": "url", "url": "https://x"}})),
            "params.messages[0].content[0].source is a file by URL",
        ),
        (
            messages(messages=said({"type": "document", "source": {"type": "text", "data": "x"}})),
            "params.messages[0].content[0].source is a document that is text (put it into the prompt)",
        ),
        (messages(messages=[{"role": "system", "content": "x"}]), "params.messages[0].role: it is none of assistant"),
        (messages(messages=[{"role": "assistant", "content": "x"}, *HI]), "a conversation that begins with an answer"),
        (messages(messages=[*HI, {"role": "assistant", "content": "x"}]), "ended by the beginning of an answer"),
        (messages(messages=said({"type": "tool_result", "tool_use_id": "t"})), "content[0] is a call of a tool"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(tmp_path: Path, line: Any, words: str) -> None:
    found = problem(tmp_path, line)
    assert words in found
    assert "\n" not in found
    assert "gateway" not in found


def test_what_asks_for_nothing_is_taken(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {
        "logprobs": False,
        "stream": False,
        "temperature": None,
        "tools": [],
        "stop": None,
        "user": "u",
        "reasoning_effort": "none",
    }
    assert fields(tmp_path, responses(reasoning={"effort": None}))["prompt"] == "hi"
    assert fields(tmp_path, responses(reasoning={"effort": "low"}), drop=["reasoning.effort"])["prompt"] == "hi"
    assert fields(tmp_path, chat(**nothing)) == {"model": "haiku", "prompt": "hi"}
    harmless = {"temperature": 1.0, "top_p": 1, "thinking": {"type": "disabled"}, "stop_sequences": []}
    assert fields(tmp_path, messages(**harmless)) == {"model": "claude-haiku-5-5", "prompt": "hi", "max_tokens": 9}


def test_options_of_the_command(tmp_path: Path) -> None:
    odd = chat(temperature=0, model="gpt-4o", stop=["x"])
    made = fields(tmp_path, odd, defaults={"model": "opus", "system": "s"}, model="opus", drop=["temperature", "stop"])
    assert made == {"model": "opus", "system": "s", "prompt": "hi"}
    effort = messages(output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}})
    assert fields(tmp_path, effort, drop=["output_config.effort", "none.at.all"])["schema"] == SCHEMA
    # A model that is only a setting answers no request that names another.
    assert fields(tmp_path, chat(), defaults={"model": "opus"})["model"] == "haiku"
    unnamed = chat()
    del unnamed["body"]["model"]
    assert fields(tmp_path, unnamed, defaults={"model": "opus"})["model"] == "opus"
    assert fields(tmp_path, unnamed)["model"] == "haiku"


@pytest.mark.parametrize("line", [[1, 2], "hello", None, 7])
def test_a_line_that_is_no_object_is_refused_alone(tmp_path: Path, line: Any) -> None:
    first, second = read(tmp_path, chat(), line).records()
    assert (first.problem, second.problem[:13]) == ("", "is no request")


def test_a_name_is_used_once(tmp_path: Path) -> None:
    found = list(read(tmp_path, chat(), chat() | {"custom_id": "A"}, chat()).records())
    assert [record.problem for record in found] == ["", "", "has the custom_id 'a', as line 1 has"]


def test_a_document_has_nothing_beside_its_requests(tmp_path: Path) -> None:
    text = json.dumps({"requests": [messages()], "window": "24h"}, indent=1)
    assert [record.problem for record in read(tmp_path, text=text).records()] == [
        "has the field 'window' beside requests (take it out)",
        "",
    ]


def test_a_key_that_is_there_twice_is_refused_in_lines_and_in_a_document(tmp_path: Path) -> None:
    line = json.dumps(messages()).replace('"max_tokens": 9', '"max_tokens": 9, "max_tokens": 9000')
    for form in ("anthropic", "auto"):
        [fine, twice] = read(tmp_path, text=f"{json.dumps(messages())}\n{line}\n", form=form).records()
        assert (fine.problem, twice.problem) == ("", "has the key 'max_tokens' twice")
    document = f'{{"requests":\n[{line}]}}'
    [twice] = read(tmp_path, text=document, form="anthropic").records()
    assert twice.problem == "has the key 'max_tokens' twice"
    with pytest.raises(UsageError, match="the input has the key 'max_tokens' twice"):
        read(tmp_path, text=document)


def test_our_own_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "say \\"custom_id\\"", "id": "a"}\n')
    assert type(source([str(path)], "auto", None, {})[0]) is JsonLines
    path.write_text('{"custom_id": "a", "prompt": "x"}\n')
    assert type(source([str(path)], "auto", None, {}, ["custom_id"])[0]) is JsonLines
    assert type(source([str(path)], "auto", None, {})[0]) is JsonLines
    with pytest.raises(UsageError, match="--drop is for requests of others"):
        source([str(path)], "auto", None, {}, drop=["temperature"])
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(json.dumps(chat()) + "\n")
    with pytest.raises(UsageError, match="are not for --format openai"):
        source([str(path)], "openai", "{prompt}", {})
    with pytest.raises(UsageError, match="are not for --format openai"):
        source([str(theirs)], "auto", None, {}, ["custom_id"])
    [record] = read(tmp_path, text=path.read_text(), form="openai").records()
    assert record.problem == "has the field 'prompt', which a request does not have"
