"""The directions of imports that DESIGN draws, read from the sources themselves."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "farmhand"
#: Part → the parts it may import beside itself. Every part may import task and errors, but wire.
ALLOWED: dict[str, set[str]] = {
    "wire": set(),
    "host": {"wire"},
    "billing": {"wire"},
    "rotation": {"wire"},
    "task": {"wire"},
    "errors": set(),
    "claude": set(),
    "rules": {"task", "schemas"},
    "schemas": set(),
    "cost": {"wire", "task", "errors"},
    "meter": {"cost", "wire", "task", "errors"},
    "agent": {"meter", "cost", "claude", "rules", "schemas", "wire", "task", "errors"},
    "dispatch": {"wire", "rotation", "rules", "task", "errors", "claude"},
    "cli": {"billing", "rotation", "dispatch", "cost", "rules", "schemas", "wire", "task", "errors", "claude"},
}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it, relative ones made absolute."""
    package = ["farmhand", *path.relative_to(PACKAGE).parent.parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from farmhand import wire` imports the part, `from farmhand import __version__` the package itself.
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "farmhand" else {module}
    return found


def part_of(module: str) -> str:
    """`wire` for farmhand.wire.client; "" for the package itself."""
    words = module.split(".")
    return words[1] if len(words) > 1 and (PACKAGE / words[1]).exists() | (PACKAGE / f"{words[1]}.py").exists() else ""


def test_there_is_something_to_check() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES} - {"__init__"}
    assert parts == set(ALLOWED)
    assert "farmhand.core.keys" in imports(PACKAGE / "wire" / "errors.py")
    assert part_of("farmhand.core.keys") == "wire"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part == "__init__":
        assert imports(path) <= {"__future__"}
        return
    used = {part_of(module) for module in imports(path) if module.split(".")[0] == "farmhand"} - {"", part}
    assert used <= ALLOWED[part], f"{part} must not import {', '.join(sorted(used - ALLOWED[part]))}"


#: keyring is the one optional import; it is asked for by the operator and imported only then.
OPTIONAL = {"keyring"}


REMOTE = sorted(path for part in ("wire", "host", "billing", "rotation") for path in (PACKAGE / part).glob("*.py"))


@pytest.mark.parametrize("path", REMOTE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_runs_on_the_host_is_standard_library_and_relative(path: Path) -> None:
    outside = {m.split(".")[0] for m in imports(path)} - set(sys.stdlib_module_names) - {"farmhand"} - OPTIONAL
    assert not outside
    absolute = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("farmhand")
    ]
    assert not absolute, "a module on the farm host has no package farmhand: import relatively"


ON_THE_CONTROLLER = [
    "errors.py",
    *(f"dispatch/{name}.py" for name in ("__init__", "settings", "hosts", "keyserver", "handover", "rotate")),
]


@pytest.mark.parametrize("name", ON_THE_CONTROLLER)
def test_what_the_action_plugin_imports_needs_no_package(name: str) -> None:
    top_level = ast.parse((PACKAGE / name).read_text()).body
    modules = {node.module or "" for node in top_level if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in top_level if isinstance(node, ast.Import) for alias in node.names}
    assert {module.split(".")[0] for module in modules} <= set(sys.stdlib_module_names) | {"farmhand"}


@pytest.mark.parametrize("folder", ["library", "action_plugins", "filter_plugins"])
def test_plugins_import_no_part_but_wire_errors_settings_and_handover(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        used: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("farmhand"):
                used |= {f"{node.module}.{a.name}" for a in node.names}
        allowed = (
            "farmhand.wire",
            "farmhand.core.errors",
            "farmhand.core.settings",
            "farmhand.plugins.handover",
            "farmhand.plugins.keyserver",
            "farmhand.rotation.operator",
            "farmhand.rotation",
            "farmhand.plugins",
            "farmhand.billing",
        )
        assert all(name.startswith(allowed) for name in used), f"{path.name}: {used}"
