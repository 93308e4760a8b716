"""The locks: every requirement pinned with hashes and no index, the same versions for farm host and workstation."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["agent.txt", "cloud.txt", "dev.txt", "otel.txt", "workstation.txt"]
#: What `make bench` measures beside the gateway.
LITELLM = "../benchmarks/pinned/litellm.txt"
#: What the gateway is tried with.
CLIENTS = ["../tests/data/gateway/aider/requirements.txt"]
NPM = sorted((ROOT / "tests/data").glob("*/*/package-lock.json"))
#: name==version ; marker \\ and then --hash lines, as uv writes them.
_PINNED = re.compile(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)


def lines(name: str) -> list[str]:
    """The lock's logical lines, without comments."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins(name: str) -> dict[str, str]:
    return dict(_PINNED.findall("\n".join(lines(name))))


@pytest.mark.parametrize("path", NPM, ids=lambda path: path.parent.name)
def test_every_npm_package_has_a_digest_and_names_no_registry(path: Path) -> None:
    packages = json.loads(path.read_text(encoding="utf-8"))["packages"]
    del packages[""]
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


@pytest.mark.parametrize("name", [*LOCKS, LITELLM, *CLIENTS])
def test_every_line_is_a_pin_with_hashes_and_names_no_index(name: str) -> None:
    assert len(lines(name)) > 10
    for line in lines(name):
        assert _PINNED.match(line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
        assert "://" not in line


@pytest.mark.parametrize("name", LOCKS)
def test_what_the_package_depends_on_is_in_the_lock(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["project"]["dependencies"]
    extras = {
        "agent.txt": (),
        "cloud.txt": ("aws",),
        "otel.txt": ("otel",),
        "workstation.txt": ("workstation",),
        "dev.txt": ("workstation", "aws", "otel"),
    }
    for extra in extras[name]:
        wanted = [*wanted, *project["project"]["optional-dependencies"][extra]]
    if name == "dev.txt":
        wanted = [*wanted, *project["dependency-groups"]["dev"]]
    names = {
        re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("_", "-").replace(".", "-") for requirement in wanted
    }
    assert names - {pin.replace(".", "-") for pin in pins(name)} == set()


def test_no_stolen_release_of_litellm_is_installed() -> None:
    assert pins(LITELLM)["litellm"] not in {"1.82.7", "1.82.8", "1.107.0"}


def test_the_agent_is_tested_with_the_very_versions_that_the_farm_host_gets() -> None:
    tested = pins("dev.txt")
    assert {name: tested.get(name) for name in pins("agent.txt")} == pins("agent.txt")


def test_a_task_on_aws_gets_the_versions_that_are_tested() -> None:
    tested = pins("dev.txt")
    assert {name: tested.get(name) for name in pins("cloud.txt")} == pins("cloud.txt")


def test_what_sends_spans_on_a_host_is_what_is_tested_and_moves_nothing_of_the_agent() -> None:
    found = pins("otel.txt")
    assert {name: pins("dev.txt").get(name) for name in found} == found
    for lock in ("agent.txt", "cloud.txt"):
        assert {name: found[name] for name in pins(lock) if name in found} == {
            name: version for name, version in pins(lock).items() if name in found
        }


def test_the_operator_and_the_demo_get_the_versions_that_are_tested() -> None:
    tested = pins("dev.txt")
    assert {name: tested.get(name) for name in pins("workstation.txt")} == pins("workstation.txt")


def test_the_demo_installs_no_tools_of_the_tests() -> None:
    assert not {"pytest", "molecule", "moto", "ansible", "mypy", "ruff"} & set(pins("workstation.txt"))


def test_the_farm_host_may_be_of_either_architecture() -> None:
    """A package with wheels per platform has one hash for each; the fewest that cover both are more than two."""
    for line in lines("agent.txt"):
        if line.startswith(("aiohttp", "frozenlist", "msgspec", "multidict", "propcache", "rpds-py", "yarl")):
            assert line.count("--hash=") > 20, line.split("==")[0]
