"""docs/architecture.md has the real table of imports; there is no circle, and no class name is used twice."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "farmhand"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PLUGINS = sorted(
    path for folder in ("library", "action_plugins", "filter_plugins") for path in (ROOT / folder).glob("*.py")
)
#: keyring is the one optional import; it is asked for by the operator and imported only then.
OPTIONAL = {"keyring"}


def name_of(path: Path) -> str:
    """`core.keys` for src/farmhand/core/keys.py, `core` for the package's own file."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {name_of(path): path for path in SOURCES}


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The imports and classes anywhere in a file: all tests here ask for them, and parsing takes the time."""
    wanted = (ast.Import, ast.ImportFrom, ast.ClassDef)
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, wanted)]


def imports(path: Path, package: list[str]) -> Iterator[str]:
    """The modules that a file imports anywhere in it: `core.keys` for one of ours, the plain name for another."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            ours = re.match(r"(?:ansible\.module_utils\.)?farmhand(?:\.|$)", module)
            if not ours:
                yield module
                continue
            inside = module[ours.end() :]
            for alias in node.names:
                below = f"{inside}.{alias.name}" if inside else alias.name
                yield below if below in MODULES else inside


@cache
def of_ours(path: Path) -> frozenset[str]:
    """Our own modules that a source file imports, but the package's version."""
    found = imports(path, ["farmhand", *path.relative_to(PACKAGE).parent.parts])
    return frozenset(module for module in found if module in MODULES) - {"", name_of(path)}


def table() -> dict[str, set[str]]:
    """Part → what it may import, as docs/architecture.md prints it."""
    rows = re.findall(
        r"^\| `src/farmhand/(\w+)` \| .* \| ([^|]*) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.M
    )
    return {part: set(re.findall(r"`(\w+)`", allowed)) for part, allowed in rows}


def test_the_table_is_what_the_sources_import() -> None:
    found: dict[str, set[str]] = {part: set() for part in {name.split(".")[0] for name in MODULES} - {""}}
    for name, path in MODULES.items():
        if name:
            part = name.split(".")[0]
            found[part] |= {module.split(".")[0] for module in of_ours(path)} - {part}
    assert {part: sorted(used) for part, used in table().items()} == {
        part: sorted(used) for part, used in found.items()
    }
    assert "core.keys" in of_ours(PACKAGE / "core" / "errors.py")


def test_no_part_is_above_and_below_another() -> None:
    order = list(TopologicalSorter(table()).static_order())
    assert order[0] == "core"


def test_no_module_is_in_a_circle_of_imports() -> None:
    graph = {name: {m for m in of_ours(path) if not name.startswith(f"{m}.")} for name, path in MODULES.items()}
    graph = {name: {m for m in used if not m.startswith(f"{name}.")} for name, used in graph.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def test_no_class_name_is_used_twice() -> None:
    files = [path for path in SOURCES + PLUGINS if path.parent.name != "action_plugins"]
    classes = Counter(node.name for path in files for node in nodes(path) if isinstance(node, ast.ClassDef))
    assert [name for name, number in classes.items() if number > 1] == []


def standard_library_only(path: Path, package: list[str]) -> set[str]:
    """The modules that `path` imports and that are neither Python's own nor ours."""
    names = {module for module in imports(path, package) if module not in MODULES}
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - OPTIONAL - {"farmhand"}


def brought(name: str, seen: set[str]) -> set[str]:
    """`name` and every module of ours that comes with it, as Ansible puts them into a module's archive."""
    if name not in seen:
        seen.add(name)
        for module in of_ours(MODULES[name]):
            brought(module, seen)
    return seen


MODULES_OF_ANSIBLE = sorted((ROOT / "library").glob("*.py"))


@pytest.mark.parametrize("path", MODULES_OF_ANSIBLE, ids=lambda path: path.name)
def test_what_runs_on_a_host_is_standard_library_and_relative(path: Path) -> None:
    """A module of library/ runs where nothing of ours is: farmhand_scrub, say, before the agent is installed."""
    first = {module for module in imports(path, []) if module in MODULES}
    assert bool(first) == (path.name not in WITHOUT_OURS)
    for name in set().union(*(brought(module, set()) for module in first)):
        source = MODULES[name]
        assert not standard_library_only(source, ["farmhand", *source.relative_to(PACKAGE).parent.parts]), name
        absolute = [
            node
            for node in nodes(source)
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("farmhand")
        ]
        assert not absolute, f"{name}: a module on the farm host has no package farmhand: import relatively"


#: Modules of library/ whose work is wholly done by their action plugin.
WITHOUT_OURS = {
    "farmhand_box.py",
    "farmhand_count_tokens.py",
    "farmhand_credential.py",
    "farmhand_drain.py",
    "farmhand_key.py",
    "farmhand_route.py",
    "farmhand_task.py",
}


#: Plugins that speak to agents, and need msgspec beside Ansible for it; see farmhand.wire.schema.
WITH_MSGSPEC = {f"farmhand_{name}.py" for name in ("count_tokens", "credential", "task", "drain", "key")}


@pytest.mark.parametrize("path", [p for p in PLUGINS if p.parent.name != "library"], ids=lambda path: path.name)
def test_what_a_plugin_imports_needs_no_package(path: Path) -> None:
    """Where Ansible was installed alone, site.yml works: it uses the others."""
    first = {module for module in imports(path, []) if module in MODULES}
    assert first
    needed = set()
    for name in set().union(*(brought(module, set()) for module in first)):
        top = ast.parse(MODULES[name].read_text()).body
        top += [node for block in top if isinstance(block, ast.Try) for node in block.body]
        modules = {node.module or "" for node in top if isinstance(node, ast.ImportFrom) and not node.level}
        modules |= {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        needed |= {m.split(".")[0] for m in modules} - set(sys.stdlib_module_names) - {"farmhand"}
    assert needed == ({"msgspec"} if path.name in WITH_MSGSPEC else set())


def test_a_path_that_begins_with_a_tilde_is_no_crash() -> None:
    """Path.expanduser raises RuntimeError where there is no such user; os.path.expanduser leaves the path as it is."""
    sources = [*SOURCES, *(ROOT / "action_plugins").glob("*.py"), *(ROOT / "library").glob("*.py")]
    assert [str(path) for path in sources if ".expanduser()" in path.read_text()] == []
