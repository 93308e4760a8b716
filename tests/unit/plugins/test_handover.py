"""How action plugins speak to a host's agent; through real connections in tests/integration/dispatch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import WireError
from farmhand.plugins.handover import HostAgent, operators_key, operators_settings
from farmhand.wire.task_call import MARK
from farmhand.wire.transport import AGENT_SOCKET
from tests.unit.wire.scripted import answer

KEY = "sk-ant-test-handover-00000000"


def prints(stdout: str, *, rc: int = 0, stderr: str = "", commands: list[str] | None = None) -> Any:
    def execute(command: str, in_data: bytes) -> dict[str, Any]:
        if commands is not None:
            commands.extend([command, in_data.decode()])
        return {"rc": rc, "stdout": stdout, "stderr": stderr}

    return execute


def test_the_key_is_in_the_stdin_and_nowhere_else() -> None:
    commands: list[str] = []
    said = answer({"fingerprint": "0123456789ab", "tasks_resumed": 0}).decode()
    assert HostAgent(prints(said, commands=commands), "farm1", "/run/a b.sock").put_key(KEY)["tasks_resumed"] == 0
    command, data = commands
    assert command == "jada-agent bridge --socket '/run/a b.sock'"
    assert data.startswith("PUT /v1/key HTTP/1.1\r\n")
    assert f"X-Farmhand-Key: {KEY}\r\n" in data
    HostAgent(prints(said, commands=commands), "farm1", AGENT_SOCKET).put_key(KEY)
    assert commands[2] == "jada-agent bridge"


def test_a_task_and_its_answer() -> None:
    commands: list[str] = []
    said = f"{MARK}{json.dumps({'changed': True, 'id': 't', 'state': 'succeeded'})}\n"
    assert HostAgent(prints(said, commands=commands), "farm1").run_task({"task": {}})["state"] == "succeeded"
    assert commands == ["jada-agent task", '{"task": {}}']


@pytest.mark.parametrize(
    ("rc", "stderr", "code"),
    [
        (127, "sh: jada-agent: not found", "agent_missing"),
        (2, "jada-agent: error: argument verb: invalid choice: 'task'", "agent_too_old"),
        (1, f"is jada-agent running? {KEY}", "agent_down"),
    ],
)
def test_a_host_that_gives_no_answer(rc: int, stderr: str, code: str) -> None:
    agent = HostAgent(prints("", rc=rc, stderr=stderr), "farm1")
    for ask in (agent.status, lambda: agent.run_task({})):
        with pytest.raises(WireError) as caught:
            ask()
        assert caught.value.code == code
        assert KEY not in str(caught.value)


def test_what_answers_and_is_no_agent() -> None:
    for said, code in ((answer({}, wire=None), "not_an_agent"), (answer({}, wire="2"), "client_too_old")):
        with pytest.raises(WireError) as caught:
            HostAgent(prints(said.decode()), "farm1").put_key(KEY)
        assert caught.value.code == code


def test_what_a_host_says_of_itself_is_harmless() -> None:
    said = answer({"version": "1", "upstream": f"http://jo:pw@x/{KEY}"}).decode()
    assert KEY not in str(HostAgent(prints(said), "farm1").status())
    with pytest.raises(WireError, match="its answer is not one of the wire"):
        HostAgent(prints(answer({"running": "many"}).decode()), "farm1").status()


def test_a_task_of_a_pot_brings_its_keys_and_they_leave_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[pots.plan]\nkey_source = "env:A_KEY"\nfunding_usd = 10\nwhen_spent = "next"\n'
        '[pots.paid]\nkey_source = "env:B_KEY"\n'
    )
    monkeypatch.setenv("FARMHAND_CONFIG", str(config))
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("B_KEY", f"{KEY}2")
    groups = {"groups": {"farm": ["farm1", "farm2"]}}
    conf = operators_settings(None)
    for _ in range(2):  # a loop asks for them again
        keys = operators_key(conf, groups)
        assert not isinstance(keys, str)
        assert [(pot["name"], pot["key"]) for pot in keys] == [("plan", KEY), ("paid", f"{KEY}2")]
        assert keys[0]["funding"]["amount_usd"] == "5.000000"  # the other host has the rest
        assert not {"A_KEY", "B_KEY"} & os.environ.keys()
    one = operators_key(operators_settings(None, {"pot": "paid"}), None)
    assert not isinstance(one, str)
    assert [pot["name"] for pot in one] == ["paid"]
    commands: list[str] = []
    said = answer({"fingerprint": "0123456789ab", "tasks_resumed": 0}).decode()
    HostAgent(prints(said, commands=commands), "farm1").put_key(keys)
    assert [data.split(" HTTP")[0] for data in commands[1::2]] == ["PUT /v1/key?pot=plan", "PUT /v1/key?pot=paid"]
    assert not any(KEY in command for command in commands[::2])
