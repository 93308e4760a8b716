"""`GET /metrics` of the real daemon: exact, as Prometheus wants it, and enough for the dashboard and the alerts."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from farmhand.agent.main import main
from farmhand.core.prices import price_table
from farmhand.core.task import resolve_model
from tests.support.agent import KEY, Agent, wait_batch
from tests.support.forked import ForkedAgent
from tests.support.gateway_metrics import told_metrics
from tests.support.messages_api import Fault, MessagesApi

MONITORING = Path(__file__).parents[2] / "monitoring"
MODEL = resolve_model("haiku")


def promtool(*arguments: str, text: str = "") -> str:
    """What promtool says; it must be content."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: scripts/tools test installs it"
    done = subprocess.run(
        [program, *arguments], input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


async def read(agent: Agent) -> tuple[str, dict[tuple[str, frozenset[tuple[str, str]]], float]]:
    """The text, and its samples by name and labels."""
    status, text = await agent.call("GET", "/metrics")
    assert status == 200
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return text, samples


def value(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """One sample."""
    return samples[name, frozenset(labels.items())]


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"idle_s": 1.0, "drain_s": 5.0, "budget_day_usd": 2.5}


async def test_all_that_happened_is_counted_once(tmp_path: Path, api: MessagesApi, settings: dict[str, Any]) -> None:
    agent = ForkedAgent(tmp_path, api.url, **settings)
    await agent.start()
    api.fault(
        Fault(kind="status", status=529, match="busy", count=2),
        Fault(kind="status", status=400, match="bad"),
        Fault(kind="cut", after_events=4, match="half", count=1),
    )
    results = [await agent.run(id=f"t{n}", prompt=f"hello {n}") for n in range(3)]
    results.append(await agent.run(id="busy", prompt="busy"))
    results.append(await agent.run(id="half", prompt="half"))
    bad = await agent.run(id="bad", prompt="bad")
    assert bad["state"] == "failed"
    _, samples = await read(agent)
    status = await agent.get("/v1/status")

    assert value(samples, "farmhand_tasks", state="succeeded") == 5
    assert value(samples, "farmhand_tasks_finished_total", state="succeeded", code="") == 5
    assert value(samples, "farmhand_tasks_finished_total", state="failed", code=bad["error"]["code"]) == 1
    for kind, name in (
        ("input", "input_tokens"),
        ("output", "output_tokens"),
        ("cache_read", "cache_read_input_tokens"),
    ):
        tokens = sum(result["usage"][name] for result in results)
        assert value(samples, "farmhand_tokens_total", model=MODEL, kind=kind) == tokens
    spent = sum(result["cost_usd"] for result in results)
    assert value(samples, "farmhand_cost_usd_total", model=MODEL) == pytest.approx(spent, rel=1e-9)
    requests = sum(result["usage"]["requests"] for result in results)
    assert value(samples, "farmhand_api_requests_total", model=MODEL) == requests
    assert value(samples, "farmhand_api_requests_unpriced_total", model=MODEL) == 0
    assert value(samples, "farmhand_api_errors_total", kind="overloaded_error") == 2
    assert value(samples, "farmhand_api_errors_total", kind="connection") == 1
    assert value(samples, "farmhand_api_errors_total", kind="invalid_request") == 1
    assert value(samples, "farmhand_api_errors_total", kind="rate_limit_error") == 0
    assert value(samples, "farmhand_api_retries_total") == sum(r["retries"] for r in [*results, bad])
    assert value(samples, "farmhand_api_requests_uncertain_total") == sum(r["uncertain"] for r in results) == 1
    assert value(samples, "farmhand_task_run_seconds_count", engine="api") == 6
    assert value(samples, "farmhand_task_queue_seconds_count", engine="api") == 6
    assert value(samples, "farmhand_task_queue_seconds_bucket", engine="api", le="+Inf") == 6
    ran = sum(result["run_s"] for result in [*results, bad])
    assert value(samples, "farmhand_task_run_seconds_sum", engine="api") == pytest.approx(ran, abs=0.01)
    day = status["budget_day"]
    assert value(samples, "farmhand_budget_limit_usd", budget="day") == 2.5
    assert value(samples, "farmhand_budget_spent_usd", budget="day") == pytest.approx(day["spent_usd"])
    assert value(samples, "farmhand_budget_left_usd", budget="day") == pytest.approx(2.5 - day["spent_usd"])
    assert 0 <= value(samples, "farmhand_key_age_seconds", key=status["key"], state="held") < 600
    assert value(samples, "farmhand_slots_free", engine="api") == status["slots"]["api"]["total"]
    await agent.stop()


async def test_promtool_has_nothing_to_say(agent: Agent) -> None:
    text, _ = await read(agent)
    assert promtool("check", "metrics", text=text) == ""
    await agent.run(id="one", prompt="hello")
    text, _ = await read(agent)
    assert promtool("check", "metrics", text=text) == ""
    assert "_created" not in text
    assert promtool("check", "metrics", text=told_metrics().text().decode()) == ""


async def test_its_own_verb_prints_them_and_keeps_no_old_ones_in_a_file(
    agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    socket, out = f"--socket={agent.socket}", tmp_path / "farmhand.prom"
    assert await asyncio.to_thread(main, ["metrics", socket]) == 0
    assert "farmhand_build_info{" in promtool("check", "metrics", text=(text := capsys.readouterr().out)) + text
    assert await asyncio.to_thread(main, ["metrics", socket, f"--out={out}"]) == 0
    assert {line.split(" ")[0] for line in out.read_text().splitlines()} == {
        line.split(" ")[0] for line in text.splitlines()
    }
    assert out.stat().st_mode & 0o777 == 0o644
    assert await asyncio.to_thread(main, ["metrics", socket, f"--out={tmp_path / 'none' / 'x'}"]) == 3
    assert "cannot be written" in capsys.readouterr().err
    await agent.stop()
    assert await asyncio.to_thread(main, ["metrics", socket, f"--out={out}"]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not out.exists()


async def test_cancelled_tasks_are_counted_each_and_in_batches(agent: Agent, api: MessagesApi) -> None:
    api.fault(Fault(kind="slow", delay_s=30, count=100))
    await agent.submit(
        {"id": "alone", "prompt": "x"}, *({"id": f"t{n}", "prompt": "x", "batch": "b"} for n in range(50))
    )
    await agent.wait_state("alone", "running")
    await agent.call("DELETE", "/v1/tasks/alone")
    await agent.call("DELETE", "/v1/batches/b")
    await wait_batch(agent, "b", cancelled=50)
    _, samples = await read(agent)
    assert value(samples, "farmhand_tasks_finished_total", state="cancelled", code="cancelled") == 51
    assert value(samples, "farmhand_tasks", state="cancelled") == 51


async def test_after_a_crash_the_key_is_as_old_as_it_is_and_what_was_cut_is_uncertain(
    agent: Agent, api: MessagesApi
) -> None:
    api.fault(Fault(kind="slow", delay_s=30, match="cut"))
    await agent.run(id="one", prompt="hello")
    await agent.submit({"id": "two", "prompt": "cut"})
    await agent.wait_state("two", "running")
    _, before = await read(agent)
    (name,) = (key for key in before if key[0] == "farmhand_key_age_seconds")
    await agent.stop(signal.SIGKILL)
    await agent.start()
    _, samples = await read(agent)
    assert name not in samples  # no key is in memory
    assert value(samples, "farmhand_tasks_waiting", reason="no_key") == 1
    assert value(samples, "farmhand_tasks", state="succeeded") == 1
    assert value(samples, "farmhand_tasks_finished_total", state="succeeded", code="") == 0
    assert value(samples, "farmhand_api_requests_uncertain_total") == 1
    await agent.call("PUT", "/v1/key", headers=KEY)
    _, samples = await read(agent)
    assert samples[name] > before[name]


async def test_a_refused_key_and_limits_show(agent: Agent, api: MessagesApi) -> None:
    await agent.run(id="one", prompt="hello")
    _, samples = await read(agent)
    key = (await agent.get("/v1/status"))["key"]
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        limit = value(samples, "farmhand_ratelimit_limit", key=key, model=MODEL, kind=kind)
        assert 0 < value(samples, "farmhand_ratelimit_remaining", key=key, model=MODEL, kind=kind) <= limit
    api.fault(Fault(kind="status", status=401))
    await agent.submit({"id": "two", "prompt": "hello"})
    await agent.wait_state("two", "awaiting_key")
    _, samples = await read(agent)
    assert value(samples, "farmhand_tasks_waiting", reason="key_refused") == 1
    assert value(samples, "farmhand_api_errors_total", kind="authentication_error") == 1
    assert value(samples, "farmhand_key_age_seconds", key=key, state="refused") >= 0


def queries() -> list[str]:
    """Every query of the dashboard and of the alert rules."""
    board = json.loads((MONITORING / "dashboard.json").read_text())
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return asked + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


async def test_the_dashboard_and_the_alerts_ask_for_what_there_is(tmp_path: Path, api: MessagesApi) -> None:
    agent = ForkedAgent(tmp_path, api.url, budget_day_usd=1)
    await agent.start()
    await agent.run(id="one", prompt="hello")
    text, _ = await read(agent)
    await agent.stop()
    text += told_metrics().text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    known = {sample.name for family in families.values() for sample in family.samples}
    known |= {name for name in families if name.startswith("farmhand_ratelimit_")}  # told by limits only
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    for query in queries():
        names = set(re.findall(r"\bfarmhand_\w+", query))
        assert names, query
        assert names <= known, f"{query}: {names - known}"
        asked = {label for inside in re.findall(r"\{([^}]*)\}", query) for label in re.findall(r"(\w+)\s*[=!]", inside)}
        assert asked <= labels | {"instance"}, query
    promtool("check", "rules", "/dev/stdin", text=rules_of(queries()))


def rules_of(asked: list[str]) -> str:
    """A rules file with each query as a recording rule, so that promtool parses it; Grafana's variable is filled in."""
    plain = [query.replace("$host", ".*") for query in asked if not query.startswith("label_values(")]
    rules = [{"record": f"test:query:{n}", "expr": query} for n, query in enumerate(plain)]
    return yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]})


def test_the_alert_rules_do_what_they_say() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(MONITORING / "alerts.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(MONITORING / "alerts.test.yml"))
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    tests = yaml.safe_load((MONITORING / "alerts.test.yml").read_text())["tests"]
    for test in tests:
        assert {one["alertname"] for one in test["alert_rule_test"]} == {rule["alert"] for rule in rules}, test["name"]
    assert all(rule["annotations"].keys() == {"summary", "action"} for rule in rules)


def test_prices_are_known_for_the_model_of_these_tests() -> None:
    assert MODEL in price_table().models
