"""The module farmhand_count_tokens: the provider's own count, through the agent; nothing is run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from tests.integration.dispatch.conftest import Workstation
from tests.integration.dispatch.test_farmhand_task import answer
from tests.support.agent import Agent
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.pictures import png


async def test_it_counts_and_changes_nothing(
    workstation: Workstation, local_farm: Path, agent: Agent, api: MessagesApi, tmp_path: Path
) -> None:
    (tmp_path / "cow").write_bytes(png(280, 280))
    (tmp_path / "prompt").write_text("name a tool " * 50)
    schema = {"type": "object", "properties": {"tool": {"type": "string"}}, "required": ["tool"]}
    prompt = f"prompt_file={tmp_path}/prompt"
    counts = []
    workstation.environment["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "json"
    for options in (
        [prompt],
        [prompt, "--check"],
        [f"{prompt} system='Be short.' files={tmp_path}/cow schema='{json.dumps(schema)}'"],
    ):
        given = f"{options[0]} socket={agent.socket}"
        argv = ["ansible", "-i", str(local_farm), "farm", "-m", "farmhand_count_tokens", "-a", given, *options[1:]]
        done = await workstation.run(*argv)
        assert done.status == 0, done.err + done.out.decode()
        found = answer(done)
        assert (found["changed"], found["model"]) == (False, "claude-haiku-5-5")
        assert DEFAULT_KEY not in done.out.decode() + done.err
        counts.append(int(str(found["input_tokens"])))
    assert 0 < counts[0] == counts[1] < counts[2] - 90  # the picture alone has 100
    assert {request.path for request in api.log} == {"/v1/messages/count_tokens"}
    assert (await agent.call("GET", "/v1/status"))[1]["key"] is None
    with sqlite3.connect(agent.directory / "state" / "ledger.db") as ledger:
        assert ledger.execute("SELECT count(*) FROM task").fetchone() == (0,)


async def test_failures_are_one_line(workstation: Workstation, local_farm: Path, agent: Agent) -> None:
    workstation.environment["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "json"
    for given, words in (
        ("system=x", "prompt is missing"),
        ("prompt=x prompt_file=y", "exclude each other"),
        ("prompt=' '", "the prompt is empty"),
        ("prompt_file=/dev/zero", "prompt_file /dev/zero: it has more than 4194304 bytes"),
        ("prompt=x files=/dev/zero", "the file /dev/zero: it has more than 23068672 bytes"),
        ("prompt=x model=claude-nothing-1", "claude-nothing-1"),
        ("prompt=x key_source=env:NOT_SET", "NOT_SET is not set"),
        ("prompt=x tools=Bash", "tools"),
    ):
        argv = ["-m", "farmhand_count_tokens", "-a", f"{given} socket={agent.socket}"]
        done = await workstation.run("ansible", "-i", str(local_farm), "farm", *argv)
        assert done.status == 2, given
        message = str(answer(done)["msg"])
        assert words in message, message
        assert "\n" not in message
        assert "Traceback" not in done.out.decode() + done.err
