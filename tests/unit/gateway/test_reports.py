"""What users of other gateways and harnesses reported, as cases for this one. Each names its report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.core.errors import NotConfigured, Refused
from farmhand.gateway import classify
from farmhand.gateway.carries import ChatOptions
from farmhand.gateway.config import parse
from farmhand.gateway.dialects import messages, responses, to_chat
from farmhand.gateway.explain import text
from farmhand.gateway.ledger import DecisionRecord
from farmhand.gateway.policy import Rule, decide
from farmhand.gateway.turn import Carries
from tests.unit.gateway.turns import CENT, DAY, DOWN, facts, local, metered, plan, turn

BOTH = (Rule(order=("local", "metered")),)


def test_a_free_model_with_a_paid_fallback_does_not_pass_the_budget_by() -> None:
    """BerriAI/litellm#41344: the budget was checked for the free model that was asked for, not for what then billed."""
    made = decide(facts(most_pico=CENT), (local(closed=DOWN), metered(spent_pico=DAY)), BOTH)
    assert made.backend == ""
    assert made.refusals[1].reason.code == "budget_day"


def test_a_budget_that_is_not_known_yet_is_no_budget_that_is_free() -> None:
    """BerriAI/litellm#40095 and #26672: first requests got through where the spend was not there yet, or was NULL."""
    assert decide(facts(most_pico=CENT), (metered(spent_pico=None),), BOTH).backend == ""
    assert decide(facts(most_pico=CENT), (metered(spent_pico=DAY - CENT + 1),), BOTH).backend == ""


def test_no_list_of_fallbacks_is_in_the_code() -> None:
    """langchain-ai/openwiki#61: at the free model's limit two paid ones from the code answered, and nothing said so."""
    made = decide(facts(most_pico=CENT), (local(closed=DOWN), plan(), metered()), parse("").rules)
    assert made.backend == ""


def test_a_long_context_goes_where_its_rule_says_and_the_rule_is_shown() -> None:
    """musistudio/claude-code-router#1135: longContextThreshold was passed over, and no log said which rule decided."""
    rules = (Rule(tokens_over=60_000, order=("local:long",)), Rule(order=("local:short",)))
    states = (local("short"), local("long"))
    for tokens, backend, number in ((60_001, "local:long", 1), (60_000, "local:short", 2)):
        made = decide(facts(tokens=tokens), states, rules, "", "fh-1")
        assert made.backend == backend
        lines = text(DecisionRecord(at=0.0, decision=made, states=states, rules=rules))
        assert f"{backend}, by rule {number}" in lines


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-4-6", "claude-haiku-4-5", "gpt-5", "x/y:z"])
def test_the_name_of_a_model_is_no_class_and_an_unknown_one_is_none_that_costs_more(model: str) -> None:
    """musistudio/claude-code-router#837: sonnet came out as `think`; anomalyco/opencode#20743: an unknown id silently
    became the provider's most expensive model."""
    shipped = parse("")
    found = classify.facts(turn(model=model), None, shipped)
    assert found == classify.facts(turn(model="unheard-of"), None, shipped)
    assert found.work_class == "chat"


def test_a_title_goes_nowhere_else_than_the_conversation() -> None:
    """anomalyco/opencode#15854 and #8609: with a local model, titles were made in the cloud."""
    title = classify.facts(turn(carries=Carries(schema=True), tokens=900), None, parse(""))
    assert title.background
    everywhere = (Rule(order=("local", "subscription", "metered")),)
    assert decide(title, (local(schema=True), plan(), metered()), everywhere).residency == "local"
    assert decide(title, (local(closed=DOWN), plan(), metered()), everywhere).backend == ""


def test_a_fallback_that_cannot_work_is_an_error_at_once() -> None:
    """NousResearch/hermes-agent#74280: `provider: ollama` as fallback was accepted and could never be used."""
    with pytest.raises(NotConfigured, match=r"\[\[rule\]\] 1 try: names 'ollama', which is no backend \("):
        parse('[local.mine]\nurl = "http://localhost:11434"\n[[rule]]\ntry = ["local", "ollama"]')


@pytest.mark.parametrize("model", ["minimax-m3:cloud", "gpt-oss:120b-cloud"])
def test_a_model_that_ollama_runs_elsewhere_is_not_local(model: str) -> None:
    """Alishahryar1/free-claude-code#1448: cloud models through the Ollama on this machine, at its address."""
    with pytest.raises(Refused, match=f"{model} runs on its maker's servers"):
        parse(f'[local.ollama]\nurl = "http://localhost:11434"\nmodel = "{model}"')


@pytest.mark.parametrize("url", ["http://192.168.1.100:11434", "https://openrouter.ai/api"])
def test_a_base_url_elsewhere_is_not_local(url: str) -> None:
    """The `apiBase` of a Continue configuration (meibraransari/ollama-docker, vscode/readme.md), and a provider's."""
    with pytest.raises(Refused, match=r"is not this machine, so it is not local \(.*ssh -N -L"):
        parse(f'[local.remote]\nurl = "{url}"')


def test_a_key_in_the_environment_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """anthropics/claude-code#78491: an exported key had every session billed to the API, for weeks."""
    for name in ("ANTHROPIC_API_KEY", "FARMHAND_GATEWAY_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "sk-ant-test-0123456789abcdef")
    shipped = parse("")
    assert [state.name for state in shipped.closed()] == ["subscription", "metered"]
    assert decide(facts(most_pico=0), shipped.closed(), shipped.rules).backend == ""


CCR = """{ "Router": { "default": "deepseek,deepseek-chat", "background": "ollama,qwen2.5-coder:latest",
"think": "deepseek,deepseek-reasoner", "longContextThreshold": 60000 } }"""
LITELLM = "model_list:\n  - model_name: gpt-4o\n    litellm_params:\n      model: azure/gpt-4o-eu\n"
CONTINUE = "name: Remote\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: Llama\n    provider: ollama\n"


@pytest.mark.parametrize("text", [CCR, LITELLM, CONTINUE])
def test_another_gateways_file_is_one_line_of_error(text: str) -> None:
    """musistudio/claude-code-router#1028, LiteLLM's docs (proxy/configs.md), a Continue config.yaml."""
    with pytest.raises(NotConfigured, match=r"^gateway\.toml: not TOML: .* \(at line 1, column \d+\)$"):
        parse(text)


def test_the_same_routes_as_gateway_toml() -> None:
    """What that Router block means: a local model first, a paid one beyond 60,000 tokens, within a budget."""
    lines = (
        '[local.ollama]\nurl = "http://localhost:11434"\nmodel = "qwen2.5-coder:latest"\n'
        '[metered]\nenabled = true\nbudget_day_usd = "2"\n'
        '[[rule]]\ntokens_over = 60000\ntry = ["metered"]\n[[rule]]\ntry = ["local"]\n'
    )
    rules = parse(lines).rules
    states = (local("ollama"), metered())
    assert decide(facts(tokens=60_001, most_pico=CENT), states, rules).backend == "metered"
    assert decide(facts(tokens=60_000, most_pico=CENT), states, rules).backend == "local:ollama"


USER = {"role": "user", "content": "hi"}


def in_chat(dialect: str, **fields: Any) -> list[tuple[str, str]]:
    """The messages of the Chat request that is made of a turn: each one's role, and the call that it answers."""
    body = json.dumps({"model": "m"} | fields).encode()
    turn = {"messages": messages, "responses": responses}[dialect].read(body, {})
    made = json.loads(to_chat.request(turn, ChatOptions(model="m")).body)
    return [(one["role"], one.get("tool_call_id", "")) for one in made["messages"]]


def test_a_result_that_comes_late_stands_behind_its_call() -> None:
    """cubist38/mlx-openai-server#268: codex put a message between a call and its output, and the template raised."""
    calls = [{"type": "function_call", "call_id": one, "name": "look", "arguments": "{}"} for one in "12"]
    first, second = ({"type": "function_call_output", "call_id": one, "output": "r"} for one in "12")
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}
    behind = [("user", ""), ("assistant", ""), ("tool", "1"), ("tool", "2"), ("user", "")]
    assert in_chat("responses", input=[USER, *calls, first, USER, second]) == behind
    assert in_chat("responses", input=[USER, *calls, said, first, second, USER]) == behind
    # An id that comes again is the later call's.
    again = in_chat("responses", input=[USER, *calls, first, second, USER, calls[0], USER, first])
    assert again == [*behind, ("assistant", ""), ("tool", "1"), ("user", "")]
    assert in_chat("responses", input=[USER, first]) == [("user", ""), ("tool", "1")]


def test_an_answer_of_nothing_is_none() -> None:
    """vllm-project/vllm#21089, anomalyco/opencode#2272: an empty answer was refused, two turns of one side too."""
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}
    for empty in (thought, {"role": "assistant", "content": ""}, {"role": "assistant", "content": []}):
        assert in_chat("messages", max_tokens=9, messages=[USER, empty, USER]) == [("user", "")]


@pytest.mark.parametrize("content", [{"content": ""}, {"content": []}, {}, {"content": [{"type": "text", "text": ""}]}])
def test_a_tool_that_said_nothing_has_a_result(content: dict[str, Any]) -> None:
    """musistudio/claude-code-router#936: a result without content was a 400."""
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "look", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"} | content]}
    assert in_chat("messages", max_tokens=9, messages=[USER, call, result])[1:] == [("assistant", ""), ("tool", "1")]
