"""The documentation is the argument spec; that it works is shown in tests/integration/dispatch."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from farmhand.core.task import Task
from farmhand.plugins import task as backend
from farmhand.plugins.arguments import options

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "library" / "farmhand_task.py"
OPTIONS = options(str(ROOT / "action_plugins" / "farmhand_task.py"))


def literal(name: str) -> Any:
    """A constant of the module, without importing it."""
    for node in ast.parse(SOURCE.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {name}")


def test_the_fields_of_a_task_are_documented() -> None:
    assert set(backend.TASK_FIELDS) <= set(OPTIONS)
    assert set(backend.TASK_FIELDS) <= set(Task.__struct_fields__)


def test_examples_and_return_are_yaml_and_the_key_is_no_argument() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!unsafe", lambda loader, node: str(node.value))
    for step in yaml.load(literal("EXAMPLES"), Loader):  # noqa: S506  (a SafeLoader)
        assert set(step["farmhand_task"]) <= set(OPTIONS)
    returned = yaml.safe_load(literal("RETURN"))
    assert {"id", "text", "cost_usd", "error"} <= set(returned)
    assert all(set(described) == {"description", "type", "returned"} for described in returned.values())
    assert not {"key", "api_key"} & set(OPTIONS)


def test_what_was_not_given_is_left_to_the_agent() -> None:
    given: dict[str, Any] = dict.fromkeys(backend.TASK_FIELDS) | {"prompt": "p", "max_tokens": 0, "socket": "/s"}
    task = backend.task_of(given)
    assert task == {"id": task["id"], "prompt": "p", "max_tokens": 0}


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({"id": "t1", "state": "succeeded", "text": "a"}, None),
        ({"changed": True, "id": "t1"}, None),
        ({"changed": True, "id": "t1", "state": "running"}, None),
        ({"state": "failed", "error": {"code": "timeout", "message": "late", "hint": "more"}}, "late (more)"),
        ({"state": "cancelled", "error": None}, "the task is cancelled"),
        ({"error": {"code": "agent_down", "message": "no", "hint": ""}}, "no"),
    ],
)
def test_what_counts_as_failure(result: dict[str, Any], line: str | None) -> None:
    assert backend.failure(result) == line


def load_action() -> ModuleType:
    """The action plugin as a module."""
    spec = importlib.util.spec_from_file_location("farmhand_task_action", ROOT / "action_plugins" / "farmhand_task.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_plugin_prefers_the_checkout_it_lies_in() -> None:
    plugin = load_action()
    assert Path(plugin.handover.__file__).is_relative_to(ROOT / "src")
