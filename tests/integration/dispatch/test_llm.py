"""The real llm with llm-farmhand, as its wheel brings it, over ssh to the real daemon."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.dispatch.conftest import CHECKOUT, Workstation
from tests.integration.dispatch.sshd import Sshd
from tests.support.agent import bodies
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.pictures import png


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's wheel, built and unpacked: what pip would put beside llm."""
    made = tmp_path_factory.mktemp("plugin")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
    subprocess.run(argv, cwd=CHECKOUT / "llm-farmhand", check=True, stdout=subprocess.DEVNULL)
    [wheel] = made.glob("llm_farmhand-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(made / "site")
    return made / "site"


@pytest.fixture
def logs(workstation: Workstation, plugin: Path, tmp_path: Path) -> Path:
    """llm's own directory; its commands find the plugin and no other."""
    workstation.environment |= {"LLM_USER_PATH": str(tmp_path / "llm"), "PYTHONPATH": str(plugin)}
    return tmp_path / "llm" / "logs.db"


async def test_a_prompt_its_log_and_the_turn_after(
    workstation: Workstation, farm: Sshd, logs: Path, api: MessagesApi, tmp_path: Path
) -> None:
    (tmp_path / "cow").write_bytes(png(3, 2))
    attached = ["--at", str(tmp_path / "cow"), "image/png"]
    first = await workstation.run(
        "llm", "-m", "farm/haiku", "-s", "Be short.", *attached, "a; id", "-o", "max_tokens", "99"
    )
    assert first.status == 0, first.err
    said = first.out.decode().strip()
    assert said.startswith("Loopback answer")
    again = await workstation.run("llm", "-c", "And then?")
    assert again.status == 0, again.err
    one, two = bodies(api)
    assert (one["system"], one["max_tokens"]) == ("Be short.", 99)
    assert [block["type"] for block in one["messages"][0]["content"]] == ["image", "text"]
    assert [message["role"] for message in two["messages"]] == ["user", "assistant", "user"]
    assert two["messages"][0] == one["messages"][0]
    assert (two["messages"][1]["content"], two["messages"][2]["content"]) == (said, "And then?")
    shown = await workstation.run("llm", "logs", "--json", "-n", "2")
    found = json.loads(shown.out)
    assert [entry["model"] for entry in found] == ["farm/haiku"] * 2
    assert [entry["resolved_model"] for entry in found] == ["claude-haiku-5-5"] * 2
    assert all(entry["input_tokens"] > 0 and entry["output_tokens"] > 0 for entry in found)
    assert all(json.loads(entry["token_details"])["cost_usd"] > 0 for entry in found)
    assert DEFAULT_KEY.encode() not in logs.read_bytes()


async def test_a_schema_and_failures_are_one_line(
    workstation: Workstation, farm: Sshd, logs: Path, api: MessagesApi, tmp_path: Path
) -> None:
    done = await workstation.run("llm", "-m", "farm/haiku", "--schema", "cows int", "How many?")
    assert done.status == 0, done.err
    assert set(json.loads(done.out)) == {"cows"}
    whole = await workstation.run("llm", "-m", "farm/haiku", "--no-stream", "p")
    assert (whole.status, whole.out[:15]) == (0, b"Loopback answer")
    workstation.environment["LLM_FARMHAND_MODELS"] = "claude-nothing-1"
    for argv, environ, words in (
        (["-m", "farm/haiku", "-o", "max_usd", "0.00000001", "p"], {}, "the budget of the task"),
        (["-m", "farm/claude-nothing-1", "p"], {}, "does not know the model"),
        (["-m", "farm/haiku", "p"], {"FARMHAND_KEY_SOURCE": "env:NOT_SET"}, "NOT_SET is not set"),
        (["-m", "farm/haiku", "p"], {"LLM_FARMHAND_COMMAND": "/nowhere/farmhand"}, "/nowhere/farmhand: No such file"),
        (["-m", "farm/haiku", "p"], {"LLM_FARMHAND_COMMAND": "'farmhand"}, "is no command: No closing quotation"),
        (["-m", "farm/haiku", ""], {}, "the prompt is empty"),
        (["-m", "farm/haiku", "-T", "llm_time", "p"], {}, "does not support tools"),
    ):
        before = dict(workstation.environment)
        workstation.environment |= environ
        failed = await workstation.run("llm", *argv)
        workstation.environment.clear()
        workstation.environment |= before
        assert (failed.status, failed.err.count("\n")) == (1, 1), failed.err
        assert words in failed.err
    (tmp_path / "text.png").write_text("no picture")
    failed = await workstation.run("llm", "-m", "farm/haiku", "--at", str(tmp_path / "text.png"), "image/png", "p")
    assert (failed.status, failed.err.count("\n")) == (1, 1)
    assert "is no PNG, JPEG, GIF, WebP or PDF" in failed.err
    farm.stop()
    gone = await workstation.run("llm", "-m", "farm/haiku", "p")
    assert (gone.status, gone.err.count("\n"), gone.out) == (1, 1, b""), gone.err
