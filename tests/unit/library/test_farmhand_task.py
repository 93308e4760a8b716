"""The module's documentation and argument spec are one; that it works is shown in tests/integration/dispatch."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from farmhand.plugins import task as backend

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "library" / "farmhand_task.py"


def literal(name: str) -> Any:
    """A constant of the module, without importing it."""
    for node in ast.parse(SOURCE.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {name}")


def test_documentation_and_argument_spec_agree() -> None:
    documented = yaml.safe_load(literal("DOCUMENTATION"))["options"]
    spec = backend.ARGUMENTS
    assert set(documented) == set(spec)
    for name, rules in spec.items():
        for what in ("type", "choices", "elements", "default"):
            assert documented[name].get(what) == rules.get(what), f"{name}.{what}"
    assert set(backend.TASK_FIELDS) <= set(spec)


def test_examples_and_return_are_yaml_and_the_key_is_no_argument() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!unsafe", lambda loader, node: str(node.value))
    for step in yaml.load(literal("EXAMPLES"), Loader):  # noqa: S506  (a SafeLoader)
        assert set(step["farmhand_task"]) <= set(backend.ARGUMENTS)
    returned = yaml.safe_load(literal("RETURN"))
    assert {"id", "text", "cost_usd", "error"} <= set(returned)
    assert all(set(described) == {"description", "type", "returned"} for described in returned.values())
    assert not {"key", "api_key"} & set(backend.ARGUMENTS)


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
