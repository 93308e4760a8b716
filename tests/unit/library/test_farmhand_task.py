"""The module's documentation and argument spec are one; that it works is shown in tests/integration/dispatch."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from farmhand.core.errors import WireError
from farmhand.plugins import task as backend
from farmhand.wire.client import Client
from tests.unit.wire.scripted import Scripted, answer, events

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
    spec = literal("ARGUMENTS")
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
        assert set(step["farmhand_task"]) <= set(literal("ARGUMENTS"))
    returned = yaml.safe_load(literal("RETURN"))
    assert {"id", "text", "cost_usd", "error"} <= set(returned)
    assert all(set(described) == {"description", "type", "returned"} for described in returned.values())
    assert not {"key", "api_key"} & set(literal("ARGUMENTS"))


def test_main_is_thin() -> None:
    main = next(n for n in ast.parse(SOURCE.read_text()).body if isinstance(n, ast.FunctionDef) and n.name == "main")
    assert main.end_lineno is not None
    assert main.end_lineno - main.lineno < 50


def test_what_was_not_given_is_left_to_the_agent() -> None:
    given: dict[str, Any] = dict.fromkeys(backend.TASK_FIELDS) | {"prompt": "p", "max_tokens": 0, "socket": "/s"}
    task = backend.task_of(given)
    assert task == {"id": task["id"], "prompt": "p", "max_tokens": 0}


TASK = {"id": "t1", "prompt": "p"}
NONE = answer({"error": {"code": "no_such_task", "message": "no", "hint": ""}}, 404)
DONE = {"id": "t1", "state": "succeeded", "text": "a"}


def test_prediction() -> None:
    for raw, changed in (
        (NONE, True),
        (answer({"task": DONE}), False),
        (answer({"task": {"id": "t1", "state": "running"}}), True),
    ):
        with Client(Scripted([raw])) as client:
            assert backend.predict(client, TASK)["changed"] is changed
    with Client(Scripted([answer({}, 500)])) as client, pytest.raises(WireError):
        backend.predict(client, TASK)


def test_performance() -> None:
    def states(state: str) -> bytes:
        return answer({"tasks": [{"id": "t1", "state": state}]})

    with Client(Scripted([states("succeeded"), answer({"task": DONE})])) as client:
        assert backend.perform(client, TASK) == {"changed": False, **DONE}
    with Client(Scripted([states("queued"), states("queued"), events({"type": "result", "result": DONE})])) as client:
        assert backend.perform(client, TASK) == {"changed": True, **DONE}


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (DONE, None),
        ({"changed": True, "id": "t1"}, None),
        ({"changed": True, "id": "t1", "state": "running"}, None),
        ({"state": "failed", "error": {"code": "timeout", "message": "late", "hint": "more"}}, "late (more)"),
        ({"state": "cancelled", "error": None}, "the task is cancelled"),
    ],
)
def test_what_counts_as_failure(result: dict[str, Any], line: str | None) -> None:
    assert backend.failure(result) == line
    assert "API key" in str(backend.failure({"state": "awaiting_key"}))


def test_the_wire_works_where_only_the_standard_library_is(tmp_path: Path) -> None:
    """As it lies in the zip that Ansible sends: under ansible.module_utils, with no site-packages."""
    there = tmp_path / "ansible" / "module_utils" / "farmhand"
    there.mkdir(parents=True)
    (tmp_path / "ansible" / "__init__.py").touch()
    (there.parent / "__init__.py").touch()
    shutil.copy(ROOT / "src" / "farmhand" / "__init__.py", there)
    for part in ("core", "wire"):
        shutil.copytree(ROOT / "src" / "farmhand" / part, there / part)
    names = sorted(path.stem for path in (there / "wire").glob("*.py") if path.stem != "__init__")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + "".join(
        f"import ansible.module_utils.farmhand.wire.{name}\n" for name in names
    )
    script += "assert not [m for m in sys.modules if m.startswith('farmhand')]\nprint('fine')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("fine\n", "")


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
