from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core.errors import FarmUnreachable
from farmhand.core.task import Task
from farmhand.places import runner
from farmhand.places.runner import Outcome, play


class _Loader(yaml.SafeLoader):
    """Reads !unsafe as the text it is, and counts."""


def _unsafe(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return "unsafe:" + str(loader.construct_scalar(node))


_Loader.add_constructor("!unsafe", _unsafe)
PRINTABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(PRINTABLE, PRINTABLE)
def test_every_string_of_a_task_is_no_template_and_comes_back(prompt: str, system: str) -> None:
    task = Task(id="t1", prompt=prompt, system=system, tools=("Bash",), schema={"a": [system]}, labels={"l": prompt})
    text = play([task], "farm", {"socket": "/s"})
    step: dict[str, Any] = yaml.load(text, _Loader)[0]["tasks"][0]  # noqa: S506  (a SafeLoader)
    arguments = {name.removeprefix("unsafe:"): value for name, value in step["farmhand_task"].items()}
    assert arguments["prompt"] == "unsafe:" + prompt
    assert arguments.get("system", "unsafe:") == "unsafe:" + system
    assert arguments["socket"] == "unsafe:/s"
    assert "max_usd" not in arguments


def test_no_tasks_is_no_run() -> None:
    assert runner.run_tasks([], project_dir=Path("/nowhere")) == []


def test_events_become_outcomes_and_a_lost_host_has_one_for_each_task() -> None:
    events: list[dict[str, Any]] = [
        {"event": "playbook_on_start"},
        {
            "event": "runner_on_ok",
            "event_data": {"host": "a", "task": "t1", "res": {"id": "t1", "state": "succeeded", "cost_usd": 1e-05}},
        },
        {"event": "runner_on_unreachable", "event_data": {"host": "b", "task": "t1", "res": {"msg": "no\nroute"}}},
        {
            "event": "runner_on_failed",
            "event_data": {"host": "a", "task": "t2", "res": {"msg": "sk-ant-test-aaaaaaaa"}},
        },
    ]
    tasks = [Task(id="t1", prompt="x"), Task(id="t2", prompt="x")]
    outcomes = list(runner._outcomes(events))
    outcomes += list(runner._not_tried(tasks, outcomes))
    found: dict[tuple[str, str], Outcome] = {(o.host, o.task_id): o for o in outcomes}
    assert set(found) == {("a", "t1"), ("a", "t2"), ("b", "t1"), ("b", "t2")}
    assert found["a", "t1"].result is not None
    assert str(found["a", "t1"].result.cost_usd) == "0.00001"
    assert isinstance(found["b", "t2"].error, FarmUnreachable)
    assert "b: no route" in str(found["b", "t1"].error)
    assert "sk-ant-test" not in str(found["a", "t2"].error)


def test_the_environment_is_stripped_of_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ANTHROPIC_API_KEY": "x",
        "CLAUDE_CODE_OAUTH_TOKEN": "y",
        "OTHER": "sk-ant-test-zzzzzzzz",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KEPT", "yes")
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "play.yml").write_text("[]")
    private = tmp_path / "private"
    private.mkdir()
    environment = runner.prepare(tmp_path / "play.yml", private, tmp_path, None).config.env
    assert environment["KEPT"] == "yes"
    assert not {"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "OTHER"} & set(environment)
