"""claude-cheap over real ssh: both engines, every way to give a prompt, every form of the answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.farm import ApiControl, Farm
from tests.support.messages_api.answer import echo


def test_the_answer_is_all_there_is_on_stdout(farm: Farm, api: ApiControl) -> None:
    done = farm.cheap("What is a hay fork?")
    assert (done.returncode, done.stdout, done.stderr) == (0, echo("What is a hay fork?") + "\n", "")
    (post,) = api.posts()
    assert post["headers"]["x-api-key"] == farm.key
    assert json.loads(post["body"])["messages"] == [{"role": "user", "content": "What is a hay fork?"}]


def test_the_cli_engine_runs_the_real_cli(farm: Farm, api: ApiControl) -> None:
    done = farm.cheap("--engine", "cli", "What is a hay fork?")
    assert (done.returncode, done.stderr) == (0, "")
    assert "What is a hay fork?" in done.stdout
    (post,) = api.posts()
    assert post["headers"]["User-Agent"].startswith("claude-cli/")
    # The meter put the key in the place of the task's token.
    assert post["headers"]["x-api-key"] == farm.key


def test_a_task_with_tools_uses_them_on_the_host(farm: Farm, api: ApiControl) -> None:
    call = {"name": "Bash", "input": {"command": "echo made-in-$((6 * 7)); id -u"}}
    api.rule("run the command", {"tool_use": call}, {"text": "It printed: {tool_result}"})
    done = farm.cheap("--tools", "Bash", "Please run the command")
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"It printed: made-in-42\n(\d+)\n", done.stdout)
    assert found, done.stdout
    # systemd's range for dynamic users: systemd.exec(5), DynamicUser=.
    assert 61184 <= int(found[1]) <= 65519


def test_prompt_from_stdin(farm: Farm) -> None:
    assert farm.cheap(input="from a pipe").stdout == echo("from a pipe") + "\n"


def test_prompt_from_argument_and_stdin(farm: Farm, api: ApiControl) -> None:
    assert farm.cheap("Summarise:", input="one\ntwo").returncode == 0
    assert json.loads(api.posts()[0]["body"])["messages"][0]["content"] == "Summarise:\n\none\ntwo"


def test_files_are_added_to_the_prompt(farm: Farm, api: ApiControl, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("the barn is red\n", encoding="utf-8")
    assert farm.cheap("What colour?", "-f", str(notes)).returncode == 0
    sent = json.loads(api.posts()[0]["body"])["messages"][0]["content"]
    assert sent.startswith("What colour?")
    assert "the barn is red" in sent


def test_system_and_model_reach_the_api(farm: Farm, api: ApiControl) -> None:
    assert farm.cheap("--system", "Answer in Latin.", "--model", "sonnet", "hello").returncode == 0
    body = json.loads(api.posts()[0]["body"])
    assert (body["system"], body["model"]) == ("Answer in Latin.", "claude-sonnet-5-5")


@pytest.mark.parametrize("engine", ["api", "cli"])
def test_json_gives_the_whole_result(farm: Farm, engine: str) -> None:
    done = farm.cheap("--json", "--engine", engine, "hello")
    result = json.loads(done.stdout)
    assert (result["state"], result["engine"], result["model"]) == ("succeeded", engine, "claude-haiku-5-5")
    assert result["usage"]["input_tokens"] > 0
    assert result["usage"]["output_tokens"] > 0
    assert result["cost_usd"] > 0
    assert (result["attempts"], result["error"]) == (1, None)


@pytest.mark.parametrize("engine", ["api", "cli"])
def test_a_schema_shapes_the_answer(farm: Farm, engine: str) -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
    done = farm.cheap("--engine", engine, "--schema", json.dumps(schema), "How many cows?")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout)["count"], int)


def test_an_answer_that_takes_for_ever_to_check_ends_a_process_with_limits_and_not_the_agent(
    farm: Farm, api: ApiControl
) -> None:
    agent = farm.exec("systemctl", "show", "-P", "MainPID", "jada-agent").stdout.strip()
    done = farm.cheap("--schema", '{"type": "string"}', "How many cows?")
    assert done.returncode == 0, done.stderr
    (worker,) = farm.exec("pgrep", "-P", agent, "-f", "core/schemas/worker.py").stdout.split()
    limits = farm.exec("cat", f"/proc/{worker}/limits").stdout
    assert re.search(r"Max address space +268435456 +268435456", limits), limits
    assert re.search(r"Max core file size +0 +0", limits), limits
    api.rule("hard", {"tool_use": {"name": "answer", "input": {"answer": "a" * 40 + "!"}}})
    before = len(api.posts())
    done = farm.cheap("--json", "--schema", '{"type": "string", "pattern": "^(a+)+$"}', "hard")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "schema_limit"), done.stderr
    assert len(api.posts()) == before + 1
    assert farm.exec("pgrep", "-P", agent, "-f", "core/schemas/worker.py").stdout.split() == []
    assert farm.exec("systemctl", "show", "-P", "MainPID", "jada-agent").stdout.strip() == agent


@pytest.mark.parametrize(("kind", "code"), [("credit", "billing_error"), ("workspace_limit", "spend_limit")])
def test_an_account_without_money_exits_5_with_a_hint(farm: Farm, api: ApiControl, kind: str, code: str) -> None:
    api.fault(kind=kind, count=1)
    done = farm.cheap("--json", "hello")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (5, code)
    assert "Console" in error["hint"]


def test_a_failing_task_says_why_and_exits_1(farm: Farm, api: ApiControl) -> None:
    api.fault(kind="status", status=403, count=1)
    done = farm.cheap("hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "key" in done.stderr


def test_a_refused_key_says_why_and_exits_3(farm: Farm, api: ApiControl) -> None:
    api.fault(kind="status", status=401, count=1)
    done = farm.cheap("hello")
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert "the API refused the key" in done.stderr


def test_json_carries_a_failure_as_well(farm: Farm, api: ApiControl) -> None:
    api.fault(kind="status", status=402, count=1)
    done = farm.cheap("--json", "hello")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (5, "billing_error")


def test_a_passing_fault_is_retried(farm: Farm, api: ApiControl) -> None:
    api.fault(kind="status", status=529, count=1)
    done = farm.cheap("--json", "hello")
    result = json.loads(done.stdout)
    assert (result["state"], result["text"]) == ("succeeded", echo("hello"))
    assert [post["status"] for post in api.posts()] == [529, 200]


def test_the_connection_is_shared(farm: Farm) -> None:
    def logins() -> str:
        return farm.exec("sh", "-c", "journalctl -o cat | grep -c 'Accepted publickey for farmhand'").stdout

    assert farm.cheap("warm up").returncode == 0
    before = logins()
    assert int(before) > 0
    assert farm.cheap("again").returncode == 0
    assert logins() == before
