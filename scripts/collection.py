"""collection.py DIRECTORY: build roles, modules, plugins and playbooks as the Ansible collection farmhand.farm.

The checkout is the source: names become full ones, imports those of a collection. The same sources give the same tree.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

import farmhand

ROOT = Path(__file__).resolve().parents[1]
NAME = "farmhand.farm"
_UTILS = f"ansible_collections.{NAME}.plugins.module_utils.farmhand"
#: As they are, for the role jada_agent, which builds the agent's wheel, and for the image of the containers.
_SOURCES = ("src/farmhand", "aws", "container", "requirements", "pyproject.toml", "README.md", "LICENSE")
#: What modules import on a host.
_ON_HOSTS = ("__init__.py", "core", "billing", "plugins")
_NAMES = {
    kind: "|".join(sorted(path.stem for path in (ROOT / directory).glob(pattern)))
    for kind, directory, pattern in (("module", "library", "*.py"), ("filter", "filter_plugins", "farmhand_*.yml"))
}
#: In YAML and templates: a filter after its pipe or as a word of `map`, a task's module, a playbook in the root.
_RENAMED = (
    (re.compile(rf"(\|\s*|map\('|select\('|reject\(')({_NAMES['filter']})\b"), rf"\1{NAME}.\2"),
    (re.compile(rf"^(\s*(?:- )?)({_NAMES['module']}):", re.MULTILINE), rf"\1{NAME}.\2:"),
    (re.compile(r"(import_playbook: )\.\./(\w+\.yml)"), r"\1\2"),
)
#: In modules and plugins: what they import, and how they find the sources.
_IMPORTS = (
    (re.compile(r"ansible\.module_utils\.farmhand\b"), _UTILS),
    (re.compile(r"(Path\(__file__\)\.resolve\(\)\.parent\.parent)( / \"src\")"), r"\1.parent\2"),
)
_ABOUT = {
    "namespace": "farmhand",
    "name": "farm",
    "version": farmhand.__version__,
    "readme": "README.md",
    "authors": ["Farmhand"],
    "description": "Build and run a farm of cheap, metered boxes for easy tasks of the claude CLI.",
    "license_file": "LICENSE",
    "tags": ["linux", "infrastructure"],
    "repository": "https://github.com/farmhand/farmhand",
    "build_ignore": ["__pycache__", "*.pyc"],
}


def lay_out(target: Path) -> None:
    """Write the collection's tree to `target`, a directory that does not exist."""
    for name in _SOURCES:
        _copy(ROOT / name, target / name)
    for source, place in (
        ("roles", "roles"), ("playbooks", "playbooks"), ("library", "plugins/modules"),
        ("action_plugins", "plugins/action"), ("filter_plugins", "plugins/filter"),
    ):  # fmt: skip
        _copy(ROOT / source, target / place)
    for name in ("site.yml", "rotate-key.yml"):
        shutil.copy2(ROOT / name, target / "playbooks" / name.replace("-", "_"))  # a collection's names have no dash
    for name in _ON_HOSTS:
        _copy(ROOT / "src/farmhand" / name, target / "plugins/module_utils/farmhand" / name)
    _rename(target)
    (target / "galaxy.yml").write_text(yaml.safe_dump(_ABOUT, sort_keys=False), "utf-8")
    (target / "meta").mkdir()
    (target / "meta/runtime.yml").write_text('---\nrequires_ansible: ">=2.19.0"\n', "utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


def _rename(target: Path) -> None:
    for place in ("roles", "playbooks"):
        for path in (target / place).rglob("*"):
            if path.is_file() and path.suffix in (".yml", ".j2"):
                _replace(path, _RENAMED)
    for place in ("modules", "action", "filter"):
        for path in (target / "plugins" / place).glob("*.py"):
            _replace(path, _IMPORTS)


def _replace(path: Path, rules: tuple[tuple[re.Pattern[str], str], ...]) -> None:
    before = after = path.read_text("utf-8")
    for pattern, text in rules:
        after = pattern.sub(text, after)
    if after != before:
        path.write_text(after, "utf-8")


def main() -> int:
    """Build the file that ansible-galaxy installs into the directory that the command line names."""
    directory = Path(sys.argv[1]).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        lay_out(Path(made, "farm"))
        galaxy = Path(sys.executable).with_name("ansible-galaxy")
        words = [str(galaxy), "collection", "build", "--force", "--output-path", str(directory), f"{made}/farm"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        return 1
    sys.stdout.write(f"{directory}/{NAME.replace('.', '-')}-{farmhand.__version__}.tar.gz\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
