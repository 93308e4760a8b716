"""What becomes of a task: its answer, its events, its id, its cost."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from tests.support.agent import KEY, WIRE, Agent, bodies
from tests.support.messages_api import Fault, MessagesApi, Rule, Step
from tests.support.messages_api.rules import ToolUse


async def test_a_task_brings_the_api_s_answer(agent: Agent, api: MessagesApi) -> None:
    result = await agent.run(id="one", prompt="Name a colour.", system="Be brief.", max_tokens=77)
    [sent] = bodies(api)
    assert result["state"] == "succeeded"
    assert "Name a colour." in result["text"]
    assert result["model"] == sent["model"] == "claude-haiku-5-5"
    assert sent["max_tokens"] == 77
    assert sent["system"] == "Be brief."
    assert result["attempts"] == 1
    assert result["stop_reason"] == "end_turn"


async def test_the_prompt_overhead_is_small(agent: Agent, api: MessagesApi) -> None:
    prompt = "x" * 1000
    await agent.run(id="one", prompt=prompt)
    assert api.posts[0].size - len(prompt) <= 1200


async def test_usage_and_cost_are_the_api_s_own_figures(agent: Agent) -> None:
    result = await agent.run(id="one", prompt="hello")
    usage = result["usage"]
    assert usage["requests"] == 1
    assert usage["input_tokens"] > 0
    expected = (usage["input_tokens"] * Decimal("0.10") + usage["output_tokens"] * Decimal("0.50")) / 1_000_000
    assert Decimal(str(result["cost_usd"])) == expected
    totals = await agent.get("/v1/usage")
    assert totals["usage"] == usage
    assert Decimal(str(totals["cost_usd"])) == expected


async def test_events_stream_the_text_and_end_with_the_result(tmp_path: object, agent: Agent, api: MessagesApi) -> None:
    api.state.event_s = 0.05
    await agent.submit({"id": "one", "prompt": "tell me more"})
    events = await agent.get("/v1/tasks/one/events")
    text = "".join(event["text"] for event in events if event["type"] == "text")
    assert len([event for event in events if event["type"] == "text"]) > 1
    assert events[-1]["type"] == "result"
    assert text == events[-1]["result"]["text"]


async def test_the_same_id_runs_once_and_answers_alike(agent: Agent, api: MessagesApi) -> None:
    first = await agent.run(id="one", prompt="hello")
    again = await agent.run(id="one", prompt="hello")
    assert again == first
    assert len(api.posts) == 1


async def test_the_same_id_with_other_content_is_refused(agent: Agent) -> None:
    await agent.run(id="one", prompt="hello")
    status, answer = await agent.call(
        "POST", "/v1/tasks", headers=KEY, body={"tasks": [{"id": "one", "prompt": "bye"}]}
    )
    assert status == 409
    assert answer["error"]["code"] == "id_conflict"


async def test_all_tasks_of_a_request_are_taken_or_none(agent: Agent) -> None:
    tasks = [{"id": "good", "prompt": "hello"}, {"id": "bad", "prompt": " "}]
    status, answer = await agent.call("POST", "/v1/tasks", headers=KEY, body={"tasks": tasks})
    assert (status, answer["error"]["code"]) == (400, "empty_prompt")
    assert (await agent.call("GET", "/v1/tasks/good"))[0] == 404


@pytest.mark.parametrize(
    ("model", "full"),
    [
        ("haiku", "claude-haiku-5-5"),
        ("sonnet", "claude-sonnet-5-5"),
        ("opus", "claude-opus-5-5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001"),
    ],
)
async def test_short_names_map_and_full_ids_pass(agent: Agent, api: MessagesApi, model: str, full: str) -> None:
    result = await agent.run(id="one", prompt="hello", model=model)
    assert result["state"] == "succeeded", result
    assert bodies(api)[0]["model"] == full


async def test_a_retired_model_gives_the_api_s_error_and_a_suggestion(agent: Agent) -> None:
    result = await agent.run(id="one", prompt="hello", model="claude-3-5-haiku-20241022")
    assert result["state"] == "failed"
    assert result["error"]["code"] == "unknown_model"
    assert "claude-3-5-haiku-20241022" in result["error"]["message"]
    assert "claude-haiku-5-5" in result["error"]["hint"]


@pytest.mark.parametrize("model", ["haiku", "opus"])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]},
        {"type": "array", "items": {"$ref": "#/$defs/word"}, "minItems": 1, "$defs": {"word": {"type": "string"}}},
        {"enum": ["yes", "no"]},
    ],
    ids=["object", "array", "enum"],
)
async def test_a_schema_gets_a_structured_answer(
    agent: Agent, schema: dict[str, object], model: str, api: MessagesApi
) -> None:
    result = await agent.run(id="one", prompt="answer", schema=schema, model=model)
    if model == "haiku":
        assert result["state"] == "succeeded", result
        assert result["structured"] is not None
        return
    # A model that cannot be forced may answer in prose: that is never passed off as a structured answer.
    assert (result["state"], (result["error"] or {}).get("code")) in {("succeeded", None), ("failed", "no_answer")}


async def test_an_answer_that_misses_the_schema_fails_after_the_last_attempt(agent: Agent, api: MessagesApi) -> None:
    api.rule(Rule(contains="guess", steps=[Step(tool_use=ToolUse(name="answer", input={"n": "many"}))]))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    result = await agent.run(id="one", prompt="guess", schema=schema)
    assert (result["state"], result["error"]["code"]) == ("failed", "no_answer"), result
    assert "does not meet the schema" in result["error"]["message"]
    assert result["attempts"] == len(api.posts) == 3


async def test_an_answer_with_a_schema_that_is_cut_off_says_where_and_what_to_do(
    agent: Agent, api: MessagesApi
) -> None:
    api.rule(Rule(contains="long", steps=[Step(text="x" * 400)]))
    result = await agent.run(id="one", prompt="long", schema={"type": "object"}, max_tokens=9)
    assert (result["state"], result["error"]["code"]) == ("failed", "no_answer"), result
    assert result["error"]["message"] == "the answer was cut off at its longest length"
    assert result["error"]["hint"] == "raise --max-tokens"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prompt": ""}, "empty_prompt"),
        ({"prompt": " \n\t"}, "empty_prompt"),
        ({"prompt": "a\0b"}, "invalid_task"),
        ({"prompt": "x" * (4 * 1024 * 1024 + 1)}, "too_large"),
        ({"model": "gpt"}, "unknown_model"),
        ({"model": "; id"}, "unknown_model"),
        ({"engine": "magic"}, "invalid_task"),
        ({"tools": ["Rm"]}, "invalid_task"),
        ({"tools": ["Bash"], "engine": "api"}, "invalid_task"),
        ({"schema": {"type": "nonsense"}}, "invalid_schema"),
        ({"schema": []}, "invalid_task"),
        ({"max_tokens": 0}, "invalid_task"),
        ({"timeout_s": -1}, "invalid_task"),
        ({"timeout_s": 1e9}, "invalid_task"),
        ({"id": "../etc"}, "invalid_task"),
        ({"colour": "red"}, "invalid_task"),
        ({"network": "full"}, "network_refused"),
        ({"max_usd": 0}, "invalid_task"),
        ({"priority": 10**9}, "invalid_task"),
        ({"batch": "a b"}, "invalid_task"),
        ({"economy": True, "tools": ["Bash"]}, "invalid_task"),
        ({"economy": True, "engine": "cli"}, "invalid_task"),
        ({"economy": True, "network": "full"}, "invalid_task"),
    ],
)
async def test_a_bad_task_is_refused_in_one_line(agent: Agent, change: dict[str, object], code: str) -> None:
    task = {"id": "one", "prompt": "hello"} | change
    status, answer = await agent.call("POST", "/v1/tasks", headers=KEY, body={"tasks": [task]})
    assert status in {400, 403, 413}
    assert answer["error"]["code"] == code
    assert "\n" not in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 500


@pytest.mark.parametrize(
    "prompt",
    [
        "a; id",
        "$(id)",
        "`id`",
        "one\ntwo\r\n",
        "'\"\\",
        "@/etc/passwd",
        "/help",
        "--help",
        "emoji 🐄👩‍🌾",
        "{{ 7*7 }}",
        "x" * 1_000_000,
    ],
    ids=lambda prompt: prompt[:12],
)
async def test_a_prompt_reaches_the_api_byte_for_byte(agent: Agent, api: MessagesApi, prompt: str) -> None:
    await agent.run(id="one", prompt=prompt)
    assert bodies(api)[0]["messages"] == [{"role": "user", "content": prompt}]


async def test_invalid_utf8_is_refused(agent: Agent) -> None:
    status, answer = await agent.call(
        "POST", "/v1/tasks", headers=KEY, body=b'{"tasks":[{"id":"one","prompt":"\xff\xfe"}]}'
    )
    assert (status, answer["error"]["code"]) == (400, "invalid_task")


async def test_tasks_are_listed_by_batch_and_state_in_pages(agent: Agent) -> None:
    await agent.submit(
        *({"id": f"t{n}", "prompt": "hello", "batch": "b1"} for n in range(5)), {"id": "other", "prompt": "x"}
    )
    for n in range(5):
        await agent.result(f"t{n}")
    page = await agent.get("/v1/tasks?batch=b1&state=succeeded&limit=3")
    rest = await agent.get(f"/v1/tasks?batch=b1&state=succeeded&limit=3&after={page['next']}")
    assert [task["id"] for task in page["tasks"] + rest["tasks"]] == [f"t{n}" for n in range(5)]
    assert rest["next"] is None
    assert (await agent.call("GET", "/v1/tasks?state=odd"))[0] == 400
    assert (await agent.call("GET", "/v1/tasks?after=nobody"))[0] == 404
    for path in ("/v1/tasks?limits=3", "/v1/status?limit=3", "/v1/results?batch=b1&wait=30"):
        status, refused = await agent.call("GET", path)
        assert (status, refused["error"]["code"]) == (400, "usage")
        assert "unknown in the query" in refused["error"]["message"]


async def test_status_and_metrics_count_tasks(agent: Agent) -> None:
    await agent.run(id="one", prompt="hello")
    status = await agent.get("/v1/status")
    assert status["finished"]["succeeded"] == 1
    assert status["running"] == 0
    _, metrics = await agent.call("GET", "/metrics")
    assert 'farmhand_tasks{state="succeeded"} 1.0' in metrics


async def test_more_tasks_than_slots_all_end(tmp_path: object, agent: Agent, api: MessagesApi) -> None:
    api.state.latency_s = 0.01
    await agent.submit(*({"id": f"t{n}", "prompt": f"task {n}"} for n in range(120)))
    results = await asyncio.gather(*(agent.result(f"t{n}") for n in range(120)))
    assert all(f"task {n}" in result["text"] for n, result in enumerate(results))
    assert len(api.posts) == 120


@pytest.mark.parametrize("sent", ["", "0", "x"])
async def test_a_client_of_another_wire_is_told_which_side_is_old(agent: Agent, sent: str) -> None:
    status, answer = await agent.call("GET", "/v1/status", headers={"X-Farmhand-Wire": sent})
    assert (status, answer["error"]["code"]) == (426, "client_too_old")
    status, answer = await agent.call("GET", "/v1/status", headers={"X-Farmhand-Wire": "99"})
    assert (status, answer["error"]["code"]) == (426, "agent_too_old")
    assert "site.yml" in answer["error"]["hint"]
    assert WIRE["X-Farmhand-Wire"] == "1"


async def test_a_task_waits_for_a_free_slot_no_longer_than_needed(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=0.5, match="slow one"))
    await agent.submit({"id": "slow", "prompt": "slow one"}, {"id": "quick", "prompt": "quick one"})
    quick = await agent.result("quick")
    assert quick["state"] == "succeeded"
    assert (await agent.get("/v1/tasks/slow"))["task"]["state"] == "running"
    await agent.result("slow")
