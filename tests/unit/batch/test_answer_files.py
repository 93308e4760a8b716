"""Results in the formats of OpenAI's and of Anthropic's batches, as their own packages read them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from anthropic.types.messages import MessageBatchIndividualResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from farmhand.batch.begin import InvalidInput, open_journal
from farmhand.core.errors import UsageError
from farmhand.meter.errors import STATUS_CODE
from tests.unit.batch.test_keep import run
from tests.unit.batch.test_request_files import HI, SCHEMA, chat, messages, responses

USAGE = {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 5, "requests": 1}
DONE = {"state": "succeeded", "text": "Four.", "model": "claude-haiku-5-5", "usage": USAGE, "cost_usd": 1e-6}
FAILED = {"state": "failed", "cost_usd": 0, "error": {"code": "refusal", "message": "declined", "hint": "rephrase"}}
ENDS = [
    DONE | {"stop_reason": "end_turn"},
    DONE | {"text": "", "structured": {"cows": 4}, "stop_reason": "tool_use"},
    DONE | {"stop_reason": "max_tokens"},
    FAILED,
    {"state": "cancelled", "cost_usd": 0},
]


def answers(directory: Path, *lines: dict[str, Any], ends: Sequence[dict[str, Any]] = ENDS, **more: Any) -> Path:
    text = "".join(json.dumps(line | {"custom_id": f"q #{n}"}) + "\n" for n, line in enumerate(lines, 1))
    return run(directory, name="in.jsonl", text=text, template=None, outcomes=ends, **more)


def five(line: dict[str, Any]) -> list[dict[str, Any]]:
    where = "body" if "body" in line else "params"
    return [line | {where: line[where] | ({"max_tokens": n} if "messages" in line[where] else {})} for n in range(1, 6)]


def test_the_openai_package_reads_them(tmp_path: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}
    out = answers(tmp_path, *five(chat(response_format=form)))
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(one) for one in found] == [{"id", "custom_id", "response", "error"}] * 5
    assert [one["custom_id"] for one in found] == [f"q #{n}" for n in range(1, 6)]
    assert len({one["id"] for one in found}) == 5
    assert [one["error"] for one in found[:3]] == [None] * 3
    assert {(one["response"]["status_code"], bool(one["response"]["request_id"])) for one in found[:3]} == {(200, True)}
    made = [ChatCompletion.model_validate(one["response"]["body"], strict=True) for one in found[:3]]
    assert [one.choices[0].message.content for one in made] == ["Four.", '{"cows":4}', "Four."]
    assert [one.choices[0].finish_reason for one in made] == ["stop", "stop", "length"]
    assert made[0].model == "claude-haiku-5-5"
    assert made[0].created > 1_700_000_000
    usage = made[0].usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (14, 5, 19)
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert [one["response"] for one in found[3:]] == [None, None]
    assert [one["error"] for one in found[3:]] == [
        {"code": "refusal", "message": "declined (rephrase)"},
        {"code": "batch_cancelled", "message": "the task is cancelled"},
    ]


def test_the_openai_package_reads_responses(tmp_path: Path) -> None:
    out = answers(tmp_path, responses(), responses(max_output_tokens=1), ends=[ENDS[0], ENDS[2]])
    made = [Response.model_validate(json.loads(line)["response"]["body"]) for line in out.read_text().splitlines()]
    assert [(one.status, one.output_text) for one in made] == [("completed", "Four."), ("incomplete", "Four.")]
    assert made[0].usage is not None
    assert (made[0].usage.input_tokens, made[0].usage.output_tokens) == (14, 5)


def test_the_anthropic_package_reads_them(tmp_path: Path) -> None:
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    ends = [*ENDS, {**FAILED, "error": {"code": "budget", "message": "spent"}}]
    out = answers(tmp_path, *five(messages(output_config=form)), messages(max_tokens=6), ends=ends)
    lines = out.read_text().splitlines()
    assert {frozenset(json.loads(line)) for line in lines} == {frozenset({"custom_id", "result"})}
    found = [MessageBatchIndividualResponse.model_validate(json.loads(line)) for line in lines]
    assert [one.custom_id for one in found] == [f"q #{n}" for n in range(1, 7)]
    assert [one.result.type for one in found] == ["succeeded"] * 3 + ["errored", "canceled", "errored"]
    said = [one.result.message for one in found if one.result.type == "succeeded"]
    assert [(block.type, block.text) for one in said for block in one.content if block.type == "text"] == [
        ("text", "Four."),
        ("text", '{"cows":4}'),
        ("text", "Four."),
    ]
    assert [one.stop_reason for one in said] == ["end_turn", "end_turn", "max_tokens"]
    assert (said[0].usage.input_tokens, said[0].usage.cache_read_input_tokens) == (10, 4)
    errors = [one.result.error.error for one in found if one.result.type == "errored"]
    assert [(error.type, error.message) for error in errors] == [
        ("api_error", "declined (rephrase)"),
        ("billing_error", "spent"),
    ]


@pytest.mark.parametrize("status", sorted(STATUS_CODE))
def test_the_api_s_own_refusals_keep_their_type(tmp_path: Path, status: int) -> None:
    end = {**FAILED, "error": {"code": STATUS_CODE[status], "message": "no"}}
    found = json.loads(answers(tmp_path, messages(), ends=[end]).read_text())["result"]["error"]["error"]["type"]
    assert found == {400: "invalid_request_error", 413: "invalid_request_error"}.get(status, STATUS_CODE[status])


@pytest.mark.parametrize("line", [chat(), messages()])
def test_results_come_once_and_lost_ones_come_back(tmp_path: Path, line: dict[str, Any]) -> None:
    lines = five(line)
    out = answers(tmp_path, *lines)
    whole = out.read_bytes()
    for kept in (whole, b"", whole[:7], whole[: len(whole) // 2], whole[:-1]):
        out.write_bytes(kept)
        assert answers(tmp_path, *lines, ends=[]).read_bytes() == whole
    for foreign in (b"mine\n", b'{"custom_id": "other", "response": {"a": 1}}\n', b'{"custom_id": "q #1"}\n'):
        out.write_bytes(foreign)
        with pytest.raises(UsageError, match=r"was not written by farmhand batch|not in this batch"):
            answers(tmp_path, *lines, ends=[])
        assert out.read_bytes() == foreign
    out.write_bytes(whole)
    open_journal(out, (), restart=True).abandon()
    assert not out.exists()


def test_a_table_has_the_names(tmp_path: Path) -> None:
    out = answers(tmp_path, chat(), out="out.csv", ends=[ENDS[0]])
    [row] = csv.DictReader(out.open())
    assert (row["custom_id"], row["text"], row["state"]) == ("q #1", "Four.", "succeeded")


def test_the_whole_file_is_checked_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        answers(tmp_path, chat(), chat(n=2), chat(messages=[*HI, {"role": "assistant", "content": "x"}]))
    assert [line[:32] for line in caught.value.lines] == [
        "line 2 cannot be carried: body.n",
        "line 3 cannot be carried: body.m",
    ]
